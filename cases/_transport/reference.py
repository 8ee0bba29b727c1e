"""The unregularised optimum by others: sorting on a line, SciPy's assignment, HiGHS' simplex."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._measures import atoms
from .._measures.schema import Atoms, Colours, Generator
from .schema import Case, CostModel, GroundCost

Numbers = NDArray[np.float64]

# Entries of the cost up to which the general programme is given to HiGHS: seconds, not minutes.
MAX_ENTRIES = 60_000
MAX_ASSIGNMENT = 5000


def optimum_by(case: Case, cost: CostModel, dimensions: int) -> str | None:
    """How the optimum is found: `sorting`, `assignment` or `HiGHS`; None where it is not."""
    n, m = case.shape()
    if isinstance(cost, GroundCost) and dimensions == 1:
        return "sorting"
    uniform = all(
        isinstance(spec, Generator | Atoms | Colours) or len(set(atoms.read(spec).weights)) == 1
        for spec in (case.source, case.target)
    )
    if uniform and n == m <= MAX_ASSIGNMENT:
        return "assignment"
    return "HiGHS" if n * m <= MAX_ENTRIES else None


def assignment(cost: Numbers, a: Numbers, b: Numbers) -> float:
    """Of as many atoms on either side, all of one mass."""
    from scipy.optimize import linear_sum_assignment

    return float(cost[linear_sum_assignment(cost)].mean() * a.sum())


def highs(cost: Numbers, a: Numbers, b: Numbers) -> float:
    """The linear programme of any small problem; NaN where HiGHS gives up."""
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    n, m = cost.shape
    rows = kron(eye_array(n), np.ones((1, m)))
    columns = kron(np.ones((1, n)), eye_array(m))
    # HiGHS has absolute tolerances.
    scale, mass = np.abs(cost).max() or 1.0, a.sum()
    # The last marginal follows from the others.
    found = linprog(
        cost.ravel() / scale,
        A_eq=vstack([rows, columns]).tocsr()[:-1],
        b_eq=np.concatenate([a, b])[:-1] / mass,
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return float(found.fun * scale * mass) if found.fun is not None else float("nan")


SOLVERS: dict[str, Callable[..., Any]] = {"assignment": assignment, "HiGHS": highs}
