"""Adam with every way of joining residual blocks, at equal wall time: docs/aggregators.md's table.

    python benchmarks/aggregate_training.py --seconds 60 --seeds 3

Each method gets the steps that fit into `--seconds` at the speed of its own step, measured after
compilation, and a learning rate that decays over those steps. The relative L2 error of each field
against the case's reference is what is compared; nothing is tuned to a method. `--table` only
writes the table anew, from the results that are there; `--resume` keeps their runs and their
numbers of steps, and makes the runs that are missing.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from _machine import publish, write

import cases
import pde
import sciopt
from cases._pinn import build

RESULTS = Path(__file__).parent / "results" / "aggregate_training.json"
GUIDE = Path(__file__).parents[1] / "docs" / "aggregators.md"
BEGIN, END = "<!-- training -->\n", "\n<!-- /training -->"
CASES = ["burgers_config", "schrodinger_nls", "kovasznay_config"]
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
    """The table in Markdown, a row a method: median and range, over the seeds, of the root mean
    square of the fields' errors; the best median of a case in bold."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["case"], row["method"]), []).append(row)
    names = list(dict.fromkeys(row["case"] for row in rows))
    errors = {
        key: [float(np.sqrt(np.mean(np.square(list(r["error"].values()))))) for r in group]
        for key, group in found.items()
    }
    best = {n: min(float(np.median(e)) for (c, _), e in errors.items() if c == n) for n in names}
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for name in names:
            of = errors.get((name, method))
            if of is None:
                cells.append("")
                continue
            median = float(np.median(of))
            mark = "**" if median == best[name] else ""
            steps = found[name, method][0]["steps"]
            cells.append(f"{mark}{median:.1e}{mark} ({min(of):.1e} to {max(of):.1e}; {steps})")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    if options.table:
        rows = json.loads(options.out.read_text())["rows"]
        publish(GUIDE, BEGIN, table(rows), END)
        return
    jax.config.update("jax_enable_x64", True)
    rows = json.loads(options.out.read_text())["rows"] if options.resume else []
    for name in options.cases:
        case: cases.Case = cases.load(name)
        axes = {n: np.linspace(*case.coordinates[n], k) for n, k in case.evaluate.grid.items()}
        made = build.reference(case)
        assert made is not None
        reference = made(axes)
        steps = {row["method"]: row["steps"] for row in rows if row["case"] == name}
        # Seeds in the outer loop: whatever else the machine does meets all methods alike.
        for seed in range(options.seeds):
            for method in options.methods:
                if any((r["case"], r["method"], r["seed"]) == (name, method, seed) for r in rows):
                    continue
                if method not in steps:
                    steps[method] = affordable(name, method, options.seconds)
                rows.append(measure(name, method, seed, steps[method], axes, reference))
                print(json.dumps(rows[-1]), flush=True)
                write(options.out, {"seconds": options.seconds, "rows": rows})
                # Programs by the hundred exhaust the mappings that Linux grants a process.
                jax.clear_caches()
    publish(GUIDE, BEGIN, table(rows), END)


if __name__ == "__main__":
    main()
