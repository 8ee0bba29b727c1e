"""The inner quadratic programs for up to 2000 objectives: against quadprog and qpax.

    python benchmarks/aggregate_programs.py

writes `benchmarks/results/aggregate_programs.json`. Wants `quadprog` and `qpax`. Float64,
conflicting gradients (normal ones, less 1.1 times their mean), Gramians regularised as in UPGrad. A
`residual` is the largest violation of the conditions of optimality, for a Gramian of unit trace;
`difference` the largest one from quadprog's solution. One call after a warm-up, quadprog's without
one. qpax solves the same program by an interior point, scaled to a unit diagonal and solutions of
size one, at a tolerance of 1e-9.
"""

# pyright: reportMissingImports=false
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import qpax
import quadprog
from _machine import write

from sciopt.aggregate import UPGrad
from sciopt.aggregate._quadratic_program import minimum_norm_weights, nonnegative_minimiser

RESULTS = pathlib.Path(__file__).parent / "results/aggregate_programs.json"


def timed(fn, *arguments):
    start = time.perf_counter()
    value = jax.block_until_ready(fn(*arguments))
    return time.perf_counter() - start, np.asarray(value)


@jax.jit
def qpax_solution(matrix, linear):
    m = len(linear)
    return qpax.solve_qp(
        matrix, -linear, jnp.zeros((0, m)), jnp.zeros(0), -jnp.eye(m), jnp.zeros(m), solver_tol=1e-9
    )


def interior_point(matrix, linear, expected):
    """qpax's time, and its distance from quadprog's solution."""
    m = len(linear)
    scaled = jnp.asarray(m * matrix), jnp.asarray(m**2 * linear)
    timed(lambda *a: qpax_solution(*a)[0], *scaled)
    seconds, x = timed(lambda *a: qpax_solution(*a)[0], *scaled)
    *_, converged, steps = qpax_solution(*scaled)
    return {
        "qpax_ms": round(seconds * 1e3, 2),
        "qpax_difference": float(np.abs(x / m - expected).max()),
        "qpax_converged": bool(converged),
        "qpax_steps": int(steps),
    }


def main():
    jax.config.update("jax_enable_x64", True)
    bounded = jax.jit(lambda g, q: nonnegative_minimiser(g, q, proximal_steps=0))
    shortest, upgrad = jax.jit(minimum_norm_weights), jax.jit(UPGrad().weights)
    rows = []
    for m in (8, 64, 512, 2000):
        gradients = np.random.default_rng(0).standard_normal((m, 2 * m))
        gradients -= 1.1 * gradients.mean(0)
        gramian = gradients @ gradients.T
        gramian /= np.trace(gramian)
        regular = gramian + 1e-4 * np.eye(m)
        q = -regular.mean(1)
        timed(bounded, jnp.asarray(regular), jnp.asarray(q))
        seconds, x = timed(bounded, jnp.asarray(regular), jnp.asarray(q))
        multiplier = regular @ x - q
        row = {
            "m": m,
            "bounded_ms": round(seconds * 1e3, 2),
            "bounded_residual": float(max(-multiplier.min(), np.abs(x * multiplier).max())),
        }
        start = time.perf_counter()
        expected = quadprog.solve_qp(regular, q, np.eye(m), np.zeros(m))[0]
        row["quadprog_ms"] = round((time.perf_counter() - start) * 1e3, 2)
        row["difference"] = float(np.abs(x - expected).max())
        row |= interior_point(regular, q, expected)
        timed(shortest, jnp.asarray(gramian))
        seconds, alpha = timed(shortest, jnp.asarray(gramian))
        row["simplex_ms"] = round(seconds * 1e3, 2)
        row["simplex_residual"] = float(alpha @ gramian @ alpha - (gramian @ alpha).min())
        timed(upgrad, jnp.asarray(gramian))
        row["upgrad_all_programs_ms"] = round(timed(upgrad, jnp.asarray(gramian))[0] * 1e3, 2)
        print(row, flush=True)
        rows.append(row)
    load = round(os.getloadavg()[0], 1)
    write(RESULTS, {"load_at_end": load, "rows": rows})


if __name__ == "__main__":
    main()
