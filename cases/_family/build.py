"""From a case of a family to the objects that it names."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, DTypeLike, Float, PyTree

from pde import grid
from sciopt import relax

from .._relax.build import solver as built_solver
from . import schema


def family(case: schema.Case, dtype: DTypeLike):
    """From a key to an instance."""
    mesh = grid.Mesh(*((*ends, case.cells[name]) for name, ends in case.domain.items()))
    inner, everywhere = mesh.nodes(dtype=dtype), mesh.nodes(True, dtype)
    spec, sizes = case.problem, [n + 1 for n in mesh.cells]

    def on(text, numbers, points):
        values = dict(zip(case.domain, points, strict=True)) | numbers
        shape = np.broadcast_shapes(*(x.shape for x in points))
        return jnp.broadcast_to(jnp.asarray(text(values, jnp), dtype), shape)

    def instance(key: Array) -> relax.Instance:
        drawn = jax.random.uniform(key, (len(case.random),), dtype)
        numbers = scaled(case, drawn)
        kappa = on(spec.diffusivity, numbers, everywhere)
        shift = on(spec.shift, numbers, inner)
        operator = relax.Stencil.diffusion(kappa.reshape(sizes), mesh.spacing, shift)
        return relax.Instance(2 * drawn - 1, operator, on(spec.source, numbers, inner))

    return instance


def scaled(case: schema.Case, drawn: Float[Array, "... numbers"]) -> dict[str, Array]:
    """The random numbers by name, from uniform ones on [0, 1]."""
    found = {}
    for k, (name, law) in enumerate(case.random.items()):
        ends = np.array([law.lower, law.upper])
        low, high = np.log(ends) if law.scale == "log" else ends
        value = low + (high - low) * drawn[..., k]
        found[name] = jnp.exp(value) if law.scale == "log" else value
    return found


def meta_solver(case: schema.Case, dtype: DTypeLike) -> relax.MetaSolver:
    """Untrained: omega in the middle of its range, and a start at zero."""
    keys = jax.random.split(jax.random.PRNGKey(case.seed))
    inputs, shape = len(case.random), [n - 1 for n in case.cells.values()]
    network = eqx.nn.MLP(
        inputs, 1, case.network.width, case.network.depth, key=keys[0], dtype=dtype
    )
    guess = None
    if (spec := case.guess) is not None:
        size = int(np.prod(shape))
        made = eqx.nn.MLP(inputs, size, spec.width, spec.depth, key=keys[1], dtype=dtype)
        reshape = eqx.nn.Lambda(partial(jnp.reshape, shape=shape))
        guess = eqx.nn.Sequential([_silenced(made), reshape])
    solver, parameter = built_solver(case.solver)
    ends = (case.omega.lower, case.omega.upper)
    return relax.MetaSolver(solver, _silenced(network), (ends,), parameter, guess)


def _silenced(network: eqx.nn.MLP) -> eqx.nn.MLP:
    """With an output of zero."""

    def last(network: eqx.nn.MLP) -> PyTree:
        return network.layers[-1].weight, network.layers[-1].bias

    return eqx.tree_at(last, network, replace_fn=jnp.zeros_like)


def trainings(case: schema.Case, dtype: DTypeLike) -> dict[str, relax.MetaTraining]:
    """By who learns: from the number of iterations, and from the residual after some of them."""
    train = case.train
    counting = partial(relax.surrogate_steps, tolerance=case.solver.rtol)
    fixed = partial(relax.fixed_steps_loss, steps=train.fixed_steps)
    return {
        name: relax.MetaTraining(
            family(case, dtype), loss, optax.adam(train.learning_rate), iterations, train.batch
        )
        for name, loss, iterations in (
            ("learned", counting, train.iterations), ("classical", fixed, train.fixed_steps)
        )
    }  # fmt: skip


def omegas(case: schema.Case) -> np.ndarray:
    """The fixed ones."""
    return np.linspace(case.omega.lower, case.omega.upper, case.omega.count)
