"""Shapes in space: balls, polygons and boxes, their unions, intersections and differences.

A shape is a function, its signed distance, positive inside. Of a combination it is the minimum or
maximum of those of its parts: the right sign everywhere, zero on the boundary and there alone, and
elsewhere no more than the distance. Each is written for NumPy and JAX alike.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ._curve import Arc, Curve, Segment


class AbstractShape(eqx.Module):
    """A region of space: `shape.distance(points)` is positive inside.

    `a | b` is the union of two shapes, `a & b` their intersection, `a - b` the first without the
    second. Both must have the same coordinates.
    """

    names: eqx.AbstractVar[tuple[str, ...]]
    lower: eqx.AbstractVar[tuple[float, ...]]
    upper: eqx.AbstractVar[tuple[float, ...]]

    def distance(self, points: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        """Signed distance to the boundary, positive inside."""
        raise NotImplementedError

    def leaves(self) -> "Sequence[AbstractShape]":
        """The simple shapes that it is made of."""
        return [self]

    def curves(self) -> list[Curve]:
        """The whole boundary of a simple shape of the plane, with outward normals."""
        raise ValueError(
            f"The boundary of a {type(self).__name__} over {', '.join(self.names)} cannot be "
            "drawn from: curves are known in the plane alone."
        )

    def called(self, name: str) -> "AbstractShape":
        """The same, with a name for its boundary: a condition can then be `at` it."""
        return Named(self, name)

    def __or__(self, other: "AbstractShape") -> "AbstractShape":
        return Union([self, other])

    def __and__(self, other: "AbstractShape") -> "AbstractShape":
        return Intersection([self, other])

    def __sub__(self, other: "AbstractShape") -> "AbstractShape":
        return Difference([self, other])


def _namespace(points: Any) -> Any:
    return points.__array_namespace__()


def _norm(xp: Any, x: Any) -> Any:
    return xp.sqrt(xp.sum(x**2, axis=-1))


class Ball(AbstractShape):
    """All points nearer than `radius` to a centre: a disc in the plane.

    **Arguments:** the centre, by coordinate; `radius`.

    **Raises:** `ValueError` for a radius that is not positive, or without a centre.

    ```python
    >>> import numpy as np, pde
    >>> disc = pde.Ball(x=0, y=0, radius=2)
    >>> disc.distance(np.array([[0.0, 0.5], [3.0, 4.0]])).tolist()
    [1.5, -3.0]

    ```
    """

    names: tuple[str, ...] = eqx.field(static=True)
    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    centre: tuple[float, ...] = eqx.field(static=True)
    radius: float = eqx.field(static=True)

    def __init__(self, *, radius: float, **centre: float):
        if not centre:
            raise ValueError("A Ball needs a centre, such as x=0, y=0.")
        if not (np.isfinite(radius) and radius > 0):
            raise ValueError(f"The radius of a Ball must be positive, got {radius}.")
        self.names = tuple(centre)
        self.centre, self.radius = tuple(map(float, centre.values())), float(radius)
        self.lower = tuple(c - self.radius for c in self.centre)
        self.upper = tuple(c + self.radius for c in self.centre)

    def distance(self, points: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        xp = _namespace(points)
        return self.radius - _norm(xp, points - xp.asarray(self.centre, dtype=points.dtype))

    def curves(self) -> list[Curve]:
        if len(self.names) != 2:
            return super().curves()
        return [Arc((), 1.0, self.centre, self.radius, 0.0, 2 * np.pi)]


class Polygon(AbstractShape):
    """The inside of a closed polygon of the plane.

    **Arguments:**

    - `vertices`: in order, either way round; the last is joined to the first.
    - `names`: of the two coordinates.
    - `edges`: a name for each edge, the first from the first vertex to the second.

    **Raises:** `ValueError` for fewer than three vertices, edges that cross, or names that are not
    one for each edge.

    ```python
    >>> import numpy as np, pde
    >>> corner = pde.Polygon([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)])
    >>> corner.distance(np.array([[0.5, 0.25], [1.5, 1.75]])).tolist()
    [0.25, -0.5]

    ```
    """

    names: tuple[str, ...] = eqx.field(static=True)
    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    vertices: tuple[tuple[float, float], ...] = eqx.field(static=True)
    edges: tuple[tuple[str, ...], ...] = eqx.field(static=True)

    def __init__(
        self,
        vertices: Sequence[tuple[float, float]],
        names: tuple[str, str] = ("x", "y"),
        edges: Sequence[str] | None = None,
    ):
        corners = np.asarray(vertices, float)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
            raise ValueError("A Polygon needs three vertices of two numbers, or more.")
        if not np.isfinite(corners).all():
            raise ValueError("The vertices of a Polygon must be finite.")
        if _crosses_itself(corners):
            raise ValueError("The edges of a Polygon must not meet but at their vertices.")
        if edges is not None and len(edges) != len(corners):
            raise ValueError(f"{len(edges)} names for {len(corners)} edges of a Polygon.")
        self.edges = ((),) * len(corners) if edges is None else tuple((name,) for name in edges)
        if _area(corners) < 0:
            # Counter-clockwise: what is outside lies to the right of each edge.
            corners, self.edges = corners[::-1], (*self.edges[-2::-1], self.edges[-1])
        self.names = tuple(names)
        self.vertices = tuple((float(x), float(y)) for x, y in corners)
        self.lower = tuple(map(float, corners.min(0)))
        self.upper = tuple(map(float, corners.max(0)))

    def distance(self, points: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        xp = _namespace(points)
        starts = xp.asarray(self.vertices, dtype=points.dtype)
        steps = xp.roll(starts, -1, axis=0) - starts
        away = points[..., None, :] - starts
        along = xp.sum(away * steps, axis=-1) / xp.sum(steps**2, axis=-1)
        nearest = away - xp.clip(along, 0.0, 1.0)[..., None] * steps
        # Even or odd: how many edges a ray in the direction of x passes through.
        below = away[..., 1] >= 0
        left = steps[:, 0] * away[..., 1] - steps[:, 1] * away[..., 0] > 0
        above = away[..., 1] < steps[:, 1]
        crosses = (below & above & left) | (~below & ~above & ~left)
        inside = xp.sum(crosses, axis=-1) % 2 == 1
        return xp.where(inside, 1.0, -1.0) * xp.min(_norm(xp, nearest), axis=-1)

    def curves(self) -> list[Curve]:
        ends = (*self.vertices[1:], self.vertices[0])
        return [
            Segment(names, 1.0, start, end)
            for names, start, end in zip(self.edges, self.vertices, ends, strict=True)
        ]


def _area(corners: np.ndarray) -> float:
    x, y = corners.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _crosses_itself(corners: np.ndarray) -> bool:
    starts, ends = corners, np.roll(corners, -1, 0)

    def turn(a, b, c):
        return np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    count = len(corners)
    for i in range(count):
        if np.array_equal(starts[i], ends[i]):
            return True
        for j in range(i + 2, count - (i == 0)):
            a, b, c, d = starts[i], ends[i], starts[j], ends[j]
            if turn(a, b, c) * turn(a, b, d) <= 0 and turn(c, d, a) * turn(c, d, b) <= 0:
                # On one line they meet only where their boxes do.
                low, high = (
                    np.maximum(np.minimum(a, b), np.minimum(c, d)),
                    np.minimum(np.maximum(a, b), np.maximum(c, d)),
                )
                if (low <= high).all():
                    return True
    return False


class Named(AbstractShape):
    """A shape with a name for its boundary, as `called` makes it."""

    shape: AbstractShape
    name: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, shape: AbstractShape, name: str):
        self.shape, self.name = shape, name
        self.names, self.lower, self.upper = shape.names, shape.lower, shape.upper

    def distance(self, points: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        return self.shape.distance(points)

    def leaves(self) -> Sequence[AbstractShape]:
        simple = self.shape.leaves()
        return [self] if simple[0] is self.shape else [Named(leaf, self.name) for leaf in simple]

    def curves(self) -> list[Curve]:
        return [c._replace(names=(*c.names, self.name)) for c in self.shape.curves()]


class _Combination(AbstractShape):
    parts: tuple[AbstractShape, ...]

    def __init__(self, parts: Sequence[AbstractShape]):
        self.parts = tuple(parts)
        if len(self.parts) < 2:
            raise ValueError(f"A {type(self).__name__} needs two shapes or more.")
        for part in self.parts:
            if part.names != self.names:
                raise ValueError(
                    f"Shapes over {', '.join(self.names)} and over {', '.join(part.names)} cannot "
                    "be combined."
                )

    @property
    def names(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.parts[0].names

    @property
    def lower(self) -> tuple[float, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._among(max=False, ends=[part.lower for part in self.parts])

    @property
    def upper(self) -> tuple[float, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._among(max=True, ends=[part.upper for part in self.parts])

    def _among(self, max: bool, ends: list[tuple[float, ...]]) -> tuple[float, ...]:
        """The ends of the intervals of the whole, of those of the parts."""
        raise NotImplementedError

    def leaves(self) -> Sequence[AbstractShape]:
        return [leaf for part in self.parts for leaf in part.leaves()]

    def _distances(self, points: Any) -> tuple[Any, list[Any]]:
        return _namespace(points), [part.distance(points) for part in self.parts]


class Union(_Combination):
    """What lies in any of some shapes: `Union([a, b])`, or `a | b`.

    ```python
    >>> import numpy as np, pde
    >>> both = pde.Ball(x=-1, y=0, radius=1.5) | pde.Ball(x=1, y=0, radius=1.5)
    >>> bool(both.distance(np.array([2.0, 0.0])) > 0), both.lower
    (True, (-2.5, -1.5))

    ```
    """

    def __init__(self, parts: Sequence[AbstractShape]):
        super().__init__(parts)

    def _among(self, max, ends):
        return tuple(map(float, np.max(ends, 0) if max else np.min(ends, 0)))

    def distance(self, points: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        xp, found = self._distances(points)
        return xp.max(xp.stack(found), axis=0)


class Intersection(_Combination):
    """What lies in all of some shapes: `Intersection([a, b])`, or `a & b`.

    ```python
    >>> import numpy as np, pde
    >>> lens = pde.Ball(x=-1, y=0, radius=1.5) & pde.Ball(x=1, y=0, radius=1.5)
    >>> bool(lens.distance(np.array([2.0, 0.0])) > 0), lens.lower
    (False, (-0.5, -1.5))

    ```
    """

    def __init__(self, parts: Sequence[AbstractShape]):
        super().__init__(parts)

    def _among(self, max, ends):
        return tuple(map(float, np.min(ends, 0) if max else np.max(ends, 0)))

    def distance(self, points: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        xp, found = self._distances(points)
        return xp.min(xp.stack(found), axis=0)


class Difference(_Combination):
    """The first shape without the others: `Difference([a, b])`, or `a - b`.

    ```python
    >>> import numpy as np, pde
    >>> plate = pde.Box(x=(0, 1), y=(0, 1)) - pde.Ball(x=0.5, y=0.5, radius=0.25)
    >>> bool(plate.distance(np.array([0.5, 0.5])) > 0)
    False

    ```
    """

    def __init__(self, parts: Sequence[AbstractShape]):
        super().__init__(parts)

    def _among(self, max, ends):
        return ends[0]

    def distance(self, points: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        xp, (first, *others) = self._distances(points)
        return xp.min(xp.stack([first, *(-d for d in others)]), axis=0)
