"""Boxes: the product of an interval for each coordinate, time among them."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._names import components


class Box(eqx.Module):
    """A box in space and time, `Box(x=(-1, 1), t=(0, 1))`.

    The order of the coordinates is the order of the components of a point. A coordinate called
    `t` is time: initial conditions hold at its lower end. A list of intervals is a vector:
    `Box(x=[(0, 1)] * 100)` has the coordinates `x1` to `x100`, and `x` names them all.

    **Raises:** `ValueError` for an interval that is empty or not finite.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, pde
        >>> box = pde.Box(x=(-1, 1), t=(0, 2))
        >>> box.names, box.lower, box.upper
        (('x', 't'), (-1.0, 0.0), (1.0, 2.0))
        >>> box.from_unit(jnp.array([0.5, 0.5])).tolist()
        [0.0, 1.0]
        >>> pde.Box(x=[(0, 1)] * 3, t=(0, 2)).names
        ('x1', 'x2', 'x3', 't')

        ```
    """

    names: tuple[str, ...] = eqx.field(static=True)
    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    vectors: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)
    """Name of a vector to the names of its components."""

    def __init__(
        self,
        **intervals: tuple[float, float] | list[tuple[float, float]] | list[tuple[int, int]],
    ):
        single: dict[str, tuple[float, float]] = {}
        vectors: dict[str, tuple[str, ...]] = {}
        for name, given in intervals.items():
            several = isinstance(given, list)
            named = components(name, len(given)) if several else (name,)
            if several:
                vectors[name] = named
            if clash := sorted(set(named) & set(single)):
                raise ValueError(f"The coordinate {clash[0]} is given twice.")
            single |= dict(zip(named, given if isinstance(given, list) else (given,), strict=True))
        if not single:
            raise ValueError("A Box needs at least one coordinate, such as x=(0, 1).")
        for name, (a, b) in single.items():
            if not (math.isfinite(a) and math.isfinite(b) and a < b):
                raise ValueError(f"The interval of {name} must be finite and rise, got ({a}, {b}).")
        self.names = tuple(single)
        self.lower = tuple(float(a) for a, _ in single.values())
        self.upper = tuple(float(b) for _, b in single.values())
        self.vectors = tuple(vectors.items())

    @property
    def space(self) -> tuple[int, ...]:
        """The components of a point that are not time."""
        return tuple(i for i, name in enumerate(self.names) if name != "t")

    def components(self, name: str) -> tuple[str, ...]:
        """The coordinates that a name stands for: those of a vector, or the one of this name."""
        return dict(self.vectors).get(name, (name,))

    def named(self, points: Float[Array, "*n d"]) -> dict[str, Array]:
        """Every coordinate and vector by name, as `read` gives it."""
        return {name: self.read(points, name) for name in (*self.names, *dict(self.vectors))}

    def read(self, points: Float[Array, "*n d"], name: str) -> Array:
        """A coordinate, shape `(*n)`, or a vector, with a leading axis of its components."""
        parts, moved = self.components(name), jnp.moveaxis(points, -1, 0)
        first = self.axis(parts[0])
        return moved[first : first + len(parts)] if name in dict(self.vectors) else moved[first]

    @property
    def ndim(self) -> int:
        return len(self.names)

    def axis(self, name: str) -> int:
        """The component of a point that a coordinate is; `ValueError` if there is none."""
        if name not in self.names:
            raise ValueError(f"No coordinate {name!r} in a box over {', '.join(self.names)}.")
        return self.names.index(name)

    def side(self, name: str, value: float) -> int:
        """0 for the lower face, 1 for the upper; `ValueError` where there is no face."""
        axis = self.axis(name)
        for side, bound in enumerate((self.lower[axis], self.upper[axis])):
            if math.isclose(value, bound, rel_tol=1e-12, abs_tol=1e-12):
                return side
        raise ValueError(
            f"{name} = {value} is no face of the box: its faces are at "
            f"{self.lower[axis]} and {self.upper[axis]}."
        )

    def from_unit(self, unit: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """The affine map from the unit cube."""
        lower, upper = jnp.asarray(self.lower, unit.dtype), jnp.asarray(self.upper, unit.dtype)
        return lower + (upper - lower) * unit
