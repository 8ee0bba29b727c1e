"""Boxes: the product of an interval for each coordinate, time among them."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class Box(eqx.Module):
    """A box in space and time, `Box(x=(-1, 1), t=(0, 1))`.

    The order of the coordinates is the order of the components of a point. A coordinate called
    `t` is time: initial conditions hold at its lower end.

    **Raises:** `ValueError` for an interval that is empty or not finite.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, pde
        >>> box = pde.Box(x=(-1, 1), t=(0, 2))
        >>> box.names, box.lower, box.upper
        (('x', 't'), (-1.0, 0.0), (1.0, 2.0))
        >>> box.from_unit(jnp.array([0.5, 0.5])).tolist()
        [0.0, 1.0]

        ```
    """

    names: tuple[str, ...] = eqx.field(static=True)
    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, **intervals: tuple[float, float]):
        if not intervals:
            raise ValueError("A Box needs at least one coordinate, such as x=(0, 1).")
        for name, (a, b) in intervals.items():
            if not (math.isfinite(a) and math.isfinite(b) and a < b):
                raise ValueError(f"The interval of {name} must be finite and rise, got ({a}, {b}).")
        self.names = tuple(intervals)
        self.lower = tuple(float(a) for a, _ in intervals.values())
        self.upper = tuple(float(b) for _, b in intervals.values())

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
