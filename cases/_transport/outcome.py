"""What a solved transport case is: numbers for the summary, rows of history, arrays to draw."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._engine import COMPLETED, DIVERGED, STOPPED
from .._measures.atoms import Atomic, pixels
from .._measures.schema import Colours
from . import schema
from .problem import Looks, Problem, entropic_map, look

Arrays = dict[str, Any]

# Rows of the history: of tens of thousands of sweeps so many are looked at.
ROWS = 300
# For maps without a regularisation: as good as the nearest.
SHARP = 1e-6


class Outcome(NamedTuple):
    """Of one cost: what is said of it, and what is drawn."""

    summary: dict[str, Any]
    arrays: Arrays


def outcome(case: schema.Case, problem: Problem, stages: dict[str, Arrays]) -> Outcome:
    """Of the stages of one cost."""
    solved, seen = stages["solver"], _look(case, problem, stages["solver"])
    a, b = np.asarray(problem.a, float), np.asarray(problem.b, float)
    error = (np.abs(seen.rows - a).sum() + np.abs(seen.columns - b).sum()) / a.sum()
    said: dict[str, Any] = {
        "atoms": f"{len(a)} x {len(b)}",
        "cost_scale": problem.scale,
        "transport_cost": seen.cost,
        "marginal_error": float(error),
        "iterations": iterations_of(solved),
        "seconds": float(solved["seconds"]),
        "converged": bool(solved["converged"]),
    }  # fmt: skip
    if "newton" in solved:
        said["newton_steps"] = int(solved["newton"].sum())
    for name, key in (("regularised", "regularised_cost"), ("gap", "duality_gap"),
                      ("objective", "objective")):  # fmt: skip
        if name in solved:
            said[key] = float(solved[name])
    if "reference" in stages:
        optimum = float(stages["reference"]["optimum"])
        value = said.get("objective", seen.cost)
        said |= {"optimum": optimum, "optimum_by": str(stages["reference"]["by"])}
        said["excess"] = _relative(value, optimum)
    if "sinkhorn" in stages:
        other = stages["sinkhorn"]
        said |= {
            "sinkhorn.regularised_cost": float(other["regularised"]),
            "sinkhorn.marginal_error": float(other["errors"][-1]),
            "sinkhorn.iterations": int(other["iterations"][-1]),
            "sinkhorn.seconds": float(other["seconds"]),
            "sinkhorn.converged": bool(other["converged"]),
        }
    return Outcome(said, _drawn(problem, stages, seen))


def _relative(value: float, exact: float) -> float:
    return abs(value - exact) / (abs(exact) or 1.0)


def _look(case: schema.Case, problem: Problem, solved: Arrays) -> Looks:
    """At the solver's plan, whole or made of its potentials."""
    if "matrix" in solved:
        return look(problem, lambda rows, cost: solved["matrix"][rows])
    f, g = jnp.asarray(solved["f"]), jnp.asarray(solved["g"])
    return look(problem, lambda rows, cost: jnp.exp((f[rows, None] + g - cost) / case.epsilon))


def _drawn(problem: Problem, stages: dict[str, Arrays], seen: Looks) -> Arrays:
    names = ("f", "g", "errors", "epsilons", "newton", "gaps", "objectives", "iterations")
    arrays = {name: stages["solver"][name] for name in names if name in stages["solver"]}
    arrays |= {"forward": seen.forward, "back": seen.back}
    if seen.matrix is not None:
        arrays["plan"] = seen.matrix
        if problem.cost_fn is None:
            # A plan between atoms of no position is judged by the costs that it pays.
            assert problem.matrix is not None
            cost = np.asarray(problem.matrix, float).ravel()
            edges = np.geomspace(max(cost.min(), 1e-6 * cost.max()), cost.max(), 61)
            arrays["cost_edges"] = edges
            arrays["cost_offered"] = np.histogram(cost, edges)[0] / cost.size
            arrays["cost_paid"] = np.histogram(cost, edges, weights=seen.matrix.ravel())[0]
    if "sinkhorn" in stages:
        arrays["sinkhorn_errors"] = stages["sinkhorn"]["errors"]
        arrays["sinkhorn_iterations"] = stages["sinkhorn"]["iterations"]
    if "reference" in stages:
        arrays["optimum"] = stages["reference"]["optimum"]
    return arrays


def shared_arrays(source: Atomic, target: Atomic) -> Arrays:
    """Points, weights and grids of both measures."""
    named = {"source": source, "target": target}
    return {
        f"{name}.{part}": np.asarray(value)
        for name, measure in named.items()
        for part, value in measure._asdict().items()
    }


def recoloured(case: schema.Case, problem: Problem, solved: Arrays) -> Arrays:
    """Pictures of `colours`, each also in those of the other, as bytes (height, width, 3)."""
    made, epsilon = {}, case.epsilon or SHARP
    back = problem._replace(x=problem.y, y=problem.x, a=problem.b, b=problem.a)
    for name, spec, posed, potential in (
        ("source", case.source, problem, "g"), ("target", case.target, back, "f"),
    ):  # fmt: skip
        if not isinstance(spec, Colours):
            continue
        made[name] = picture = pixels(spec.file)
        if potential in solved and problem.cost_fn is not None:
            flat = jnp.asarray(picture.reshape(-1, 3), problem.x.dtype)
            sent = entropic_map(posed, jnp.asarray(solved[potential]), epsilon, flat)
            made[f"{name}_recoloured"] = sent.reshape(picture.shape)
    return {name: np.round(255 * np.clip(p, 0, 1)).astype(np.uint8) for name, p in made.items()}


def iterations_of(solved: Arrays) -> int:
    """How many were made."""
    return int(solved["iterations"][-1]) if "iterations" in solved else len(solved["errors"])


def summary(case: schema.Case, found: dict[str, Outcome]) -> dict[str, Any]:
    """Flat keys, those of each cost below its name; the status is the worst of all."""
    said: dict[str, Any] = {
        "residual": max(part.summary["marginal_error"] for part in found.values()),
        "tolerance": case.reference.tolerance if case.reference else None,
    }
    parts = [part.summary for part in found.values()]
    if not all(
        np.isfinite([part["transport_cost"], part["marginal_error"]]).all() for part in parts
    ):
        said["status"] = DIVERGED
        said["advice"] = "Try a larger epsilon, or a solver without momentum."
    elif not all(part["converged"] for part in parts):
        said["status"] = STOPPED
        said["advice"] = (
            "The solver ended above its threshold: raise solver.max_iterations, solver.threshold "
            "or epsilon."
        )
    else:
        said["status"] = COMPLETED
    for label, part in found.items():
        if (error := _judged(case, part.summary)) is not None:
            said[f"error.{label}.relative"] = error
    if case.epsilon is not None:
        said["epsilon"] = case.epsilon
    for label, part in found.items():
        said |= {f"{label}.{name}": value for name, value in part.summary.items()}
    return said


def _judged(case: schema.Case, said: dict[str, Any]) -> float | None:
    """The error that the case's tolerance is about; without a reference there is none."""
    match case.reference:
        case None:
            return None
        case schema.ByComparison():
            return _relative(said["regularised_cost"], said["sinkhorn.regularised_cost"])
        case _:
            return said["excess"]


def history(
    case: schema.Case, stages: dict[str, dict[str, Arrays]], found: dict[str, Outcome]
) -> Iterator[dict[str, Any]]:
    """A row for each iteration at which some error is known, with the errors of all that have."""
    rows: dict[int, dict[str, Any]] = {}

    def put(step: int, key: str, name: str, value: float) -> None:
        row = rows.setdefault(step, {"step": step, "residual": {}, "error": {}})
        row[key][name] = float(value)

    for label, part in stages.items():
        solved = part["solver"]
        steps = solved.get("iterations", np.arange(1, len(solved["errors"]) + 1))
        for i in _some(len(steps)):
            put(int(steps[i]), "residual", label, solved["errors"][i])
            if "objectives" in solved and "reference" in part:
                excess = _relative(solved["objectives"][i], float(part["reference"]["optimum"]))
                put(int(steps[i]), "error", label, excess)
        if "sinkhorn" in part:
            other = part["sinkhorn"]
            for i in _some(len(other["iterations"])):
                step, error = int(other["iterations"][i]), other["errors"][i]
                put(step, "residual", f"{label} by Sinkhorn", error)
    yield from (rows[step] for step in sorted(rows))


def _some(count: int) -> list[int]:
    """All indices, or `ROWS` of them that lie denser at the start."""
    if count <= ROWS:
        return list(range(count))
    return sorted({round(i) - 1 for i in np.geomspace(1, count, ROWS)})
