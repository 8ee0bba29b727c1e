"""What the pictures of a bridge are drawn from: draws, paths, drift and a moving density.

A space of more than two coordinates is drawn as its shadow on the plane of the target's two
principal axes, as Gushchin et al. (2023) draw theirs.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .judge import Bridge
from .populations import starts
from .schema import Case

Arrays = dict[str, Any]

# Of the case's randomness, the part that is only drawn.
DRAWING = 3
# Points of a scatter, times of a path, starts where the case names none.
SHOWN, TIMES, STARTS = 2000, 101, 6
# When the drift is drawn; near the end it may grow without bound.
MOMENTS = (0.0, 0.3, 0.6, 0.9)
CELLS, ARROWS, FEW = 112, 19, 200
# Of the Gaussian that smooths the density, in cells.
SMOOTH = 1.5


def scenes(case: Case, bridge: Bridge, source: np.ndarray, target: np.ndarray) -> Arrays:
    """Arrays by name, as `solution.npz` has them; `source`, `target`: what the method is shown."""
    drawing, seed = case.draw, (case.seed, DRAWING)
    begin = drawing.starts or starts(case, bridge, (*seed, 0), STARTS)
    begin = np.repeat(np.array(begin), drawing.each, axis=0)
    x0 = np.concatenate([begin, starts(case, bridge, (*seed, 1), drawing.particles)])
    times = np.linspace(0, 1, TIMES)
    # All at once, so that one program is compiled.
    key = jax.random.fold_in(jax.random.key(case.seed), DRAWING)
    paths = np.asarray(bridge.simulate(key, jnp.asarray(x0, float), jnp.asarray(times)), float)
    drawn = paths[:, len(begin) :]
    frames = np.linspace(0, TIMES - 1, min(drawing.frames, TIMES)).round().astype(int)
    made: Arrays = {
        "starts": drawn[0, :SHOWN], "ends": drawn[-1, :SHOWN],
        "paths.times": times, "paths": paths[:, : len(begin)], "density.times": times[frames],
    }  # fmt: skip
    if not case.balanced:
        made["unbalanced"] = True
    plane = _plane(target)
    made |= {"plane": plane} | _density(drawn[frames] @ plane, (source @ plane, target @ plane))
    moments = [int(np.abs(times - t).argmin()) for t in MOMENTS]
    # A few of the draws will do where the space is too large for a grid.
    made |= _drift(bridge, times[moments], drawn[moments, :FEW], made)
    return {name: np.asarray(value) for name, value in made.items()}


def _plane(target: np.ndarray) -> np.ndarray:
    """Two orthonormal columns (d, 2), or the identity in no more than two dimensions."""
    if target.shape[1] <= 2:
        return np.eye(target.shape[1])
    # With rows of zeros a plane is found for a single point, too.
    off = np.pad(target - target.mean(axis=0), ((0, 2), (0, 0)))
    return np.linalg.svd(off, full_matrices=False)[2][:2].T


def _density(drawn: np.ndarray, ends: tuple[np.ndarray, np.ndarray]) -> Arrays:
    """Of the draws at each time, in cells, smoothed; there is room for the ends, too."""
    from scipy.ndimage import gaussian_filter

    clouds = (drawn.reshape(-1, drawn.shape[-1]), *ends)
    spans = np.stack([np.quantile(x, [0.001, 0.999], axis=0) for x in clouds])
    low, high = spans[:, 0].min(axis=0), spans[:, 1].max(axis=0)
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
        count = ARROWS if len(axes) == 2 else ARROWS**2
        middles = [np.linspace(e[0], e[-1], count + 2)[1:-1] for e in axes]
        mesh = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, len(axes))
        drawn = np.broadcast_to(mesh, (len(times), *mesh.shape))
    drift = _drifts(bridge, jnp.asarray(times), jnp.asarray(drawn, float))
    return {
        "drift.times": times, "drift.points": drawn @ made["plane"],
        "drift": np.asarray(drift, float) @ made["plane"],
    }  # fmt: skip


@eqx.filter_jit
def _drifts(bridge: Bridge, times, points):
    return jax.lax.map(lambda pair: bridge.drift(*pair), (times, points))
