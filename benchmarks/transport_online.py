"""Entropic transport between point clouds too large for a cost matrix: time, passes and memory.

    python benchmarks/transport_online.py 5000 20000 [100000]

Two clouds in three dimensions, epsilon a hundredth of the mean cost, float64, to a marginal error
of 1e-6: Sinkhorn-Newton-Sparse online; to n = 5000 ott's online Sinkhorn, and 200 sweeps (they need
thousands: n = 400 is at 1e-6 after 5000) of GeomLoss' soft minima, on a cost matrix and on KeOps'
symbolic one, epsilon annealed by 0.7 a sweep. (Its own loop ends with the annealing, and cannot be
asked for an error.) One process each, one thread of torch, compilation included. The peers need
`pip install geomloss pykeops torch`.
Results: `benchmarks/results/transport_online.json`.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _machine import write

RESULTS = Path(__file__).parent / "results" / "transport_online.json"
THRESHOLD = 1e-6
PEERS = ("ott", "GeomLoss tensorized", "GeomLoss online")


def solve(solver: str, n: int) -> dict:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    x = jax.random.normal(jax.random.key(0), (n, 3))
    y = 0.7 * jax.random.normal(jax.random.key(1), (n, 3)) + 0.5
    some = jnp.sum((x[:2000, None] - y[None, :2000]) ** 2, axis=-1)
    epsilon = 0.01 * float(jnp.mean(some))
    before, worked = time.perf_counter(), time.process_time()
    row = (
        of_geomloss(solver, x, y, epsilon)
        if "GeomLoss" in solver
        else of_jax(solver, x, y, epsilon)
    )
    taken = {
        "seconds": round(time.perf_counter() - before, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
    }
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    memory = int(peak[1]) // 1024 if peak else None
    return {**taken, **row, "peak_memory_mb": memory}


def of_jax(solver: str, x, y, epsilon: float) -> dict:
    import jax
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    from transport import SinkhornNewtonSparse

    problem = LinearProblem(PointCloud(x, y, epsilon=epsilon, batch_size=32))
    out: Any
    if solver == "ours":
        out, history = SinkhornNewtonSparse(threshold=THRESHOLD).run(problem)
        newton = int(history.newton.sum())
        iterations = f"{int(out.n_iters) - newton} sweeps + {newton} Newton"
    else:
        out = jax.jit(Sinkhorn(threshold=THRESHOLD, max_iterations=5000))(problem)
        iterations = f"{int(out.n_iters)} sweeps"
    errors = np.asarray(out.errors)
    return {
        "iterations": iterations,
        "converged": bool(out.converged),
        "marginal_error": float(f"{errors[errors >= 0][-1]:.2g}"),
        "reg_ot_cost": float(out.reg_ot_cost),
    }


def of_geomloss(solver: str, x, y, epsilon: float) -> dict:
    """Its cost is half the squared distance, hence half of epsilon; each sweep mends both sides."""
    import torch  # pyright: ignore[reportMissingImports]: the extra `bench`
    from geomloss._legacy import sinkhorn_samples  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    x, y = (torch.from_numpy(np.array(points))[None] for points in (x, y))
    log_weight = torch.full((1, x.shape[1]), -np.log(x.shape[1]), dtype=x.dtype)
    if solver == "GeomLoss tensorized":
        cost = torch.cdist(x, y) ** 2 / 2
        softmin, costs = sinkhorn_samples.softmin_tensorized, (cost, cost.transpose(1, 2))
    else:
        softmin, costs = sinkhorn_samples.softmin_online_lazytensor, ((x, y), (y, x))
    f, g, annealed = torch.zeros_like(log_weight), torch.zeros_like(log_weight), 10.0
    sweeps, error = 0, np.inf
    while sweeps < 200 and not (annealed == epsilon / 2 and error < THRESHOLD):
        sweeps += 1
        annealed = max(epsilon / 2, 0.7 * annealed)
        f = softmin(annealed, costs[0], log_weight + g / annealed)
        new = softmin(annealed, costs[1], log_weight + f / annealed)
        error = float(torch.mean(torch.abs(torch.exp((g - new) / annealed) - 1)))
        g = new
    return {
        "iterations": f"{sweeps} sweeps",
        "converged": error < THRESHOLD,
        "marginal_error": float(f"{error:.2g}"),
        "reg_ot_cost": 2 * float(torch.mean(f) + torch.mean(g)),
    }


def main() -> None:
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    for n in map(int, sys.argv[1:]):
        for solver in ("ours", *PEERS) if n <= 5000 else ("ours",):
            command = [sys.executable, __file__, "--child", solver, str(n)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            failure = [line for line in done.stderr.splitlines() if "Error" in line]
            row = (
                {"failure": failure[-1]}
                if done.returncode
                else json.loads(done.stdout.splitlines()[-1])
            )
            rows.setdefault(str(n), {})[solver] = row
            print(n, solver, rows[str(n)][solver], flush=True)
            write(RESULTS, {"dtype": "float64", "rows": rows}, "ott-jax")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(solve(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
