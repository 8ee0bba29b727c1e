"""Adam with every way of joining residual blocks, at equal wall time: docs/aggregators.md's table.

    python benchmarks/aggregate_training.py --seconds 60 --seeds 3

Each method gets the steps that fit into `--seconds` at the speed of its own step, measured after
compilation, and a learning rate that decays over those steps. The relative L2 error of each field
against the case's reference is what is compared; nothing is tuned to a method.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from _machine import write

import cases
import pde
import sciopt
from cases import _build as build

RESULTS = Path(__file__).parent / "results" / "aggregate_training.json"
CASES = ["burgers_config", "schrodinger_nls", "kovasznay"]
METHODS = {
    "none": None,
    "LRA": "lra",
    "PCGrad": "pcgrad",
    "IMTL-G": "imtl_g",
    "UPGrad": "upgrad",
    "ConFIG": "config",
    "M-ConFIG": "m_config",
}


def overrides(method: str, seed: int, steps: int) -> list[str]:
    name = METHODS[method]
    # M-ConFIG scales its steps as Adam does, and is given the learning rate that Adam has.
    kind = "sgd" if name == "m_config" else "adam"
    return [
        f"seed={seed}",
        f"train.steps={steps}",
        f"train.optimizer={{type: {kind}, learning_rate: 2e-3, schedule: cosine}}",
        f"train.aggregator={name or 'null'}",
    ]


def start(case: cases.Case) -> tuple[sciopt.Fit, sciopt.FitState, pde.PINN]:
    """The fit as `cases.run` makes it, with its programs compiled."""
    network_key, points_key = jax.random.split(jax.random.key(case.seed))
    pinn = build.pinn(case, network_key)
    fit = sciopt.Fit(pinn.residuals, build.optimizer(case), pinn.sample, points_key)
    state = fit.init(pinn.params)
    fit.resample(fit.advance(state, 1))
    return fit, state, pinn


def train(fit: sciopt.Fit, state: sciopt.FitState, steps: int, every: int | None):
    """Take steps as the run's engine does: chunks between new draws of the points."""
    step = 0
    while step < steps:
        stop = min(steps, step + (every or steps))
        state = fit.advance(state, stop - step)
        step = stop
        if every and step < steps:
            state = fit.resample(state)
    return jax.block_until_ready(state)


def affordable(name: str, method: str, seconds: float) -> int:
    """How many steps fit into the time, from the median of ten batches of steps."""
    fit, state, _ = start(cases.load(name, overrides(method, 0, 1000)))
    took = []
    for _ in range(10):
        before = time.perf_counter()
        jax.block_until_ready(fit.advance(state, 50))
        took.append((time.perf_counter() - before) / 50)
    return max(1, int(seconds / float(np.median(took))))


def measure(name: str, method: str, seed: int, steps: int, axes, reference) -> dict:
    case = cases.load(name, overrides(method, seed, steps))
    every = case.sampler.adapt.every if case.sampler.adapt else case.sampler.resample_every
    fit, state, pinn = start(case)
    before = time.perf_counter()
    state = train(fit, state, steps, every)
    wall = time.perf_counter() - before
    fields = pinn.field(state.params).on_grid(axes)
    errors = {
        field: float(np.linalg.norm(fields[field] - exact) / np.linalg.norm(exact))
        for field, exact in reference.items()
    }
    return {
        "case": name, "method": method, "seed": seed, "steps": steps, "wall_seconds": wall,
        "step_milliseconds": 1e3 * wall / steps, "loss": float(state.loss), "error": errors,
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    """The table in Markdown: median and range of the errors' root mean square, by case."""
    lines = ["| case | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for name in dict.fromkeys(row["case"] for row in rows):
        cells, medians = {}, {}
        for method in METHODS:
            found = [
                float(np.sqrt(np.mean(np.square(list(row["error"].values())))))
                for row in rows
                if row["case"] == name and row["method"] == method
            ]
            if found:
                medians[method] = float(np.median(found))
                cells[method] = f"{medians[method]:.1e} ({min(found):.1e} to {max(found):.1e})"
        best = min(medians, key=lambda method: medians[method])
        cells[best] = f"**{cells[best]}**"
        lines.append(f"| {name} | " + " | ".join(cells.get(m, "") for m in METHODS) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows: list[dict] = []
    for name in options.cases:
        case = cases.load(name)
        axes = {n: np.linspace(*case.domain[n], k) for n, k in case.evaluate.grid.items()}
        made = build.reference(case)
        assert made is not None
        reference = made(axes)
        steps = {method: affordable(name, method, options.seconds) for method in options.methods}
        # Seeds in the outer loop: whatever else the machine does meets all methods alike.
        for seed in range(options.seeds):
            for method in options.methods:
                rows.append(measure(name, method, seed, steps[method], axes, reference))
                print(json.dumps(rows[-1]), flush=True)
                write(options.out, {"seconds": options.seconds, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
