"""What the pictures of a bridge are drawn from: draws, paths, drift and a moving density.

Of more than two coordinates the first two are drawn.
"""

from typing import Any

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
    keys = jax.random.split(key, 6)
    x0 = fresh(case.source, keys[0], SHOWN)
    made: Arrays = {"starts": x0, "ends": bridge.sample(keys[1], x0)}
    made |= _paths(case, bridge, keys[2], keys[3])
    made |= _density(case, bridge, keys[4], keys[5])
    made |= _drift(bridge, x0, keys[1], made)
    return {name: np.asarray(value) for name, value in made.items()}


def _paths(case: Case, bridge: Bridge, chosen, along) -> Arrays:
    drawing = case.draw
    if drawing.starts is None:
        starts = fresh(case.source, chosen, STARTS)
    else:
        starts = jnp.asarray(drawing.starts, float)
    begin = jnp.repeat(starts, drawing.each, axis=0)
    times = jnp.linspace(0, 1, TIMES)
    return {"paths.times": times, "paths": bridge.simulate(along, begin, times)}


def _density(case: Case, bridge: Bridge, starts, along) -> Arrays:
    """Of many draws at each frame's time, in cells, smoothed."""
    from scipy.ndimage import gaussian_filter

    times = np.linspace(0, 1, case.draw.frames)
    x0 = fresh(case.source, starts, case.draw.particles)
    drawn = np.asarray(bridge.simulate(along, x0, jnp.asarray(times)), float)[..., :2]
    low, high = np.quantile(drawn, [0.001, 0.999], axis=(0, 1))
    margin = 0.12 * (high - low).max()
    edges = [np.linspace(a - margin, b + margin, CELLS + 1) for a, b in zip(low, high, strict=True)]
    area = np.prod([e[1] - e[0] for e in edges])
    density = np.stack(
        [
            gaussian_filter(np.histogramdd(x, edges)[0], SMOOTH) / (len(x) * area)
            for x in drawn
        ]
    )  # fmt: skip
    named = {f"density.{axis}": edge for axis, edge in zip("xy", edges, strict=False)}
    return {"density": density.astype(np.float32), "density.times": times} | named


def _drift(bridge: Bridge, x0, key, made: Arrays) -> Arrays:
    """At the nodes of a grid in the plane or on a line; else at draws of the bridge."""
    axes = [made[name] for name in ("density.x", "density.y") if name in made]
    times = jnp.asarray(MOMENTS)
    if x0.shape[1] <= 2:
        middles = [np.linspace(e[0], e[-1], ARROWS + 2)[1:-1] for e in axes]
        mesh = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, len(axes))
        points = jnp.broadcast_to(jnp.asarray(mesh, x0.dtype), (len(MOMENTS), *mesh.shape))
    else:
        points = bridge.simulate(key, x0[:400], times)
    drift = jnp.stack([bridge.drift(t, x) for t, x in zip(times, points, strict=True)])
    return {
        "drift.times": times, "drift.points": points[..., :2], "drift": drift[..., :2]
    }  # fmt: skip
