"""Entropic transport to a marginal error of 1e-9 at eta = 1/epsilon = 1200: who is fastest.

    python benchmarks/transport_speed.py ["assignment 500" ...]

Sinkhorn-Newton-Sparse against ott's Sinkhorn (plain, momentum, Anderson), POT's Sinkhorn (of
kernels: its log-domain loop takes minutes here) and RegOT's sparse Newton; and against POT's exact
network simplex, which answers another question (the unregularised optimum) but is what many would
run at this size. Images are given to us and to ott as `Grid` as well, of which potentials are found
and the plan, for its error, is made outside of the time taken. The problems are those of the tests,
costs scaled to a maximum of 1; images have a ground of 1%, so that every atom has mass, as some
peers need. One process a problem, float64, medians of five after a first run that compiles (one run
for peers that take more than 5 s); every solver is asked for 1e-9, and `reached` says whether the
error of the plan that it returned, both marginals together, is below 1e-8.
Needs `pip install pot regot`. Results: `benchmarks/results/transport_speed.json`.
"""

import json
import statistics
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import ot  # pyright: ignore[reportMissingImports]: the extra `bench`
import regot  # pyright: ignore[reportMissingImports]
from _machine import write
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.acceleration import AndersonAcceleration, Momentum
from ott.solvers.linear.sinkhorn import Sinkhorn

from transport import SinkhornNewtonSparse

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "transport"))
from transport_problems import (  # pyright: ignore[reportMissingImports]
    assignment,
    images,
    pixels,
)

jax.config.update("jax_enable_x64", True)
RESULTS = Path(__file__).parent / "results" / "transport_speed.json"
EPSILON, ERROR = 1 / 1200, 1e-9
PROBLEMS = {
    "assignment 500": lambda: assignment(500),
    "assignment 1000": lambda: assignment(1000),
    "assignment 2000": lambda: assignment(2000),
    "images L1 784": lambda: images(1, ground=0.01),
    "images L2 784": lambda: images(2, ground=0.01),
}
# Where a Sinkhorn loop would take minutes, only these are run.
QUICK = ("SinkhornNewtonSparse", "RegOT ssns", "POT emd")


def linear_problem(cost, a, b, power=None):
    """On the matrix; or, of images, on the grid with the cost of this power."""
    if power is None:
        geometry = Geometry(jnp.asarray(cost), epsilon=EPSILON)
    else:
        geometry = pixels(power, round(len(a) ** 0.5), EPSILON)
    return LinearProblem(geometry, jnp.asarray(a), jnp.asarray(b))


def found(out, power):
    return out.matrix if power is None else (out.f, out.g)


def ours(cost, a, b, power=None):
    problem = linear_problem(cost, a, b, power)
    solver = SinkhornNewtonSparse(threshold=ERROR)

    def run():
        out, history = solver.run(problem)
        newton = int(history.newton.sum())
        return found(out, power), f"{int(out.n_iters) - newton} sweeps + {newton} Newton"

    return run


def otts(cost, a, b, power=None, **options):
    problem = linear_problem(cost, a, b, power)
    solver = jax.jit(Sinkhorn(threshold=ERROR, max_iterations=30_000, **options))

    def run():
        out = solver(problem)
        return found(out, power), f"{int(out.n_iters)} sweeps"

    return run


def pot(cost, a, b, method):
    def run():
        plan, log = ot.sinkhorn(
            a, b, cost, EPSILON, method, numItermax=30_000, stopThr=ERROR, log=True
        )
        return plan, f"{log['niter']} sweeps"

    return run


def regots(cost, a, b):
    def run():
        solve = regot.sinkhorn_ssns  # pyright: ignore[reportAttributeAccessIssue]
        out = solve(cost, a, b, EPSILON, tol=ERROR, max_iter=1000)
        return out.plan, f"{out.niter} iterations"

    return run


def simplex(cost, a, b):
    return lambda: (ot.emd(a, b, cost, numItermax=10_000_000), "exact")


PEERS = {
    "SinkhornNewtonSparse": ours,
    "ott plain": otts,
    "ott momentum 300": lambda *p: otts(*p, momentum=Momentum(start=300)),
    "POT sinkhorn": lambda *p: pot(*p, method="sinkhorn"),
    "RegOT ssns": regots,
    "POT emd": simplex,
    "ott Anderson": lambda *p: otts(*p, anderson=AndersonAcceleration(memory=5, refresh_every=1)),
}
ON_GRIDS = {
    "SinkhornNewtonSparse grid": ours,
    "ott plain grid": otts,
    "ott momentum 300 grid": lambda *p: otts(*p, momentum=Momentum(start=300)),
}


def measure(run, cost, a, b):
    before = time.perf_counter()
    plan, iterations = jax.block_until_ready(run())
    first = time.perf_counter() - before
    taken = []
    # Slow peers are timed once: a minute says as much as three.
    for _ in range(1 if first > 5 else 5):
        before = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - before)
    if isinstance(plan, tuple):
        plan = np.exp((np.asarray(plan[0])[:, None] + np.asarray(plan[1]) - cost) / EPSILON)
    plan = np.asarray(plan)
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    return {
        "ms": round(1e3 * statistics.median(taken), 1),
        "first_run_ms": round(1e3 * first, 1),
        "iterations": iterations,
        "marginal_error": float(f"{error:.2g}") if np.isfinite(error) else str(error),
        "reached": bool(error < 1e-8),
    }


def main() -> None:
    chosen = sys.argv[1:] or list(PROBLEMS)
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() and sys.argv[1:] else {}
    for name in chosen:
        cost, a, b = PROBLEMS[name]()
        rows[name] = {}
        runs = {peer: partial(make, cost, a, b) for peer, make in PEERS.items()}
        if name.startswith("images"):
            power = 1 if "L1" in name else 2
            on_grids = {peer: partial(make, cost, a, b, power) for peer, make in ON_GRIDS.items()}
            runs = on_grids | runs
        for peer, make in runs.items():
            if len(a) >= 1000 and peer not in QUICK:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    rows[name][peer] = measure(make(), cost, a, b)
                except Exception as failure:
                    rows[name][peer] = {"reached": False, "failure": type(failure).__name__}
            print(name, peer, rows[name][peer], flush=True)
            save(rows)


def save(rows) -> None:
    settings = {"dtype": "float64", "eta": 1 / EPSILON, "requested_error": ERROR, "unit": "ms"}
    write(RESULTS, {**settings, "rows": rows}, "ott-jax", "pot", "regot")


if __name__ == "__main__":
    main()
