"""What is wrong between the parts of a case that are valid each: what a schema cannot say."""

import math
from collections.abc import Iterator
from typing import Any

from pde._names import components, laplacian_of, split_derivative

from .._box import of_intervals
from .._explain import did_you_mean
from .._expression import CONSTANTS, LAPLACIAN, Expression
from .._model import Complaint, Key
from . import schema, shapes
from .inference import Inferred
from .schema import Case
from .wellposed import of_equations, of_observations, of_shape, on_shape

MAX_GRID = 10**9


def contradictions(case: Case) -> Iterator[Complaint]:
    """Of the case; and, where there are none, of its reference."""
    found = False
    for complaint in _of_case(case):
        found = True
        yield complaint
    # What follows from another mistake is not said beside it.
    if not found:
        yield from _of_reference(case)


def _of_case(case: Case) -> Iterator[Complaint]:
    unknowns = list(case.unknowns)
    names = [*_coordinates(case), *unknowns, *_numbers(case)]
    yield from of_shape(case)
    yield from _of_family(case)
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield ("unknowns",), f"{name!r} is used twice among coordinates, unknowns, parameters", ""
    for name in sorted(set(names) & set(CONSTANTS)):
        yield ("parameters",), f"{name!r} is the constant; give it another name", ""
    for name in [n for v in case.vectors for n in _components(case, v) if n in case.domain]:
        yield ("domain", name), f"the coordinate {name!r} is given twice", "one is in a vector"
    yield from of_intervals({
        name: given.interval if isinstance(given, schema.VectorInterval) else given
        for name, given in case.domain.items()
    })  # fmt: skip
    for name, equation in case.equations.items():
        yield from _unknown_names(("equations", name), equation, case, names, derivatives=True)
        if name in case.conditions:
            yield ("conditions", name), "an equation has the same name", ""
    for name, condition in case.conditions.items():
        yield from _of_condition(case, name, condition, names)
    for name, feature in case.network.features.items():
        yield from _unknown_names(("network", "features", name), feature, case, names, False)
    yield from _on_one_face(case)
    for key, named in (("weights", case.weights), ("left", case.left)):
        for name in set(named) - set(case.equations):
            hint = did_you_mean(name, list(case.equations))
            yield (key, name), "no equation has this name", hint
    yield from _of_left(case)
    for name in set(case.units) - set(_coordinates(case)) - set(unknowns):
        yield ("units", name), "no coordinate or unknown has this name", ""
    yield from _of_grid(case)
    spec = case.network
    if isinstance(spec, schema.PirateNet) and spec.embedding.features != spec.width:
        message = f"must be the network's width, {spec.width}"
        yield ("network", "embedding", "features"), message, ""
    if isinstance(spec, schema.FilterNet) and isinstance(spec.scale, dict):
        seen = [*case.coordinates, *spec.features]
        for name in set(spec.scale) - set(seen):
            message = "no coordinate or feature has this name"
            yield ("network", "scale", name), message, did_you_mean(name, seen)
    if isinstance(spec, schema.FourierSeries):
        yield from _of_series(case, spec)
    if isinstance(spec, schema.Lagrangian):
        yield from _of_lagrangian(case, spec, names)
    yield from _of_time(case)
    yield from _of_optimizers(case)
    yield from _of_aggregator(case)
    yield from of_observations(case)
    yield from of_equations(case)


def _of_family(case: Case) -> Iterator[Complaint]:
    """A parameter with a range is a coordinate of its own, and something varies with it."""
    conditions = [text for c in case.conditions.values() for text in _texts(c)]
    read = {name for text in [*case.equations.values(), *conditions] for name in text.names}
    for name in case.family:
        key: Key = ("parameters", name)
        if name in {*case.domain, *(shapes.coordinates(case.shape) if case.shape else ())}:
            yield key, f"{name!r} is a coordinate, too", "give it a range in one place"
        elif name not in read:
            yield key, "is in no equation and no condition: nothing varies with it", ""
    if case.family and isinstance(case.network, schema.FourierSeries):
        message = "is periodic over all that it sees, and a solution is not over a parameter"
        yield ("network", "type"), message, "take an mlp"
    if case.family and case.left:
        yield ("left",), "inverts a Laplacian over space, and here is a range of a parameter", ""


def _texts(condition: Any) -> Iterator[Expression]:
    yield from getattr(condition, "values", {}).values()
    yield from getattr(condition, "rates", {}).values()
    if isinstance(condition, schema.RobinCondition):
        yield condition.coefficient


def _of_left(case: Case) -> Iterator[Complaint]:
    """A preconditioner by waves wants a grid of space."""
    for name, spec in case.left.items():
        if case.sampler.type != "grid" or case.sampler.adapt is not None or case.shape is not None:
            yield ("left", name), "needs points on a grid of a box", "give sampler: {type: grid}"
        if "t" in case.coordinates:
            yield ("left", name), "inverts a Laplacian over space, and here is time", ""
        for coordinate in set(spec.boundary) - set(case.coordinates):
            hint = did_you_mean(coordinate, list(case.coordinates))
            yield ("left", name, "boundary", coordinate), "there is no such coordinate", hint


def _of_time(case: Case) -> Iterator[Complaint]:
    key, initial = ("train", "windows"), schema.InitialCondition
    if case.train.windows > 1:
        if not any(isinstance(c, initial) for c in case.conditions.values()):
            yield key, "need an initial condition, which each hands to the next", ""
        if case.evaluate.points:
            yield key, "are judged on the grid alone", "leave evaluate.points out"
        guessed = any(isinstance(p, Inferred) for p in case.parameters.values())
        if case.shape or case.data or guessed:
            message = "are of a box and of known parameters: no shape, no data, nothing inferred"
            yield key, message, "take one window"
        if isinstance(case.network, schema.Lagrangian):
            yield key, "do not follow characteristics", "take one window"
    sampler = case.sampler
    if sampler.causal:
        key = ("sampler", "causal")
        if "t" not in case.coordinates:
            yield key, "needs the coordinate t", ""
        if not (sampler.adapt or sampler.resample_every):
            message = "makes weights when points are drawn, and they are drawn but once"
            yield key, message, "give sampler.resample_every"


def _of_lagrangian(case: Case, spec: schema.Lagrangian, names) -> Iterator[Complaint]:
    spatial = case.space
    for name, text in spec.velocity.items():
        key: Key = ("network", "velocity", name)
        if name not in spatial:
            yield key, "there is no such coordinate", did_you_mean(name, spatial)
        for read in sorted(text.names - set(names)):
            yield key, f"{read!r} is not known here", did_you_mean(read, names)


def _of_series(case: Case, spec: schema.FourierSeries) -> Iterator[Complaint]:
    if isinstance(spec.modes, dict):
        for name in set(spec.modes) - set(case.coordinates):
            message = "there is no such coordinate"
            yield ("network", "modes", name), message, did_you_mean(name, list(case.coordinates))
    if spec.preconditioned and len(case.unknowns) > 1:
        message = "is known for one unknown alone"
        yield ("network", "preconditioned"), message, "say preconditioned: false"
    for name, condition in case.conditions.items():
        if condition.type == "periodic" and condition.hard:
            message = "a Fourier series is periodic, and needs the coordinate itself"
            yield ("conditions", name), message, "leave the condition out"


def _of_grid(case: Case) -> Iterator[Complaint]:
    key, coordinates = ("evaluate", "grid"), list(case.coordinates)
    for name in [n for n in case.evaluate.grid if n not in coordinates]:
        yield (*key, name), "there is no such coordinate", did_you_mean(name, coordinates)
    if not case.evaluate.points and set(coordinates) - set(case.evaluate.grid):
        shown = coordinates if len(coordinates) <= 8 else [*coordinates[:8], "..."]
        message = f"must name each coordinate once: {', '.join(shown)}"
        hint = "or give evaluate.points, and the grid is only what is drawn"
        yield key, message, hint
    size = math.prod(case.evaluate.grid.values())
    if size > MAX_GRID:
        yield key, f"has {size:.3g} points; {MAX_GRID:.0e} are allowed", "name fewer coordinates"


def _components(case: Case, name: str) -> tuple[str, ...]:
    return components(name, case.vectors[name]) if name in case.vectors else (name,)


def _of_optimizers(case: Case) -> Iterator[Complaint]:
    key, (*before, last) = ("train", "optimizer"), case.train.optimizers
    if any(o.steps is None for o in before):
        message = "each optimizer of a list but the last needs its steps"
        yield key, message, "for example {type: adam, steps: 500}"
    if last.steps is not None:
        message = "the last optimizer, or the only one, takes what train.steps leaves it"
        yield key, message, "leave its steps out"


def _of_aggregator(case: Case) -> Iterator[Complaint]:
    key, optimizers = ("train", "aggregator"), case.train.optimizers
    if case.train.aggregator is None:
        return
    if others := [o.type for o in optimizers if not isinstance(o, schema.Optax)]:
        message = (
            f"makes one gradient of several, and the optimizer {others[0]} does not descend "
            "along a gradient"
        )
        yield key, message, "take a first-order optimizer, such as adam, or leave it out"
    elif isinstance(case.train.aggregator, schema.MConFIG) and {o.type for o in optimizers} != {
        "sgd"
    }:
        message = "scales its steps as Adam does, and is an optimizer itself"
        yield key, message, "take the optimizer sgd, with the learning rate that Adam would have"
    if len(case.equations) + sum(not c.hard for c in case.conditions.values()) + len(case.data) < 2:
        message = "has one residual block alone, and needs several gradients"
        yield key, message, "make a condition soft, or leave it out"


def _numbers(case: Case) -> list[str]:
    """The parameters that are no coordinates."""
    return [name for name in case.parameters if name not in case.family]


def _coordinates(case: Case) -> list[str]:
    """All coordinates and the vectors of some of them."""
    return [*case.coordinates, *case.vectors]


def _unknown_names(
    key: Key, text: Expression, case: Case, names: list[str], derivatives: bool
) -> Iterator[Complaint]:
    unknowns, coordinates = list(case.unknowns), list(case.coordinates)
    if message := text.misuse_of_vectors(case.vectors):
        yield key, message, ""
    for name in sorted(text.names - set(names)):
        if name.startswith(LAPLACIAN + "("):
            if laplacian_of(name, unknowns) is None:
                yield (
                    key,
                    f"{name} is of no unknown",
                    did_you_mean(name[len(LAPLACIAN) + 1 : -1], unknowns),
                )
            elif not derivatives:
                yield key, f"{name} is a derivative, which cannot stand here", ""
            continue
        split = split_derivative(name, unknowns, coordinates)
        if split is None:
            yield key, f"{name!r} is not known here", did_you_mean(name, names)
        elif not derivatives:
            yield key, f"{name!r} is a derivative, which cannot stand here", ""
        elif by := sorted(set(split[1]) & set(case.family)):
            yield key, f"{name!r} is a derivative by {by[0]!r}, which is a parameter", ""
        elif len(split[1]) > 8:
            yield key, f"{name!r} is a derivative of an order above 8", ""
    if not derivatives:
        for name in sorted(text.names & set(unknowns)):
            yield key, f"{name!r} is an unknown, which cannot stand here", ""


def _of_condition(case: Case, name: str, condition: Any, names) -> Iterator[Complaint]:
    key: Key = ("conditions", name)
    coordinates, unknowns = _coordinates(case), list(case.unknowns)
    stated = {"values": getattr(condition, "values", {}), "rates": getattr(condition, "rates", {})}
    for part, values in stated.items():
        for unknown, text in values.items():
            if unknown not in unknowns:
                hint = did_you_mean(unknown, unknowns)
                yield (*key, part, unknown), "there is no such unknown", hint
            yield from _unknown_names((*key, part, unknown), text, case, names, derivatives=False)
    if isinstance(condition, schema.RobinCondition):
        text = condition.coefficient
        yield from _unknown_names((*key, "coefficient"), text, case, names, derivatives=False)
    for coordinate, positions in getattr(condition, "at", {}).items():
        if on_shape(case, coordinate):
            continue
        if coordinate not in coordinates:
            hint = did_you_mean(coordinate, coordinates)
            yield (*key, "at", coordinate), "there is no such coordinate", hint
            continue
        if coordinate in case.family:
            yield (*key, "at", coordinate), "is a parameter, and has no boundary", ""
            continue
        faces = case.coordinates[_components(case, coordinate)[0]]
        for position in positions if isinstance(positions, tuple) else (positions,):
            if position not in faces:
                said = position if isinstance(position, str) else f"{position:g}"
                message = f"{said} is no face of the domain"
                yield (
                    (*key, "at", coordinate),
                    message,
                    f"faces are at {faces[0]:g} and {faces[1]:g}",
                )
    if isinstance(condition, schema.InitialCondition) and "t" not in case.coordinates:
        yield key, "an initial condition needs the coordinate t", ""
    places = {name: ends for name, ends in case.coordinates.items() if name not in case.family}
    if isinstance(condition, schema.PeriodicCondition) and condition.over not in places:
        yield (
            (*key, "over"),
            "there is no such coordinate",
            did_you_mean(condition.over, list(places)),
        )


def _on_one_face(case: Case) -> Iterator[Complaint]:
    """Hard conditions that prescribe the same thing on the same face."""
    first: dict[tuple, str] = {}
    for name, condition in case.conditions.items():
        if not condition.hard:
            continue
        if isinstance(condition, schema.InitialCondition):
            places = [("t", "lower", 0, unknown) for unknown in condition.values]
            places += [("t", "lower", 1, unknown) for unknown in condition.rates]
        elif isinstance(condition, schema.PeriodicCondition):
            places = [
                (condition.over, side, 0, u) for side in ("lower", "upper") for u in case.unknowns
            ]
        else:
            order = int(isinstance(condition, schema.NeumannCondition))
            places = [
                (
                    coordinate,
                    "upper" if position == case.coordinates[coordinate][1] else "lower",
                    order,
                    u,
                )
                for named, positions in condition.at.items()
                if not on_shape(case, named)
                for coordinate in _components(case, named)
                if coordinate in case.coordinates
                for position in (positions if isinstance(positions, tuple) else (positions,))
                for u in condition.values
            ]
        for place in places:
            if place in first:
                message = f"states the same as the hard condition {first[place]!r}, for {place[3]}"
                yield ("conditions", name), message, ""
                break
            first[place] = name


def _of_reference(case: Case) -> Iterator[Complaint]:
    spec = case.reference
    unknowns = list(case.unknowns)
    names = [*_coordinates(case), *unknowns, *_numbers(case)]
    if case.evaluate.points and not isinstance(spec, schema.ExactReference | None):
        message = f"{spec.type} is known on grids alone, and cannot judge random points"
        yield ("evaluate", "points"), message, "leave it out, or give an exact reference"
    if isinstance(spec, schema.FileReference):
        for unknown in set(spec.unknowns or ()) - set(unknowns):
            hint = did_you_mean(unknown, unknowns)
            yield ("reference", "unknowns"), f"there is no unknown {unknown!r}", hint
    elif isinstance(spec, schema.ExactReference):
        for unknown, text in spec.values.items():
            key: Key = ("reference", "values", unknown)
            if unknown not in unknowns:
                yield key, "there is no such unknown", did_you_mean(unknown, unknowns)
            yield from _unknown_names(key, text, case, names, derivatives=False)
    elif isinstance(
        spec,
        schema.ColeHopfReference
        | schema.ETDRK4Reference
        | schema.KuramotoSivashinskyReference
        | schema.SchrodingerReference,
    ):
        of, end, start = {
            "cole_hopf": ("burgers", 1.0, {"u": "-sin(pi*x)"}),
            "etdrk4": ("allen_cahn", 1.0, {"u": "x^2*cos(pi*x)"}),
            "kuramoto_sivashinsky": ("kuramoto_sivashinsky", 1.0, {"u": "-sin(pi*x)"}),
            "schrodinger": ("schrodinger", 5.0, {"u": "2/cosh(x)", "v": "0"}),
        }[spec.type]
        known = schema.EQUATIONS[of]
        formulas = {name: Expression(text) for name, text in known["equations"].items()}
        starts = [
            {n: e.text.replace(" ", "").replace("**", "^") for n, e in c.values.items()}
            for c in case.conditions.values()
            if isinstance(c, schema.InitialCondition)
        ]
        same = (
            dict(case.equations) == formulas
            and case.coordinates.get("x") == (-end, end)
            and case.coordinates.get("t", (None,))[0] == 0.0
            and starts == [start]
        )
        if not same:
            message = (
                f"{spec.type} is the solution of 'equation: {of}' for x in [{-end:g}, {end:g}] "
                f"from t = 0, {', '.join(f'{n} = {text}' for n, text in start.items())}, and this "
                "case is another"
            )
            yield ("reference", "type"), message, ""
