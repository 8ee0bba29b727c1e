"""Instance-wise risk minimisation of handwritten digits, against the mean of the same losses.

    python benchmarks/iwrm_digits.py --out benchmarks/results/iwrm_digits.json

The data are scikit-learn's `load_digits` (1797 images of 8 x 8), split 80/20 by the seed. UPGrad on
the Gramian of a batch's gradients (Quinton and Rey 2024, section 5) and the plain mean go through
the same optimizers, learning rates and batches. Rates are chosen from the grid by the loss on the
training set at the end, as the paper does; accuracy is of the held-out images.
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

from sciopt.aggregate import Mean, UPGrad, iwrm

RATES = {"sgd": [0.03, 0.1, 0.3, 1.0], "adam": [1e-3, 3e-3, 1e-2, 3e-2]}
METHODS = {"mean": Mean, "iwrm-upgrad": UPGrad}


def data(seed: int):
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]: the extra `bench`

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    cut = len(order) * 4 // 5
    x, y = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order])
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])


def train(method: str, kind: str, rate: float, seed: int, epochs: int, size: int) -> dict:
    trained, held = data(seed)
    net = eqx.nn.MLP(64, 10, 64, 2, key=jax.random.key(seed))
    params, static = eqx.partition(net, eqx.is_inexact_array)

    def loss(params, xy):
        return -jax.nn.log_softmax(eqx.combine(params, static)(xy[0]))[xy[1]]

    update = iwrm(loss, METHODS[method]())
    optimizer = getattr(optax, kind)(rate)
    state = optimizer.init(params)
    count = len(trained[1])
    batches = count // size

    @jax.jit
    def epoch(params, state, key):
        order = jax.random.permutation(key, count)[: batches * size].reshape(batches, size)

        def step(carry, index):
            params, state = carry
            _, gradient = update(params, jax.tree.map(lambda a: a[index], trained))
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), order)[0]

    @jax.jit
    def judge(params, batch):
        losses = jax.vmap(loss, (None, 0))(params, batch)
        logits = jax.vmap(eqx.combine(params, static))(batch[0])
        return losses.mean(), jnp.mean(logits.argmax(axis=1) == batch[1]), losses.max()

    epoch(params, state, jax.random.key(0))
    before, curve = time.perf_counter(), []
    for i in range(epochs):
        params, state = epoch(params, state, jax.random.fold_in(jax.random.key(seed), i))
        curve.append(float(judge(params, trained)[0]))
    wall = time.perf_counter() - before
    final, held_out = judge(params, trained), judge(params, held)
    return {
        "method": method, "optimizer": kind, "rate": rate, "seed": seed, "epochs": epochs,
        "batch": size, "wall_seconds": wall, "train_loss": float(final[0]),
        "worst_train_loss": float(final[2]), "accuracy": float(held_out[1]),
        "held_out_loss": float(held_out[0]), "curve": curve,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/iwrm_digits.json"))
    options = parser.parse_args()
    rows = []
    for kind, rates in RATES.items():
        for method in METHODS:
            for rate in rates:
                for seed in range(options.seeds):
                    row = train(method, kind, rate, seed, options.epochs, options.batch)
                    rows.append(row)
                    print(json.dumps({k: v for k, v in row.items() if k != "curve"}), flush=True)
    best = []
    for kind in RATES:
        for method in METHODS:
            found = [r for r in rows if r["method"] == method and r["optimizer"] == kind]
            chosen = min(
                RATES[kind],
                key=lambda rate, found=found: np.nan_to_num(
                    np.median([r["train_loss"] for r in found if r["rate"] == rate]), nan=np.inf
                ),
            )
            of = [r for r in found if r["rate"] == chosen]
            keys = ("train_loss", "worst_train_loss", "held_out_loss", "accuracy", "wall_seconds")
            medians = {key: float(np.median([r[key] for r in of])) for key in keys}
            best.append({"method": method, "optimizer": kind, "rate": chosen, **medians})
            print(json.dumps(best[-1]))
    write(options.out, {"best": best, "rows": rows})


if __name__ == "__main__":
    main()
