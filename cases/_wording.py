"""How a run's numbers are said, in the terminal and on the report's page alike.

>>> number(3.14159e-5), seconds(84.2), size(812345678)
('3.1e-05', '84.2 s', '812 MB')
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

NOTHING = "—"
MOODS = {"completed": "good", "stopped": "good", "diverged": "bad"}


class Verdict(NamedTuple):
    """One sentence on whether a run met its tolerance, and whether that is good news."""

    text: str
    good: bool


def number(value: Any) -> str:
    """A residual, loss or error: two figures are what anybody reads; a dash where there is none."""
    return NOTHING if value is None else f"{float(value):.1e}"


def seconds(value: float | None) -> str:
    """A duration, to a tenth of a second below two minutes and to the second above.

    >>> seconds(None), seconds(200), seconds(7322)
    ('—', '3:20 min', '2:02:02 h')
    """
    if value is None:
        return NOTHING
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def size(count: float | None) -> str:
    """Bytes in the decimal units that disks and drivers are sold in.

    >>> size(None), size(999), size(1.5e9)
    ('—', '999 B', '1.5 GB')
    """
    if count is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def printable(text: object) -> str:
    """`text` in one line and without control characters: a stranger's case may hold escape codes.

    >>> printable("red \\x1b[31m alert")
    'red �[31m alert'
    """
    return "".join(c if c.isprintable() else "�" for c in str(text))


# How the summary's key of an error ends, and what is said of it.
MEASURES = {
    ".relative_l2": "relative L2 error",
    ".wrong": "share of wrong points, and relative error of the energy",
    ".relative": "relative cost error",
    ".excess": "excess over the best omega in hindsight",
    ".over_optimal": "excess over the best omega of each instance",
    ".cbw2_uvp": "cBW₂²-UVP [%]",
    ".w2": "Wasserstein distance W₂",
}


def errors(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Field (or cost) -> relative error, from a summary's flat keys.

    >>> errors({"status": "completed", "error.u.relative_l2": 2e-5, "error.u.max": 1e-4})
    {'u': 2e-05}
    """
    head = "error."
    return {
        key[len(head) : -len(tail)]: value
        for key, value in summary.items()
        for tail in MEASURES
        if key.startswith(head) and key.endswith(tail)
    }


def measure(summary: Mapping[str, Any]) -> str:
    """What the errors of a summary are.

    >>> measure({"error.l1.relative": 2e-5}), measure({})
    ('relative cost error', 'relative L2 error')
    """
    ends = [tail for tail in MEASURES if any(key.endswith(tail) for key in summary)]
    return MEASURES[ends[0] if ends else ".relative_l2"]


def verdict(summary: Mapping[str, Any]) -> Verdict | None:
    """The errors against the tolerance; None where there is no error to speak of.

    >>> verdict({"error.u.relative_l2": 2e-5, "tolerance": 1e-4}).text
    'relative L2 error of u 2.0e-05, within the tolerance 1.0e-04'
    """
    found = errors(summary)
    if not found:
        return None
    said = ", ".join(f"{name} {number(e)}" for name, e in found.items())
    text = f"{measure(summary)} of {said}"
    tolerance = summary.get("tolerance")
    if tolerance is None:
        return Verdict(text, True)
    # A null error was not a finite number: that is beyond any tolerance.
    within = all(error is not None and error <= tolerance for error in found.values())
    side = "within" if within else "above"
    return Verdict(f"{text}, {side} the tolerance {number(tolerance)}", within)
