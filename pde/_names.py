"""What `u_xx` means: an unknown, an underscore, and the coordinates to differentiate by. And the
names of what has none of its own: `laplacian(u)`, and `x7` of a vector `x`."""

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


def components(vector: str, dimensions: int) -> tuple[str, ...]:
    """The coordinates of a vector, `x1` and so on."""
    return tuple(f"{vector}{i}" for i in range(1, dimensions + 1))


def laplacian_of(name: str, unknowns: Collection[str]) -> str | None:
    """The unknown in `laplacian(u)`; `None` for any other name."""
    unknown = name.removeprefix("laplacian(").removesuffix(")")
    return unknown if unknown in unknowns and name == f"laplacian({unknown})" else None
