"""What is wrong between the parts of a relaxation case that are valid each."""

from collections.abc import Iterator, Mapping

from .._explain import did_you_mean
from .._expression import CONSTANTS, Expression
from .._model import Complaint, Key
from .schema import CG, AdvectionDiffusion, Case, Exact, Hindsight, Multigrid, NavierStokes


def contradictions(case: Case) -> Iterator[Complaint]:
    """Between coordinates, expressions, solver, tuner and reference."""
    coordinates, problem = list(case.domain), case.problem
    yield from of_domain(case.domain, case.cells)
    if "t" in coordinates:
        yield ("domain", "t"), "is time, which `time` has", "leave it out"
    for name in case.parameters:
        if name in (*coordinates, *CONSTANTS, "t"):
            yield ("parameters", name), "is taken by a coordinate or a constant", "rename it"
    if len(coordinates) not in problem.DIMENSIONS:
        allowed = " or ".join(map(str, problem.DIMENSIONS))
        message = f"{problem.type} is for {allowed} coordinates, not {len(coordinates)}"
        yield ("domain",), message, ""
        return
    yield from _of_expressions(case)
    yield from _of_solver(case)
    if isinstance(case.reference, Hindsight) and not case.hindsight:
        yield ("reference", "type"), "needs `hindsight: true`", ""


def of_domain(
    domain: Mapping[str, tuple[float, float]], cells: Mapping[str, int]
) -> Iterator[Complaint]:
    """Of a box and its mesh."""
    for name, (lower, upper) in domain.items():
        if lower >= upper:
            yield ("domain", name), f"the interval [{lower}, {upper}] is empty", ""
        if name not in cells:
            yield ("cells",), f"needs a number of cells along {name}", f"such as {name}: 32"
    for name in set(cells) - set(domain):
        yield ("cells", name), "there is no such coordinate", did_you_mean(name, list(domain))


def _of_expressions(case: Case) -> Iterator[Complaint]:
    problem, coordinates = case.problem, list(case.domain)
    if isinstance(problem, AdvectionDiffusion):
        for name in set(problem.velocity) ^ set(coordinates):
            message = f"needs a component for each of {', '.join(coordinates)}, and no other"
            yield ("problem", "velocity"), message, f"{name} is the odd one"
    if isinstance(problem, NavierStokes):
        yield from names(("problem", "viscosity"), problem.viscosity, list(case.parameters))
        if not problem.viscosity.names - set(case.parameters):
            value = problem.viscosity(case.parameters)
            if not value >= 0:
                yield ("problem", "viscosity"), f"is {value:g}, and must not be negative", ""
    known = [*coordinates, *case.parameters]
    for key, (text, timed) in problem.formulas().items():
        yield from names(("problem", *key), text, [*known, "t"] if timed else known)
    if isinstance(case.reference, Exact):
        for name, text in case.reference.values.items():
            key = ("reference", "values", name)
            yield from names(key, text, [*known, "t"])
            if name not in problem.FIELDS:
                fields = list(problem.FIELDS)
                yield key, f"the fields are {', '.join(fields)}", did_you_mean(name, fields)


def names(key: Key, text: Expression, known: list[str]) -> Iterator[Complaint]:
    """Of a scalar expression in which only `known` names may stand."""
    if message := text.misuse_of_vectors({}):
        yield key, message, ""
    for name in sorted(text.names - set(known)):
        hint = did_you_mean(name, known)
        yield key, f"{name!r} is not known here", hint or f"known are {', '.join(known)}"


def _of_solver(case: Case) -> Iterator[Complaint]:
    problem, solver = case.problem, case.solver
    by_multigrid = isinstance(solver, Multigrid) or (
        isinstance(solver, CG) and solver.preconditioner.type == "multigrid"
    )
    if isinstance(problem, AdvectionDiffusion) and (by_multigrid or isinstance(solver, CG)):
        yield ("solver", "type"), "is for symmetric systems, and advection's are not", "take sor"
    elif isinstance(problem, NavierStokes) and by_multigrid:
        key = ("solver", "type") if isinstance(solver, Multigrid) else ("solver", "preconditioner")
        message = "multigrid needs values on the walls, and pressure has slopes there"
        yield key, message, "take sor, or cg with ssor"
    if case.tuner.contexts is not None and isinstance(problem, NavierStokes):
        key = ("tuner", "contexts")
        yield key, "the pressure's systems are all alike, and have no context", "leave them out"
