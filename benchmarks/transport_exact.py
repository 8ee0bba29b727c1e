"""The unregularised optimum: proximal Sinkhorn-Newton against POT's network simplex.

    python benchmarks/transport_exact.py ["assignment 500" ...]

The problems of the tests, float64, a relative duality gap of 1e-9, medians of three after a first
run that compiles. `relative_difference` is that of our cost from the simplex's.
Needs `pip install pot`. Results: `benchmarks/results/transport_exact.json`.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import ot  # pyright: ignore[reportMissingImports]: the extra `bench`
from _machine import write
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem

from transport import ProximalSinkhornNewton

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "transport"))
from transport_problems import (  # pyright: ignore[reportMissingImports]
    assignment,
    clouds,
    densities,
    images,
)

jax.config.update("jax_enable_x64", True)
RESULTS = Path(__file__).parent / "results" / "transport_exact.json"
PROBLEMS = {
    "assignment 500": lambda: assignment(500),
    "assignment 2000": lambda: assignment(2000),
    "images L1 784": lambda: images(1),
    "images L2 784": lambda: images(2),
    "W1 500": lambda: densities(1),
    "W2 500": lambda: densities(2),
    "clouds 500": lambda: clouds(),
    "clouds 500 x 300": lambda: clouds(500, 300),
}


def timed(run):
    out, taken = run(), []
    for _ in range(3):
        before = time.perf_counter()
        run()
        taken.append(1e3 * (time.perf_counter() - before))
    return out, round(statistics.median(taken), 1)


def main() -> None:
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() and sys.argv[1:] else {}
    for name in sys.argv[1:] or PROBLEMS:
        cost, a, b = PROBLEMS[name]()
        problem = LinearProblem(Geometry(jnp.asarray(cost)), jnp.asarray(a), jnp.asarray(b))
        solver = ProximalSinkhornNewton()
        (out, history), ours = timed(lambda: jax.block_until_ready(solver.run(problem)))  # noqa: B023
        exact, simplex = timed(lambda: ot.emd2(a, b, cost, numItermax=10_000_000))  # noqa: B023
        newton = int(history.newton.sum())
        rows[name] = {
            "ms": ours,
            "emd_ms": simplex,
            "converged": bool(out.converged),
            "relative_gap": float(f"{float(out.gap / out.primal_cost):.2g}"),
            "relative_difference": float(f"{float(out.primal_cost / exact - 1):.2g}"),
            "proximal_steps": int(out.n_iters),
            "sweeps": int((history.error >= 0).sum()) - newton,
            "newton": newton,
        }
        print(name, rows[name], flush=True)
        write(RESULTS, {"dtype": "float64", "rows": rows}, "ott-jax", "pot")


if __name__ == "__main__":
    main()
