"""Regions: a shape in space, times an interval for each further coordinate."""

from collections.abc import Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float, Key

from ._curve import Arc, Curve, Segment, boundary
from ._domain import Box, Face
from ._sample import AbstractSampler, sobol_points
from ._shape import AbstractShape, Ball, Named

BOUNDARY, ALL = "boundary", "all"
_PROBES = 2**13


class Region(Box):
    """A domain with a shape: `Region(disc, t=(0, 1))`.

    The coordinates of the shape come first; each further one has an interval. As a box it is the
    smallest that holds it. Points of the interior are the first ones inside of a sequence that
    fills the box; those on the boundary of a shape in the plane are evenly spread over its length,
    which is cut where curves cross.

    **Raises:** `ValueError` for a shape that is empty.

    !!! Example

        ```python
        >>> import jax, pde
        >>> plate = pde.Box(x=(0, 1), y=(0, 1)).called("rim")
        >>> plate = pde.Region(plate - pde.Ball(x=0, y=0, radius=0.5), t=(0, 2))
        >>> plate.names, [round(c.length, 4) for c in plate.bounding]
        (('x', 'y', 't'), [0.5, 1.0, 1.0, 0.5, 0.7854])
        >>> points = plate.draw(pde.Sobol(), jax.random.key(0), 100)
        >>> points.shape, bool(plate.covers(points).all())
        ((100, 3), True)
        >>> x, normal = plate.draw_on([("boundary", "rim")], pde.Sobol(), jax.random.key(0), 8)
        >>> x.shape, normal.shape
        ((8, 3), (8, 3))

        ```
    """

    shape: AbstractShape
    bounding: tuple[Curve, ...] = eqx.field(static=True)
    """The curves that bound a shape of the plane; none otherwise."""
    share: float = eqx.field(static=True)
    """Of the smallest box, by volume."""

    def __init__(self, shape: AbstractShape, **intervals: tuple[float, float]):
        self.shape = shape
        width = np.subtract(shape.upper, shape.lower)
        if not (width > 0).all():
            raise ValueError("The shape is empty.")
        around = zip(shape.names, zip(shape.lower, shape.upper, strict=True), strict=True)
        super().__init__(**dict(around), **intervals)
        self.share = len(self.probes()) / _PROBES
        if not self.share:
            raise ValueError(f"The shape is empty: none of {_PROBES} points is in it.")
        self.bounding = ()
        if len(width) == 2:
            leaves = [(leaf.curves(), leaf.distance) for leaf in shape.leaves()]
            self.bounding = tuple(boundary(leaves, shape.distance, float(max(width))))

    def probes(self) -> np.ndarray:
        """Points of the shape, without JAX."""
        lower, upper = np.asarray(self.shape.lower), np.asarray(self.shape.upper)
        points = lower + (upper - lower) * sobol_points(_PROBES, len(lower))
        return points[np.asarray(self.shape.distance(cast(Any, points)) > 0)]

    def covers(self, points: Float[Array, "*n d"]) -> Bool[Array, "*n"]:
        slack = 1e-9 * max(np.subtract(self.upper, self.lower))
        return (self.shape.distance(points[..., : self._plane]) >= -slack) & super().covers(points)

    def on_curves(self, name: str) -> bool:
        return name == BOUNDARY or name in self.shape.names

    @property
    def sphere(self) -> Ball | None:
        """The shape, where it is a ball in three dimensions or more, whose surface is known too."""
        inner = self.shape.shape if isinstance(self.shape, Named) else self.shape
        return inner if isinstance(inner, Ball) and len(inner.names) > 2 else None

    def check_face(self, name: str, position: float | str) -> None:
        if self.sphere is not None and name == BOUNDARY:
            known = {ALL} | ({self.shape.name} if isinstance(self.shape, Named) else set())
            if position not in known:
                raise _no_part(position, known)
        elif self.on_curves(name):
            self.curves_at(name, position)
        else:
            super().check_face(name, position)

    def curves_at(self, name: str, position: float | str) -> list[Curve]:
        """The parts of the boundary of a name, or on which a coordinate has a value; `ValueError`
        where there is none."""
        if not self.bounding:
            raise ValueError(
                "Parts of the boundary of a shape are known in the plane alone, beside the whole "
                f"of a ball's for soft conditions, and this one is over "
                f"{', '.join(self.shape.names)}."
            )
        if name == BOUNDARY:
            found = [c for c in self.bounding if position in (ALL, *c.names)]
            if not found:
                raise _no_part(position, {n for c in self.bounding for n in c.names} | {ALL})
            return found
        axis = self.shape.names.index(name)
        slack = 1e-9 * (self.upper[axis] - self.lower[axis])
        found = [c for c in self.bounding if c.on(axis, float(position), slack)]
        if not found:
            raise ValueError(f"No straight part of the boundary lies on {name} = {position}.")
        return found

    def select(self, faces: Sequence[Face]) -> tuple[list[Curve], list[Face]]:
        """Curves that faces name, each once, and the faces that are ends of intervals."""
        curves = [c for f in faces if self.on_curves(f[0]) for c in self.curves_at(*f)]
        return list(dict.fromkeys(curves)), [f for f in faces if not self.on_curves(f[0])]

    def draw(
        self, sampler: AbstractSampler, key: Key[Array, ""], count: int
    ) -> Float[Array, "n d"]:
        candidates = super().draw(sampler, key, int(1.05 * count / self.share) + 32)
        inside = self.shape.distance(candidates[:, : self._plane]) > 0
        order = jnp.argsort(~inside, stable=True)
        # A draw that holds fewer, which is all but impossible, has some of them twice.
        return candidates[order[jnp.arange(count) % jnp.maximum(jnp.sum(inside), 1)]]

    def draw_on(
        self, faces: Sequence[Face], sampler: AbstractSampler, key: Key[Array, ""], count: int
    ) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        around = [f for f in faces if self.on_curves(f[0])]
        ends = [f for f in faces if not self.on_curves(f[0])]
        if not around:
            return super().draw_on(ends, sampler, key, count)
        if ends:
            first, second = jax.random.split(key)
            drawn = [
                self.draw_on(around, sampler, first, count // 2),
                super().draw_on(ends, sampler, second, count // 2),
            ]
            x, normal = (jnp.concatenate(parts) for parts in zip(*drawn, strict=True))
            return x, normal
        if self.sphere is not None:
            return self._draw_on_sphere(self.sphere, sampler, key, count)
        unit = sampler(key, max(count, 1), 1 + self.ndim - self._plane)
        points, outward = _along(self.select(around)[0], unit[:, 0])
        x = jnp.zeros((unit.shape[0], self.ndim), unit.dtype).at[:, self._plane :].set(unit[:, 1:])
        x = self.from_unit(x).at[:, : self._plane].set(points)
        return x, jnp.zeros_like(x).at[:, : self._plane].set(outward)

    def _draw_on_sphere(
        self, ball: Ball, sampler: AbstractSampler, key: Key[Array, ""], count: int
    ):
        unit = sampler(key, max(count, 1), self.ndim)
        # The direction of a normal vector is uniform; one of no length gets the first axis.
        slack = 1e-6
        drawn = ndtri(jnp.clip(unit[:, : self._plane], slack, 1 - slack))
        drawn = drawn.at[:, 0].add(jnp.all(drawn == 0, axis=1))
        outward = drawn / jnp.linalg.norm(drawn, axis=1, keepdims=True)
        points = jnp.asarray(ball.centre, unit.dtype) + ball.radius * outward
        x = self.from_unit(unit).at[:, : self._plane].set(points)
        return x, jnp.zeros_like(x).at[:, : self._plane].set(outward)

    @property
    def _plane(self) -> int:
        return len(self.shape.names)


def _along(
    curves: list[Curve], unit: Float[Array, " n"]
) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"]]:
    """Points and outward normals on curves laid end to end, in proportion to their length."""
    ends = np.cumsum([c.length for c in curves])
    place = unit * ends[-1]
    which = jnp.minimum(jnp.searchsorted(jnp.asarray(ends), place, side="right"), len(curves) - 1)
    lengths = jnp.asarray([c.length for c in curves], unit.dtype)
    s = (place - (jnp.asarray(ends, unit.dtype) - lengths)[which]) / lengths[which]
    # A curve is a row of numbers, zero where its kind has no such number.
    rows = jnp.asarray([_row(c) for c in curves], unit.dtype)[which]
    origin, step, side, radius, angle, turn = (
        rows[:, :2], rows[:, 2:4], rows[:, 4:5], rows[:, 5:6], rows[:, 6], rows[:, 7]
    )  # fmt: skip
    around = jnp.stack([jnp.cos(angle + turn * s), jnp.sin(angle + turn * s)], axis=-1)
    right = jnp.stack([step[:, 1], -step[:, 0]], axis=-1) / lengths[which][:, None]
    normal = side * jnp.where(radius > 0, around, right)
    return origin + s[:, None] * step + radius * around, normal


def _row(curve: Curve) -> tuple[float, ...]:
    if isinstance(curve, Segment):
        step = np.subtract(curve.end, curve.start)
        return (*curve.start, *step, curve.side, 0.0, 0.0, 0.0)
    assert isinstance(curve, Arc)
    return (*curve.centre, 0.0, 0.0, curve.side, curve.radius, curve.angle, curve.turn)


def _no_part(name: float | str, known: set[str]) -> ValueError:
    return ValueError(
        f"No part of the boundary has the name {name!r}: there is {', '.join(sorted(known))}."
    )
