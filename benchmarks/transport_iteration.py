"""What a Newton step of Sinkhorn-Newton-Sparse costs in units of a Sinkhorn iteration.

    python benchmarks/transport_iteration.py [n...]

Random assignment at eta = 1200, float64, cost matrix stored, both in one process by turns. A
Sinkhorn iteration is ott's (log domain), from the time of 20 of them less that of 10. A Newton step
is what one more of them adds to ours: the time to a marginal error of 1e-12 less the time to a
coarser one, over the Newton steps between. Medians of five. Results:
`benchmarks/results/transport_iteration.json`.
"""

import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from _machine import write
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn

from transport import SinkhornNewtonSparse

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "transport"))
from transport_problems import assignment  # pyright: ignore[reportMissingImports]

RESULTS = Path(__file__).parent / "results" / "transport_iteration.json"
REPEATS = 5


def seconds(run) -> float:
    before = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - before


def measure(n: int) -> dict:
    cost, a, b = (jnp.asarray(v) for v in assignment(n))
    prob = LinearProblem(Geometry(cost, epsilon=1 / 1200), a, b)

    def sinkhorn(iterations):
        # A threshold that is never reached, and errors that are looked at once.
        solver = Sinkhorn(
            threshold=-1.0, max_iterations=iterations, min_iterations=iterations,
            inner_iterations=iterations,
        )  # fmt: skip
        return jax.jit(lambda p: solver(p).f)

    def newton(threshold):
        solver = SinkhornNewtonSparse(threshold=threshold)
        history = solver.run(prob)[1]
        steps = int(history.newton[history.error >= 0].sum())
        return steps, int((history.error >= 0).sum()) - steps, lambda: solver(prob).f

    (few, warm, short), (many, _, whole) = newton(1e-2), newton(1e-12)
    ten, twenty = sinkhorn(10), sinkhorn(20)
    runs = {
        "ten": lambda: ten(prob), "twenty": lambda: twenty(prob), "short": short, "whole": whole,
    }  # fmt: skip
    for run in runs.values():
        seconds(run)
    taken = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            taken[name].append(seconds(run))
    t = {name: statistics.median(found) for name, found in taken.items()}
    one = (t["twenty"] - t["ten"]) / 10
    step = (t["whole"] - t["short"]) / (many - few)
    return {
        "n": n, "sinkhorn_ms": 1e3 * one, "newton_ms": 1e3 * step, "ratio": step / one,
        "newton_steps": many, "sweeps": warm, "whole_seconds": t["whole"],
    }  # fmt: skip


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    rows = []
    for n in [int(n) for n in sys.argv[1:]] or [1000, 2000, 4000]:
        rows.append(measure(n))
        print(rows[-1], flush=True)
        write(RESULTS, {"rows": rows}, "ott-jax")


if __name__ == "__main__":
    main()
