"""Claims about solvers that are tuned in a loop of heat's implicit steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import pytest

from sciopt import relax

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

SHAPE = (9, 9)
ROUNDS = 400


def heat(conductivity):
    """Backward Euler's matrix, a step of 0.1."""
    laplacian = relax.Stencil.laplacian(SHAPE, spacing=0.1)
    scale = 0.1 * conductivity
    return relax.Stencil(
        1 + scale * laplacian.diagonal,
        [scale * off for off in laplacian.lower],
        [scale * off for off in laplacian.upper],
        SHAPE,
        laplacian.tags,
    )


def simulate(tuned, conductivities, key):
    """The last temperature, and of every step the choice, its cost and those of all values."""
    source = jax.random.normal(jax.random.key(7), SHAPE)

    def step(carry, inputs):
        u, state = carry
        conductivity, key = inputs
        operator, b = heat(conductivity), u + source
        solution, state = tuned.solve(operator, b, state, key, conductivity)

        def steps(value):
            solver = relax.SOR(omega=value, rtol=1e-6)
            return lx.linear_solve(operator, b, solver, throw=False).stats["num_steps"]

        told = solution.stats["choice"], solution.stats["cost"], jax.vmap(steps)(tuned.values)
        return (solution.value, state), told

    keys = jax.random.split(key, len(conductivities))
    (u, _), told = jax.lax.scan(step, (jnp.zeros(SHAPE), tuned.init()), (conductivities, keys))
    return u, *told


def test_tuned_sor_beats_gauss_seidel_and_nears_the_best_omega_in_hindsight():
    values = jnp.linspace(1.0, 1.9, 6)
    tuned = relax.Tuned(relax.SOR(rtol=1e-6), relax.TsallisINF(6), values)
    conductivities = jax.random.uniform(jax.random.key(3), (ROUNDS,), minval=0.2, maxval=2.0)
    key = jax.random.key(0)
    _, choices, costs, table = eqx.filter_jit(simulate)(tuned, conductivities, key)
    assert (costs == table[jnp.arange(ROUNDS), choices]).all()
    best = relax.hindsight_best(table)
    assert costs.sum() < 0.8 * table[:, 0].sum()
    assert costs[-200:].sum() < 1.2 * table[-200:, best].sum()


def test_a_solve_that_fails_costs_all_its_steps_and_is_avoided():
    # SOR with omega = 2.5 gives up without a step, which must not look cheap.
    solver = relax.SOR(rtol=1e-6, max_steps=200)
    tuned = relax.Tuned(solver, relax.TsallisINF(2), jnp.array([2.5, 1.5]))

    def step(state, key):
        solution, state = tuned.solve(heat(1.0), jnp.ones(SHAPE), state, key, throw=False)
        failed = solution.result != lx.RESULTS.successful
        return state, (solution.stats["choice"], solution.stats["cost"], failed)

    keys = jax.random.split(jax.random.key(0), 100)
    state, (choices, costs, failed) = jax.lax.scan(step, tuned.init(), keys)
    assert (failed == (choices == 0)).all()
    assert (costs[choices == 0] == 200).all()
    assert state.probabilities[1] > 0.9


def test_gradients_flow_through_the_steps_and_not_through_the_choice():
    values = jnp.array([1.2, 1.5])
    tuned = relax.Tuned(relax.SOR(rtol=1e-12), relax.TsallisINF(2), values)

    @jax.jit
    @jax.value_and_grad
    def energy(conductivity):
        def step(carry, key):
            u, state = carry
            b = u + 1
            solution, state = tuned.solve(heat(conductivity), b, state, key, conductivity)
            return (solution.value, state), None

        keys = jax.random.split(jax.random.key(1), 5)
        (u, _), _ = jax.lax.scan(step, (jnp.zeros(SHAPE), tuned.init()), keys)
        return (u**2).sum()

    h = 1e-4
    slope = (energy(1 + h)[0] - energy(1 - h)[0]) / (2 * h)
    assert abs(energy(1.0)[1] / slope - 1) < 1e-6


def test_a_solver_without_a_step_cap_is_refused():
    solver = lx.CG(rtol=1e-6, atol=0.0)
    tuned = relax.Tuned(solver, relax.Constant(0), jnp.array([1e-6]), lambda solver: solver.rtol)
    with pytest.raises(ValueError, match="max_steps"):
        jax.eval_shape(
            lambda b: tuned.solve(heat(1.0), b, None, jax.random.key(0))[1], jnp.ones(SHAPE)
        )


def test_as_many_arms_as_values_or_it_is_refused():
    values = jnp.array([1.0, 1.5])
    for tuner in (relax.TsallisINF(3), relax.Binned(relax.UCB1(1), 2, 0.0, 1.0), relax.Constant(2)):
        with pytest.raises(ValueError, match=rf"{tuner.arms} arms; `values` has 2"):
            relax.Tuned(relax.SOR(), tuner, values)
    relax.Tuned(relax.SOR(), relax.Constant(0), values)
