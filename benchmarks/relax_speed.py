"""Red-black SOR against the memory's bandwidth and PyAMG's, and multigrid-CG against PyAMG's.

    taskset -c 0 python benchmarks/relax_speed.py

Poisson's equation on a square in float64, one core, medians; ours and theirs in turn, since other
work may share the machine. A sweep is one of twenty within `jit`; PyAMG's is one of its `sor` on a
CSR matrix, in natural order. `copy` is NumPy's of an array of the same size, two fields of traffic.
A sweep has to read x and b and to write x: three fields. Right-hand sides of the multigrids are
random; both stop at 1e-10 |b|. Ours has no set-up of its own: what `prepare` makes is a part of the
compiled solve. PyAMG's sets up once a matrix, which is timed apart. Compilation is given too.
Needs PyAMG. Results: `benchmarks/results/relax_speed.json`, and a table in `docs/relaxation.md`.
"""

# pyright: reportMissingImports=false

import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pyamg
from _machine import publish, write

from sciopt import relax

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/relax_speed.json"
SWEEPS, TIMES = 20, 9


def alternated(*runs, times: int = TIMES) -> list[float]:
    """Medians of each, taken in turn."""
    taken = [[] for _ in runs]
    for run in runs:
        jax.block_until_ready(run())
    for _ in range(times):
        for seconds, run in zip(taken, runs, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds.append(time.perf_counter() - begin)
    return [statistics.median(seconds) for seconds in taken]


def laplacian(n: int) -> relax.Stencil:
    return relax.Stencil.laplacian((n, n), spacing=1.0)


def sweep(n: int) -> dict:
    """Seconds of a copy, of one of our sweeps, and at most 1024 points of PyAMG's."""
    b = np.random.default_rng(0).normal(size=(n, n))
    target = np.empty_like(b)
    solver = relax.SOR(omega=1.9)
    system = solver.prepare(laplacian(n))
    packed = system.pack(jnp.asarray(b))

    @jax.jit
    def ours(x, packed):
        return jax.lax.fori_loop(0, SWEEPS, lambda _, x: solver.relax(system, x, packed), x)

    runs = [lambda: np.copyto(target, b), lambda: ours(packed, packed)]
    if n <= 1024:
        matrix, x, flat = pyamg.gallery.poisson((n, n), format="csr"), np.zeros(n * n), b.ravel()
        runs.append(lambda: pyamg.relaxation.relaxation.sor(matrix, x, flat, omega=1.9))
    copy, mine, *theirs = alternated(*runs)
    mine /= SWEEPS
    field = 8 * n * n
    rates = {"copy_gb_s": 2 * field / copy / 1e9, "sweep_gb_s": 3 * field / mine / 1e9}
    record = {"n": n, "copy": copy, "sweep": mine, "of_bandwidth": 1.5 * copy / mine, **rates}
    return record | ({"pyamg_sor": theirs[0], "ratio": theirs[0] / mine} if theirs else {})


def multigrid(n: int) -> dict:
    """Seconds of CG with a multigrid, ours and both of PyAMG's."""
    b = np.random.default_rng(0).normal(size=(n, n))
    vector, operator = jnp.asarray(b), laplacian(n)
    solver = relax.CG(preconditioner=relax.Multigrid(), rtol=1e-10, max_steps=100)

    @jax.jit
    def ours(vector):
        solution = lx.linear_solve(operator, vector, solver)
        return solution.value, solution.stats["num_steps"]

    begin = time.perf_counter()
    jax.block_until_ready(ours(vector))
    first = time.perf_counter() - begin
    matrix = pyamg.gallery.poisson((n, n), format="csr")
    theirs = {
        "ruge_stuben": pyamg.ruge_stuben_solver,
        "smoothed_aggregation": pyamg.smoothed_aggregation_solver,
    }
    solvers = {name: make(matrix) for name, make in theirs.items()}

    def solve(hierarchy, residuals=None):
        # PyAMG's tolerance is of the preconditioned residual; 1e-10 |b| is asserted below.
        return hierarchy.solve(b.ravel(), tol=1e-10, accel="cg", residuals=residuals)

    setups = alternated(*[lambda make=make: make(matrix) for make in theirs.values()], times=3)
    mine, *seconds = alternated(
        lambda: ours(vector), *[lambda h=h: solve(h) for h in solvers.values()], times=5
    )
    value, steps = ours(vector)
    record = {"n": n, "ours": {"solve": mine, "steps": int(steps), "compile": first - mine}}
    record["ours"]["residual"] = relative(matrix, value, b)
    for (name, hierarchy), setup, solved in zip(solvers.items(), setups, seconds, strict=True):
        residuals = []
        x = solve(hierarchy, residuals)
        record[name] = {
            "setup": setup, "solve": solved, "steps": len(residuals) - 1,
            "residual": relative(matrix, x, b), "solve_ratio": solved / mine,
            "whole_ratio": (setup + solved) / mine,
        }  # fmt: skip
    return record


def relative(matrix, x, b) -> float:
    return float(np.linalg.norm(b.ravel() - matrix @ np.ravel(x)) / np.linalg.norm(b))


def cycles(n: int) -> float:
    """The rate of multigrid's V-cycles: the greatest ratio in its last four of nine."""
    b = jax.random.normal(jax.random.key(0), (n, n))
    solver = relax.Multigrid(rtol=0.0, max_steps=9)  # a tenth would be rounding
    stats = lx.linear_solve(laplacian(n), b, solver, throw=False).stats
    residuals = np.asarray(stats["residuals"])
    return float((residuals[6:] / residuals[5:-1]).max())


def table(record: dict) -> str:
    lines = ["| | seconds | |", "|---|---|---|"]
    for row in record["sweeps"]:
        share = f"{100 * row['of_bandwidth']:.0f} % of a copy's {row['copy_gb_s']:.0f} GB/s"
        against = f"; {row['ratio']:.1f} times PyAMG's `sor`" if "ratio" in row else ""
        lines.append(f"| SOR sweep, {row['n']}² | {row['sweep']:.5f} | {share}{against} |")
    for row in record["multigrid"]:
        ours = row["ours"]
        note = f"{ours['steps']} steps; compiled in {ours['compile']:.1f} s"
        lines.append(f"| multigrid-CG, {row['n']}² | {ours['solve']:.3f} | {note} |")
        for name in ("ruge_stuben", "smoothed_aggregation"):
            own = row[name]
            note = f"{own['steps']} steps; {own['solve_ratio']:.1f} times ours"
            note += f", {own['whole_ratio']:.1f} times with its set-up of {own['setup']:.2f} s"
            lines.append(f"| PyAMG `{name}` + CG, {row['n']}² | {own['solve']:.3f} | {note} |")
    rates = ", ".join(f"{rate:.3f} at {n}²" for n, rate in record["rates"].items())
    lines += ["", f"V-cycles alone reduce the residual by {rates}."]
    return "\n".join(lines) + "\n"


def main():
    jax.config.update("jax_enable_x64", True)
    record = {
        "sweeps": [sweep(n) for n in (1024, 2048)],
        "multigrid": [multigrid(1025)],
        "rates": {str(n): cycles(n) for n in (63, 127, 257, 513, 1025)},
    }
    write(RESULTS, record, "pyamg", "lineax")
    page = ROOT / "docs/relaxation.md"
    publish(page, "<!-- table: relax_speed -->\n", table(record), "<!-- end: relax_speed -->")


if __name__ == "__main__":
    main()
