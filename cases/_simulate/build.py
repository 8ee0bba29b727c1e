"""From a case to the objects that it names: each YAML key is an argument of one constructor."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pde import grid, spectral

from .._expression import Expression
from . import schema


def loop(case: schema.AbstractMarch, finer: int = 1) -> grid.March:
    """The march; with `finer` times the points and the steps."""
    step = case.time.step / finer
    made = equation(case, finer)
    if isinstance(made, grid.FiniteVolume):
        return grid.March(made, grid.SSPRK3(), step)
    return grid.March(made, spectral.ETDRK(made, step, case.order))


def equation(case: schema.AbstractMarch, finer: int = 1) -> Any:
    """The discretised equation."""
    axes = [(*case.domain[name], finer * case.points[name]) for name in case.domain]
    spec = case.equation
    if isinstance(spec, schema.ShallowWater):
        law = grid.ShallowWater(spec.gravity)
        return grid.FiniteVolume(grid.Mesh(*axes), law, spec.ends, spec.limiter)
    basis = spectral.Fourier(*axes, degree=spec.DEGREE)
    match spec:
        case schema.Burgers():
            return spectral.Burgers(basis, spec.viscosity)
        case schema.KortewegDeVries():
            return spectral.KortewegDeVries(basis)
        case schema.KuramotoSivashinsky():
            return spectral.KuramotoSivashinsky(basis)
        case schema.AllenCahn():
            return spectral.AllenCahn(basis, spec.diffusion, spec.rate)
        case schema.GrayScott():
            return spectral.GrayScott(basis, spec.feed, spec.kill, spec.diffusion)
        case schema.Vorticity():
            force = None
            if spec.force is not None:
                force = basis.modes(_evaluated(case, spec.force, basis.points(dtype(case)), 0.0))
            return spectral.Vorticity(basis, spec.viscosity, spec.drag, force)
        case schema.Flow():
            return spectral.IncompressibleFlow(basis, spec.viscosity)
        case schema.Wave():
            return spectral.Wave(basis, spec.speed)


def start(case: schema.AbstractMarch, made: Any) -> Array:
    """What is marched, at first."""
    at = made.mesh.centres(dtype(case)) if cells(made) else made.basis.points(dtype(case))
    values = fields(case, case.initial, at, 0.0)
    return values if cells(made) else made.start(values[0] if len(case.fields) == 1 else values)


def shown(case: schema.AbstractMarch, made: Any, y: Array) -> Array:
    """The fields at the points, one after the other along the first axis."""
    if cells(made):
        return y
    values = made.fields(y)
    return values[None] if len(case.fields) == 1 else values


def points(made: Any) -> list[np.ndarray]:
    """Where fields are known, an array for each coordinate."""
    at = made.mesh.centres() if cells(made) else made.basis.points()
    return [np.asarray(x, float).ravel() for x in at]


def cells(made: Any) -> bool:
    """Whether fields are means of cells, rather than values at points."""
    return isinstance(made, grid.FiniteVolume)


def fields(
    case: schema.AbstractMarch, values: Mapping[str, Expression], at: tuple[Any, ...], t: Any
) -> Array:
    """Of expressions, zero where there is none."""
    made = [_evaluated(case, values.get(name, Expression(0)), at, t) for name in case.fields]
    return jnp.stack(made)


def dtype(case: schema.AbstractMarch) -> Any:
    """Of the values."""
    return jnp.float64 if case.precision == "float64" else jnp.float32


def _evaluated(case: schema.AbstractMarch, text: Expression, at: tuple[Any, ...], t: Any) -> Array:
    value = text({"t": t, **dict(zip(case.domain, at, strict=True)), **case.parameters}, jnp)
    shape = np.broadcast_shapes(*(x.shape for x in at))
    return jnp.broadcast_to(jnp.asarray(value, dtype(case)), shape)
