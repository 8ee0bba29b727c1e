"""What is wrong between the parts of a control case that are valid each."""

from collections.abc import Iterator

from .._box import of_fields
from .._model import Complaint
from .._simulate.checks import of_march
from .._simulate.schema import ShallowWater, Wave
from .schema import Case, Force, Initial, Observations, Target


def contradictions(case: Case) -> Iterator[Complaint]:
    """Between the simulation, what is sought, and what is to be matched."""
    yield from of_march(case)
    known = [*case.domain, *case.parameters]
    if isinstance(case.seek, Initial):
        yield from of_fields(("seek", "guess"), case.seek.guess, known, case.fields)
    if isinstance(case.match, Target):
        yield from of_fields(("match", "values"), case.match.values, known, case.fields)
        if isinstance(case.seek, Initial):
            yield ("match", "type"), "leaves nothing to judge the first state by", "take force"
    elif isinstance(case.seek, Force):
        yield ("match", "type"), "show what the case does without a force", "take target"
    if isinstance(case.match, Observations) and case.match.after >= case.time.frames:
        yield ("match", "after"), f"must be below the {case.time.frames} frames", ""
    if isinstance(case.seek, Force) and isinstance(case.equation, ShallowWater | Wave):
        yield ("seek", "type"), f"cannot act on {case.equation.type}", "take another equation"
