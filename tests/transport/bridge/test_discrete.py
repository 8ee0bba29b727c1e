"""Bridges between points: against a plain Sinkhorn, and its unbalanced sibling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from transport.bridge import DiscreteBridge

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


def plan_by_sinkhorn(cost, a, b, epsilon):
    """The entropic plan in the log domain, by plain NumPy."""
    f, g = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(3000):
        f = epsilon * (np.log(a) - logsumexp((g - cost) / epsilon, axis=1))
        g = epsilon * (np.log(b) - logsumexp((f[:, None] - cost) / epsilon, axis=0))
    return np.exp((f[:, None] + g - cost) / epsilon)


@pytest.fixture(scope="module")
def weighted():
    keys = jax.random.split(jax.random.key(0), 4)
    x0, x1 = jax.random.normal(keys[0], (30, 2)), 2 + jax.random.normal(keys[1], (20, 2))
    a, b = (jax.nn.softmax(jax.random.normal(k, (n,))) for k, n in ((keys[2], 30), (keys[3], 20)))
    plan = plan_by_sinkhorn(0.5 * np.sum((x0[:, None] - x1) ** 2, -1), a, b, 0.5)
    return DiscreteBridge(0.5, x0, x1, a, b), x0, x1, plan / plan.sum(axis=1, keepdims=True)


def test_the_end_given_a_start_is_the_plan_s_row(weighted):
    bridge, x0, x1, rows = weighted
    means, covariances = bridge.conditional_moments(x0)
    np.testing.assert_allclose(means, rows @ x1, atol=1e-8)
    centred = x1 - means[:, None]
    wanted = np.einsum("nk,nki,nkj->nij", rows, centred, centred)
    np.testing.assert_allclose(covariances, wanted, atol=1e-8)


def test_draws_end_in_the_points_as_often_as_the_plan_says(weighted):
    bridge, x0, x1, rows = weighted
    n = 20_000
    ends = bridge.sample(jax.random.key(1), jnp.broadcast_to(x0[3], (n, 2)))
    distance = jnp.sum((ends[:, None] - x1) ** 2, axis=-1)
    assert jnp.max(jnp.min(distance, axis=1)) < 1e-24
    share = np.bincount(np.argmin(distance, axis=1), minlength=20) / n
    assert np.all(np.abs(share - rows[3]) <= 4 * np.sqrt(rows[3] * (1 - rows[3]) / n) + 1e-9)
    with pytest.raises(TypeError, match="no density"):
        bridge.log_prob(x1, x0[:20])


def test_an_unbalanced_end_has_the_rows_and_weights_of_unbalanced_scaling():
    """By the scaling iteration of Chizat, Peyré, Schmitzer and Vialard (2018), in plain NumPy."""
    x0, x1 = jax.random.normal(jax.random.key(4), (2, 12, 2))
    x1 = x1.at[0].add(6)  # an outlier, most of whose mass is not worth its way
    kernel, u, v, tau = (
        np.exp(-0.5 * np.sum((x0[:, None] - x1) ** 2, -1) / 0.5),
        *np.ones((2, 12)),
        0.7,
    )
    for _ in range(2000):
        u = 1 / (12 * kernel @ v)
        v = (1 / (12 * kernel.T @ u)) ** tau
    plan = u[:, None] * kernel * v
    bridge = DiscreteBridge(0.5, x0, x1, tau_b=tau)
    np.testing.assert_allclose(bridge.plan.marginal(0), plan.sum(axis=0), rtol=1e-8)
    means = bridge.conditional_moments(x0)[0]
    np.testing.assert_allclose(means, plan / plan.sum(axis=1, keepdims=True) @ x1, atol=1e-8)
    assert plan.sum(axis=0)[0] < 0.3 / 12
