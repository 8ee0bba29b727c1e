"""The closed form against moment equations, autodiff, finite regularisation's limits and draws."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from transport import gaussian
from transport.bridge import GaussianBridge, Reference

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

REFERENCES = {
    "brownian": Reference(0.7),
    "ornstein_uhlenbeck": Reference(
        jnp.array([0.3, 2.0]), jnp.array([1.5, -0.5]), jnp.array([0.2, 1.0])
    ),
}


def covariance(seed: int, d: int) -> jax.Array:
    root = jax.random.normal(jax.random.key(seed), (d, d))
    return root @ root.T / d + 0.1 * jnp.eye(d)


def between(reference, d: int = 2) -> GaussianBridge:
    m0, m1 = jnp.linspace(-1, 1, d), jnp.linspace(2, 0, d)
    return GaussianBridge(m0, covariance(0, d), m1, covariance(1, d), reference)


@pytest.mark.parametrize("name", REFERENCES)
def test_marginals_solve_the_moment_equations_of_the_drift(name):
    """The drift is affine, so mean and covariance obey ordinary equations; by SciPy's DOP853."""
    bridge = between(REFERENCES[name])
    noise = jnp.diag(jnp.broadcast_to(bridge.reference.epsilon, (2,)))

    @jax.jit
    def rates(t, moments):
        mean, cov = moments[:2], moments[2:].reshape(2, 2)
        slope = jax.jacfwd(lambda x: bridge.drift(t, x))(mean)
        change = slope @ cov + cov @ slope.T + noise
        return jnp.concatenate([bridge.drift(t, mean), change.ravel()])

    start = jnp.concatenate([bridge.mean0, bridge.covariance0.ravel()])
    times = [0.3, 0.5, 1.0]
    found = solve_ivp(
        lambda t, y: np.asarray(rates(t, y)), (0, 1), start, method="DOP853",
        t_eval=times, rtol=1e-11, atol=1e-12,
    )  # fmt: skip
    for t, moments in zip(times, found.y.T, strict=True):
        mean, cov = bridge.marginal(t)
        np.testing.assert_allclose(mean, moments[:2], atol=1e-8)
        np.testing.assert_allclose(cov, moments[2:].reshape(2, 2), atol=1e-8)
    for t, mean, cov in (
        (0, bridge.mean0, bridge.covariance0),
        (1, bridge.mean1, bridge.covariance1),
    ):
        np.testing.assert_allclose(bridge.marginal(t)[0], mean, atol=1e-12)
        np.testing.assert_allclose(bridge.marginal(t)[1], cov, atol=1e-12)


def test_the_coupling_is_the_entropic_plan_between_gaussians():
    bridge = between(0.7)
    # Half the squared distance over epsilon, so the squared distance with 2 epsilon.
    cross = gaussian.entropic_cross_covariance(bridge.covariance0, bridge.covariance1, 2 * 0.7)
    joint = bridge.coupling()[1]
    np.testing.assert_allclose(joint[:2, 2:], cross, atol=1e-12)
    mean, cov = bridge.conditional(bridge.mean0)
    np.testing.assert_allclose(mean, bridge.mean1, atol=1e-12)
    slope = jnp.linalg.solve(bridge.covariance0, cross)
    np.testing.assert_allclose(cov, bridge.covariance1 - cross.T @ slope, atol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_the_drift_is_the_gradient_of_a_potential_that_solves_its_equation(name):
    r"""$\partial_t \log \varphi + b_0 \cdot g + \frac12 \varepsilon (g^2 + \Delta) = 0$ but for a
    function of time alone, as the potential is known up to a constant."""
    bridge = between(REFERENCES[name])
    epsilon, t = jnp.broadcast_to(bridge.reference.epsilon, (2,)), 0.4

    def at(x):
        rate, gradient = jax.grad(bridge.log_potential, (0, 1))(t, x)
        second = jnp.diag(jax.hessian(bridge.log_potential, 1)(t, x))
        expected = bridge.reference.drift(x) + epsilon * gradient
        generated = bridge.reference.drift(x) @ gradient
        equation = rate + generated + 0.5 * epsilon @ (gradient**2 + second)
        return bridge.drift(t, x), expected, equation

    points = jax.random.normal(jax.random.key(3), (5, 2))
    drift, expected, equation = jax.jit(jax.vmap(at))(points)
    np.testing.assert_allclose(drift, expected, atol=1e-8)
    np.testing.assert_allclose(equation, equation[0], atol=1e-8)


def test_the_density_solves_fokker_and_planck_s_equation():
    bridge = GaussianBridge(
        jnp.array([-1.0]), jnp.array([[0.5]]), jnp.array([2.0]), jnp.array([[1.5]]),
        Reference(0.8, 0.6),
    )  # fmt: skip

    def density(t, x):
        mean, cov = bridge.marginal(t)
        return jnp.exp(-0.5 * (x - mean[0]) ** 2 / cov[0, 0]) / jnp.sqrt(2 * jnp.pi * cov[0, 0])

    def flux(t, x):
        gradient = jax.grad(density, 1)(t, x)
        return bridge.drift(t, x[None])[0] * density(t, x) - 0.4 * gradient

    def residual(t, x):
        return jax.grad(density, 0)(t, x) + jax.grad(flux, 1)(t, x)

    t, x = jnp.meshgrid(jnp.linspace(0.05, 0.95, 7), jnp.linspace(-4, 5, 19))
    residuals = jax.jit(jax.vmap(residual))(t.ravel(), x.ravel())
    assert jnp.max(jnp.abs(residuals)) < 1e-10


def test_little_noise_gives_the_optimal_map_and_much_the_independent_coupling():
    cold, hot = between(1e-9), between(1e9)
    x0 = jnp.array([[0.3, -2.0], [1.0, 1.0]])
    matrix = gaussian.transport_map(cold.covariance0, cold.covariance1)
    wanted = cold.mean1 + (x0 - cold.mean0) @ matrix.T
    mean, cov = cold.conditional(x0)
    np.testing.assert_allclose(mean, wanted, atol=1e-7)
    np.testing.assert_allclose(cov, 0, atol=1e-7)
    mean, cov = hot.conditional(x0)
    np.testing.assert_allclose(mean, jnp.stack([hot.mean1] * 2), atol=1e-7)
    np.testing.assert_allclose(cov, hot.covariance1, atol=1e-7)


def test_degenerate_and_large_gaussians_and_wrong_ones():
    point = GaussianBridge(
        jnp.zeros(2), jnp.zeros((2, 2)), jnp.ones(2), jnp.diag(jnp.array([2.0, 0]))
    )
    mean, cov = point.marginal(0.5)
    # From one point the bridge pins a Brownian motion: t (1 - t) beside t^2 of the end's.
    np.testing.assert_allclose(cov, jnp.diag(jnp.array([0.75, 0.25])), atol=1e-12)
    np.testing.assert_allclose(mean, 0.5, atol=1e-12)
    large = between(1.0, 300)
    np.testing.assert_allclose(large.marginal(1.0)[1], large.covariance1, atol=1e-9)
    assert large.drift(0.5, large.mean0).shape == (300,)
    with pytest.raises(ValueError, match="Covariances of shapes"):
        GaussianBridge(jnp.zeros(2), jnp.eye(3), jnp.zeros(2), jnp.eye(2))
    with pytest.raises(RuntimeError, match="negative eigenvalue"):
        GaussianBridge(jnp.zeros(2), jnp.diag(jnp.array([1.0, -1])), jnp.zeros(2), jnp.eye(2))
    with pytest.raises(RuntimeError, match="epsilon must be positive"):
        GaussianBridge(jnp.zeros(2), jnp.eye(2), jnp.zeros(2), jnp.eye(2), 0.0)


@pytest.mark.parametrize("solver", [None, diffrax.Euler(), diffrax.Heun()])
def test_paths_have_the_marginals_to_within_their_sampling_error(solver):
    bridge, n = between(REFERENCES["ornstein_uhlenbeck"]), 20_000
    begin, key = jax.random.split(jax.random.key(5))
    ts = jnp.array([0.0, 0.5, 1.0])
    paths = bridge.simulate(key, bridge.sample_start(begin, n), ts, solver)
    for t, x in zip(ts, paths, strict=True):
        mean, cov = bridge.marginal(t)
        # Four standard errors; half a per cent more for 100 steps of a solver.
        slack = 0 if solver is None else 5e-3 * jnp.max(jnp.abs(cov))
        error = 4 * jnp.sqrt(jnp.diag(cov) / n) + slack
        assert jnp.all(jnp.abs(jnp.mean(x, 0) - mean) < error)
        scatter = jnp.sqrt((jnp.outer(jnp.diag(cov), jnp.diag(cov)) + cov**2) / n)
        assert jnp.all(jnp.abs(jnp.cov(x.T) - cov) < 4 * scatter + 4 * slack)
