"""Convex objectives on couplings: time to a gap of 1e-3, Mirror Sinkhorn against its peers.

    python benchmarks/transport_mirror.py [problem ...]

Three objectives over couplings of two clouds of 100 points in the plane, uniform weights, squared
distances scaled to a maximum of 1: a linear one that is seen with fresh noise of deviation 0.1 on
every cost each step; the cost and a squared norm; and the quadratic misfit |Dx P - P Dy|^2 of
pairwise distances, a convex surrogate of Gromov-Wasserstein. The gap is the objective of the plan,
rounded to the polytope, over the least that any method found in long runs (the simplex's for the
linear one).

Peers: the published Mirror Sinkhorn; mirror descent with a full inner Sinkhorn projection, to a
marginal error of 1e-2 or 1e-4, its potentials warm; projected gradient, accelerated without noise,
Dykstra's projections inside; POT's conditional gradient, and POT's simplex on the mean of the noisy
costs. Each has steps of several lengths, and the number of steps doubles until the gap is reached;
the fastest run counts, the median of three after one that compiles. The choice of length is thus
given to every method free of charge. float64, one process.
Needs `pip install pot`. Results: `benchmarks/results/transport_mirror.json`.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ot  # pyright: ignore[reportMissingImports]: the extra `bench`
from _machine import write
from jax import lax
from jax.scipy.special import logsumexp

from transport import MirrorSinkhorn, round_to_polytope

jax.config.update("jax_enable_x64", True)
RESULTS = Path(__file__).parent / "results" / "transport_mirror.json"
N, GAP, NOISE = 100, 1e-3, 0.1
LONGEST = 20.0  # seconds: no run is made that the last one says takes longer
UNIFORM = jnp.full(N, 1 / N)
KEY = jax.random.key(0)


def clouds():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    y = rng.normal(size=(N, 2)) @ np.array([[1, 0.5], [0, 0.6]]) + 1
    return [
        jnp.asarray(d / d.max())
        for d in (np.sum((p[:, None] - q) ** 2, axis=-1) for p, q in ((x, y), (x, x), (y, y)))
    ]


COST, OF_X, OF_Y = clouds()
OBJECTIVES: dict[str, Callable] = {
    "noisy linear": lambda plan: jnp.sum(COST * plan),
    "squared norm": lambda plan: jnp.sum(COST * plan) + 5 * jnp.sum(plan**2),
    "quadratic": lambda plan: 0.5 * N * jnp.sum((OF_X @ plan - plan @ OF_Y) ** 2),
}


def seen(name: str) -> Callable:
    """The objective as the methods see it, `(plan, key)`."""
    exact = OBJECTIVES[name]
    if name != "noisy linear":
        return lambda plan, key: exact(plan)
    return lambda plan, key: exact(plan) + NOISE * jnp.sum(jax.random.normal(key, (N, N)) * plan)


def mirror_sinkhorn(name, steps, length, **options):
    """Ours; `length` multiplies the default steps where they are not adaptive."""
    objective = seen(name)
    bound = None
    if options:
        slope = jax.grad(objective)(jnp.outer(UNIFORM, UNIFORM), KEY)
        bound = float(jnp.ptp(slope)) / 2 / length
    solver = MirrorSinkhorn(steps, gradient_bound=bound, **options)
    return lambda: solver(objective, UNIFORM, UNIFORM, key=KEY).matrix


def mirror_descent(name, steps, length, tolerance):
    """A mirror step, then Sinkhorn until the marginals are met; the average of the latter half."""
    slope_of = jax.grad(seen(name))
    log_weight = jnp.log(UNIFORM)

    def project(u, v, gradients):
        def unmet(carry):
            _, _, error, swept = carry
            return (error > tolerance) & (swept < 1000)

        def sweep(carry):
            _, v, _, swept = carry
            u = log_weight - logsumexp(v - gradients, axis=1)
            rows = logsumexp(u[:, None] - gradients, axis=0)
            error = jnp.sum(jnp.abs(jnp.exp(v + rows) - UNIFORM))
            return u, log_weight - rows, error, swept + 1

        return lax.while_loop(unmet, sweep, (u, v, jnp.inf, 0))[:2]

    @jax.jit
    def run():
        first = slope_of(jnp.outer(UNIFORM, UNIFORM), KEY)
        bound = (jnp.max(first) - jnp.min(first)) / 2

        def step(t, carry):
            u, v, gradients, beta, total = carry
            plan = jnp.exp(u[:, None] + v - gradients)
            eta = length * jnp.sqrt(jnp.log(N) / steps) / bound
            gradients = gradients + eta * slope_of(plan, jax.random.fold_in(KEY, t))
            # Potentials grow with the gradients, as in our own solver.
            growth = jnp.where(beta > 0, 1 + eta / jnp.where(beta > 0, beta, 1), 1)
            u, v = project(growth * u, growth * v, gradients)
            total = total + jnp.where(t >= steps // 2, plan, 0)
            return u, v, gradients, beta + eta, total

        zero = jnp.zeros((N, N))
        start = (log_weight, log_weight, zero, 0.0, zero)
        total = lax.fori_loop(0, steps, step, start)[-1]
        return round_to_polytope(total / (steps - steps // 2), UNIFORM, UNIFORM)

    return run


def projected_gradient(name, steps, length):
    """Gradient steps projected by Dykstra; with Nesterov's momentum where there is no noise."""
    slope_of = jax.grad(seen(name))
    noisy = name == "noisy linear"

    def project(plan):
        """Onto the affine set in closed form, onto the orthant by clipping, by turns."""

        def affine(p):
            row, column = (1 / N - jnp.sum(p, axis=1)) / N, (1 / N - jnp.sum(p, axis=0)) / N
            return p + row[:, None] + column - jnp.sum(row) / N

        def unmet(carry):
            p, _, swept = carry
            return (jnp.sum(jnp.maximum(-p, 0)) > 1e-4) & (swept < 1000)

        def turn(carry):
            p, correction, swept = carry
            clipped = jnp.maximum(p + correction, 0)
            return affine(clipped), p + correction - clipped, swept + 1

        return lax.while_loop(unmet, turn, (affine(plan), jnp.zeros_like(plan), 0))[0]

    @jax.jit
    def run():
        def step(t, carry):
            plan, before, total = carry
            push = plan if noisy else plan + t / (t + 3.0) * (plan - before)
            eta = length / jnp.sqrt(t + 1.0) if noisy else length
            new = project(push - eta * slope_of(push, jax.random.fold_in(KEY, t)))
            return new, plan, total + jnp.where(t >= steps // 2, new, 0)

        first = jnp.outer(UNIFORM, UNIFORM)
        plan, _, total = lax.fori_loop(0, steps, step, (first, first, jnp.zeros_like(first)))
        plan = total / (steps - steps // 2) if noisy else plan
        return round_to_polytope(jnp.maximum(plan, 0), UNIFORM, UNIFORM)

    return run


def conditional_gradient(name, steps, length):
    """POT's; for noisy costs, which it does not take, POT's simplex on the mean of as many."""
    weights = np.full(N, 1 / N)
    if name == "noisy linear":

        @jax.jit
        def mean():
            def add(t, total):
                return total + jax.random.normal(jax.random.fold_in(KEY, t), (N, N))

            return COST + NOISE * lax.fori_loop(0, steps, add, jnp.zeros((N, N))) / steps

        return lambda: ot.emd(weights, weights, np.asarray(mean()))
    value = jax.jit(OBJECTIVES[name])
    slope = jax.jit(jax.grad(OBJECTIVES[name]))
    zero = np.zeros((N, N))
    return lambda: ot.optim.cg(
        weights, weights, zero, 1.0, lambda p: float(value(p)), lambda p: np.asarray(slope(p)),
        numItermax=steps, stopThr=0, stopThr2=0,
    )  # fmt: skip


PAPER = {"rate": "decreasing", "extrapolate": False, "burn_in": 0.0}
METHODS: dict[str, tuple[Callable, tuple[float, ...]]] = {
    "Mirror Sinkhorn": (mirror_sinkhorn, (1,)),
    "as published": (partial(mirror_sinkhorn, **PAPER), (1, 3)),
    "mirror descent, Sinkhorn to 1e-2": (partial(mirror_descent, tolerance=1e-2), (1, 10, 100)),
    "mirror descent, Sinkhorn to 1e-4": (partial(mirror_descent, tolerance=1e-4), (1, 10, 100)),
    "projected gradient": (projected_gradient, (1e-3, 1e-2, 1e-1)),
    "POT": (conditional_gradient, (1,)),
}


def fastest(name: str, make: Callable, length: float, optimum: float, limit: float) -> dict:
    """The first doubling of the steps that reaches the gap; or the last, where that is too slow."""
    steps, best = 16, float("inf")
    while True:
        run = make(name, steps, length)
        run_once(run)
        plan, seconds = run_once(run)
        gap = float(OBJECTIVES[name](jnp.asarray(plan))) - optimum
        best = min(best, gap) if np.isfinite(gap) else best
        if gap <= GAP:
            taken = [seconds, *(run_once(run)[1] for _ in range(2))]
            milliseconds = 1e3 * statistics.median(taken)
            return {
                "ms": round(milliseconds, 2), "steps": steps, "length": length,
                "gap": float(f"{gap:.2g}"), "reached": True,
            }  # fmt: skip
        if 2 * seconds > limit:
            return {"reached": False, "steps": steps, "best_gap": float(f"{best:.2g}")}
        steps *= 2


def run_once(run: Callable):
    before = time.perf_counter()
    plan = jax.block_until_ready(run())
    return plan, time.perf_counter() - before


def optimum_of(name: str) -> float:
    if name == "noisy linear":
        weights = np.full(N, 1 / N)
        exact: Any = ot.emd2(weights, weights, np.asarray(COST))
        return float(exact)
    long = (
        mirror_sinkhorn(name, 10_000, 1),
        *(projected_gradient(name, 500, length) for length in (1e-2, 1e-1)),
    )
    values = [float(OBJECTIVES[name](run())) for run in long]
    return min(value for value in values if np.isfinite(value))


def main() -> None:
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() and sys.argv[1:] else {}
    for name in sys.argv[1:] or OBJECTIVES:
        optimum = optimum_of(name)
        start = float(OBJECTIVES[name](jnp.outer(UNIFORM, UNIFORM)))
        rows[name] = {"optimum": optimum, "gap_of_the_product": start - optimum}
        for method, (make, lengths) in METHODS.items():
            best: dict = {"reached": False}
            for length in lengths:
                limit = 1e-3 * best["ms"] if best["reached"] else LONGEST
                found = fastest(name, make, length, optimum, limit)
                if not best["reached"] or (found["reached"] and found["ms"] < best["ms"]):
                    best = found
            rows[name][method] = best
            print(name, method, best, flush=True)
            settings = {"n": N, "gap": GAP, "noise": NOISE, "dtype": "float64", "unit": "ms"}
            write(RESULTS, {**settings, "rows": rows}, "ott-jax", "pot")


if __name__ == "__main__":
    main()
