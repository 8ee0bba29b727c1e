"""What is wrong between the parts of a simulation that are valid each."""

from collections.abc import Iterator

from .._box import of_dimensions, of_fields, of_formula, of_mesh, of_names
from .._model import Complaint
from .schema import AbstractMarch, Burgers, Case, ColeHopf, Exact, Vorticity


def contradictions(case: Case) -> Iterator[Complaint]:
    """Between coordinates, expressions, times and reference."""
    yield from of_march(case)
    if isinstance(case.reference, Exact):
        known = [*case.domain, *case.parameters, "t"]
        yield from of_fields(("reference", "values"), case.reference.values, known, case.fields)
    if isinstance(case.reference, ColeHopf) and not isinstance(case.equation, Burgers):
        yield ("reference", "type"), "is of Burgers' equation alone", "take refined"


def of_march(case: AbstractMarch) -> Iterator[Complaint]:
    """What every case that marches is asked."""
    yield from of_mesh(case.domain, case.points, "points")
    yield from of_names(case.domain, case.parameters)
    wrong = list(of_dimensions(case.domain, case.equation))
    yield from wrong
    if wrong:
        return
    if case.time.steps % case.time.frames:
        message = f"must divide the {case.time.steps} steps"
        yield ("time", "frames"), message, "such as 1, which keeps the last alone"
    known = [*case.domain, *case.parameters]
    yield from of_fields(("initial",), case.initial, known, case.fields)
    if isinstance(case.equation, Vorticity) and case.equation.force is not None:
        yield from of_formula(("equation", "force"), case.equation.force, known)
