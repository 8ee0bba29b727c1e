"""Staggered networks and the suite's own solver on two-dimensional flow: error against time.

    python benchmarks/neural_stagger.py [--spaces 1 2 4] [--steps 2000] [--seeds 0]

Flow in the unit square, viscosity 1e-3, from the starts of `cases/neural_stagger_ns.yaml` to t = 1
on 64 x 64 points, driven by a force of four waves whose coefficients are drawn with each start.
Networks are `pde.operators.NeuralStagger` on the grid itself (`space` 1) and on grids 2 and 4
times as coarse, one network for all pieces, four times each, trained by the fine solver's residual
alone (steps of batches of 4, SOAP). The solver is `pde.spectral.ETDRK` of order four on grids and
steps of all sizes, its result brought to the 64 x 64 points by Fourier series. Everything is
float32, judged by 128 x 128 points and 128 steps on 20 starts and forces of another key, and timed
for one start and for a batch of 20, medians of nine. `one_piece` is a coarse network called alone.

Control: the coefficients of the force that leads from a known start to the state that a hidden draw
led to, by `optimistix.LevenbergMarquardt` from zero, through the network of each `space` and
through the solver; what is found is judged by the fine solver. Ten draws.

Results: `benchmarks/results/neural_stagger.json`. Rows of other seeds and spaces stay.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from _machine import write

import sciopt
from pde import grid, spectral
from pde.operators import FNO, NeuralStagger, RandomField, resample, stagger

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/neural_stagger.json"
POINTS, TIMES, STEP, VISCOSITY, TESTED, CONTROLLED = 64, 4, 1 / 16, 1e-3, 20, 10
LAW = RandomField([1.0, 1.0], modes=12, scale=60, shift=7, power=2.5, mean_free=True)


def force(coefficients, points: int):
    x, y = spectral.Fourier((0, 1, points), (0, 1, points)).points(jnp.float32)
    waves = [f(2 * jnp.pi * (x + s * y)) for f in (jnp.sin, jnp.cos) for s in (1, -1)]
    return jnp.tensordot(coefficients, jnp.stack(waves), axes=1)


def simulated(start, coefficients, step: float, until: float = 1.0):
    """The fields at `until`, on the start's grid."""
    points = start.shape[-1]
    basis = spectral.Fourier((0, 1, points), (0, 1, points))
    posed = spectral.Vorticity(basis, VISCOSITY, force=basis.modes(force(coefficients, points)))
    march = grid.March(posed, spectral.ETDRK(posed, step))
    state, _ = march.run(march.init(posed.start(start)), round(until / step), throw=False)
    return posed.fields(state.y)


def draw(key, points: int):
    one, other = jax.random.split(key)
    drawn = LAW(one, (points, points)).astype(jnp.float32)
    return drawn, 0.1 * jax.random.normal(other, (4,), jnp.float32)


def relative(found, aim) -> float:
    wrong = np.linalg.norm((found - aim).reshape(len(aim), -1), axis=1)
    return float(np.mean(wrong / np.linalg.norm(aim.reshape(len(aim), -1), axis=1)))


def taken(call, *arguments) -> float:
    jax.block_until_ready(call(*arguments))
    spent = []
    for _ in range(9):
        begin = time.perf_counter()
        jax.block_until_ready(call(*arguments))
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def timed(leap, starts, coefficients) -> dict:
    one = taken(jax.jit(leap), starts[0], coefficients[0])
    every = taken(jax.jit(lambda s, c: jax.lax.map(lambda a: leap(a[0], a[1]), (s, c))), starts,
                  coefficients)  # fmt: skip
    return {"milliseconds": 1e3 * one, "milliseconds_in_a_batch": 1e3 * every / len(starts)}


def trained(space: int, steps: int, seed: int) -> tuple[NeuralStagger, float]:
    def network(key):
        made = FNO(2, TIMES, modes=[min(12, POINTS // space // 2)] * 2, width=24, depth=4,
                   projection=64, coordinates=False, key=key)  # fmt: skip
        return jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, made)

    one, other = jax.random.split(jax.random.key(seed))
    made = NeuralStagger(network, [space] * 2, TIMES, shared=True, key=one)
    params, static = eqx.partition(made, eqx.is_inexact_array)

    def defect(params, point):
        start, coefficients = point
        found = eqx.combine(params, static).defect(
            lambda u: simulated(u[0], coefficients, STEP, 1 / TIMES)[None],
            start[None],
            _given(coefficients, POINTS),
        )
        return found / jnp.sqrt(jnp.mean(start**2))

    def sample(key, params):
        return {"equation": jax.vmap(lambda k: draw(k, POINTS))(jax.random.split(key, 4))}

    fit = sciopt.Fit(
        sciopt.Residuals({"equation": defect}),
        sciopt.soap(optax.cosine_decay_schedule(3e-3, steps)),
        sample, other, redraw=True,
    )  # fmt: skip
    state = fit.advance(fit.init(params), 1)
    jax.block_until_ready(state.loss)
    begin = time.perf_counter()
    state = fit.advance(state, steps - 1)
    jax.block_until_ready(state.loss)
    return eqx.combine(state.params, static), time.perf_counter() - begin


def _given(coefficients, points: int):
    return 10 * force(coefficients, points)[None]  # of the size of the start


def controlled(leap, starts, hidden, aims) -> dict:
    """How well, and how fast, forces are found through a solver."""

    def misfit(c, args):
        start, aim = args
        return (leap(start, c) - aim).ravel() / jnp.linalg.norm(aim)

    @jax.jit
    def find(start, aim):
        return optx.least_squares(
            misfit, optx.LevenbergMarquardt(1e-4, 1e-6), jnp.zeros(4, jnp.float32), (start, aim),
            max_steps=50, throw=False,
        ).value  # fmt: skip

    found = jnp.stack([find(s, a) for s, a in zip(starts, aims, strict=True)])
    judge = jax.jit(lambda s, c: jax.lax.map(lambda a: simulated(a[0], a[1], STEP / 4), (s, c)))
    return {
        "control.milliseconds": 1e3 * taken(find, starts[0], aims[0]),
        "control.misfit": relative(np.asarray(judge(starts, found)), np.asarray(aims)),
        "control.coefficients": relative(np.asarray(found), np.asarray(hidden)),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--spaces", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    asked = parser.parse_args()
    fine, coefficients = jax.vmap(lambda k: draw(k, 2 * POINTS))(
        jax.random.split(jax.random.key(1000), TESTED)
    )
    truth = jax.jit(lambda s, c: jax.lax.map(lambda a: simulated(a[0], a[1], 1 / 128), (s, c)))
    aims = np.asarray(truth(fine, coefficients))[:, ::2, ::2]
    starts = fine[:, ::2, ::2]
    few = (starts[:CONTROLLED], coefficients[:CONTROLLED], jnp.asarray(aims[:CONTROLLED]))
    rows: list[dict[str, Any]] = []

    for points in (16, 24, 32, 48, 64):
        coarse = jax.vmap(lambda u, n=points: resample(u[None], [n, n])[0])(fine)
        for steps in (4, 8, 16, 32):

            def leap(start, c, steps=steps):
                return simulated(start, c, 1 / steps)

            ends = jax.jit(lambda s, c, leap=leap: jax.lax.map(lambda a: leap(a[0], a[1]), (s, c)))
            found = jax.vmap(lambda u: resample(u[None], [POINTS, POINTS])[0])(
                ends(coarse, coefficients)
            )
            row = {"method": "solver", "points": points, "steps": steps}
            row |= {"error": relative(np.asarray(found), aims)}
            rows.append(row | timed(leap, coarse, coefficients))
            print(rows[-1], flush=True)
    solver = controlled(lambda s, c: simulated(s, c, STEP), *few)
    rows.append({"method": "solver", "points": POINTS, "steps": 16, **solver})
    print(rows[-1], flush=True)

    for space in asked.spaces:
        for seed in asked.seeds:
            made, seconds = trained(space, asked.steps, seed)

            def whole(start, c, made=made):
                return made(start[None], _given(c, start.shape[-1]))[-1, 0]

            def alone(start, c, made=made, n=POINTS // space):
                # A piece's points are another grid's only in that the force lies elsewhere.
                return made.piece(start[None], 0, _given(c, n))[-1, 0]

            ends = jax.jit(lambda s, c, leap=whole: jax.lax.map(lambda a: leap(a[0], a[1]), (s, c)))
            unseen = {"error": relative(np.asarray(ends(starts, coefficients)), aims)}
            pieces = jax.vmap(lambda u, s=space: stagger(u, [s, s])[0])(starts)
            row = {"method": "network", "space": space, "seed": seed, "train_steps": asked.steps}
            row |= unseen | {"train_seconds": seconds} | timed(whole, starts, coefficients)
            row |= {f"one_piece.{k}": v for k, v in timed(alone, pieces, coefficients).items()}
            rows.append(row | controlled(whole, *few))
            print(rows[-1], flush=True)
    before = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    new = {(r["method"], r.get("space"), r.get("seed")) for r in rows}
    kept = [r for r in before if (r["method"], r.get("space"), r.get("seed")) not in new]
    write(RESULTS, {"rows": kept + rows})


if __name__ == "__main__":
    main()
