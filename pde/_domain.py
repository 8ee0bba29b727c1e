"""Boxes: the product of an interval for each coordinate, time among them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from ._curve import Curve, Segment
from ._names import components
from ._sample import AbstractSampler
from ._shape import AbstractShape

Face = tuple[str, float | str]


class Range(NamedTuple):
    """The interval of a parameter that a family of problems has as a coordinate.

    It is an axis of what the network sees and of where points are drawn, and equations and
    conditions read it as they read any coordinate. It has no boundary, no derivatives are taken by
    it, and `laplacian` leaves it out.

    ```python
    >>> import pde
    >>> family = pde.Box(x=(-1, 1), t=(0, 1), nu=pde.Range(0.02, 0.1))
    >>> family.names, family.varied, family.space
    (('x', 't', 'nu'), ('nu',), (0,))

    ```
    """

    lower: float
    upper: float


class Box(AbstractShape):
    """A box in space and time, `Box(x=(-1, 1), t=(0, 1))`.

    The order of the coordinates is the order of the components of a point. A coordinate called
    `t` is time: initial conditions hold at its lower end. A list of intervals is a vector:
    `Box(x=[(0, 1)] * 100)` has the coordinates `x1` to `x100`, and `x` names them all. A
    [`pde.Range`][] is that of a parameter: `Box(x=(-1, 1), nu=Range(0.02, 0.1))`. A box is also a
    shape, of which a [`pde.Region`][] may be made.

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
    varied: tuple[str, ...] = eqx.field(static=True)
    """The coordinates that are parameters of a family."""

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
        self.varied = tuple(n for n, given in single.items() if isinstance(given, Range))

    @property
    def space(self) -> tuple[int, ...]:
        """The components of a point that are neither time nor a parameter."""
        return tuple(i for i, n in enumerate(self.names) if n != "t" and n not in self.varied)

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
        if name in self.varied:
            raise ValueError(f"{name} is the parameter of a family, and has no boundary.")
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

    def to_unit(self, points: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """The affine map to the unit cube."""
        lower, upper = jnp.asarray(self.lower, points.dtype), jnp.asarray(self.upper, points.dtype)
        return (points - lower) / (upper - lower)

    def distance(self, points: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        xp: Any = points.__array_namespace__()  # pyright: ignore[reportAttributeAccessIssue]
        lower, upper = (xp.asarray(v, dtype=points.dtype) for v in (self.lower, self.upper))
        beyond = xp.maximum(lower - points, points - upper)
        nearest = xp.max(beyond, axis=-1)
        squares = xp.sum(xp.maximum(beyond, xp.zeros_like(beyond)) ** 2, axis=-1)
        # Within, the root of zero would have no derivative.
        outside = xp.sqrt(xp.where(nearest > 0, squares, 1.0))
        return -xp.where(nearest > 0, outside, nearest)

    def curves(self) -> list[Curve]:
        if self.ndim != 2:
            return super().curves()
        (left, bottom), (right, top) = self.lower, self.upper
        corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
        ends = (*corners[1:], corners[0])
        return [Segment((), 1.0, a, b) for a, b in zip(corners, ends, strict=True)]

    def covers(self, points: Float[Array, "*n d"]) -> Bool[Array, "*n"]:
        """Whether points belong to the domain, but for rounding; its boundary does."""
        slack = 1e-9 * max(b - a for a, b in zip(self.lower, self.upper, strict=True))
        return self.distance(points) >= -slack

    def on_curves(self, name: str) -> bool:
        """Whether a face of this name is on the boundary of a shape, and not of an interval."""
        return False

    def check_face(self, name: str, position: float | str) -> None:
        """`ValueError` where there is no such face."""
        if isinstance(position, str):
            raise ValueError(f"A box has no boundary of the name {position!r}: give coordinates.")
        self.side(name, position)

    def draw(
        self, sampler: AbstractSampler, key: Key[Array, ""], count: int
    ) -> Float[Array, "n d"]:
        """Points of the interior."""
        return self.from_unit(sampler(key, count, self.ndim))

    def draw_on(
        self, faces: Sequence[Face], sampler: AbstractSampler, key: Key[Array, ""], count: int
    ) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """About `count` points on faces, as many on each, and their outward normals."""
        # A face of a one-dimensional box is a point.
        each = max(count // len(faces), 1) if self.ndim > 1 else 1
        axes = jnp.asarray([self.axis(name) for name, _ in faces])
        outward = jnp.asarray([2.0 * self.side(name, float(at)) - 1 for name, at in faces])
        positions = jnp.asarray([float(at) for _, at in faces])

        def on_face(key, axis, position, outward):
            x = self.draw(sampler, key, each)
            return x.at[:, axis].set(position), jnp.zeros_like(x).at[:, axis].set(outward)

        # Mapped and not unrolled: a box in a hundred dimensions has two hundred faces.
        keys = jax.random.split(key, len(faces))
        x, normal = jax.vmap(on_face)(keys, axes, positions, outward)
        return x.reshape(-1, self.ndim), normal.reshape(-1, self.ndim)
