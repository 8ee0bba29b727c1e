"""What the pictures of a bridge are drawn from: draws, paths, drift and a moving density.

Of more than two coordinates the first two are drawn.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from .judge import Bridge
from .populations import fresh
from .schema import Case

Arrays = dict[str, Any]

# Points of a scatter, times of a path, starts where the case names none.
SHOWN, TIMES, STARTS = 2000, 101, 6
# When the drift is drawn; near the end it may grow without bound.
MOMENTS = (0.0, 0.3, 0.6, 0.9)
CELLS, ARROWS = 112, 19
# Of the Gaussian that smooths the density, in cells.
SMOOTH = 1.5


def scenes(case: Case, bridge: Bridge, key: Key[Array, ""]) -> Arrays:
    """Arrays by name, as `solution.npz` has them."""
    drawing, (many, few, along) = case.draw, jax.random.split(key, 3)
    starts = fresh(case.source, few, STARTS) if drawing.starts is None else drawing.starts
    begin = jnp.repeat(jnp.asarray(starts, float), drawing.each, axis=0)
    x0 = fresh(case.source, many, drawing.particles)
    times = np.linspace(0, 1, TIMES)
    # All at once, so that one program is compiled.
    paths = bridge.simulate(along, jnp.concatenate([begin, x0]), jnp.asarray(times))
    paths = np.asarray(paths, float)
    drawn = paths[:, len(begin) :]
    frames = np.linspace(0, TIMES - 1, min(drawing.frames, TIMES)).round().astype(int)
    made: Arrays = {
        "starts": drawn[0, :SHOWN], "ends": drawn[-1, :SHOWN],
        "paths.times": times, "paths": paths[:, : len(begin)], "density.times": times[frames],
    }  # fmt: skip
    made |= _density(drawn[frames, :, :2])
    moments = [int(np.abs(times - t).argmin()) for t in MOMENTS]
    # A few of the draws will do where the space is too large for a grid.
    made |= _drift(bridge, times[moments], drawn[moments, : ARROWS**2], made)
    return {name: np.asarray(value) for name, value in made.items()}


def _density(drawn: np.ndarray) -> Arrays:
    """Of the draws at each time, in cells, smoothed."""
    from scipy.ndimage import gaussian_filter

    low, high = np.quantile(drawn, [0.001, 0.999], axis=(0, 1))
    margin = 0.12 * (high - low).max()
    edges = [np.linspace(a - margin, b + margin, CELLS + 1) for a, b in zip(low, high, strict=True)]
    mass = drawn.shape[1] * np.prod([e[1] - e[0] for e in edges])
    density = [gaussian_filter(np.histogramdd(x, edges)[0], SMOOTH) / mass for x in drawn]
    named = {f"density.{axis}": edge for axis, edge in zip("xy", edges, strict=False)}
    return {"density": np.stack(density).astype(np.float32)} | named


def _drift(bridge: Bridge, times: np.ndarray, drawn: np.ndarray, made: Arrays) -> Arrays:
    """At the nodes of a grid in the plane or on a line; else at draws of the bridge."""
    axes = [made[name] for name in ("density.x", "density.y") if name in made]
    if drawn.shape[-1] <= 2:
        middles = [np.linspace(e[0], e[-1], ARROWS + 2)[1:-1] for e in axes]
        mesh = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, len(axes))
        drawn = np.broadcast_to(mesh, (len(times), *mesh.shape))
    drift = _drifts(bridge, jnp.asarray(times), jnp.asarray(drawn, float))
    return {
        "drift.times": times, "drift.points": drawn[..., :2], "drift": drift[..., :2]
    }  # fmt: skip


@eqx.filter_jit
def _drifts(bridge: Bridge, times, points):
    return jax.lax.map(lambda pair: bridge.drift(*pair), (times, points))
