"""What is wrong with a box, its mesh, and the names and formulas upon it, whatever the kind."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ._explain import did_you_mean
from ._expression import CONSTANTS, Expression
from ._model import Complaint, Key

Intervals = Mapping[str, tuple[float, float]]


def of_intervals(domain: Intervals) -> Iterator[Complaint]:
    """Each from below to above."""
    for name, (lower, upper) in domain.items():
        if lower >= upper:
            yield ("domain", name), f"the interval [{lower}, {upper}] is empty", ""


def of_mesh(domain: Intervals, counts: Mapping[str, int], what: str) -> Iterator[Complaint]:
    """A box and the numbers along it, of `points` or `cells`, which is their key too."""
    yield from of_intervals(domain)
    for name in domain:
        if name not in counts:
            yield (what,), f"needs a number of {what} along {name}", f"such as {name}: 32"
    for name in set(counts) - set(domain):
        yield (what, name), "there is no such coordinate", did_you_mean(name, list(domain))


def of_names(domain: Intervals, parameters: Collection[str]) -> Iterator[Complaint]:
    """Coordinates and parameters beside time."""
    if "t" in domain:
        yield ("domain", "t"), "is time, which `time` has", "leave it out"
    for name in parameters:
        if name in (*domain, *CONSTANTS, "t"):
            yield ("parameters", name), "is taken by a coordinate or a constant", "rename it"


def of_dimensions(domain: Intervals, equation: Any) -> Iterator[Complaint]:
    """How many coordinates an equation may have; it has `type` and `DIMENSIONS`."""
    if len(domain) not in equation.DIMENSIONS:
        allowed = " or ".join(map(str, equation.DIMENSIONS))
        message = f"{equation.type} is for {allowed} coordinates, not {len(domain)}"
        yield ("domain",), message, ""


def of_formula(key: Key, text: Expression, known: list[str]) -> Iterator[Complaint]:
    """A scalar expression in which only `known` names may stand."""
    if message := text.misuse_of_vectors({}):
        yield key, message, ""
    for name in sorted(text.names - set(known)):
        hint = did_you_mean(name, known)
        yield key, f"{name!r} is not known here", hint or f"known are {', '.join(known)}"


def of_fields(
    key: Key, values: Mapping[str, Expression], known: list[str], fields: Collection[str]
) -> Iterator[Complaint]:
    """Formulas by the names of fields, of which `fields` are all."""
    for name, text in values.items():
        yield from of_formula((*key, name), text, known)
        if name not in fields:
            message = f"the fields are {', '.join(fields)}"
            yield (*key, name), message, did_you_mean(name, list(fields))
