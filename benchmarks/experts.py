"""Diffusion-sorption by a physics loss alone: soft penalty, one global constraint, and experts.

    python benchmarks/experts.py [--steps 300] [--seeds 0 1 2]

The problem of Chalapathi, Du and Krishnapriyan (ICLR 2024, and PDEBench): u_t = D/R(u) u_xx on
(0, 1) x (0, 500), u = 1 on the left, u = D u_x on the right, a constant start between 0 and 0.2
that differs from instance to instance. A Fourier neural operator of the same size gives u itself
(soft), or sixteen fields whose weights are solved for on the whole grid (K = 1) or on K blocks.
All are trained on the residuals of equation, start and boundary, by Adam, for as many steps, and
judged by a finite-volume solution of SciPy's BDF on 512 cells, on starts that were not trained on.
Seconds are of a step, and bytes of its temporaries as XLA's `memory_analysis` has them. Results:
`benchmarks/results/experts.json`.
"""

import argparse
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from _machine import write

from cases._experts.problem import DiffusionSorption, Solver
from pde.operators import FNO

RESULTS = Path(__file__).parent / "results" / "experts.json"
TIMES, CELLS, BASIS, BATCH, RIDGE = 32, 64, 16, 2, 1e-3


PROBLEM = DiffusionSorption(TIMES, CELLS)


def mean_squares(parts: dict):
    return sum(jnp.mean(p**2) for p in parts.values())


def make(name: str, key) -> Solver:
    outputs = 1 if name == "soft" else BASIS
    network = FNO(1, outputs, modes=[8, 8], width=24, depth=4, projection=64, padding=0.15, key=key)
    if name == "soft":
        return Solver(PROBLEM, network, None)
    blocks = int(name.removeprefix("K = "))
    solver = optx.LevenbergMarquardt(rtol=1e-6, atol=1e-6)
    return Solver.of(PROBLEM, network, blocks, solver, 50, RIDGE)


def train(name: str, seed: int, steps: int, starts: np.ndarray, aims: np.ndarray) -> dict:
    key, other = jax.random.split(jax.random.key(seed))
    params, static = eqx.partition(make(name, key), eqx.is_inexact_array)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def loss(params, starts):
        parts = jax.vmap(lambda s: mean_squares(eqx.combine(params, static)(s)[1]))
        return jnp.mean(parts(starts))

    @jax.jit
    def step(params, state, key):
        value, gradient = jax.value_and_grad(loss)(
            params, jax.random.uniform(key, (BATCH,), maxval=0.2)
        )
        gradient = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0), gradient)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    keys = jax.random.split(other, steps)
    memory = step.lower(params, state, keys[0]).compile().memory_analysis()
    assert memory is not None
    spent, value = [], np.nan
    for k in keys:
        before = time.perf_counter()
        params, state, value = jax.block_until_ready(step(params, state, k))
        spent.append(time.perf_counter() - before)
    solve = jax.jit(lambda s: eqx.combine(params, static)(s)[0])
    given = np.stack([solve(s) for s in starts])
    errors = np.linalg.norm((given - aims).reshape(len(aims), -1), axis=1)
    errors /= np.linalg.norm(aims.reshape(len(aims), -1), axis=1)
    return {
        "method": name, "seed": seed, "steps": steps, "error": float(errors.mean()),
        "worst": float(errors.max()), "loss": float(value),
        "seconds_per_step": float(np.median(spent[5:])),
        "temporary_bytes": int(memory.temp_size_in_bytes),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["soft", "K = 1", "K = 4", "K = 16"])
    given = parser.parse_args()
    starts = np.random.default_rng(7).uniform(0, 0.2, 8)
    aims = np.stack([PROBLEM.truth(s) for s in starts])
    apart = np.linalg.norm(aims[0] - PROBLEM.truth(starts[0], 256)) / np.linalg.norm(aims[0])
    rows = []
    for seed in given.seeds:
        for name in given.methods:
            rows.append(train(name, seed, given.steps, starts, aims))
            print(rows[-1], flush=True)
            write(RESULTS, {"reference.relative_l2": float(apart), "runs": rows})


if __name__ == "__main__":
    main()
