"""Bridges between points: a plain Sinkhorn, ott's map, and unbalanced ends in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from transport.bridge import DiscreteBridge, GaussianBridge, Reference

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
    a, b = np.arange(1, 13) / 78, np.full(12, 1 / 12)
    kernel = np.exp(-0.5 * np.sum((x0[:, None] - x1) ** 2, -1) / 0.5)
    (u, v), tau = np.ones((2, 12)), 0.7
    for _ in range(2000):
        u = 1 / (kernel @ (b * v))
        v = (1 / (kernel.T @ (a * u))) ** tau
    plan = (a * u)[:, None] * kernel * b * v
    bridge = DiscreteBridge(0.5, x0, x1, jnp.asarray(a), tau_b=tau)
    np.testing.assert_allclose(bridge.plan.marginal(0), plan.sum(axis=0), rtol=1e-8)
    means = bridge.conditional_moments(x0)[0]
    np.testing.assert_allclose(means, plan / plan.sum(axis=1, keepdims=True) @ x1, atol=1e-8)
    assert plan.sum(axis=0)[0] < 0.3 / 12
    with pytest.raises(RuntimeError, match="divide them by their sum"):
        DiscreteBridge(0.5, x0, x1, jnp.full(12, 2.0), tau_b=tau)


@pytest.mark.parametrize("taus", [(0.6, 0.6), (1.0, 0.7)])
def test_between_nodes_of_a_quadrature_it_is_the_unbalanced_gaussian_bridge(taus):
    """Gauss and Hermite's, whose sums are integrals to the last digits: no error of sampling."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
    z, weights = z[weights > 1e-14], jnp.asarray(weights[weights > 1e-14])
    means = jnp.array([[0.0, 1.0], [1.5, 0.0]])
    covariances = jnp.array([[[1.2, 0.3], [0.3, 0.5]], [[1.0, -0.4], [-0.4, 0.8]]])
    x0, x1 = (m + z @ jnp.linalg.cholesky(c).T for m, c in zip(means, covariances, strict=True))
    reference, (tau_a, tau_b) = Reference(jnp.array([1.0, 1.5]), 0.3, 0.2), taus
    exact = GaussianBridge.unbalanced(
        means[0], covariances[0], means[1], covariances[1], reference, tau_a=tau_a, tau_b=tau_b
    )
    points = DiscreteBridge(reference, x0, x1, weights, weights, tau_a=tau_a, tau_b=tau_b)
    for axis, x, mean, covariance in (
        (1, x0, exact.mean0, exact.covariance0), (0, x1, exact.mean1, exact.covariance1)
    ):  # fmt: skip
        mass = points.plan.marginal(axis)
        np.testing.assert_allclose(jnp.sum(mass), exact.mass, rtol=1e-7)
        off = x - mass @ x / exact.mass
        np.testing.assert_allclose(mass @ x / exact.mass, mean, atol=1e-6)
        np.testing.assert_allclose((mass * off.T) @ off / exact.mass, covariance, atol=1e-6)
    middle = exact.mean0 + 0.3 * jax.random.normal(jax.random.key(0), (4, 2))
    found, wanted = points.conditional_moments(middle), exact.conditional_moments(middle)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    drawn = points.sample_start(jax.random.key(1), 4000)
    assert jnp.all(
        jnp.abs(jnp.mean(drawn, 0) - exact.mean0) < 4 * jnp.sqrt(jnp.diag(exact.covariance0) / 4000)
    )


def test_out_of_the_sample_its_mean_is_ott_s_map():
    x0, x1 = jax.random.normal(jax.random.key(5), (2, 25, 2))
    bridge, new = DiscreteBridge(0.5, x0, x1), jax.random.normal(jax.random.key(6), (5, 2))
    problem = LinearProblem(PointCloud(x0, x1, epsilon=1.0))
    solved = Sinkhorn(threshold=1e-12, max_iterations=5000)(problem)
    wanted = solved.to_dual_potentials().transport(new)
    np.testing.assert_allclose(bridge.conditional_moments(new)[0], wanted, atol=1e-8)


def test_little_noise_is_the_optimal_assignment_and_much_forgets_the_start():
    x0, x1 = jax.random.normal(jax.random.key(7), (2, 12, 2))
    index = linear_sum_assignment(np.sum((x0[:, None] - x1) ** 2, axis=-1))[1]
    cold, hot = (DiscreteBridge(epsilon, x0, x1) for epsilon in (1e-3, 1e8))
    np.testing.assert_allclose(cold.conditional_moments(x0)[0], x1[index], atol=1e-6)
    means, covariances = hot.conditional_moments(x0)
    np.testing.assert_allclose(means, jnp.broadcast_to(jnp.mean(x1, 0), (12, 2)), atol=1e-6)
    np.testing.assert_allclose(covariances[0], jnp.cov(x1.T, ddof=0), atol=1e-6)
