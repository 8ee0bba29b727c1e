"""What is wrong between the parts of a transport case that are valid each."""

from collections.abc import Iterator

import numpy as np

from .._measures import atoms
from .._measures.schema import READ, Atoms
from .._model import Complaint
from .costs import cost_matrix
from .schema import (
    ByComparison,
    Case,
    CostFile,
    Entropic,
    GroundCost,
    MirrorSinkhorn,
    Optimum,
    Proximal,
)

# The relative difference of masses that rounding explains.
SLACK = 1e-6


def contradictions(case: Case) -> Iterator[Complaint]:
    """Between measures, costs, solver and reference."""
    solver, entropic = case.solver, not isinstance(case.solver, Proximal | MirrorSinkhorn)
    if entropic and case.epsilon is None:
        yield ("epsilon",), f"is required by {solver.type}", "such as 1e-2, in units of the cost"
    if not entropic and case.epsilon is not None:
        yield ("epsilon",), f"{solver.type} has none", "leave it out"
    if case.compare is not None and case.epsilon is None:
        yield ("compare",), "Sinkhorn needs an epsilon, and the case has none", "leave it out"
    for key, cost in case.costs.items():
        placed = [not isinstance(part, Atoms) for part in (case.source, case.target)]
        if isinstance(cost, GroundCost) and not all(placed):
            hint = "take cost: {type: random}, or points for both"
            yield (*key, "type"), "needs positions, and atoms have none", hint
        online = isinstance(cost, GroundCost) and cost.batch_size is not None
        if online and solver.type != "sinkhorn_newton_sparse":
            hint = "take sinkhorn_newton_sparse, or no batch_size"
            yield (*key, "batch_size"), f"{solver.type} has no online mode here", hint
        if online and case.compare is not None:
            yield ("compare",), "Sinkhorn has no online mode here", "leave it out"
    if isinstance(case.reference, ByComparison) and case.compare is None:
        yield ("reference", "type"), "needs `compare`", "compare: {type: sinkhorn}"
    mirror = case.solver if isinstance(case.solver, MirrorSinkhorn) else None
    if isinstance(case.reference, Entropic) and (
        mirror is None or mirror.objective.entropy == 0 or mirror.objective.squared_norm > 0
    ):
        message = "is the optimum of mirror_sinkhorn with an entropy and no other penalty"
        yield ("reference", "type"), message, "take {type: optimum}, or none"
    if isinstance(case.reference, Optimum) and mirror is not None and mirror.objective.penalised:
        yield ("reference", "type"), "the objective has a penalty, the optimum has none", ""


def contradictions_of_files(case: Case) -> Iterator[Complaint]:
    """Of what the files hold; then of what both measures are together."""
    found = {}
    for name, spec in (("source", case.source), ("target", case.target)):
        if not isinstance(spec, READ):
            continue
        key = (name, "file") if spec.file is not None else (name, "values")
        try:
            found[name] = atoms.read(spec)
        except ValueError as e:
            message, _, hint = str(e).partition("; ")
            yield key, message, hint
            return
    masses = [float(found[n].weights.sum()) if n in found else 1.0 for n in ("source", "target")]
    if not np.isclose(*masses, rtol=SLACK, atol=0):
        message = f"has mass {masses[1]:.6g}, and the source {masses[0]:.6g}"
        yield ("target",), message, "set normalise: true where the mass is not 1"
        return
    sizes = [
        found[n].points.shape[1] if n in found else getattr(spec, "dimensions", 2)
        for n, spec in (("source", case.source), ("target", case.target))
    ]
    for key, cost in case.costs.items():
        if isinstance(cost, GroundCost) and sizes[0] != sizes[1]:
            message = f"source points have {sizes[0]} coordinates, target points {sizes[1]}"
            yield ("target",), message, "both must lie in one space"
            return
        if isinstance(cost, CostFile):
            try:
                cost_matrix(cost, case.shape())
            except ValueError as e:
                message, _, hint = str(e).partition("; ")
                yield (*key, "file"), message, hint
    yield from _of_the_reference(case, sizes[0])


def _of_the_reference(case: Case, dimensions: int) -> Iterator[Complaint]:
    if not isinstance(case.reference, Optimum):
        return
    from .reference import optimum_by

    for cost in case.costs.values():
        if optimum_by(case, cost, dimensions) is None:
            n, m = case.shape()
            message = f"the exact optimum of {n} x {m} atoms is too large for HiGHS"
            yield ("reference", "type"), message, "take {type: sinkhorn}, or as many atoms"
            return
