"""Entropic transport between point clouds too large for a cost matrix: time, passes and memory.

    python benchmarks/transport_online.py 5000 20000 [100000]

Two clouds in three dimensions, epsilon a hundredth of the mean cost, float64, to a marginal error
of 1e-6: Sinkhorn-Newton-Sparse online; to n = 5000 (above, their sweeps take minutes) ott's online
Sinkhorn, and sweeps on GeomLoss' tensorised and KeOps' online soft minimum. One process each,
compilation included. The peers need `pip install geomloss pykeops torch`.
Results: `benchmarks/results/transport_online.json`.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from _machine import write

RESULTS = Path(__file__).parent / "results" / "transport_online.json"
THRESHOLD = 1e-6


def solve(solver: str, n: int) -> dict:
    import jax
    import jax.numpy as jnp
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    from transport import SinkhornNewtonSparse

    jax.config.update("jax_enable_x64", True)
    x = jax.random.normal(jax.random.key(0), (n, 3))
    y = 0.7 * jax.random.normal(jax.random.key(1), (n, 3)) + 0.5
    some = jnp.sum((x[:2000, None] - y[None, :2000]) ** 2, axis=-1)
    geometry = PointCloud(x, y, epsilon=0.01 * jnp.mean(some), batch_size=32)
    sweeps = 5000
    before = time.perf_counter()
    if solver == "ours":
        made = SinkhornNewtonSparse(threshold=THRESHOLD, max_iterations=sweeps)
        out, history = made.run(LinearProblem(geometry))
        newton = int(history.newton.sum())
        iterations = f"{int(out.n_iters) - newton} sweeps + {newton} Newton"
    else:
        out = jax.jit(Sinkhorn(threshold=THRESHOLD, max_iterations=sweeps))(LinearProblem(geometry))
        iterations = f"{int(out.n_iters)} sweeps"
    value = float(jax.block_until_ready(out.reg_ot_cost))
    seconds = time.perf_counter() - before
    errors = np.asarray(out.errors)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return {
        "seconds": round(seconds, 1),
        "iterations": iterations,
        "converged": bool(out.converged),
        "marginal_error": float(f"{errors[errors >= 0][-1]:.2g}"),
        "reg_ot_cost": value,
        "peak_memory_mb": int(peak[1]) // 1024 if peak else None,
    }


def main() -> None:
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    for n in map(int, sys.argv[1:]):
        for solver in ("ours", "ott") if n <= 5000 else ("ours",):
            command = [sys.executable, __file__, "--child", solver, str(n)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            failure = [line for line in done.stderr.splitlines() if "Error" in line]
            row = {"failure": failure[-1]} if done.returncode else json.loads(done.stdout)
            rows.setdefault(str(n), {})[solver] = row
            print(n, solver, rows[str(n)][solver], flush=True)
            write(RESULTS, {"dtype": "float64", "rows": rows}, "ott-jax")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(solve(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
