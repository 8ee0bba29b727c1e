"""Whether a case poses a problem that has a solution, as far as that shows before any training."""

from collections.abc import Iterator

from .._model import Complaint
from . import shapes
from .schema import Case


def on_shape(case: Case, name: str) -> bool:
    """Whether a face of this name is on the boundary of the case's shape."""
    return case.shape is not None and (
        name == shapes.BOUNDARY or name in shapes.coordinates(case.shape)
    )


def of_shape(case: Case) -> Iterator[Complaint]:
    """What is wrong with the shape, and with the places of conditions on its boundary."""
    if case.shape is None:
        if not case.domain:
            yield ("domain",), "is required", "or give a shape"
        return
    if shapes.BOUNDARY in case.coordinates:
        yield ("shape",), f"no coordinate can be called {shapes.BOUNDARY!r}", ""
        return
    for name in sorted(set(shapes.coordinates(case.shape)) & set(case.domain)):
        yield ("domain", name), f"the coordinate {name!r} is given twice", "the shape has it"
        return
    # JAX is imported for cases of this kind alone; it computes nothing.
    from . import build

    try:
        region = build.domain(case)
    except ValueError as e:
        yield ("shape",), _said(e), ""
        return
    for name, condition in case.conditions.items():
        for place, positions in getattr(condition, "at", {}).items():
            if not on_shape(case, place):
                continue
            for position in positions if isinstance(positions, tuple) else (positions,):
                try:
                    region.check_face(place, position)
                except ValueError as e:
                    yield ("conditions", name, "at", place), _said(e), ""


def _said(error: ValueError) -> str:
    text = str(error).removesuffix(".")
    return text[0].lower() + text[1:]
