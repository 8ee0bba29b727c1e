"""What `u_xx` means: an unknown, an underscore, and the coordinates to differentiate by."""

from collections.abc import Collection


def split_derivative(
    name: str, unknowns: Collection[str], coordinates: Collection[str]
) -> tuple[str, tuple[str, ...]] | None:
    """The unknown and the coordinates that a name differentiates by; `None` if it is neither.

    ```python
    >>> from pde import split_derivative
    >>> split_derivative("u_xxt", ["u"], ["x", "t"])
    ('u', ('x', 'x', 't'))
    >>> split_derivative("u", ["u"], ["x", "t"])
    ('u', ())
    >>> split_derivative("nu", ["u"], ["x", "t"]) is None
    True

    ```
    """
    if name in unknowns:
        return name, ()
    unknown, _, suffix = name.rpartition("_")
    if unknown not in unknowns or not suffix:
        return None
    longest_first = sorted(coordinates, key=len, reverse=True)
    found = []
    while suffix:
        match = next((c for c in longest_first if suffix.startswith(c)), None)
        if match is None:
            return None
        found.append(match)
        suffix = suffix[len(match) :]
    return unknown, tuple(found)
