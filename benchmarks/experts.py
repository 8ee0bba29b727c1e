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
from scipy.integrate import solve_ivp

from pde.operators import FNO, Experts

RESULTS = Path(__file__).parent / "results" / "experts.json"
D, END, POROSITY, DENSITY, FREUNDLICH, POWER = 5e-4, 500.0, 0.29, 2880.0, 3.5e-4, 0.874
TIMES, CELLS, BASIS, BATCH, RIDGE = 32, 64, 16, 2, 1e-3


def retardation(u, xp=jnp):
    share = (1 - POROSITY) / POROSITY * DENSITY * FREUNDLICH * POWER
    return 1 + share * (xp.maximum(u, 0) + 1e-6) ** (POWER - 1)


def truth(start: float, cells: int = 512) -> np.ndarray:
    """At the grid's inner points, `(TIMES, CELLS)`."""
    h = 1 / cells
    x = (np.arange(cells) + 0.5) * h

    def slope(t, u):
        # Values of the walls: given on the left, from u = D u_x on the right.
        wide = np.concatenate([[2 - u[0]], u, [beyond(u[-1], h)]])
        return D / retardation(u, np) * (wide[2:] - 2 * u + wide[:-2]) / h**2

    times = END * np.arange(1, TIMES + 1) / TIMES
    path = solve_ivp(
        slope, (0, END), np.full(cells, start), "BDF", times, rtol=1e-7, atol=1e-9,
        jac_sparsity=np.eye(cells) + np.eye(cells, k=1) + np.eye(cells, k=-1),
    )  # fmt: skip
    inner = np.arange(1, CELLS + 1) / (CELLS + 1)
    return np.stack([np.interp(inner, x, u) for u in path.y.T])


def beyond(last: float, h: float) -> float:
    """The value half a cell beyond the right end for which u = D u_x there, if D < h / 2."""
    return last * (D / h + 0.5) / (D / h - 0.5)


def derivatives(b):
    """Terms that are linear in the basis: at inner points, at the start, and on both sides."""
    dt, dx = 1 / TIMES, 1 / (CELLS + 1)
    rate = jnp.concatenate([(b[2:] - b[:-2]) / (2 * dt), (b[-1:] - b[-2:-1]) / dt])
    local = {
        "u": b[1:, 1:-1],
        "u_t": rate[:, 1:-1],
        "u_xx": (b[1:, 2:] - 2 * b[1:, 1:-1] + b[1:, :-2]) / dx**2,
    }
    slope = (3 * b[1:, -1] - 4 * b[1:, -2] + b[1:, -3]) / (2 * dx)
    return local, {"start": b[0, 1:], "left": b[1:, 0], "right": b[1:, -1] - D * slope}


def constraint(local, common, start):
    residual = local["u_t"] - END * D / retardation(local["u"]) * local["u_xx"]
    return residual, common["start"] - start, common["left"] - 1, common["right"]


def weighed(local, common, start):
    """What an expert minimises: each part by its mean, and a little of the weights themselves."""
    parts = constraint(local, common, start)
    return *(p / jnp.sqrt(p.size) for p in parts), common["ridge"]


def gates(count: int) -> np.ndarray:
    """How much of each expert's weights a column takes: all in the middle of its block, and from
    there to the next middle a smooth passage, `(CELLS + 2, count)`."""
    x = np.clip(np.arange(CELLS + 2) / (CELLS + 1) * count - 0.5, 0, count - 1)
    left = np.minimum(x.astype(int), max(count - 2, 0))
    share = x - left
    share = share**3 * (10 - 15 * share + 6 * share**2)
    found = np.zeros((CELLS + 2, count))
    rows = np.arange(CELLS + 2)
    found[rows, left] += 1 - share
    found[rows, np.minimum(left + 1, count - 1)] += share
    return found


def mean_squares(parts):
    return sum(jnp.mean(p**2) for p in parts)


class Solver(eqx.Module):
    """From a start to the inner points, softly or by experts."""

    network: FNO
    experts: Experts | None

    def fields(self, start):
        grid = (TIMES + 1, CELLS + 2)
        return jnp.moveaxis(self.network(jnp.full((1, *grid), start)), 0, -1)

    def __call__(self, start):
        """The solution at inner points, and the loss of the whole: across blocks as within."""
        basis = self.fields(start)
        if self.experts is not None:
            local, common = derivatives(basis)
            common["ridge"] = RIDGE * jnp.eye(BASIS)
            weights = self.experts(local, common, start).weights
            columns = jnp.asarray(gates(len(weights))) @ weights
            basis = jnp.einsum("txn,xn->tx", basis, columns)[..., None]
        local, common = derivatives(basis)
        local = {n: t[..., 0] for n, t in local.items()}
        common = {n: t[..., 0] for n, t in common.items()}
        return local["u"], mean_squares(constraint(local, common, start))


def make(name: str, key) -> Solver:
    experts = None
    if name != "soft":
        blocks = int(name.removeprefix("K = "))
        solver = optx.LevenbergMarquardt(rtol=1e-6, atol=1e-6)
        experts = Experts(weighed, [1, blocks], solver, max_steps=50)
    outputs = 1 if experts is None else BASIS
    network = FNO(1, outputs, modes=[8, 8], width=24, depth=4, projection=64, padding=0.15, key=key)
    return Solver(network, experts)


def train(name: str, seed: int, steps: int, starts: np.ndarray, aims: np.ndarray) -> dict:
    key, other = jax.random.split(jax.random.key(seed))
    params, static = eqx.partition(make(name, key), eqx.is_inexact_array)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def loss(params, starts):
        return jnp.mean(jax.vmap(lambda s: eqx.combine(params, static)(s)[1])(starts))

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
    aims = np.stack([truth(s) for s in starts])
    apart = np.linalg.norm(aims[0] - truth(starts[0], 256)) / np.linalg.norm(aims[0])
    rows = []
    for seed in given.seeds:
        for name in given.methods:
            rows.append(train(name, seed, given.steps, starts, aims))
            print(rows[-1], flush=True)
            write(RESULTS, {"reference.relative_l2": float(apart), "runs": rows})


if __name__ == "__main__":
    main()
