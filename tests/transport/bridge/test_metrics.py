"""Pairs with a known bridge against quadrature; metrics against POT, closed forms and Girsanov."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest

from transport.bridge import (
    GaussianBridge,
    GaussianMixture,
    LightSB,
    MixturePair,
    Reference,
    bw2_uvp,
    cbw2_uvp,
    path_divergence,
    sample_moments,
    total_moments,
)

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


def gaussian_density(y, mean, covariance):
    off = y - mean
    quadratic = jnp.einsum("...i,ij,...j->...", off, jnp.linalg.inv(covariance), off)
    return jnp.exp(-0.5 * quadratic) / jnp.sqrt(jnp.linalg.det(2 * jnp.pi * covariance))


def crooked_pair(epsilon) -> tuple[MixturePair, GaussianMixture]:
    """Three components of unlike weights, and a start of two."""
    root = jax.random.normal(jax.random.key(1), (3, 2, 2))
    sigma = root @ jnp.swapaxes(root, 1, 2) + 0.3 * jnp.eye(2)
    means = jnp.array([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]])
    potential = GaussianMixture(jnp.array([1.0, 2.0, 5.0]), means, sigma)
    start = GaussianMixture(jnp.ones(2), jnp.array([[1.0, 1.0], [-1.0, 0.0]]), sigma[:2])
    return MixturePair(start, potential, epsilon), potential


def test_the_bridge_of_a_pair_is_the_reference_weighed_by_the_mixture():
    @jax.jit
    def gaps(epsilon):
        pair, potential = crooked_pair(epsilon)
        y = jax.random.normal(jax.random.key(2), (7, 2))
        x = jnp.array([0.4, -0.3])
        parts = potential.weights, potential.means, potential.covariances
        mixture = jax.vmap(lambda w, m, s: w * gaussian_density(y, m, s))(*parts).sum(axis=0)
        log_weighed = jnp.log(mixture) - jnp.sum((x - y) ** 2, axis=1) / (2 * epsilon)
        return pair.bridge.log_prob(y, jnp.broadcast_to(x, y.shape)) - log_weighed

    for epsilon in (0.1, 1.0, 10.0):
        found = gaps(epsilon)
        np.testing.assert_allclose(found, found[0], atol=1e-10)


def test_draws_of_a_pair_have_its_moments():
    pair, _ = crooked_pair(0.5)
    n = 20_000
    x0, x1 = pair.sample_start(jax.random.key(3), n), pair.sample_end(jax.random.key(4), n)
    mean, covariance = sample_moments(x0)
    wanted, spread = total_moments((pair.start.means, pair.start.covariances))
    np.testing.assert_allclose(mean, wanted, atol=4 * np.sqrt(np.trace(spread) / n))
    np.testing.assert_allclose(covariance, spread, atol=0.15)
    # No law of the end is needed: its moments are those of the conditional laws, mixed.
    true = total_moments(jax.jit(lambda x0: pair.bridge.conditional_moments(x0))(x0[:2000]))
    assert float(bw2_uvp(sample_moments(x1), true)) < 0.3
    assert float(bw2_uvp(sample_moments(x1 + 0.3), true)) > 1


def test_the_moments_metric_is_pot_s_bures_wasserstein_distance():
    root = jax.random.normal(jax.random.key(5), (2, 3, 3))
    a, b = root @ jnp.swapaxes(root, 1, 2)
    mean, other = jnp.array([0.3, 0.0, -1.0]), jnp.array([0.0, 0.5, 1.0])
    distance: Any = ot.gaussian.bures_wasserstein_distance(
        np.asarray(mean), np.asarray(other), np.asarray(a), np.asarray(b)
    )
    found = float(bw2_uvp((mean, a), (other, b)))
    assert found == pytest.approx(100 * distance**2 / np.trace(b), rel=1e-9)
    two = jnp.stack([mean, other]), jnp.stack([a, b])
    true = jnp.stack([other, other]), jnp.stack([b, b])
    conditional = float(cbw2_uvp(two, true, jnp.trace(b)))
    assert conditional == pytest.approx(found / 2, rel=1e-6)


def test_the_published_estimate_from_draws_nears_the_closed_form():
    pair, _ = crooked_pair(0.5)
    x0 = jax.random.normal(jax.random.key(6), (5, 2))
    other = LightSB(0.6, pair.bridge.potential)
    draws = other.sample(jax.random.key(7), jnp.broadcast_to(x0[:, None], (5, 4000, 2)))

    @jax.jit
    def metrics():
        true, found = (b.conditional_moments(x0) for b in (pair.bridge, other))
        return [cbw2_uvp(m, true, 5.0) for m in (found, sample_moments(draws), true)]

    exact, estimate, none = map(float, metrics())
    assert estimate == pytest.approx(exact, rel=0.2)
    assert exact > 1e-2
    assert none < 1e-9


def test_girsanov_agrees_with_the_divergence_of_gaussian_ends():
    """KL between laws of paths is that between the conditional ends, in closed form here."""
    reference = Reference(jnp.array([0.5, 1.5]), rate=jnp.array([1.0, 0.0]), centre=0.3)
    m0, m1, eye = jnp.zeros(2), jnp.array([1.0, -1.0]), jnp.eye(2)
    true = GaussianBridge(m0, eye, m1, 0.5 * eye, reference)
    other = GaussianBridge(m0, eye, m1 + 0.4, 0.8 * eye, reference)
    x0 = true.sample_start(jax.random.key(8), 4000)
    (m, c), (n, e) = true.conditional(x0), other.conditional(x0)
    inverse = jnp.linalg.inv(e)
    square = jnp.einsum("ni,ij,nj->n", n - m, inverse, n - m)
    log_det = jnp.linalg.slogdet(e)[1] - jnp.linalg.slogdet(c)[1]
    exact = 0.5 * (jnp.trace(inverse @ c) - 2 + square + log_det)
    found = path_divergence(jax.random.key(9), true, other.drift, x0, steps=50)
    error = jnp.std(found - exact) / jnp.sqrt(len(x0))
    assert abs(jnp.mean(found - exact)) < 4 * error
    assert float(jnp.mean(exact)) > 20 * float(error)


def test_shapes_that_make_no_mixture_are_refused():
    with pytest.raises(ValueError, match=r"make no mixture"):
        GaussianMixture(jnp.ones(2), jnp.zeros((3, 2)), jnp.zeros((3, 2, 2)))
