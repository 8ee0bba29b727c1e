"""One Gauss-Newton step against what it is made of, and against Optimistix's.

    python benchmarks/gauss_newton_step.py --out benchmarks/results/gauss_newton_step.json

A network of two hidden layers is fitted to m points; n counts its parameters. Measured alone: the
residuals with their Jacobian, one product of the cheap side's size, one Cholesky factorisation of
it. The step is that of `GaussNewton` with its first trial accepted, as most are. The peer solves
the same least-squares problem: one step of `optimistix.LevenbergMarquardt` as it comes, which is a
Jacobian by forward mode and a QR factorisation of it stacked on the damping, without the
evaluation of the new point. Medians of `--repeats` calls, in turn, with a pause before each;
everything is compiled beforehand.
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from _machine import write

import sciopt
from sciopt import damped
from sciopt._linearised import linearise

# Points and width: n = w^2 + 4 w + 1 parameters.
WIDTHS = [18, 30, 61]
SCALING = [(m, w) for m in (500, 1000, 2000, 4000, 8000) for w in (8, 18, 30, 43)]


def problem(m: int, width: int):
    first, second = jax.random.split(jax.random.key(0))
    params = {
        "in": jax.random.normal(first, (width, 2)),
        "hidden": jax.random.normal(second, (width, width)) / width**0.5,
        "bias": jnp.zeros(width),
        "out": jnp.ones(width) / width,
        "shift": jnp.zeros(()),
    }
    points = {"fit": jax.random.uniform(jax.random.key(1), (m, 2))}

    def residual(p, x):
        hidden = jnp.tanh(p["hidden"] @ jnp.tanh(p["in"] @ x) + p["bias"])
        return p["out"] @ hidden + p["shift"] - jnp.sin(3 * x[0]) * x[1]

    return sciopt.Residuals({"fit": residual}), params, points


def calls(m: int, width: int, peers: bool) -> dict:
    """Compiled functions of no arguments, by name."""
    residuals, params, points = problem(m, width)
    jacobian = jax.jit(lambda p, x: residuals.jacobian(p, x))
    _, matrix = jax.block_until_ready(jacobian(params, points))
    cheap = matrix.T if matrix.shape[0] < matrix.shape[1] else matrix
    gramian = cheap.T @ cheap + 1e-2 * jnp.eye(cheap.shape[1])
    cholesky, product = jax.jit(jnp.linalg.cholesky), jax.jit(lambda a: a.T @ a)

    solvers = {
        "step": (sciopt.GaussNewton(), residuals.jacobian),
        "step_auto": (sciopt.GaussNewton(linear_solver=damped.Auto()), residuals.operator),
        "step_scaled": (sciopt.GaussNewton(scaled=True), residuals.jacobian),
        "step_accelerated": (sciopt.GaussNewton(acceleration=0.75), residuals.jacobian),
        "step_qr": (sciopt.GaussNewton(linear_solver=damped.QR()), residuals.jacobian),
    }
    # The variants would take minutes, and the peer's Jacobian tens of gigabytes: it is made for all
    # points and parameters at once.
    peers = peers and matrix.shape[1] <= 2000
    if not peers:
        solvers = {"step": solvers["step"]}

    def ours(solver, jac):
        def step(params, points):
            at = linearise(residuals.scaled, params, points, jac)
            memory = solver.start(jnp.zeros(matrix.shape[1]))
            kept, _, loss, memory = solver.advance(at, memory)
            return kept, loss, memory.num_rejected

        return jax.jit(step)

    found = {
        "jacobian": (jacobian, (params, points)),
        "product": (product, (cheap,)),
        "cholesky": (cholesky, (gramian,)),
    } | {name: (ours(*pair), (params, points)) for name, pair in solvers.items()}
    if peers:
        solver = optx.LevenbergMarquardt(0.0, 0.0)
        found["optimistix_lm"] = (their_step(solver, residuals), (params, points))
    return found


def their_step(solver: optx.LevenbergMarquardt, residuals: sciopt.Residuals):
    def fn(params, points):
        return residuals.scaled(params, points), None

    def step(params, points):
        solution = optx.least_squares(
            fn, solver, params, points, has_aux=True, max_steps=1, throw=False
        )
        return solution.state.y_eval  # the point that the next step would evaluate

    return jax.jit(step)


def measure(found: dict, repeats: int) -> dict:
    for fn, args in found.values():
        jax.block_until_ready(fn(*args))
    times = {name: [] for name in found}
    for _ in range(repeats):
        for name, (fn, args) in found.items():
            time.sleep(0.02)
            before = time.perf_counter()
            jax.block_until_ready(fn(*args))
            times[name].append(time.perf_counter() - before)
    return {name: statistics.median(t) for name, t in times.items()}


def row(m: int, width: int, repeats: int, peers: bool) -> dict:
    found = calls(m, width, peers)
    fn, args = found["step"]
    kept, _, rejected = fn(*args)
    seconds = measure(found, repeats)
    alone = seconds["jacobian"] + seconds["cholesky"]
    record = {
        "m": m, "n": int(np.size(kept)), "rejected": int(rejected), "seconds": seconds,
        "step_over_jacobian_and_cholesky": seconds["step"] / alone,
        "step_over_jacobian_product_and_cholesky": seconds["step"] / (alone + seconds["product"]),
    }  # fmt: skip
    if "optimistix_lm" in seconds:
        record["optimistix_over_step"] = seconds["optimistix_lm"] / seconds["step"]
    print(record, flush=True)
    return record


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--widths", type=int, nargs="*", default=WIDTHS, help="at 4000 points")
    parser.add_argument("--no-table", action="store_true", help="without the table over m and n")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    steps = [row(4000, width, args.repeats, True) for width in args.widths]
    scaling = [] if args.no_table else [row(m, w, args.repeats, False) for m, w in SCALING]
    if args.out:
        write(args.out, {"steps": steps, "scaling": scaling}, "lineax")


if __name__ == "__main__":
    main()
