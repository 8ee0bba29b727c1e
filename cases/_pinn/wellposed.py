"""Whether a case poses a problem that has a solution, as far as that shows before any training."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from pde._names import components, laplacian_of, split_derivative

from .._explain import did_you_mean
from .._model import Complaint
from . import inference, schema, shapes
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


def of_observations(case: Case) -> Iterator[Complaint]:
    """What is wrong with data, before any file is read, and with parameters that are inferred."""
    unknowns = list(case.unknowns)
    for name, spec in case.data.items():
        if name in {*case.equations, *case.conditions}:
            yield ("data", name), "an equation or a condition has the same name", ""
        for unknown in spec.observe:
            if unknown not in unknowns:
                hint = did_you_mean(unknown, unknowns)
                yield ("data", name, "observe"), f"there is no unknown {unknown!r}", hint
        if spec.generate is not None and case.reference is None:
            yield ("data", name, "generate"), "needs a reference to ask", ""
    inferred = {n: p for n, p in case.parameters.items() if isinstance(p, inference.Inferred)}
    if isinstance(case.uncertainty, inference.Ensemble):
        if not inferred:
            yield ("uncertainty",), "is that of inferred parameters, and there are none", ""
        if case.sampler.adapt or case.sampler.resample_every:
            message = "members keep their points, and here they are drawn anew"
            yield ("uncertainty",), message, "leave sampler.adapt and sampler.resample_every out"
    if case.train.windows > 1 and (case.data or inferred):
        message = "data and what is inferred from them belong to all times at once"
        yield ("train", "windows"), message, "leave it out"
    for name, spec in inferred.items():
        if not case.data:
            message = "nothing determines it"
            yield ("parameters", name), message, "give data, or a number in its place"
        elif not any(name in text.names for text in case.equations.values()):
            yield ("parameters", name), "is in no equation, and cannot be inferred", ""
        if spec.prior is not None and not any(d.noise for d in case.data.values()):
            message = "weighs as much as the noise of data says, and none is given"
            yield ("parameters", name, "prior"), message, "give data.….noise"


def of_data(case: Case) -> Iterator[Complaint]:
    """What shows once files of data are read: missing columns, NaN, points outside."""
    from . import data

    names = list(case.coordinates)
    for name, spec in case.data.items():
        if spec.file is None:
            continue
        key = ("data", name, "file")
        try:
            columns = data.read(spec.file, [*names, *spec.observe])
        except ValueError as e:
            yield key, _said(e), ""
            continue
        points = np.stack([columns[n] for n in names], axis=-1)
        if (outside := ~_covers(case, points)).any():
            place = ", ".join(
                f"{n} = {v:g}" for n, v in zip(names, points[outside][0], strict=True)
            )
            yield (
                key,
                f"{outside.sum()} of {len(points)} points lie outside of the domain, the first at "
                f"{place}",
                "",
            )


def _covers(case: Case, points: np.ndarray) -> np.ndarray:
    if case.shape is not None:
        from . import build

        return np.asarray(build.domain(case).covers(cast(Any, points)))
    lower, upper = np.asarray(list(case.coordinates.values()), float).T
    slack = 1e-9 * np.max(upper - lower)
    return ((points >= lower - slack) & (points <= upper + slack)).all(axis=-1)


def of_equations(case: Case) -> Iterator[Complaint]:
    """Whether unknowns, equations and conditions can go together."""
    read = [_derivatives(case, text.names) for text in case.equations.values()]
    everywhere = {unknown for found in read for unknown, _ in found}
    for unknown in [u for u in case.unknowns if u not in everywhere]:
        message = f"{unknown!r} is in no equation, and nothing but its conditions determines it"
        yield ("unknowns",), message, "leave it out, or write an equation for it"
    if not (case.conditions or case.data) and any(axes for found in read for _, axes in found):
        message = "there is none, and without conditions differential equations have many solutions"
        yield ("conditions",), message, "say what holds on the boundary, or give data"
    # Data take the place of what is not known; then there may be more on the boundary.
    if not case.data and not [e for e in read if not e]:
        yield from _of_counts(case, [pair for found in read for pair in found])


def _derivatives(case: Case, names: frozenset[str] | set[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Unknowns and the coordinates that they are differentiated by, a Laplacian by each in turn."""
    unknowns, coordinates = list(case.unknowns), list(case.coordinates)
    found: list[tuple[str, tuple[str, ...]]] = []
    for name in sorted(names):
        if (unknown := laplacian_of(name, unknowns)) is not None:
            found += [(unknown, (c, c)) for c in case.space]
        elif (split := split_derivative(name, unknowns, coordinates)) is not None:
            found.append(split)
    return found


def _of_counts(case: Case, read: list[tuple[str, tuple[str, ...]]]) -> Iterator[Complaint]:
    """Along each coordinate there are as many conditions as derivatives, or fewer."""
    # A value that is said twice of a face, softly and hard, counts once.
    given: dict[str, dict[tuple[str, ...], str]] = {}
    for name, condition in case.conditions.items():
        for coordinate, end, stated in _stated(case, condition):
            for unknown in stated:
                given.setdefault(coordinate, {})[condition.type, end, unknown] = name
    for coordinate, stated in given.items():
        orders = [
            max((axes.count(coordinate) for u, axes in read if u == unknown), default=0)
            for unknown in case.unknowns
        ]
        if len(stated) > sum(orders):
            message = (
                f"too much is said along {coordinate}: the equations are of order {sum(orders)} in "
                f"it, and the conditions say {len(stated)} things at its ends"
            )
            yield ("conditions", list(stated.values())[-1]), message, "leave some of them out"


def _stated(case: Case, condition: schema.Condition) -> Iterator[tuple[str, str, list[str]]]:
    """Coordinate and end to the unknowns that a condition is about there."""
    match condition:
        case schema.InitialCondition():
            yield "t", "start", [*condition.values, *(f"{u}_t" for u in condition.rates)]
        case schema.DirichletCondition() | schema.NeumannCondition() | schema.RobinCondition():
            for place, positions in condition.at.items():
                if on_shape(case, place):
                    continue
                ends = positions if isinstance(positions, tuple) else (positions,)
                size = case.vectors.get(place)
                for coordinate in components(place, size) if size else (place,):
                    for end in ends:
                        yield coordinate, str(end), list(condition.values)


def _said(error: ValueError) -> str:
    text = str(error).removesuffix(".")
    return text[0].lower() + text[1:]
