"""Learned acceleration: what each loss teaches, and that its gradients are right."""

import functools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest

from sciopt import relax

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

SHAPE = (11,)
B = jax.random.normal(jax.random.key(0), SHAPE)


def poisson(shift):
    return relax.Stencil.laplacian(SHAPE, spacing=1.0, shift=shift)


SOLVERS = {
    "omega": (lambda p: relax.SOR(omega=p, rtol=1e-6), 1.4, 40),
    "preconditioner": (
        lambda p: relax.CG(preconditioner=relax.SSOR(omega=p), rtol=1e-6), 1.2, 10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOLVERS)
def test_residuals_are_those_of_the_solve_and_their_gradients_are_differences(name):
    make, value, steps = SOLVERS[name]
    # Beside it in the batch a system that starts at its solution, where a step divides by zero.
    ramp = jnp.arange(1.0, 12.0)
    vectors, starts = jnp.stack([B, poisson(0.0).mv(ramp)]), jnp.stack([0 * B, ramp])

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(p):
        def one(b, shift, y0):
            return relax.relative_residuals(make(p), poisson(shift), b, steps, y0)

        residuals, solved = jax.vmap(one)(vectors, jnp.array([0.1, 0.0]), starts)
        return jnp.log(residuals[2]) + jnp.log(residuals[-1]) + solved.sum(), residuals

    found = lx.linear_solve(poisson(0.1), B, make(jnp.array(value)), throw=False).stats
    history = found["residuals"][: steps + 1] / jnp.linalg.norm(B)
    (_, residuals), gradient = loss(value)
    np.testing.assert_allclose(residuals, history, rtol=1e-6)
    assert int(found["num_steps"]) < steps  # it rests before the end
    assert relax.steps_to_tolerance(residuals, 1e-6) == found["num_steps"]
    h = 1e-6
    slope = (loss(value + h)[0][0] - loss(value - h)[0][0]) / (2 * h)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5)


def test_the_surrogate_finds_the_best_omega_where_the_loss_of_two_steps_does_not():
    def omega(p):
        return 1 + jax.nn.sigmoid(p)

    def histories(omega):
        def one(shift):
            solver = relax.SOR(omega=omega, rtol=1e-8)
            return relax.relative_residuals(solver, poisson(shift), B, 100)

        return jax.vmap(one)(jnp.array([0.0, 0.05]))

    def loss(params):
        by_surrogate, by_fixed = jax.vmap(histories)(omega(params))
        surrogate = relax.surrogate_steps(by_surrogate, 1e-8, sharpness=0.5).mean()
        return surrogate + relax.fixed_steps_loss(by_fixed, 2).mean()

    @jax.jit
    def trained(params):
        adam = optax.adam(0.03)

        def step(carry, _):
            params, state = carry
            updates, state = adam.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, adam.init(params)), length=150)[0][0]

    def steps(omegas):
        return relax.steps_to_tolerance(jax.vmap(histories)(omegas), 1e-8).mean(axis=1)

    found = omega(trained(jnp.zeros(2)))
    by_surrogate, by_fixed, *others = jax.jit(steps)(jnp.append(found, jnp.linspace(1, 1.9, 91)))
    assert by_surrogate <= min(others) + 1
    assert by_fixed > 1.25 * min(others)


def test_training_on_fixed_steps_makes_the_count_arbitrarily_worse():
    """Two Jacobi iterations, whose errors fall by 1/2 and by 1 - slowness, share a starting point.

    Their solutions are (1, 1) and (2, 2). Started from the slow one's, the slow one needs no step
    and the fast one 20. What minimises the residuals after four steps lies between them, where the
    slow one needs in proportion to 1 / slowness.
    """
    slowness = jnp.array([1e-2, 1e-3])

    def residuals(theta, slowness, steps):
        def one(rate, solution):
            operator = lx.MatrixLinearOperator(jnp.eye(2) - rate * jnp.eye(2)[::-1])
            solver, b = relax.Jacobi(rtol=1e-6), operator.mv(jnp.full(2, solution))
            return relax.relative_residuals(solver, operator, b, steps, y0=jnp.full(2, theta))

        return jax.vmap(one)(jnp.stack([0.5, 1 - slowness]), jnp.array([1.0, 2.0]))

    @jax.jit
    @jax.vmap
    def learned(slowness):
        def fixed(theta):
            return relax.fixed_steps_loss(residuals(theta, slowness, 4), 4).mean()

        # A parabola: one step of Newton's.
        return 1.5 - jax.grad(fixed)(1.5) / jax.grad(jax.grad(fixed))(1.5)

    @jax.jit
    @jax.vmap
    def counts(theta, slowness):
        return relax.steps_to_tolerance(residuals(theta, slowness, 16_000), 1e-6)

    theta = learned(slowness)
    assert ((theta > 1) & (theta < 2)).all()
    assert (counts(theta, slowness).sum(axis=1) > 8 / slowness).all()
    best = counts(jnp.full(2, 2.0), slowness)
    assert (best[:, 1] == 0).all()
    assert (best.sum(axis=1) < 25).all()


def test_black_box_gradients_are_those_of_the_smoothed_count():
    def estimate(p):
        return jnp.log(1e-8) / jnp.log(relax.sor_radius(p["omega"], 0.98))

    def count(p):
        return jnp.ceil(estimate(p))

    params = {"omega": jnp.array(1.3), "name": "kept"}
    keys = jax.random.split(jax.random.key(3), 100)

    def spread(surrogate):
        def once(key):
            value, gradient = relax.black_box_gradient(
                count, params, key, scale=0.02, samples=4, surrogate=surrogate
            )
            return value, gradient["omega"]

        return jax.jit(jax.vmap(once))(keys)

    slope = jax.grad(lambda omega: estimate({"omega": omega}))(1.3)
    (value, plain), (_, controlled) = spread(None), spread(estimate)
    assert value[0] == count(params)
    assert abs(plain.mean() / slope - 1) < 0.15
    assert abs(controlled.mean() / slope - 1) < 0.02
    assert controlled.std() < 0.2 * plain.std()
