"""Large images on a grid: time and memory of Sinkhorn-Newton-Sparse, whose plan is never made.

    python benchmarks/transport_grid.py [side...]

The images of `transport_speed.py` (blobs on a ground of 1%) at sides of 64, 128 and 256 pixels,
L1 and squared L2 cost scaled to a maximum of 1, eta = 1200, float64, to a marginal error of 1e-9.
One process a problem; the second run is timed, for the first one compiles. The error reported is of
both marginals together, as ott's grid finds them from the potentials. Results:
`benchmarks/results/transport_grid.json`.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from _machine import write
from ott.problems.linear.linear_problem import LinearProblem

from transport import SinkhornNewtonSparse

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "transport"))
from transport_problems import image, pixels  # pyright: ignore[reportMissingImports]

RESULTS = Path(__file__).parent / "results" / "transport_grid.json"


def measure(power: int, side: int) -> dict:
    geometry = pixels(power, side, epsilon=1 / 1200)
    a, b = (jnp.asarray(image(seed, side, 0.01)) for seed in (1, 2))
    problem, solver = LinearProblem(geometry, a, b), SinkhornNewtonSparse(threshold=1e-9)

    def timed():
        before = time.perf_counter()
        found = jax.block_until_ready(solver.run(problem))
        return *found, time.perf_counter() - before

    first = timed()[-1]
    out, history, second = timed()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, columns = (geometry.marginal_from_potentials(out.f, out.g, axis=k) for k in (1, 0))
    newton = int(history.newton.sum())
    return {
        "seconds": round(second, 3),
        "first_run_seconds": round(first, 2),
        "sweeps": int((history.error >= 0).sum()) - newton,
        "newton": newton,
        "converged": bool(out.converged),
        "marginal_error": float(
            f"{float(jnp.abs(rows - a).sum() + jnp.abs(columns - b).sum()):.2g}"
        ),
        "peak_gb": round(peak / 1e6, 2),
    }


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(measure(*map(int, sys.argv[2:]))))
        return
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    for side in map(int, sys.argv[1:] or (64, 128, 256)):
        for power in (1, 2):
            call = [sys.executable, __file__, "one", str(power), str(side)]
            done = subprocess.run(call, check=True, capture_output=True, text=True)
            rows[f"L{power} {side} x {side}"] = json.loads(done.stdout)
            print(side, power, done.stdout, flush=True)
            write(RESULTS, {"dtype": "float64", "eta": 1200, "rows": rows}, "ott-jax")


if __name__ == "__main__":
    main()
