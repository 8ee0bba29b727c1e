"""Many small problems at once: from which batch on does `vmap` win against a loop of the simplex?

    python benchmarks/transport_batch.py [n ...]

Random assignment and weighted clouds in the plane (the problems of the tests, a seed each) in
float64, to a relative cost gap of 1e-3 of the rounded plan, the worst of the batch; milliseconds a
problem, the median of three after a run that compiles. Ours: `jax.vmap` of
`ProximalSinkhornNewton`, which stops at its own duality gap, and of `SinkhornNewtonSparse`, and
`jax.lax.map` of the latter; ott's Sinkhorn under `jax.vmap`; the entropic solvers at the largest
epsilon, of a half each, whose optimum is that close, to a marginal error of 1e-4. The peer to beat:
a loop of POT's simplex `ot.emd`, exact. (POT 0.9.7's `ot.batch.solve_batch` without `reg` is left
out: its plans of 32 atoms had gaps of ten for `inner_reg` from 1e-3 to 100, at its default
tolerance.)
Needs `pip install pot`. Results: `benchmarks/results/transport_batch.json`.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import ot  # pyright: ignore[reportMissingImports]: the extra `bench`
from _machine import write
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn

from transport import ProximalSinkhornNewton, SinkhornNewtonSparse, round_to_polytope

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "transport"))
from transport_problems import (  # pyright: ignore[reportMissingImports]
    assignment,
    clouds,
)

jax.config.update("jax_enable_x64", True)
RESULTS = Path(__file__).parent / "results" / "transport_batch.json"
GAP, BATCHES = 1e-3, (1, 16, 256)
PROBLEMS = {"assignment": assignment, "clouds": lambda n, seed: clouds(n, n, seed)}


def entropic(solver):
    def solve(cost, a, b, epsilon):
        return solver(LinearProblem(Geometry(cost, epsilon=epsilon), a, b)).matrix

    return jax.jit(jax.vmap(solve, (0, 0, 0, None)))


def mapped(cost, a, b, epsilon):
    def solve(data):
        cost, a, b = data
        return SPARSE(LinearProblem(Geometry(cost, epsilon=epsilon), a, b)).matrix

    return jax.lax.map(solve, (cost, a, b))


def proximal(cost, a, b):
    return ProximalSinkhornNewton(GAP)(LinearProblem(Geometry(cost), a, b)).matrix


OURS = jax.jit(jax.vmap(proximal))
SPARSE = SinkhornNewtonSparse(threshold=1e-4)
NEWTON, IN_TURN = entropic(SPARSE), jax.jit(mapped)
OTT = entropic(Sinkhorn(threshold=1e-4, max_iterations=2000))
ROUND = jax.jit(jax.vmap(round_to_polytope))


def simplex(cost, a, b):
    return np.stack([ot.emd(*p, numItermax=10_000_000) for p in zip(a, b, cost, strict=True)])


def epsilon_for(solve, data, optimum):
    """The largest of halved epsilons whose plans are within the gap, on a few of the problems."""
    few = [values[:16] for values in data]
    for halvings in range(4, 16):
        if gap_of(solve(*few, 0.5**halvings), few, optimum[:16]) < GAP:
            return 0.5**halvings
    return 0.5**15


def gap_of(plan, data, optimum) -> float:
    cost, a, b = data
    plan = np.asarray(ROUND(jnp.asarray(plan), a, b))
    return float(np.max(np.sum(plan * cost, axis=(1, 2)) / optimum - 1))


def measure(run, data, optimum) -> dict:
    plan, taken = jax.block_until_ready(run()), []
    for _ in range(3):
        before = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - before)
    per_problem = 1e3 * statistics.median(taken) / len(optimum)
    gap = gap_of(plan, data, optimum)
    return {"ms": float(f"{per_problem:.3g}"), "gap": float(f"{gap:.1g}"), "reached": gap < 2 * GAP}


def main() -> None:
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() and sys.argv[1:] else {}
    for n in map(int, sys.argv[1:] or (32, 64, 128)):
        for name, make in PROBLEMS.items():
            drawn = [make(n, seed=seed) for seed in range(max(BATCHES))]
            everything = [np.stack(values) for values in zip(*drawn, strict=True)]
            exact = np.sum(simplex(*everything) * everything[0], axis=(1, 2))
            epsilon = epsilon_for(NEWTON, everything, exact)
            for batch in BATCHES:
                data = [values[:batch] for values in everything]
                runs = {
                    "ProximalSinkhornNewton": lambda: OURS(*data),  # noqa: B023
                    "SinkhornNewtonSparse": lambda: NEWTON(*data, epsilon),  # noqa: B023
                    "SinkhornNewtonSparse, lax.map": lambda: IN_TURN(*data, epsilon),  # noqa: B023
                    "ott Sinkhorn": lambda: OTT(*data, epsilon),  # noqa: B023
                    "POT emd loop": lambda: simplex(*data),  # noqa: B023
                }
                row = {peer: measure(run, data, exact[:batch]) for peer, run in runs.items()}
                rows[f"{name} {n} x {batch}"] = {"epsilon": epsilon, **row}
                print(name, n, batch, json.dumps(row), flush=True)
                settings = {"dtype": "float64", "gap": GAP, "unit": "ms a problem"}
                write(RESULTS, {**settings, "rows": rows}, "ott-jax", "pot")


if __name__ == "__main__":
    main()
