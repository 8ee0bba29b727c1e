"""Handwritten digits by EGN on mini-batches, against Adam at equal wall time.

    python benchmarks/egn_classification.py --out benchmarks/results/egn_classification.json

The data are scikit-learn's `load_digits` (1797 images of 8 x 8), split 80/20 by the seed; both
train the same network in float32 from the same start, on batches drawn alike. Every method has a
short grid of its one parameter (Adam's rate, EGN's first damping), of which the best is chosen by
the loss on the training set at the end. The clock stands while losses are looked at, and does not
count compilation.
"""

import argparse
import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _machine import write
from iwrm_digits import data

import sciopt

LOOKS = 6
LOSS = sciopt.losses.SoftmaxCrossEntropy()
GRIDS = {
    "adam": [1e-3, 3e-3, 1e-2],
    "egn": [1.0, 1e-1, 1e-2],
    "egn, empirical fisher": [1.0, 1e-1, 1e-2],
}


def method(name: str, parameter: float, logits: sciopt.Outputs):
    """The first state, and `(params, state, batch) -> (params, state)`."""
    if name == "adam":
        optimizer = optax.adam(parameter)

        def descend(params, state, batch):
            def loss(params):
                return jnp.mean(jax.vmap(LOSS)(logits(params, batch), batch[1]))

            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        return optimizer.init, descend

    fisher = "empirical" if "empirical" in name else "exact"
    # A whole step would fit one batch, and forget the others.
    solver = sciopt.EGN(loss=LOSS, damping=parameter, fisher=fisher, step_size=0.3)
    options = {"jac": logits.jacobian}

    def fn(params, batch):
        return logits(params, batch), None

    def init(params):
        return solver.init(fn, params, None, options, None, None, frozenset())

    def step(params, state, batch):
        return solver.step(fn, params, batch, options, state, frozenset())[:2]

    return init, step


def train(name: str, parameter: float, seed: int, seconds: float, size: int, width: int) -> dict:
    trained, held = data(seed)
    net = eqx.nn.MLP(64, 10, width, 1, jax.nn.tanh, key=jax.random.key(seed))
    params, static = eqx.partition(net, eqx.is_inexact_array)
    logits = sciopt.Outputs(lambda p, x: eqx.combine(p, static)(x))
    init, step = method(name, parameter, logits)
    state = init(params)

    @eqx.filter_jit
    def chunk(params, state, key, steps):
        # A state holds more than arrays, and a loop carries only those.
        arrays, rest = eqx.partition((params, state), eqx.is_array)

        def body(i, carry):
            params, state = eqx.combine(carry, rest)
            index = jax.random.choice(
                jax.random.fold_in(key, i), len(trained[1]), (size,), replace=False
            )
            after = step(params, state, jax.tree.map(lambda a: a[index], trained))
            return eqx.filter(after, eqx.is_array)

        return eqx.combine(jax.lax.fori_loop(0, steps, body, arrays), rest)

    @jax.jit
    def judge(params):
        loss = jnp.mean(jax.vmap(LOSS)(logits(params, trained), trained[1]))
        right = jnp.argmax(logits(params, held), axis=1) == held[1]
        return loss, jnp.mean(right)

    chunk_size = 200 if name == "adam" else 10
    before = time.perf_counter()
    jax.block_until_ready(chunk(params, state, jax.random.key(0), jnp.array(1)))
    compiled = time.perf_counter() - before
    spent, steps, looks = 0.0, 0, []
    while spent < seconds:
        key = jax.random.key(10_000 * seed + steps)
        before = time.perf_counter()
        params, state = jax.block_until_ready(chunk(params, state, key, jnp.array(chunk_size)))
        spent += time.perf_counter() - before
        steps += chunk_size
        if spent > seconds * (len(looks) + 1) / LOOKS:
            loss, accuracy = map(float, judge(params))
            looks.append({"seconds": spent, "steps": steps, "loss": loss, "accuracy": accuracy})
    return {
        "method": name, "parameter": parameter, "seed": seed, "compile_seconds": compiled,
        "looks": looks,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        for name, grid in GRIDS.items():
            tried = [
                train(name, parameter, seed, options.seconds, options.batch, options.width)
                for parameter in grid
            ]
            # NaN is the worst.
            best = min(tried, key=lambda row: np.nan_to_num(row["looks"][-1]["loss"], nan=np.inf))
            rows += [{**row, "chosen": row is best} for row in tried]
            print(f"{name:22s} seed {seed}: {best['parameter']} {json.dumps(best['looks'][-1])}")
    if options.out:
        settings = {k: getattr(options, k) for k in ("seconds", "batch", "width")}
        write(options.out, {**settings, "rows": rows}, "scikit-learn")


if __name__ == "__main__":
    main()
