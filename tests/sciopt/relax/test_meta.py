"""Claims about meta-solvers: what they set, what each loss teaches them, and what is trained."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest

from sciopt import relax

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

N, TOLERANCE = 9, 1e-6
SOR = relax.SOR(rtol=TOLERANCE)
COUNT = functools.partial(relax.steps_to_tolerance, tolerance=TOLERANCE)
SURROGATE = functools.partial(relax.surrogate_steps, tolerance=TOLERANCE)


def family(key):
    """-u'' + cu = 1 of random c, from next to nothing to a matrix that is nearly diagonal."""
    position = jax.random.uniform(key, minval=-1)
    shift = 10.0 ** (1.5 * position - 0.5)
    poisson = relax.Stencil.laplacian((N,), spacing=1.0, shift=shift)
    return relax.Instance(position[None], poisson, jnp.ones(N))


def untrained(guess=None):
    network = eqx.nn.MLP(1, 1, 8, 1, jax.nn.tanh, key=jax.random.key(0))
    return relax.MetaSolver(SOR, network, ((1.0, 1.95),), guess=guess)


@eqx.filter_jit
def counts(meta):
    """Steps of the real solves on fifty unseen instances."""
    unseen = eqx.filter_vmap(family)(jax.random.split(jax.random.key(5), 50))
    return eqx.filter_vmap(lambda one: meta.solve(one).stats["num_steps"])(unseen)


@eqx.filter_jit
def best_fixed():
    """The mean of the best omega of twenty, which is chosen on those instances."""

    def mean(omega):
        return counts(relax.MetaSolver(relax.SOR(omega=omega, rtol=TOLERANCE))).mean()

    return jax.vmap(mean)(jnp.linspace(1.0, 1.95, 20)).min()


def trained(loss, iterations, **options):
    training = relax.MetaTraining(
        family, loss, optax.adam(0.03), iterations=iterations, batch=16, **options
    )
    return training.run(training.init(untrained(), jax.random.key(1)), 100)[0].meta


def test_a_network_trained_on_the_count_beats_every_fixed_omega_and_the_classical_loss():
    learned = counts(trained(SURROGATE, 60)).mean()
    classical = counts(trained(functools.partial(relax.fixed_steps_loss, steps=3), 3)).mean()
    assert learned < 0.8 * best_fixed()
    assert learned < 0.9 * classical


def test_black_box_gradients_train_on_the_count_itself():
    estimate = functools.partial(relax.black_box_gradient, scale=0.3, samples=8)
    assert counts(trained(COUNT, 60, gradient=estimate)).mean() < 0.9 * best_fixed()


def test_runs_one_after_the_other_are_one_and_only_networks_are_trained():
    solver = relax.Chebyshev(jnp.array(0.1), jnp.array(2.0), rtol=TOLERANCE)
    guess = eqx.nn.Linear(1, N, key=jax.random.key(2))
    meta = relax.MetaSolver(solver, guess=guess)
    training = relax.MetaTraining(family, SURROGATE, optax.adam(0.1), iterations=4, batch=2)
    start = training.init(meta, jax.random.key(1))
    whole, losses = training.run(start, 4)
    half, first = training.run(start, 2)
    again, second = training.run(half, 2)
    np.testing.assert_array_equal(np.r_[first, second], losses)
    np.testing.assert_array_equal(again.meta.guess.weight, whole.meta.guess.weight)
    assert (whole.meta.guess.weight != guess.weight).all()
    assert whole.meta.solver.lower == solver.lower
    assert whole.meta(jnp.zeros(1)) is whole.meta.solver


def test_parameters_are_where_they_are_said_to_be_and_within_their_ranges():
    features = jnp.array([-1.0, 3.0])
    chebyshev = relax.MetaSolver(
        relax.Chebyshev(), lambda f: f, ((0.1, 1.0), (1.0, 2.0)), lambda s: (s.lower, s.upper)
    )(features)
    sigmoids = 1 / (1 + np.exp([1.0, -3.0]))
    np.testing.assert_allclose(chebyshev.lower, 0.1 + 0.9 * sigmoids[0])
    np.testing.assert_allclose(chebyshev.upper, 1 + sigmoids[1])
    multigrid = relax.MetaSolver(
        relax.CG(preconditioner=relax.Multigrid()), lambda f: f[:1], ((0.5, 1.5),),
        lambda s: s.preconditioner.smoother.omega,
    )(features)  # fmt: skip
    np.testing.assert_allclose(multigrid.preconditioner.smoother.omega, 0.5 + sigmoids[0])
    with pytest.raises(ValueError, match=r"shape \(2,\) for 1 ranges"):
        relax.MetaSolver(SOR, lambda f: f)(features)
    with pytest.raises(ValueError, match="is empty"):
        relax.MetaSolver(SOR, ranges=((1.0, 1.0),))


def test_a_start_at_the_solution_needs_no_step_and_its_gradient_is_finite():
    """CG from a residual of zero divides by it; in a batch that side is differentiated too."""
    poisson = relax.Stencil.laplacian((3,), spacing=1.0)
    b = poisson.mv(jnp.ones(3))

    @jax.jit
    @jax.value_and_grad
    def loss(omega):
        def one(y0):
            solver = relax.CG(preconditioner=relax.SSOR(omega=omega), rtol=0.0)
            residuals = relax.relative_residuals(solver, poisson, b, 3, y0)
            return relax.surrogate_steps(residuals, 1e-6)

        return jax.vmap(one)(jnp.array([[1.0, 1, 1], [0, 0, 0]])).sum()

    value, gradient = loss(1.3)
    assert value > 0
    assert jnp.isfinite(gradient)
    assert gradient != 0


def test_a_failed_solve_says_so():
    meta = relax.MetaSolver(relax.SOR(max_steps=2))
    instance = family(jax.random.key(0))
    assert meta.solve(instance, throw=False).result == lx.RESULTS.max_steps_reached
