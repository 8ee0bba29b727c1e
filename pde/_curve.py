r"""Curves that bound shapes of the plane: segments and arcs of circles.

A curve runs over a parameter from 0 to 1 in proportion to its length. Its `function` is smooth,
vanishes on its line or circle and has slope one there; `trimming` is positive along the curve and
negative beyond its ends. Of both Sukumar and Srivastava, *Exact imposition of boundary conditions
with distance functions in physics-informed deep neural networks* (2022), equation (14), make

$$\varphi = \sqrt{f^2 + \Big(\frac{\sqrt{t^2 + f^4} - t}{2}\Big)^2},$$

which vanishes on the curve alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Segment(NamedTuple):
    """From one point to another. `side` is 1 where the outward normal is to the right of the way,
    -1 where it is to the left."""

    names: tuple[str, ...]
    side: float
    start: tuple[float, float]
    end: tuple[float, float]

    @property
    def length(self) -> float:
        return float(np.hypot(*np.subtract(self.end, self.start)))

    def at(self, s: Any) -> tuple[Any, Any]:
        """Points and outward normals, each of the shape of `s` and one more axis."""
        xp = s.__array_namespace__()
        start, step = (xp.asarray(v, dtype=s.dtype) for v in (self.start, self._step))
        points = start + s[..., None] * step
        return points, xp.broadcast_to(xp.asarray(self._normal, dtype=s.dtype), points.shape)

    def cut(self, first: float, last: float, side: float) -> "Segment":
        """The part between two parameters, with another side."""
        start, step = np.asarray(self.start), np.asarray(self._step)
        ends = [tuple(map(float, start + s * step)) for s in (first, last)]
        if last == 1.0:  # not moved by rounding
            ends[1] = self.end
        return self._replace(side=side, start=ends[0], end=ends[1])

    def function(self, points: Any) -> Any:
        """Distance to the line, positive on the side of the shape."""
        xp = points.__array_namespace__()
        away = points - xp.asarray(self.start, dtype=points.dtype)
        return -away @ xp.asarray(self._normal, dtype=points.dtype)

    def trimming(self, points: Any) -> Any:
        """Positive in the disc about the segment (equation 12)."""
        xp = points.__array_namespace__()
        middle = xp.asarray(np.add(self.start, self.end) / 2, dtype=points.dtype)
        return (self.length**2 / 4 - xp.sum((points - middle) ** 2, axis=-1)) / self.length

    def on(self, axis: int, position: float, slack: float) -> bool:
        """Whether it lies where a coordinate has one value."""
        return all(abs(end[axis] - position) <= slack for end in (self.start, self.end))

    def same_line(self, other: "Curve", slack: float) -> bool:
        """Whether both lie on one line."""
        ends = (other.start, other.end) if isinstance(other, Segment) else ()
        away = [abs(np.dot(np.subtract(e, self.start), self._normal)) for e in ends]
        return bool(ends) and max(away) <= slack

    @property
    def _step(self) -> tuple[float, float]:
        return self.end[0] - self.start[0], self.end[1] - self.start[1]

    @property
    def _normal(self) -> tuple[float, float]:
        x, y = self._step
        return self.side * y / self.length, -self.side * x / self.length


class Arc(NamedTuple):
    """Of a circle, from an angle and over a turn (counter-clockwise, in radians). `side` is 1 where
    the outward normal points away from the centre, -1 where it points to it."""

    names: tuple[str, ...]
    side: float
    centre: tuple[float, ...]
    radius: float
    angle: float
    turn: float

    @property
    def length(self) -> float:
        return self.radius * self.turn

    def at(self, s: Any) -> tuple[Any, Any]:
        """Points and outward normals, each of the shape of `s` and one more axis."""
        xp = s.__array_namespace__()
        angle = self.angle + self.turn * s
        away = xp.stack([xp.cos(angle), xp.sin(angle)], axis=-1)
        return xp.asarray(self.centre, dtype=s.dtype) + self.radius * away, self.side * away

    def cut(self, first: float, last: float, side: float) -> "Arc":
        """The part between two parameters, with another side."""
        angle, turn = self.angle + first * self.turn, (last - first) * self.turn
        return self._replace(side=side, angle=angle, turn=turn)

    def function(self, points: Any) -> Any:
        """Positive on the side of the shape. The distance itself would have a kink in the centre of
        a disc; away from a hole it would grow, and this tends to the hole's radius."""
        xp = points.__array_namespace__()
        away = xp.sum((points - xp.asarray(self.centre, dtype=points.dtype)) ** 2, axis=-1)
        inner = self.radius**2 - away
        if self.side > 0:
            return inner / (2 * self.radius)
        return -inner * self.radius / (self.radius**2 + away)

    def trimming(self, points: Any) -> Any:
        """Positive beyond the chord, on the side of the arc."""
        xp = points.__array_namespace__()
        middle = self.angle + self.turn / 2
        outward = xp.asarray([np.cos(middle), np.sin(middle)], dtype=points.dtype)
        away = points - xp.asarray(self.centre, dtype=points.dtype)
        return away @ outward - self.radius * np.cos(self.turn / 2)

    def on(self, axis: int, position: float, slack: float) -> bool:
        return False

    def same_line(self, other: "Curve", slack: float) -> bool:
        """Whether both lie on one circle."""
        if not isinstance(other, Arc):
            return False
        apart = np.hypot(*np.subtract(self.centre, other.centre))
        return bool(apart <= slack) and abs(self.radius - other.radius) <= slack


Curve = Segment | Arc


def trimmed(curve: Curve, points: Any) -> Any:
    """Vanishes on a curve and nowhere else, with slope one on it."""
    xp = points.__array_namespace__()
    f, t = curve.function(points), curve.trimming(points)
    return xp.sqrt(f**2 + ((xp.sqrt(t**2 + f**4) - t) / 2) ** 2)


def boundary(
    leaves: list[tuple[list[Curve], Callable[[Any], Any]]],
    distance: Callable[[Any], Any],
    size: float,
) -> list[Curve]:
    """Those parts of the leaves' curves that bound the whole, with their outward side.

    A point of a curve bounds the whole where a little step along the normal leads from inside to
    outside: this is right as well where leaves touch along a curve. What two leaves have in common
    is taken from the first.

    **Arguments:** `leaves`, the curves and the signed distance of each; `distance`, of the whole;
    `size`, of the whole.
    """
    step, slack = 1e-7 * size, 1e-10 * size
    found: list[Curve] = []
    for k, (curves, _) in enumerate(leaves):
        others = [d for j, (_, d) in enumerate(leaves) if j != k]
        earlier = [d for _, d in leaves[:k]]

        def side(curve: Curve, s: np.ndarray, earlier=earlier) -> np.ndarray:
            points, normal = curve.at(s)
            inner, outer = (distance(points + h * normal) > 0 for h in (-step, step))
            taken = np.any([np.abs(d(points)) <= slack for d in earlier] or [inner & ~inner], 0)
            return np.where(taken, 0.0, inner.astype(float) - outer.astype(float))

        for curve in curves:
            s = (np.arange(_PIECES) + 0.5) / _PIECES
            sides = side(curve, s)
            changes = np.flatnonzero(np.diff(sides))
            ends = [0.0, *(_change(curve, s[i : i + 2], others, side) for i in changes), 1.0]
            kept = [sides[0], *sides[changes + 1]]
            found += [
                curve.cut(first, last, float(turned * curve.side))
                for first, last, turned in zip(ends, ends[1:], kept, strict=False)
                if turned
            ]
    return found


# What is smaller than this part of a curve may be overlooked.
_PIECES = 4096


def _change(curve: Curve, between: np.ndarray, others: list, side: Callable) -> float:
    """Where, between two parameters, a curve passes the boundary of another leaf."""

    def of(d):
        return lambda s: bool(d(curve.at(np.asarray([s]))[0])[0] > 0)

    tests = [test for d in others if (test := of(d))(between[0]) != test(between[1])]
    # Two at once are rare, and then the first of them to be passed may be the wrong one: the
    # definition is slower and less exact, and right.
    if len(tests) != 1:
        tests = [lambda s: float(side(curve, np.asarray([s]))[0])]
    low, high = map(float, between)
    at_low = tests[0](low)
    for _ in range(60):
        middle = (low + high) / 2
        if tests[0](middle) == at_low:
            low = middle
        else:
            high = middle
    return (low + high) / 2
