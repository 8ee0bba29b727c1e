"""The inner quadratic programs for up to 2000 objectives: time and accuracy, against quadprog.

    python benchmarks/aggregate_programs.py

writes `benchmarks/results/aggregate_programs.json`. Wants `quadprog`. Float64, conflicting
gradients (normal ones, less 1.1 times their mean), Gramians regularised as in UPGrad. A `residual`
is the largest violation of the conditions of optimality, for a Gramian of unit trace; `difference`
the largest one between the two solutions. One call after a warm-up, quadprog's without one.
"""

# pyright: reportMissingImports=false
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import quadprog
from _machine import write

from sciopt.aggregate import UPGrad
from sciopt.aggregate._quadratic_program import minimum_norm_weights, nonnegative_minimiser

RESULTS = pathlib.Path(__file__).parent / "results/aggregate_programs.json"


def timed(fn, *arguments):
    start = time.perf_counter()
    value = jax.block_until_ready(fn(*arguments))
    return time.perf_counter() - start, np.asarray(value)


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
        timed(shortest, jnp.asarray(gramian))
        seconds, alpha = timed(shortest, jnp.asarray(gramian))
        row["simplex_ms"] = round(seconds * 1e3, 2)
        row["simplex_residual"] = float(alpha @ gramian @ alpha - (gramian @ alpha).min())
        if m <= 512:
            timed(upgrad, jnp.asarray(gramian))
            row["upgrad_all_programs_ms"] = round(timed(upgrad, jnp.asarray(gramian))[0] * 1e3, 2)
        print(row, flush=True)
        rows.append(row)
    load = round(os.getloadavg()[0], 1)
    write(RESULTS, {"load_at_end": load, "rows": rows})


if __name__ == "__main__":
    main()
