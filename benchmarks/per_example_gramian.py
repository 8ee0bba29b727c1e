"""Memory and time of a per-example Gramian: from the Jacobian, in blocks, and from factors.

    python benchmarks/per_example_gramian.py --out benchmarks/results/per_example_gramian.json

Temporary memory is what XLA says of the compiled program; times are medians in turns.
"""

import argparse
import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _machine import write
from jax.flatten_util import ravel_pytree

from sciopt.aggregate import per_example_gramian

WIDTHS = [128, 256]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/per_example_gramian.json")
    )
    options = parser.parse_args()
    rows = []
    for width in WIDTHS:
        net = eqx.nn.MLP(64, 10, width, 3, key=jax.random.key(0))
        params, static = eqx.partition(net, eqx.is_inexact_array)
        x = jax.random.normal(jax.random.key(1), (options.batch, 64))
        batch = (x, jax.random.randint(jax.random.key(2), (options.batch,), 0, 10))

        def loss(params, xy, static=static):
            return -jax.nn.log_softmax(eqx.combine(params, static)(xy[0]))[xy[1]]

        def dense(params, batch, loss=loss):
            grads = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
            rows = jax.vmap(lambda g: ravel_pytree(g)[0])(grads)
            return rows @ rows.T

        def blocks(params, batch, loss=loss):
            return per_example_gramian(loss, params, batch, structure=False, memory=2**25)

        def factored(params, batch, loss=loss):
            return per_example_gramian(loss, params, batch)

        programs = {
            name: jax.jit(fn).lower(params, batch).compile()
            for name, fn in {"jacobian": dense, "blocks": blocks, "factors": factored}.items()
        }
        expected = programs["jacobian"](params, batch)
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(options.repeats):
            for name, program in programs.items():
                before = time.perf_counter()
                jax.block_until_ready(program(params, batch))
                times[name].append(time.perf_counter() - before)
        for name, program in programs.items():
            apart = jnp.max(jnp.abs(program(params, batch) - expected)) / jnp.max(expected)
            analysis = program.memory_analysis()
            assert analysis is not None
            rows.append(
                {
                    "method": name, "width": width, "batch": options.batch,
                    "parameters": int(ravel_pytree(params)[0].size),
                    "temporary_bytes": analysis.temp_size_in_bytes,
                    "median_seconds": float(np.median(times[name])),
                    "relative_difference": float(apart),
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    write(options.out, {"repeats": options.repeats, "rows": rows})


if __name__ == "__main__":
    main()
