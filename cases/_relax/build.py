"""From a case to the objects that it names: each YAML key is an argument of one constructor."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike

from pde import grid
from sciopt import relax

from .._expression import Expression
from . import schema

RELAXATIONS: dict[str, Callable[..., Any]] = {
    "jacobi": relax.Jacobi,
    "sor": relax.SOR,
    "ssor": relax.SSOR,
}

TUNERS: dict[str, Callable[[int], relax.AbstractTuner]] = {
    "epsilon_greedy": relax.EpsilonGreedy,
    "exp3": relax.EXP3,
    "thompson": relax.Thompson,
    "tsallis_inf": relax.TsallisINF,
    "ucb1": relax.UCB1,
}


def mesh(case: schema.Case) -> grid.Mesh:
    """The domain in cells."""
    return grid.Mesh(*((*ends, case.cells[name]) for name, ends in case.domain.items()))


def expression(case: schema.Case, text: Expression) -> Callable[..., Any]:
    """An expression as a function of `t` and the coordinates, in JAX."""

    def value(t, *points):
        return text({"t": t, **dict(zip(case.domain, points, strict=True)), **case.parameters}, jnp)

    return value


def loop(case: schema.Case) -> grid.TimeLoop:
    """The scheme, its step, and the tuned solver."""
    return grid.TimeLoop(scheme(case), case.time.step, tuned(case))


def scheme(case: schema.Case) -> grid.AbstractScheme:
    """The discretised equation."""

    def of(text: Expression) -> Callable[..., Any]:
        return expression(case, text)

    def pair(parts: Mapping[Any, Expression]) -> Callable[..., tuple[Any, Any]]:
        both = [of(parts.get(name, Expression(0))) for name in ("u", "v")]
        return lambda *at: tuple(part(*at) for part in both)

    match spec := case.problem:
        case schema.Heat():
            return grid.Heat(
                mesh(case), of(spec.diffusivity), of(spec.source), of(spec.boundary), spec.theta
            )
        case schema.AdvectionDiffusion():
            components = [of(spec.velocity[name]) for name in case.domain]
            return grid.AdvectionDiffusion(
                mesh(case), lambda *at: tuple(part(*at) for part in components),
                of(spec.diffusivity), of(spec.source), spec.theta, spec.upwind,
            )  # fmt: skip
        case schema.NavierStokes():
            viscosity = float(spec.viscosity(case.parameters))
            slip = isinstance(spec.walls, str)
            walls = {} if isinstance(spec.walls, str) else spec.walls
            return grid.NavierStokes(mesh(case), viscosity, pair(spec.force), pair(walls), slip)


def start(case: schema.Case, made: grid.AbstractScheme) -> Any:
    """The fields at first."""
    dtype = jnp.float64 if case.precision == "float64" else jnp.float32
    spec = case.problem
    if isinstance(spec, schema.NavierStokes):
        assert isinstance(made, grid.NavierStokes)
        zero = Expression(0)
        both = [expression(case, spec.initial.get(name, zero)) for name in ("u", "v")]
        return made.flow(lambda x, y: (both[0](0.0, x, y), both[1](0.0, x, y)), dtype)
    points = places(case, dtype)["u"]
    value = jnp.asarray(expression(case, spec.initial)(0.0, *points), dtype)
    return jnp.broadcast_to(value, np.broadcast_shapes(*(x.shape for x in points)))


def places(case: schema.Case, dtype: DTypeLike) -> dict[str, tuple[Array, ...]]:
    """Where each field is known, as coordinates that broadcast."""
    on = mesh(case)
    match case.problem:
        case schema.Heat():
            return {"u": on.nodes(dtype=dtype)}
        case schema.AdvectionDiffusion():
            return {"u": on.centres(dtype)}
        case schema.NavierStokes():
            return {"u": on.faces(0, dtype), "v": on.faces(1, dtype), "p": on.centres(dtype)}


def tuned(case: schema.Case) -> relax.Tuned:
    """The solver, whose omega the tuner chooses."""
    spec = case.tuner
    tuner = TUNERS[spec.type](case.omega.count)
    if (contexts := spec.contexts) is not None:
        tuner = relax.Binned(tuner, contexts.bins, contexts.lower, contexts.upper)
    made, parameter = solver(case.solver)
    return relax.Tuned(made, tuner, jnp.asarray(omegas(case)), parameter)


def omegas(case: schema.Case) -> np.ndarray:
    """What the tuner chooses from."""
    return np.linspace(case.omega.lower, case.omega.upper, case.omega.count)


def solver(spec: schema.Solver) -> tuple[Any, Callable[[Any], Any]]:
    """The solver, and where its omega is."""
    rtol, most = spec.rtol, spec.max_steps
    match spec:
        case schema.Relaxation():
            made = RELAXATIONS[spec.type](rtol=rtol, max_steps=most, ordering=spec.ordering)
            return made, lambda solver: solver.omega
        case schema.Multigrid():
            smoother = RELAXATIONS[spec.smoother]()
            made = relax.Multigrid(smoother=smoother, rtol=rtol, max_steps=most)
            return made, lambda solver: solver.smoother.omega
        case schema.CG(preconditioner=schema.SSORPreconditioner() as inner):
            before = relax.SSOR(ordering=inner.ordering)
            made = relax.CG(preconditioner=before, rtol=rtol, max_steps=most)
            return made, lambda solver: solver.preconditioner.omega
        case schema.CG(preconditioner=schema.MultigridPreconditioner() as inner):
            before = relax.Multigrid(smoother=RELAXATIONS[inner.smoother]())
            made = relax.CG(preconditioner=before, rtol=rtol, max_steps=most)
            return made, lambda solver: solver.preconditioner.smoother.omega
    raise AssertionError(spec)
