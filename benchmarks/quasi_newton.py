"""Burgers by Gauss-Newton, self-scaled quasi-Newton and first-order methods at equal wall time.

    python benchmarks/quasi_newton.py --seconds 180 --out benchmarks/results/quasi_newton.json

All methods train the case's network on the case's points, drawn anew as each likes best; the
relative L2 error against Cole-Hopf is looked at every so often, with the clock stopped. Compilation
is not counted, and given beside. Nothing but the time between draws is tuned to a method.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _machine import write
from _race import race

import cases
from cases._pinn import build

# The optimizer, and after how many steps it wants new points.
METHODS = {
    "gauss_newton": ("{type: gauss_newton}", 50),
    "ssbroyden": ("{type: ssbroyden}", 500),
    "ssbfgs": ("{type: ssbfgs}", 500),
    "soap": ("{type: soap, learning_rate: 3e-3}", 500),
    "adam": ("{type: adam, learning_rate: 3e-3}", 500),
}


def measure(name: str, method: str, seed: int, seconds: float, sets: list[str]) -> dict:
    optimizer, every = METHODS[method]
    case: cases.Case = cases.load(name, [*sets, f"train.optimizer={optimizer}"])
    axes = {n: np.linspace(*case.coordinates[n], k) for n, k in case.evaluate.grid.items()}
    reference = build.reference(case)
    assert reference is not None
    exact = reference(axes)

    network_key, points_key = jax.random.split(jax.random.key(seed))
    pinn = build.pinn(case, network_key)

    def error(params):
        fields = pinn.field(params).on_grid({n: jnp.asarray(x) for n, x in axes.items()})
        return max(
            float(np.linalg.norm(fields[f] - u) / np.linalg.norm(u)) for f, u in exact.items()
        )

    found = race(pinn, build.optimizer(case), points_key, seconds, every, error)
    return {"case": name, "method": method, "seed": seed, "sets": sets, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", default="burgers")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    for seed in options.seeds:
        for method in options.methods:
            rows.append(measure(options.case, method, seed, options.seconds, options.sets))
            last = rows[-1]["looks"][-1]
            print(f"{method:14s} seed {seed}: {json.dumps(last)}", flush=True)
            if options.out:
                write(options.out, {"rows": rows})


if __name__ == "__main__":
    main()
