"""Every family of bridges on one 2-D pair whose bridge is known, three seeds.

    python benchmarks/bridge_methods.py [--seeds 3]
    python benchmarks/bridge_methods.py --sample

The end is a mixture whose potential has two Gaussians, the reference an Ornstein-Uhlenbeck process.
The error is the control's, relative to its size, root mean square over points of the true paths at
t = 0.25 and 0.7. Every method has the same 5000 unpaired samples of each end, in float32; a seed
draws these and the method's own randomness. Seconds are of a second call of the same shapes,
compilation apart. `adam` and `matching` are the light bridge on batches of 128, by the closed form
and by LightSB-M, at the same steps and rates. `discrete` has the first 1000 points of each end; the
networks, of two layers of 32, have four iterations of 1000 steps for each direction.
With `--sample` it is a draw that is timed: a million ends in 16 dimensions from 50 components, the
best of five after compilation, in both precisions, on the cores that the process may use.
Results: `benchmarks/results/bridge_methods.json`, and the table in `docs/bridges.md`.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import jax
import optax
from _machine import publish, write

import sciopt
from transport.bridge import (
    DiscreteBridge,
    LightSB,
    NeuralBridge,
    fit,
    markovian_fitting,
    proportional_fitting,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "transport" / "bridge"))
from bridge_problems import (  # pyright: ignore[reportMissingImports]
    REFERENCE,
    TIMES,
    control_error,
    to_two_clusters,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/bridge_methods.json"
SAMPLES, COMPONENTS = 5000, 10


def decaying(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def light(key, x0, x1, solver=None, **options):
    begin = LightSB.from_samples(key, REFERENCE, x1, COMPONENTS)
    return fit(begin, x0, x1, solver, key=key, **options).value


def neural(method, key, x0, x1, iterations: int):
    begin = NeuralBridge.from_samples(key, REFERENCE, x0, x1, width=32, depth=2)
    return method(
        begin, x0, x1, NETWORK, key=key, iterations=iterations, steps=1000, path_steps=40
    ).value


# Made once: what is compiled is kept by the optimizer's identity.
QUASI_NEWTON = sciopt.SSBFGS(rtol=1e-8, atol=1e-8, history_length=20)
BATCHES, NETWORK = decaying(1e-2, 2000), decaying(3e-3, 1000)
METHODS = {
    "em": lambda key, x0, x1: light(key, x0, x1),
    "ssbfgs": lambda key, x0, x1: light(key, x0, x1, QUASI_NEWTON, max_steps=200),
    "adam": lambda key, x0, x1: light(key, x0, x1, BATCHES, max_steps=2000),
    "matching": lambda key, x0, x1: light(
        key, x0, x1, BATCHES, max_steps=2000, loss="matching_objective"
    ),
    "discrete": lambda _, x0, x1: DiscreteBridge(REFERENCE, x0[:1000], x1[:1000]),
    "markovian": lambda key, x0, x1: neural(markovian_fitting, key, x0, x1, 4),
    "proportional": lambda key, x0, x1: neural(proportional_fitting, key, x0, x1, 4),
}


def table(rows: list[dict]) -> str:
    text = "\n| | error, by seed | seconds |\n|---|---|---|\n"
    for name in METHODS:
        mine = [row for row in rows if row["method"] == name]
        errors = ", ".join(f"{row['control_error']:.3f}" for row in mine)
        text += f"| {name} | {errors} | {statistics.median(r['seconds'] for r in mine):.2f} |\n"
    return text + "\n"


def sampling() -> dict:
    """Seconds of one large draw, by precision."""
    found = {"cores": len(os.sched_getaffinity(0))}
    for precision in ("float32", "float64"):
        with jax.enable_x64(precision == "float64"):
            x0 = jax.random.normal(jax.random.key(0), (1_000_000, 16))
            bridge = LightSB.from_samples(jax.random.key(1), 1.0, x0, 50)
            took = []
            for k in range(6):
                clock = time.perf_counter()
                jax.block_until_ready(bridge.sample(jax.random.key(k), x0))
                took.append(time.perf_counter() - clock)
            found[precision] = round(min(took[1:]), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sample", action="store_true")
    arguments = parser.parse_args()
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if arguments.sample:
        draws = {row["cores"]: row for row in [*stored.get("sample", []), sampling()]}
        print(draws)
        write(RESULTS, {"rows": stored["rows"], "sample": list(draws.values())})
        return
    seeds = arguments.seeds
    true = to_two_clusters()
    starts = jax.random.normal(jax.random.key(0), (2000, 2))
    points = true.simulate(jax.random.key(1), starts, TIMES)
    rows = []
    for name, method in METHODS.items():
        for seed in range(seeds):
            keys = jax.random.split(jax.random.key(100 + seed), 4)
            x0, other = jax.random.normal(keys[0], (2, SAMPLES, 2))
            x1 = true.sample(keys[1], other)
            if seed == 0:  # compiles
                jax.block_until_ready(method(keys[2], x0, x1))
            clock = time.perf_counter()
            bridge = jax.block_until_ready(method(keys[2], x0, x1))
            seconds = time.perf_counter() - clock
            error = float(control_error(bridge, true, points))
            row = {
                "method": name, "seed": seed, "control_error": error, "seconds": round(seconds, 2)
            }  # fmt: skip
            rows.append(row)
            print(row, flush=True)
    write(RESULTS, {"rows": rows, "sample": stored.get("sample", [])})
    page = ROOT / "docs" / "bridges.md"
    publish(page, "<!-- table: bridge_methods -->\n", table(rows), "<!-- end of methods -->")


if __name__ == "__main__":
    main()
