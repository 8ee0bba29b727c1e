"""Claims about the damped Gauss-Newton step and the loop that drives any optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
from jax.flatten_util import ravel_pytree

import sciopt


def rosenbrock(y, args):
    return {"a": 10 * (y["p"][1] - y["p"][0] ** 2), "b": jnp.stack([1 - y["p"][0]])}


@pytest.mark.parametrize("jac", ["fwd", "bwd"])
def test_drops_into_optimistix_least_squares(jac):
    solver = sciopt.GaussNewton(rtol=1e-10, atol=1e-10)
    y0 = {"p": jnp.array([-1.2, 1.0])}
    sol = optx.least_squares(rosenbrock, solver, y0, options={"jac": jac})
    np.testing.assert_allclose(sol.value["p"], 1.0, atol=1e-9)
    assert sol.stats["num_steps"] < 60


def test_agrees_with_optimistix_levenberg_marquardt_on_a_curve_fit():
    x = jnp.linspace(0, 2, 50)
    data = 2.5 * jnp.exp(-1.3 * x) + 0.1 * jnp.sin(40 * x)

    def residual(p, args):
        return p[0] * jnp.exp(-p[1] * x) - data

    ours = optx.least_squares(residual, sciopt.GaussNewton(1e-12, 1e-12), jnp.ones(2)).value
    peer = optx.least_squares(residual, optx.LevenbergMarquardt(1e-12, 1e-12), jnp.ones(2)).value
    np.testing.assert_allclose(ours, peer, atol=1e-8)


def test_an_unknown_jac_option_is_refused():
    with pytest.raises(ValueError, match="'fwd', 'bwd' or a function"):
        optx.least_squares(
            rosenbrock, sciopt.GaussNewton(), {"p": jnp.zeros(2)}, options={"jac": "sideways"}
        )


def exponential():
    x = jnp.linspace(0, 1, 32)
    data = jnp.stack([x, 2 * jnp.exp(-3 * x)], axis=1)
    residuals = sciopt.Residuals({"data": lambda p, xy: p["a"] * jnp.exp(-p["k"] * xy[0]) - xy[1]})
    return residuals, {"data": data}


def test_jacobian_rows_are_those_of_the_stacked_residuals():
    points = {"b": jnp.linspace(0, 1, 5)[:, None], "a": jnp.linspace(1, 2, 3)[:, None]}
    residuals = sciopt.Residuals(
        {
            "b": lambda p, x: jnp.stack([p["u"] @ jnp.sin(x), p["v"] ** 2 * x[0]]),
            "a": lambda p, x: p["v"] * x[0] ** 3,
        },
        {"a": 4.0},
    )
    params = {"v": jnp.array(0.7), "u": jnp.array([0.3])}
    scaled, jac = residuals.jacobian(params, points)
    flat, unravel = ravel_pytree(params)

    def stacked(p):
        return ravel_pytree(residuals.scaled(unravel(p), points))[0]

    np.testing.assert_allclose(jac, jax.jacfwd(stacked)(flat), atol=1e-14)
    np.testing.assert_allclose(ravel_pytree(scaled)[0], stacked(flat), atol=1e-15)
    by_hand = jnp.mean(jnp.sum(residuals(params, points)["b"] ** 2, axis=1))
    by_hand += 4 * jnp.mean(residuals(params, points)["a"] ** 2)
    np.testing.assert_allclose(residuals.loss(params, points), by_hand, rtol=1e-14)


OPTIMIZERS = {
    "gauss_newton": (sciopt.GaussNewton(), 30),
    "egn": (sciopt.EGN(damping=1e-3, momentum=0.1), 40),
    "bfgs": (optx.BFGS(0.0, 0.0), 60),
    "optimistix_lm": (optx.LevenbergMarquardt(0.0, 0.0), 40),
    "ssbroyden": (sciopt.SSBroyden(), 40),
    "adam": (optax.adam(0.05), 1500),
    "optax_lbfgs": (optax.lbfgs(), 60),
    "stages": (sciopt.Stages([optax.adam(0.05), optx.BFGS(0.0, 0.0)], [10]), 70),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_of_the_ecosystem_fits(name):
    residuals, points = exponential()
    optimizer, steps = OPTIMIZERS[name]
    fit = sciopt.Fit(residuals, optimizer, lambda key, params: points, jax.random.key(0))
    state = fit.init({"a": jnp.array(1.0), "k": jnp.array(1.0)})
    state = fit.resample(fit.advance(state, steps // 2))
    state = fit.advance(state, steps - steps // 2)
    assert state.step == steps
    np.testing.assert_allclose([state.params["a"], state.params["k"]], [2, 3], atol=2e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_compiles_after_the_first_step(name, compilations):
    residuals, points = exponential()
    fit = sciopt.Fit(residuals, OPTIMIZERS[name][0], lambda key, p: points, jax.random.key(0))
    state = fit.init({"a": 1.0, "k": jnp.array(1.0)})
    state = fit.resample(fit.advance(state, 1))
    assert compilations
    compilations.clear()
    for steps in (2, 5, 1):
        state = fit.advance(state, steps)
        state = fit.resample(state)
    assert compilations == []
    assert state.step == 9


def test_a_fit_stops_where_the_loss_stops_being_finite():
    residuals = sciopt.Residuals({"b": lambda p, x: (jnp.log(p) + 5) * x})
    fit = sciopt.Fit(
        residuals, optax.sgd(2.0), lambda key, p: {"b": jnp.ones(4)}, jax.random.key(0)
    )
    state = fit.advance(fit.init(jnp.array(0.5)), 1000)
    assert state.step < 10
    assert not jnp.isfinite(state.loss)
