"""The Laplacian of an MLP at many points: one forward pass against nested and Taylor modes.

    python benchmarks/laplacian.py --out benchmarks/results/laplacian.json

`forward` is `pde.laplacian`. The others make it from second derivatives along each coordinate:
`hessian` is the trace of `jax.hessian`, `jvp_of_grad` maps over the coordinates one Hessian-vector
product each, `taylor` maps over them one expansion of `jax.experimental.jet`. `gradient_ms` is
the time of a gradient by the parameters of the mean square, which is what training takes; bytes
are the temporary memory that XLA plans for a program. Float64; the ways take turns and the times
are medians, so that what else runs on the core hits all of them.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from _machine import write
from jax.experimental.jet import jet

import pde

Field = Callable[[jax.Array], jax.Array]


def _temporary_bytes(compiled: jax.stages.Compiled) -> int:
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def forward(field: Field, x: jax.Array) -> jax.Array:
    return pde.laplacian(field, x).laplacian[0]


def hessian(field: Field, x: jax.Array) -> jax.Array:
    return jnp.trace(jax.hessian(lambda y: field(y)[0])(x))


def jvp_of_grad(field: Field, x: jax.Array) -> jax.Array:
    gradient = jax.grad(lambda y: field(y)[0])

    def along(direction):
        return direction @ jax.jvp(gradient, (x,), (direction,))[1]

    return jnp.sum(jax.vmap(along)(jnp.eye(len(x))))


def taylor(field: Field, x: jax.Array) -> jax.Array:
    def along(direction):
        return jet(field, (x,), ([direction, jnp.zeros_like(x)],))[1][1][0]

    return jnp.sum(jax.vmap(along)(jnp.eye(len(x))))


# Dimension, width and depth of the network, points.
SIZES = ((10, 64, 3, 512), (100, 128, 1, 512), (100, 128, 3, 128))
WAYS = {"forward": forward, "hessian": hessian, "jvp_of_grad": jvp_of_grad, "taylor": taylor}


def measure(dimension: int, width: int, depth: int, points: int, rounds: int) -> dict:
    net = pde.MLP(dimension, 1, width=width, depth=depth, key=jax.random.key(0))
    params, static = pde.partition(net)
    x = jax.random.normal(jax.random.key(1), (points, dimension))

    def of(way):
        def laplacians(params, x):
            return jax.vmap(lambda point: way(eqx.combine(params, static), point))(x)

        def gradient(params, x):
            return jax.grad(lambda p: jnp.mean(laplacians(p, x) ** 2))(params)

        return {"value": laplacians, "gradient": gradient}

    compiled = {
        (name, what): jax.jit(function).lower(params, x).compile()
        for name, way in WAYS.items()
        for what, function in of(way).items()
    }
    first = compiled["forward", "value"](params, x)
    taken = {key: [] for key in compiled}
    for _ in range(rounds + 1):
        for key, function in compiled.items():
            before = time.perf_counter()
            jax.block_until_ready(function(params, x))
            taken[key].append(1e3 * (time.perf_counter() - before))
    row: dict = {
        "dimension": dimension, "width": width, "depth": depth, "points": points, "ways": {},
    }  # fmt: skip
    for name in WAYS:
        difference = jnp.max(jnp.abs(compiled[name, "value"](params, x) - first))
        assert difference <= 1e-10 * jnp.max(jnp.abs(first)), name
        row["ways"][name] = {
            # The first round warms up.
            f"{what}_{unit}": figure
            for what in ("value", "gradient")
            for unit, figure in (
                ("ms", round(statistics.median(taken[name, what][1:]), 2)),
                ("bytes", _temporary_bytes(compiled[name, what])),
            )
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    for dimension, width, depth, points in (
        (10, 64, 3, 512),
        (100, 128, 1, 512),
        (100, 128, 3, 128),
    ):
        rows.append(measure(dimension, width, depth, points, options.rounds))
        print(f"d = {dimension}, {width} x {depth}, {points} points", flush=True)
        for name, found in rows[-1]["ways"].items():
            print(f"  {name:12s} {found}", flush=True)
    if options.out:
        write(options.out, {"rows": rows})


if __name__ == "__main__":
    main()
