"""Constraints by experts: soft penalty, one global constraint and blocks; error, time, memory.

    python benchmarks/experts.py sorption [--steps 400] [--seeds 0 1 2] [--methods soft "K = 4"]
    python benchmarks/experts.py flow --steps 200 [--seeds 0 1] [--methods "K = 4, 4 fields"]
    python benchmarks/experts.py layer

`sorption` and `flow` are the problems of Chalapathi, Du and Krishnapriyan (ICLR 2024): diffusion
with sorption (and PDEBench) from a constant start between 0 and 0.2, and vorticity in a periodic
square of 32 x 32 points from random starts to t = 1, at eight times. A Fourier neural operator of
the same size gives the solution itself (soft), or fields whose weights are solved for on the whole
grid (K = 1) or on K blocks; sixteen of them unless the method says otherwise ("K = 1, 64 fields").
All are trained on the residuals alone, by Adam, for as many steps, and judged on starts that were
not trained on, by SciPy's BDF on 512 cells or by ETDRK4 on 64 x 64 points.

`layer` is the layer by itself: a loss and its gradient by a given basis (cosines with random waves)
through the least squares of diffusion with sorption, for one constraint, for K blocks with as many
fields each, for K blocks with K times fewer, so that there are as many weights in all, and for one
of the blocks alone, which is what each of K devices has to do.

Seconds are medians, bytes those of temporaries as XLA's `memory_analysis` has them. Results:
`benchmarks/results/experts.json`, where each command replaces its own rows.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from _flow import Flow
from _machine import machine, write

from cases._experts.problem import DiffusionSorption, Solver, experts
from pde.operators import FNO, RandomField

RESULTS = Path(__file__).parent / "results" / "experts.json"
BASIS, BATCH, RIDGE = 16, 2, 1e-3
MARQUARDT, ITERATIONS = optx.LevenbergMarquardt(rtol=1e-6, atol=1e-6), 50
SORPTION, FLOW = DiffusionSorption(32, 64), Flow(8, 32)
# As in `cases/neural_stagger_ns.yaml`, but with fewer waves, for fewer points.
LAW = RandomField([1.0, 1.0], modes=6, scale=60, shift=7, power=2.5, mean_free=True)
SIZES = ((32, 64, 64), (64, 256, 64))  # times, points, weights
FIRST = 3  # steps that no median sees


def make(problem, name: str, key) -> Solver:
    """`soft`, or `K = 4`, or `K = 4, 64 fields`."""
    blocks, _, fields = name.removeprefix("K = ").partition(",")
    size = 1 if name == "soft" else int(fields.removesuffix("fields") or BASIS)
    if isinstance(problem, Flow):
        network = FNO(
            1, size * problem.times, modes=[10, 10], width=24, depth=4, projection=64,
            coordinates=False, key=key,
        )  # fmt: skip
    else:
        network = FNO(1, size, modes=[8, 8], width=24, depth=4, projection=64, padding=0.15,
                      key=key)  # fmt: skip
    if name == "soft":
        return Solver(problem, network, None)
    return Solver.of(problem, network, int(blocks), MARQUARDT, ITERATIONS, RIDGE)


def drawn(problem, key, count: int):
    if isinstance(problem, Flow):
        keys = jax.random.split(key, count)
        return jax.vmap(lambda k: LAW(k, [problem.points] * 2))(keys)
    return jax.random.uniform(key, (count,), maxval=0.2)


def train(problem, name: str, seed: int, steps: int, starts, aims: np.ndarray) -> dict:
    key, other = jax.random.split(jax.random.key(seed))
    params, static = eqx.partition(make(problem, name, key), eqx.is_inexact_array)
    optimizer = optax.apply_if_finite(optax.adam(optax.cosine_decay_schedule(2e-3, steps)), 20)

    def loss(params, starts):
        def one(start):
            parts = eqx.combine(params, static)(start)[1]
            return sum(jnp.mean(p**2) for p in parts.values())

        return jnp.mean(jax.vmap(one)(starts))

    def step(params, state, key):
        value, gradient = jax.value_and_grad(loss)(params, drawn(problem, key, BATCH))
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    keys = jax.random.split(other, steps)
    advance = jax.jit(step).lower(params, state, keys[0]).compile()
    memory = advance.memory_analysis()
    assert memory is not None
    spent, value = [], np.nan
    for k in keys:
        before = time.perf_counter()
        params, state, value = jax.block_until_ready(advance(params, state, k))
        spent.append(time.perf_counter() - before)
    solve = jax.jit(lambda s: eqx.combine(params, static)(s)[0])
    given = np.stack([solve(s) for s in starts])
    errors = np.linalg.norm((given - aims).reshape(len(aims), -1), axis=1)
    errors /= np.linalg.norm(aims.reshape(len(aims), -1), axis=1)
    return {
        "method": name, "seed": seed, "steps": steps, "error": float(errors.mean()),
        "worst": float(errors.max()), "loss": float(value),
        "seconds_per_step": float(np.median(spent[FIRST:])),
        "temporary_bytes": int(memory.temp_size_in_bytes),
    }  # fmt: skip


def layer(times: int, points: int, blocks: int, fields: int) -> dict:
    problem = DiffusionSorption(times, points)
    least = experts(problem, blocks, MARQUARDT, ITERATIONS)
    t = np.linspace(0, 1, times + 1)[:, None, None]
    x = np.linspace(0, 1, points + 2)[None, :, None]
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 3, (2, fields))
    basis = np.cos(np.pi * (a * t + b * x) + rng.uniform(0, 2 * np.pi, fields))

    def loss(basis):
        local, common = problem.terms(basis)
        common["ridge"] = RIDGE * jnp.eye(fields)
        found = least(local, common, 0.1)
        return jnp.mean(found.values["u"] ** 2), found.steps

    basis = jnp.asarray(basis, jnp.float32)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(basis).compile()
    memory = step.memory_analysis()
    assert memory is not None
    spent, iterations = [], np.zeros(1)
    for _ in range(4):
        before = time.perf_counter()
        (_, iterations), _ = jax.block_until_ready(step(basis))
        spent.append(time.perf_counter() - before)
    return {
        "seconds": float(np.median(spent[1:])), "temporary_bytes": int(memory.temp_size_in_bytes),
        "iterations": int(np.max(iterations)),
    }  # fmt: skip


def layers() -> Iterator[dict]:
    for times, points, weights in SIZES:
        head = {"times": times, "points": points}
        whole = layer(times, points, 1, weights)
        yield head | {"blocks": 1, "fields": weights} | whole
        for blocks in (4, 8, 16):
            for fields in (weights, weights // blocks):
                row = head | {"blocks": blocks, "fields": fields}
                row |= layer(times, points, blocks, fields)
                row["global_over_this"] = whole["seconds"] / row["seconds"]
                alone = layer(times, points // blocks, 1, fields)
                row |= {f"block_{n}": alone[n] for n in ("seconds", "temporary_bytes")}
                yield row


def judged(problem) -> tuple:
    """Starts that nobody trains on, and their solutions."""
    if isinstance(problem, Flow):
        starts = drawn(problem, jax.random.key(7), 8)
    else:
        starts = np.random.default_rng(7).uniform(0, 0.2, 8)
    return starts, np.stack([problem.truth(s) for s in starts])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("sorption", "flow", "layer"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["soft", "K = 1", "K = 4", "K = 16"])
    given = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept.pop("machine", None)
    rows: list[dict] = []

    def keep(row: dict) -> None:
        rows.append(row | {"cpu": machine()["cpu"]})
        print(row, flush=True)
        write(RESULTS, kept | {given.what: rows})

    if given.what == "layer":
        for row in layers():
            keep(row)
        return
    problem = SORPTION if given.what == "sorption" else FLOW
    rows += [  # of other methods and seeds
        row for row in kept.get(given.what, [])
        if (row["method"], row["seed"])
        not in {(name, seed) for name in given.methods for seed in given.seeds}
    ]  # fmt: skip
    starts, aims = judged(problem)
    if given.what == "sorption":
        apart = np.linalg.norm(aims[0] - SORPTION.truth(starts[0], 256)) / np.linalg.norm(aims[0])
        kept["reference.relative_l2"] = float(apart)
    else:  # what the truth leaves of the equation, over its rate
        local, _ = FLOW.terms(jnp.asarray(aims[0] - starts[0])[..., None])
        local = {n: v[..., 0] for n, v in local.items()} | FLOW.fields(starts[0])
        left = FLOW.residuals(local, {}, starts[0])["equation"]
        kept["flow.residual_of_truth"] = float(
            jnp.linalg.norm(left) / jnp.linalg.norm(local["w_t"])
        )
    for seed in given.seeds:
        for name in given.methods:
            keep(train(problem, name, seed, given.steps, starts, aims))


if __name__ == "__main__":
    main()
