"""Marginal errors of 1e-12 at eta = 1/epsilon = 1200, on every problem of the tests, to n = 4096.

    python benchmarks/transport_marginals.py [n ...]

Random assignment, images, one-dimensional densities and clouds in the plane, costs scaled to a
maximum of 1, float64, seed 0. Images have a side of sqrt(n), rounded. The error is that of the plan
returned, rows and columns together; the time is that of the second run.
Results: `benchmarks/results/transport_marginals.json`.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from _machine import write
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem

from transport import SinkhornNewtonSparse

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "transport"))
from transport_problems import (  # pyright: ignore[reportMissingImports]
    assignment,
    clouds,
    densities,
    images,
)

jax.config.update("jax_enable_x64", True)
RESULTS = Path(__file__).parent / "results" / "transport_marginals.json"
ETA, ERROR = 1200, 1e-12
PROBLEMS = {
    "assignment": assignment,
    "images L1": lambda n: images(1, round(n**0.5)),
    "images L2": lambda n: images(2, round(n**0.5)),
    "W1": lambda n: densities(1, n),
    "W2": lambda n: densities(2, n),
    "clouds": lambda n: clouds(n, n),
}


def main() -> None:
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() and sys.argv[1:] else {}
    solver = SinkhornNewtonSparse(threshold=ERROR)
    for n in map(int, sys.argv[1:] or (500, 784, 1000, 4000)):
        for name, make in PROBLEMS.items():
            cost, a, b = map(jnp.asarray, make(n))
            problem = LinearProblem(Geometry(cost, epsilon=1 / ETA), a, b)
            jax.block_until_ready(solver.run(problem))
            before = time.perf_counter()
            out, history = jax.block_until_ready(solver.run(problem))
            seconds = time.perf_counter() - before
            plan, newton = out.matrix, int(history.newton.sum())
            error = jnp.sum(jnp.abs(plan.sum(1) - a)) + jnp.sum(jnp.abs(plan.sum(0) - b))
            rows[f"{name} {len(a)}"] = {
                "marginal_error": float(f"{float(error):.2g}"),
                "converged": bool(out.converged),
                "sweeps": int(out.n_iters) - newton,
                "newton": newton,
                "seconds": round(seconds, 3),
            }
            print(name, len(a), rows[f"{name} {len(a)}"], flush=True)
            settings = {"dtype": "float64", "eta": ETA, "requested_error": ERROR}
            write(RESULTS, {**settings, "rows": rows}, "ott-jax")


if __name__ == "__main__":
    main()
