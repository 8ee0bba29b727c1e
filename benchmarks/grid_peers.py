"""Periodic solvers against exponax's, with the time of the transforms alone, and against py-pde's.

    taskset -c 0 python benchmarks/grid_peers.py PYPDE

Steps of exponential time differencing in float64, one core, medians, ours and theirs in turn within
one process, since other work may share the machine: same equation, points, dealiasing, order, and
both on modes. `transforms` is what the transforms of one step take by themselves, with the same
numbers of them as ours. exponax's run has no check that fields are finite; ours has. PYPDE is a
folder with py-pde (`pip install --target PYPDE py-pde`), whose package is called `pde` too, and is
therefore timed in a process of its own: Kuramoto and Sivashinsky's equation on 128 points, by its
explicit steps of the size that keeps them stable, for the same time as ours. Without PYPDE that is
left out. Results: `benchmarks/results/grid_peers.json`.
"""

# pyright: reportMissingImports=false

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _machine import write

RESULTS = Path(__file__).resolve().parent / "results/grid_peers.json"
TIMES = 25

PYPDE = """
import sys, time, numpy as np
import pde
start, until = np.load(sys.argv[1])["u"], float(sys.argv[2])
n = start.size
grid = pde.CartesianGrid([[0, 32 * np.pi]], n, periodic=True)
flames = pde.PDE({"u": "-u * d_dx(u) - laplace(u) - laplace(laplace(u))"})
dt = 0.05 * (32 * np.pi / n) ** 4  # below the bound of explicit steps, dx^4 / 8
field = pde.ScalarField(grid, start)
flames.solve(field, t_range=dt, dt=dt, tracker=None)  # compiles
begin = time.perf_counter()
flames.solve(field, t_range=until, dt=dt, tracker=None)
print(time.perf_counter() - begin)
"""


def alternated(*runs) -> list[float]:
    """Medians of each, taken in turn."""
    taken = [[] for _ in runs]
    for run in runs:
        jax.block_until_ready(run())
    for _ in range(TIMES):
        for seconds, run in zip(taken, runs, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds.append(time.perf_counter() - begin)
    return [statistics.median(seconds) for seconds in taken]


def compared(name, equation, theirs, start, order, steps, counts, sign=1) -> dict:
    """Seconds a step of ours, of exponax's and of the transforms alone; `counts` there and back."""
    from pde import grid, spectral

    basis = equation.basis
    loop = grid.March(equation, spectral.ETDRK(equation, theirs.dt, order))
    first = equation.start(start)
    ours = jax.jit(lambda v: loop.run(loop.init(v), steps, throw=False)[0].y)
    full = jnp.fft.rfftn(sign * start, axes=tuple(range(-basis.dim, 0))).reshape(
        -1, *basis.cells[:-1], basis.cells[-1] // 2 + 1
    )
    peer = jax.jit(
        lambda v: jax.lax.scan(lambda v, _: (theirs.step_fourier(v), None), v, length=steps)[0]
    )
    axes = tuple(range(1, basis.dim + 1))
    there = jnp.broadcast_to(full[0], (counts[0], *full.shape[1:]))
    back = jnp.broadcast_to(jnp.fft.irfftn(full[0], s=basis.cells), (counts[1], *basis.cells))

    @jax.jit
    def transforms(there, back):
        def both(carry, _):
            there, back = carry
            values = jnp.fft.irfftn(there, s=basis.cells, axes=axes)
            modes = jnp.fft.rfftn(back, axes=axes)
            # Each needs what the one before gave, through a single number.
            first = (0,) * there.ndim
            there = there.at[first].add(0 * modes[first])
            return (there, back.at[first].add(0 * values[first])), None

        return jax.lax.scan(both, (there, back), length=order * steps)[0]

    seconds = alternated(
        lambda: ours(first), lambda: peer(full), lambda: transforms(there, back)
    )  # fmt: skip
    gap = jnp.fft.irfftn(peer(full), s=basis.cells, axes=axes)
    gap = np.asarray(equation.fields(ours(first))) - sign * np.asarray(gap).reshape(start.shape)
    mine, other, alone = (s / steps for s in seconds)
    record = {
        "equation": name, "points": basis.cells, "order": order, "ours": mine, "exponax": other,
        "ratio": other / mine, "transforms": alone, "of_transforms": mine / alone,
        "difference": float(np.abs(gap).max()),
    }  # fmt: skip
    print(json.dumps(record), flush=True)
    return record


def races() -> list[dict]:
    import exponax as ex

    from pde import spectral

    found = []
    draw = np.random.default_rng(0).normal
    for n in (256, 1024):
        basis = spectral.Fourier((0, 32 * np.pi, n))
        (x,) = basis.points()
        theirs = ex.stepper.KuramotoSivashinskyConservative(1, 32 * np.pi, n, 0.05, order=4)
        start = jnp.cos(x / 16) * (1 + jnp.sin(x / 16))
        ours = spectral.KuramotoSivashinsky(basis)
        found.append(compared("kuramoto_sivashinsky", ours, theirs, start, 4, 400, (1, 1)))
    for n in (64, 128, 256):
        basis = spectral.Fourier((0, 2 * np.pi, n), (0, 2 * np.pi, n))
        theirs = ex.stepper.NavierStokesVorticity(2, 2 * np.pi, n, 1e-3, diffusivity=1e-2, order=4)
        smooth = np.exp(-0.1 * basis.square) * draw(size=basis.shape)
        start = basis.values(jnp.asarray(smooth + 0j).at[0, 0].set(0))
        ours = spectral.Vorticity(basis, 1e-2)
        steps = {64: 50, 128: 20, 256: 5}[n]
        # Their vorticity turns the other way: its streamfunction has the other sign.
        found.append(compared("navier_stokes_2d", ours, theirs, start, 4, steps, (2, 2), -1))
    for n in (32, 64):
        basis = spectral.Fourier(*[(0, 2 * np.pi, n)] * 3)
        theirs = ex.stepper.NavierStokesVelocity(3, 2 * np.pi, n, 0.01, diffusivity=0.01, order=4)
        x, y, z = basis.points()
        start = jnp.stack([
            jnp.sin(x) * jnp.cos(y) * jnp.cos(z), -jnp.cos(x) * jnp.sin(y) * jnp.cos(z),
            0 * (x + y + z),
        ])  # fmt: skip
        ours = spectral.IncompressibleFlow(basis, 0.01)
        found.append(compared("navier_stokes_3d", ours, theirs, start, 4, 96 // n, (3, 5)))
    return found


def against_pypde(folder: str) -> dict:
    """Seconds to the time 20, on 128 points."""
    import tempfile

    from pde import grid, spectral

    basis = spectral.Fourier((0, 32 * np.pi, 128))
    (x,) = basis.points()
    start = jnp.cos(x / 16) * (1 + jnp.sin(x / 16))
    flames = spectral.KuramotoSivashinsky(basis)
    loop = grid.March(flames, spectral.ETDRK(flames, 0.05))
    run = jax.jit(lambda: loop.run(loop.init(flames.start(start)), 400, throw=False)[0].y)
    (mine,) = alternated(run)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file.name, u=np.asarray(start))
        done = subprocess.run(
            [sys.executable, "-c", PYPDE, file.name, "20"], check=True, capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": folder}, cwd=tempfile.gettempdir(),
        )  # fmt: skip
    other = float(done.stdout.split()[-1])
    record = {"ours": mine, "pypde": other, "ratio": other / mine}
    print(json.dumps(record), flush=True)
    return record


def dispersion() -> dict:
    """Errors of a soliton of Korteweg and de Vries' with a step and half of it, and the order."""
    import exponax as ex

    from pde import grid, spectral

    basis = spectral.Fourier((0, 32, 300))
    kdv = spectral.KortewegDeVries(basis)
    (x,) = basis.points()

    def soliton(t):
        return 2 / jnp.cosh(x - 16 - 4 * t) ** 2

    errors: dict = {"ours": [], "exponax": []}
    for steps in (40, 80):
        loop = grid.March(kdv, spectral.ETDRK(kdv, 0.2 / steps))
        y = jax.jit(
            lambda loop=loop, n=steps: loop.run(loop.init(kdv.start(soliton(0.0))), n)[0].y
        )()
        errors["ours"].append(float(jnp.abs(kdv.fields(y) - soliton(0.2)).max()))
        theirs = ex.stepper.KortewegDeVries(
            1, 32.0, 300, 0.2 / steps, hyper_diffusivity=0.0, conservative=True, order=4
        )
        # Their equation has the other sign of advection, hence of solitons.
        u = -jax.jit(ex.repeat(theirs, steps))(-soliton(0.0)[None])[0]
        errors["exponax"].append(float(jnp.abs(u - soliton(0.2)).max()))
    record = {who: {"errors": e, "order": float(np.log2(e[0] / e[1]))} for who, e in errors.items()}
    print(json.dumps(record), flush=True)
    return record


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    record: dict = {"dispersion": dispersion(), "exponax": races()}
    write(RESULTS, record, "diffrax", "exponax")
    if len(sys.argv) > 1:
        write(RESULTS, record | {"pypde": against_pypde(sys.argv[1])}, "diffrax", "exponax")


if __name__ == "__main__":
    main()
