"""Many dimensions, equal ends, and hardly any samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from transport.bridge import Diagonal, DiscreteBridge, GaussianBridge, LightSB, Reference, fit

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


def test_in_a_thousand_dimensions_the_light_bridge_is_the_gaussian_one():
    """One diagonal component sees a coordinate's mean and variance only: two points have both."""
    d = 1000
    mean, start, end = jnp.linspace(-1, 1, d), jnp.linspace(0.5, 2, d), jnp.linspace(2, 0.5, d)
    true = GaussianBridge(mean, jnp.diag(start**2), mean + 2, jnp.diag(end**2), 0.5)
    x0, x1 = (m + jnp.outer(jnp.array([1, -1]), s) for m, s in ((mean, start), (mean + 2, end)))
    light = fit(LightSB.from_samples(jax.random.key(0), 0.5, x1, 1), x0, x1).value
    wanted, covariance = true.conditional(x0)
    assert isinstance(light.potential.covariance, Diagonal)
    spread = jnp.exp(light.potential.covariance.log_variance[0])
    np.testing.assert_allclose(0.5 * spread, jnp.diag(covariance), atol=1e-5)
    means = jnp.sqrt(0.5) * light.potential.r + spread * x0
    np.testing.assert_allclose(means, wanted, atol=1e-5)
    # What is spread about the conditional means and their own spread make up the end's.
    between = (wanted[0] - mean - 2) ** 2
    np.testing.assert_allclose(jnp.diag(covariance) + between, end**2, rtol=1e-9)


def test_equal_ends_make_a_bridge_that_looks_the_same_in_reverse():
    mean, cov = jnp.array([1.0, -1.0]), jnp.array([[1.0, 0.4], [0.4, 0.6]])
    bridge = GaussianBridge(mean, cov, mean, cov, Reference(0.7, 0.5))
    for early, late in zip(bridge.marginal(0.3), bridge.marginal(0.7), strict=True):
        np.testing.assert_allclose(early, late, atol=1e-10)
    x = jax.random.normal(jax.random.key(0), (15, 2))
    plan = DiscreteBridge(0.7, x, x).plan.matrix
    np.testing.assert_allclose(plan, plan.T, atol=1e-10)


def test_one_sample_is_a_point_and_a_light_bridge_to_it_is_said_to_diverge():
    x = jnp.array([[1.0, 2.0]])
    point = DiscreteBridge(0.5, jnp.zeros((1, 2)), x)
    middle = point.simulate(jax.random.key(0), jnp.zeros((4000, 2)), [0.5, 1.0])
    np.testing.assert_allclose(middle[1] - x, 0, atol=1e-12)
    # A Brownian bridge, half way.
    assert jnp.all(jnp.abs(jnp.mean(middle[0], axis=0) - x / 2) < 4 * jnp.sqrt(0.125 / 4000))
    assert jnp.all(jnp.abs(jnp.var(middle[0], axis=0) / 0.125 - 1) < 4 * jnp.sqrt(2 / 4000))
    # A component on one sample has no best variance but zero, where the objective has no minimum.
    x0 = jax.random.normal(jax.random.key(1), (3, 2))
    solution = fit(LightSB.from_samples(jax.random.key(3), 1.0, x, 1), x0, x)
    assert solution.result == optx.RESULTS.nonlinear_divergence
    assert bool(jnp.all(jnp.isfinite(solution.value.sample(jax.random.key(4), x0))))


def test_samples_on_a_line_and_too_few_are_right_or_said_to_diverge():
    """A degenerate start is like any other; an end has no density across its line."""
    key = jax.random.key(5)
    x = jax.random.normal(key, (500, 2)) * jnp.array([1.0, 0.0])
    whole = jax.random.normal(jax.random.key(6), (500, 2)) + 1
    begin = LightSB.from_samples(key, 0.5, whole, 1)
    from_line = fit(begin, x, whole)
    assert from_line.result == optx.RESULTS.successful
    moments = [(jnp.mean(u, 0), jnp.diag(jnp.var(u, 0))) for u in (x, whole)]
    wanted = GaussianBridge(*moments[0], *moments[1], 0.5).conditional(x[:3])
    found = from_line.value.conditional_moments(x[:3])
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-8)
    np.testing.assert_allclose(found[1][0], wanted[1], atol=1e-8)
    to_line = fit(LightSB.from_samples(key, 0.5, x, 1), whole, x)
    assert to_line.result == optx.RESULTS.nonlinear_divergence
    with pytest.raises(ValueError, match="4 components need as many samples; there are 3"):
        LightSB.from_samples(key, 0.5, x[:3], 4)
