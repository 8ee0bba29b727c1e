"""What is wrong between the parts of a relaxation case that are valid each."""

import math
from collections.abc import Iterator

from .._box import of_dimensions, of_fields, of_formula, of_mesh, of_names
from .._model import Complaint
from .schema import (
    CG,
    AdvectionDiffusion,
    Case,
    ChebCB,
    Constant,
    Exact,
    Hindsight,
    Multigrid,
    NavierStokes,
)

# Unknowns of the coarsest grid, which are solved for by a matrix.
COARSEST = 2048


def contradictions(case: Case) -> Iterator[Complaint]:
    """Between coordinates, expressions, solver, tuner and reference."""
    yield from of_mesh(case.domain, case.cells, "cells")
    yield from of_names(case.domain, case.parameters)
    wrong = list(of_dimensions(case.domain, case.problem))
    yield from wrong
    if wrong:
        return
    yield from _of_expressions(case)
    yield from _of_solver(case)
    if isinstance(case.reference, Hindsight) and not case.hindsight:
        yield ("reference", "type"), "needs `hindsight: true`", ""


def _of_expressions(case: Case) -> Iterator[Complaint]:
    problem, coordinates = case.problem, list(case.domain)
    if isinstance(problem, AdvectionDiffusion):
        for name in set(problem.velocity) ^ set(coordinates):
            message = f"needs a component for each of {', '.join(coordinates)}, and no other"
            yield ("problem", "velocity"), message, f"{name} is the odd one"
    if isinstance(problem, NavierStokes):
        yield from of_formula(("problem", "viscosity"), problem.viscosity, list(case.parameters))
        if not problem.viscosity.names - set(case.parameters):
            value = problem.viscosity(case.parameters)
            if not value >= 0:
                yield ("problem", "viscosity"), f"is {value:g}, and must not be negative", ""
    known = [*coordinates, *case.parameters]
    for key, (text, timed) in problem.formulas().items():
        yield from of_formula(("problem", *key), text, [*known, "t"] if timed else known)
    if isinstance(case.reference, Exact):
        values, key = case.reference.values, ("reference", "values")
        yield from of_fields(key, values, [*known, "t"], problem.FIELDS)


def _of_solver(case: Case) -> Iterator[Complaint]:
    problem, solver = case.problem, case.solver
    by_multigrid = isinstance(solver, Multigrid) or (
        isinstance(solver, CG) and solver.preconditioner.type == "multigrid"
    )
    if isinstance(problem, AdvectionDiffusion) and (by_multigrid or isinstance(solver, CG)):
        yield ("solver", "type"), "is for symmetric systems, and advection's are not", "take sor"
    elif isinstance(problem, NavierStokes) and by_multigrid:
        sizes = list(case.cells.values())
        while all(n % 2 == 0 for n in sizes):
            sizes = [n // 2 for n in sizes]
        if sizes == list(case.cells.values()) or math.prod(sizes) > COARSEST:
            message = "cannot be halved often enough for a multigrid of pressure"
            yield ("cells",), message, "take powers of two, or such as 48"
    if isinstance(case.tuner, Constant) and case.tuner.choice >= case.omega.count:
        yield ("tuner", "choice"), f"there are {case.omega.count} values, from 0", ""
    contextual = isinstance(case.tuner, ChebCB)
    contextual = contextual or getattr(case.tuner, "contexts", None) is not None
    if contextual and isinstance(problem, NavierStokes):
        key = ("tuner", "type") if isinstance(case.tuner, ChebCB) else ("tuner", "contexts")
        yield key, "the pressure's systems are all alike, and have no context", "leave them out"
