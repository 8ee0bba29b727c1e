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
from pde.operators import FNO, DeepONet, NeuralStagger, OnGrid, Propagator, RandomField

from .._pinn.build import ACTIVATIONS, first_order
from . import schema

Solver = Propagator | NeuralStagger

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
        case schema.Vorticity():
            forced = given(case, points)
            force = None if forced is None else waves.modes(forced[0])
            return spectral.Vorticity(waves, spec.viscosity, spec.drag, force)


def given(case: schema.Case, points: int) -> Array | None:
    """What a network is called with besides the start: a force, of shape `(1, *grid)`."""
    text = getattr(case.equation, "force", None)
    if text is None:
        return None
    dtype = jnp.float64 if case.precision == "float64" else jnp.float32
    at = dict(zip(case.domain, basis(case, points).points(dtype), strict=True))
    values = jnp.asarray(text(at, jnp), dtype)
    return jnp.broadcast_to(values, (1, *(points,) * len(case.domain)))


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


def advance(case: schema.Case, posed: spectral.AbstractSemilinear) -> Callable[[Array], Array]:
    """The simulation from one look to the next, of fields `(1, *grid)`."""
    march = grid.March(posed, spectral.ETDRK(posed, case.time.step))
    steps = round(case.time.end / case.time.step) // case.time.looks

    def run(fields: Array) -> Array:
        state, _ = march.run(march.init(posed.start(fields[0])), steps, throw=False)
        return posed.fields(state.y)[None]

    return run


def times(case: schema.Case) -> np.ndarray:
    """Of the looks."""
    return case.time.end * np.arange(1, case.time.looks + 1) / case.time.looks


def network(case: schema.Case, key: Key[Array, ""]) -> Solver:
    """What is trained, with its start built in."""
    dims, fields = len(case.domain), 1 + (given(case, case.points) is not None)
    activation = ACTIVATIONS[case.network.activation]

    def fno(spec: schema.FNO, inputs: int, outputs: int, key: Key[Array, ""]) -> FNO:
        return FNO(
            inputs, outputs, modes=[spec.modes] * dims, width=spec.width, depth=spec.depth,
            projection=spec.projection, activation=activation, coordinates=spec.coordinates,
            key=key,
        )  # fmt: skip

    match spec := case.network:
        case schema.NeuralStagger():
            made: Any = NeuralStagger(
                lambda key: fno(spec, fields, case.time.looks, key), [spec.space] * dims,
                case.time.looks, shared=spec.shared, key=key,
            )  # fmt: skip
        case schema.FNO():
            made = Propagator(fno(spec, fields + 1, 1, key), case.time.end)
        case schema.DeepONet():
            sensors = [min(case.points, SENSORS)] * dims
            sizes = {"width": spec.width, "depth": spec.depth, "activation": activation}
            one, other = jax.random.split(key)
            branch = pde.MLP((fields + 1) * int(np.prod(sensors)), spec.basis, key=one, **sizes)
            trunk = pde.MLP(2 * dims, spec.basis, key=other, **sizes)
            made = Propagator(OnGrid(DeepONet(branch, trunk), sensors), case.time.end)
    dtype = jnp.float64 if case.precision == "float64" else jnp.float32
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, made)


def states(made: Solver, start: Array, times: Array, given: Array | None) -> Array:
    """At times from a start, `(times, *grid)`; a staggered network's are those that it gives."""
    if isinstance(made, NeuralStagger):
        return made(start[None], given)[:, 0]
    return jax.vmap(lambda t: made(start[None], t, given)[0])(times)


class Pairs(eqx.Module):
    """Batches of starts, one of the looks each, and the states at all, out of the simulated."""

    starts: Array
    states: Array
    size: int = eqx.field(static=True)

    def __call__(self, key: Key[Array, ""], params: Any) -> dict[str, Any]:
        one, other = jax.random.split(key)
        # Without replacement: a batch that is all there is takes all.
        chosen = jax.random.choice(one, len(self.starts), (self.size,), replace=False)
        look = jax.random.randint(other, (self.size,), 0, self.states.shape[1])
        return {"data": (self.starts[chosen], look, self.states[chosen])}


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
    case: schema.Case,
    made: Solver,
    starts: Array,
    simulated: Array,
    key: Key[Array, ""],
) -> tuple[sciopt.Fit, Any]:
    """The training, and the parameters that it begins from."""
    params, static = eqx.partition(made, eqx.is_inexact_array)
    dtype = params_dtype(params)
    posed, end, force = equation(case, case.points), case.time.end, given(case, case.points)
    looks = jnp.asarray(times(case), dtype)

    def miss(params, point):
        start, look, aim = point
        made = eqx.combine(params, static)
        if isinstance(made, Propagator):
            looks_at, aim = looks[look][None], aim[look][None]
        else:
            looks_at = looks
        missed = states(made, start, looks_at, force) - aim
        return missed / jnp.sqrt(jnp.mean(aim**2, axis=tuple(range(1, aim.ndim)), keepdims=True))

    def defect(params, point):
        start, time = point
        made = eqx.combine(params, static)
        if isinstance(made, Propagator):
            found = end * made.defect(posed, start[None], time, force)
        else:
            found = made.defect(advance(case, posed), start[None], force)
        return found / jnp.sqrt(jnp.mean(start**2))

    blocks, parts, weights = {}, [], {}
    if case.train.loss != "physics":
        blocks["data"] = miss
        parts.append(Pairs(starts, simulated, case.train.batch))
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
