"""What an aggregator adds to a PINN step: against the step that sums the same Jacobian's rows.

    python benchmarks/aggregate_step.py --out benchmarks/results/aggregate_step.json

All methods are timed in turns within one process, after warm-up, medians of `--repeats`; "none" is
Adam on the loss itself, which makes no Jacobian.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from _machine import write
from aggregate_training import METHODS, start

import cases

STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cases", nargs="+", default=["burgers_config", "schrodinger_nls", "kovasznay_config"]
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/aggregate_step.json"))
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    methods = {"none": "null", "sum": "sum"} | {n: m for n, m in METHODS.items() if m}
    rows = []
    for name in options.cases:
        fits = {}
        for method, value in methods.items():
            kind = "sgd" if value == "m_config" else "adam"
            sets = [f"train.aggregator={value}", f"train.optimizer={{type: {kind}}}"]
            fits[method] = start(cases.load(name, sets))[:2]
        times: dict[str, list[float]] = {method: [] for method in fits}
        for _ in range(options.repeats):
            for method, (fit, state) in fits.items():
                before = time.perf_counter()
                jax.block_until_ready(fit.advance(state, STEPS))
                times[method].append((time.perf_counter() - before) / STEPS)
        median = {method: float(np.median(t)) for method, t in times.items()}
        # The ratio of times that were taken beside each other is the steadier measure.
        ratio = {
            method: float(np.median(np.divide(t, times["sum"]))) for method, t in times.items()
        }
        rows.append({"case": name, "step_seconds": median, "ratio_to_sum": ratio})
        print(json.dumps(rows[-1]), flush=True)
    write(options.out, {"repeats": options.repeats, "rows": rows})


if __name__ == "__main__":
    main()
