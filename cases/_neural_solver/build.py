"""From a case to the objects that it names: each YAML key is an argument of one constructor."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

import pde
import sciopt
from pde import grid, spectral
from pde.operators import FNO, DeepONet, OnGrid, Propagator, RandomField

from .._pinn.build import ACTIVATIONS, first_order
from . import schema

SENSORS = 64  # of a DeepONet along each direction, at most


def basis(case: schema.Case, points: int) -> spectral.Fourier:
    """The waves of the case's torus on a grid."""
    axes = [(a, b, points) for a, b in case.domain.values()]
    return spectral.Fourier(*axes, degree=case.equation.DEGREE)


def equation(case: schema.Case, points: int) -> spectral.AbstractSemilinear:
    """The equation on a grid."""
    waves = basis(case, points)
    match spec := case.equation:
        case schema.Burgers():
            return spectral.Burgers(waves, spec.viscosity)
        case schema.KuramotoSivashinsky():
            return spectral.KuramotoSivashinsky(waves)
        case schema.AllenCahn():
            return spectral.AllenCahn(waves, spec.diffusion, spec.rate)


def law(case: schema.Case) -> RandomField:
    """Of the starts."""
    spec = case.starts
    return RandomField(
        [b - a for a, b in case.domain.values()], modes=spec.modes, scale=spec.scale,
        shift=spec.shift, power=spec.power, mean_free=spec.mean_free,
    )  # fmt: skip


def simulation(
    case: schema.Case, points: int, step: float
) -> Callable[[Array], tuple[Array, Array]]:
    """From a start on a grid to its states at the looks, and whether they are sound."""
    posed = equation(case, points)
    march = grid.March(posed, spectral.ETDRK(posed, step))
    steps = round(case.time.end / step)

    def run(start: Array) -> tuple[Array, Array]:
        state, record = march.run(
            march.init(posed.start(start)), steps, every=steps // case.time.looks,
            save=lambda s: posed.fields(s.y), throw=False,
        )  # fmt: skip
        return record.saved, state.step == steps

    return run


def times(case: schema.Case) -> np.ndarray:
    """Of the looks."""
    return case.time.end * np.arange(1, case.time.looks + 1) / case.time.looks


def propagator(case: schema.Case, key: Key[Array, ""]) -> Propagator:
    """The network, with its start built in."""
    dims = len(case.domain)
    activation = ACTIVATIONS[case.network.activation]
    match spec := case.network:
        case schema.FNO():
            network: Any = FNO(
                2, 1, modes=[spec.modes] * dims, width=spec.width, depth=spec.depth,
                projection=spec.projection, activation=activation, coordinates=spec.coordinates,
                key=key,
            )  # fmt: skip
        case schema.DeepONet():
            sensors = [min(case.points, SENSORS)] * dims
            sizes = {"width": spec.width, "depth": spec.depth, "activation": activation}
            one, other = jax.random.split(key)
            branch = pde.MLP(2 * int(np.prod(sensors)), spec.basis, key=one, **sizes)
            trunk = pde.MLP(2 * dims, spec.basis, key=other, **sizes)
            network = OnGrid(DeepONet(branch, trunk), sensors)
    made = Propagator(network, case.time.end)
    dtype = jnp.float64 if case.precision == "float64" else jnp.float32
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, made)


class Pairs(eqx.Module):
    """Batches of starts, times and the states there, out of what was simulated."""

    starts: Array
    states: Array
    times: Array
    size: int = eqx.field(static=True)

    def __call__(self, key: Key[Array, ""], params: Any) -> dict[str, Any]:
        one, other = jax.random.split(key)
        # Without replacement: a batch that is all there is takes all.
        chosen = jax.random.choice(one, len(self.starts), (self.size,), replace=False)
        look = jax.random.randint(other, (self.size,), 0, len(self.times))
        return {"data": (self.starts[chosen], self.times[look], self.states[chosen, look])}


class Collocation(eqx.Module):
    """Batches of new starts, and times between none and the end."""

    law: RandomField
    end: float
    grid: tuple[int, ...] = eqx.field(static=True)
    size: int = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    def __call__(self, key: Key[Array, ""], params: Any) -> dict[str, Any]:
        one, other = jax.random.split(key)
        starts = jax.vmap(lambda k: self.law(k, self.grid))(jax.random.split(one, self.size))
        times = self.end * jax.random.uniform(other, (self.size,))
        return {"equation": (starts.astype(self.dtype), times.astype(self.dtype))}


class Draws(eqx.Module):
    """What each block draws, together."""

    parts: tuple[Any, ...]

    def __call__(self, key: Key[Array, ""], params: Any) -> dict[str, Any]:
        drawn = {}
        for part, k in zip(self.parts, jax.random.split(key, len(self.parts)), strict=True):
            drawn |= part(k, params)
        return drawn


def fit(
    case: schema.Case, made: Propagator, starts: Array, states: Array, key: Key[Array, ""]
) -> tuple[sciopt.Fit, Any]:
    """The training, and the parameters that it begins from."""
    params, static = eqx.partition(made, eqx.is_inexact_array)
    posed, end = equation(case, case.points), case.time.end

    def miss(params, point):
        start, time, state = point
        found = eqx.combine(params, static)(start[None], time)[0]
        return (found - state) / jnp.sqrt(jnp.mean(state**2))

    def defect(params, point):
        start, time = point
        found = eqx.combine(params, static).defect(posed, start[None], time)[0]
        return end * found / jnp.sqrt(jnp.mean(start**2))

    blocks, parts, weights = {}, [], {}
    dtype = params_dtype(params)
    if case.train.loss != "physics":
        blocks["data"] = miss
        parts.append(Pairs(starts, states, jnp.asarray(times(case), dtype), case.train.batch))
    if case.train.loss != "data":
        blocks["equation"], weights["equation"] = defect, case.train.physics_weight
        shape = (case.points,) * len(case.domain)
        parts.append(Collocation(law(case), end, shape, case.train.batch, dtype))
    optimizer = first_order(case.train.optimizer, max(case.train.steps, 1))
    residuals = sciopt.Residuals(blocks, weights)
    return sciopt.Fit(residuals, optimizer, Draws(tuple(parts)), key, redraw=True), params


def params_dtype(params: Any) -> Any:
    """Of a network's numbers."""
    return jax.tree.leaves(params)[0].dtype
