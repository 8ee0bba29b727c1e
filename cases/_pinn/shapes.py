"""What a case may say of a shape in space; `pde` has a class for each. No JAX is imported."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from .._model import Model, Number, Positive
from .names import BlockName, Name

BOUNDARY, ALL = "boundary", "all"


class ShapeModel(Model):
    """What every shape takes."""

    name: BlockName | None = None
    """Of its boundary: conditions can then be `at: {boundary: NAME}`."""


class Box(ShapeModel):
    """An interval for each coordinate."""

    type: Literal["box"]
    sides: dict[Name, tuple[Number, Number]] = Field(min_length=1)
    """Coordinate to its interval."""


class Ball(ShapeModel):
    """All points nearer than a radius to a centre; in the plane a disc."""

    type: Literal["ball", "disc"]
    centre: dict[Name, Number] = Field(min_length=1)
    """By coordinate."""
    radius: Positive
    """The distance of its boundary."""


class Polygon(ShapeModel):
    """The inside of a closed polygon of the plane."""

    type: Literal["polygon"]
    vertices: tuple[tuple[Number, Number], ...] = Field(min_length=3, max_length=1000)
    """In order; the last is joined to the first."""
    coordinates: tuple[Name, Name] = ("x", "y")
    """Names of the two."""
    edges: tuple[BlockName, ...] | None = None
    """A name for each edge; the first goes from the first vertex to the second."""


class Combination(ShapeModel):
    """Shapes together (`union`), in common (`intersection`), or the first without the others."""

    type: Literal["union", "intersection", "difference"]
    parts: "tuple[Shape, ...]" = Field(min_length=2, max_length=1000)
    """The shapes, all over the same coordinates."""


Shape = Annotated[Box | Ball | Polygon | Combination, Field(discriminator="type")]
Combination.model_rebuild()


def coordinates(shape: Any) -> tuple[str, ...]:
    """The names of a shape's coordinates, or of one that is not checked yet; none where it says
    none."""
    raw = shape.model_dump() if isinstance(shape, ShapeModel) else shape
    while isinstance(raw, dict):
        for key, default in (("sides", None), ("centre", None), ("coordinates", ("x", "y"))):
            named = raw.get(key, default if raw.get("type") == "polygon" else None)
            if named and isinstance(named, dict | list | tuple):
                return tuple(map(str, named))
        parts = raw.get("parts")
        raw = parts[0] if isinstance(parts, list | tuple) and parts else None
    return ()


def simple(shape: Any) -> Iterator[Any]:
    """The boxes, balls and polygons of a shape."""
    if isinstance(shape, Combination):
        for part in shape.parts:
            yield from simple(part)
    else:
        yield shape


def bounds(shape: Any) -> dict[str, tuple[float, float]]:
    """The interval of each coordinate that holds a shape; it may be empty, where the shape is."""
    match shape:
        case Box():
            return dict(shape.sides)
        case Ball():
            return {n: (c - shape.radius, c + shape.radius) for n, c in shape.centre.items()}
        case Polygon():
            columns = zip(*shape.vertices, strict=True)
            pairs = zip(shape.coordinates, columns, strict=True)
            return {name: (min(column), max(column)) for name, column in pairs}
        case Combination():
            first, *others = map(bounds, shape.parts)
            if shape.type == "difference":
                return first
            lower, upper = (min, max) if shape.type == "union" else (max, min)
            for other in others:
                first = {
                    n: (lower(a, other.get(n, (a, b))[0]), upper(b, other.get(n, (a, b))[1]))
                    for n, (a, b) in first.items()
                }
            return first
    raise AssertionError(shape)
