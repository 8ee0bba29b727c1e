"""What is wrong between the parts of a simulation that are valid each."""

from collections.abc import Iterator

from .._explain import did_you_mean
from .._expression import CONSTANTS, Expression
from .._model import Complaint, Key
from .schema import AbstractMarch, Burgers, Case, ColeHopf, Exact, Vorticity


def contradictions(case: Case) -> Iterator[Complaint]:
    """Between coordinates, expressions, times and reference."""
    yield from of_march(case)
    if isinstance(case.reference, Exact):
        known = [*case.domain, *case.parameters, "t"]
        yield from of_values(case, ("reference", "values"), case.reference.values, known)
    if isinstance(case.reference, ColeHopf) and not isinstance(case.equation, Burgers):
        yield ("reference", "type"), "is of Burgers' equation alone", "take refined"


def of_march(case: AbstractMarch) -> Iterator[Complaint]:
    """What every case that marches is asked."""
    coordinates, equation = list(case.domain), case.equation
    for name in coordinates:
        lower, upper = case.domain[name]
        if lower >= upper:
            yield ("domain", name), f"the interval [{lower}, {upper}] is empty", ""
        if name == "t":
            yield ("domain", name), "is time, which `time` has", "leave it out"
        if name not in case.points:
            yield ("points",), f"needs a number of points along {name}", f"such as {name}: 64"
    for name in set(case.points) - set(coordinates):
        yield ("points", name), "there is no such coordinate", did_you_mean(name, coordinates)
    for name in case.parameters:
        if name in (*coordinates, *CONSTANTS, "t"):
            yield ("parameters", name), "is taken by a coordinate or a constant", "rename it"
    if len(coordinates) not in equation.DIMENSIONS:
        allowed = " or ".join(map(str, equation.DIMENSIONS))
        message = f"{equation.type} is for {allowed} coordinates, not {len(coordinates)}"
        yield ("domain",), message, ""
        return
    if case.time.steps % case.time.frames:
        message = f"must divide the {case.time.steps} steps"
        yield ("time", "frames"), message, "such as 1, which keeps the last alone"
    known = [*coordinates, *case.parameters]
    yield from of_values(case, ("initial",), case.initial, known)
    if isinstance(equation, Vorticity) and equation.force is not None:
        yield from _names(("equation", "force"), equation.force, known)


def of_values(
    case: AbstractMarch, key: Key, values: dict[str, Expression], known: list[str]
) -> Iterator[Complaint]:
    """What is wrong with expressions of fields."""
    for name, text in values.items():
        yield from _names((*key, name), text, known)
        if name not in case.fields:
            message = f"the fields are {', '.join(case.fields)}"
            yield (*key, name), message, did_you_mean(name, list(case.fields))


def _names(key: Key, text: Expression, known: list[str]) -> Iterator[Complaint]:
    if message := text.misuse_of_vectors({}):
        yield key, message, ""
    for name in sorted(text.names - set(known)):
        hint = did_you_mean(name, known)
        yield key, f"{name!r} is not known here", hint or f"known are {', '.join(known)}"
