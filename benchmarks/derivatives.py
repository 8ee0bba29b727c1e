"""Pure derivatives of an MLP: nested `jvp` against Taylor mode (`jax.experimental.jet`), by order.

    python benchmarks/derivatives.py

What `pde/_derivative.py` rests its choice on. Medians of 20 after warm-up, one process, float64.
Results: `benchmarks/results/derivatives.json`.
"""

import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from _machine import write
from jax.experimental.jet import jet

import pde

jax.config.update("jax_enable_x64", True)
RESULTS = Path(__file__).parent / "results" / "derivatives.json"
POINTS = 4096


def nested(field, order):
    def along(f):
        return lambda x: jax.jvp(f, (x,), (jnp.array([1.0, 0.0]),))[1]

    functions = [field]
    for _ in range(order):
        functions.append(along(functions[-1]))
    return lambda x: [f(x) for f in functions]


def nested_sharing(field, order):
    """All orders from one nest: each level carries the values of the levels below."""

    def lift(f):
        def lifted(x):
            values, slopes = jax.jvp(f, (x,), (jnp.array([1.0, 0.0]),))
            return [*values, slopes[-1]]

        return lifted

    f = lambda x: [field(x)]  # noqa: E731
    for _ in range(order):
        f = lift(f)
    return f


def taylor(field, order):
    series = [jnp.array([1.0, 0.0])] + [jnp.zeros(2)] * (order - 1)

    def all_orders(x):
        value, rest = jet(field, (x,), (series,))
        return [value, *rest]

    return all_orders


def milliseconds(function, points):
    compiled = jax.jit(jax.vmap(function)).lower(points).compile()
    jax.block_until_ready(compiled(points))
    taken = []
    for _ in range(20):
        before = time.perf_counter()
        jax.block_until_ready(compiled(points))
        taken.append(1e3 * (time.perf_counter() - before))
    return round(statistics.median(taken), 2)


def main() -> None:
    field = pde.MLP(2, 1, width=20, depth=3, key=jax.random.key(0))
    points = jax.random.uniform(jax.random.key(1), (POINTS, 2))
    rows = []
    for order in (1, 2, 3, 4):
        ways = {"nested": nested, "nested sharing": nested_sharing, "taylor": taylor}
        row = {name: milliseconds(way(field, order), points) for name, way in ways.items()}
        rows.append({"order": order, **row})
        print(rows[-1], flush=True)
    write(RESULTS, {"unit": "ms", "points": POINTS, "network": "20x3", "rows": rows})


if __name__ == "__main__":
    main()
