"""Claims about exact transport: on the line, between Gaussians, and the polytope's rounding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from scipy.stats import wasserstein_distance
from transport_problems import optimum

from transport import SinkhornNewtonSparse, gaussian, round_to_polytope, sorted_transport

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

A = jnp.array([[2.0, 0.3], [0.3, 0.5]])
B = jnp.array([[1.0, -0.4], [-0.4, 0.8]])


def weighted_line(n=9, m=13, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(size=n), rng.uniform(size=m)
    return rng.normal(size=n), rng.normal(size=m), a / a.sum(), b / b.sum()


@pytest.mark.parametrize("cost", [jnp.square, jnp.abs, lambda d: jnp.abs(d) ** 3])
def test_sorted_transport_is_the_linear_programme_s_optimum(cost):
    x, y, a, b = weighted_line()
    value, (rows, columns, masses) = sorted_transport(*map(jnp.asarray, (x, y, a, b)), cost=cost)
    dense = np.asarray(cost(jnp.asarray(x[:, None] - y)))
    assert np.isclose(value, optimum(dense, a, b), atol=1e-10)
    plan = jnp.zeros((9, 13)).at[rows, columns].add(masses)
    assert jnp.allclose(plan.sum(1), a, atol=1e-14)
    assert jnp.allclose(plan.sum(0), b, atol=1e-14)
    assert jnp.all(plan >= 0)


def test_sorted_transport_with_absolute_cost_is_scipy_s_wasserstein_distance():
    x, y, a, b = weighted_line(50, 70, seed=1)
    value, _ = sorted_transport(*map(jnp.asarray, (x, y, a, b)), cost=jnp.abs)
    assert np.isclose(value, wasserstein_distance(x, y, a, b), atol=1e-13)


def test_entropic_cost_falls_to_the_sorted_optimum_as_epsilon_does():
    x, y, a, b = map(jnp.asarray, weighted_line(30, 40, seed=2))
    exact, _ = sorted_transport(x, y, a, b)
    gaps = []
    for epsilon in (1e-2, 1e-3, 1e-4):
        cloud = PointCloud(x[:, None], y[:, None], epsilon=epsilon)
        out = SinkhornNewtonSparse()(LinearProblem(cloud, a, b))
        assert out.converged
        gaps.append(float(out.primal_cost - exact))
    assert gaps[0] > gaps[1] > gaps[2] > -1e-9
    assert gaps[2] < 1e-4


def test_gaussian_map_pushes_one_covariance_to_the_other_at_the_bures_cost():
    linear = gaussian.transport_map(A, B)
    assert jnp.allclose(linear @ A @ linear.T, B, atol=1e-12)
    residual = jnp.eye(2) - linear
    assert jnp.allclose(jnp.trace(residual @ A @ residual.T), gaussian.bures(A, B), atol=1e-12)


def test_bures_of_commuting_covariances_is_the_distance_of_their_roots():
    a, b = jnp.array([4.0, 1.0, 0.0]), jnp.array([1.0, 9.0, 4.0])
    expected = jnp.sum((jnp.sqrt(a) - jnp.sqrt(b)) ** 2)
    assert jnp.allclose(gaussian.bures(jnp.diag(a), jnp.diag(b)), expected, atol=1e-12)


def test_entropic_gaussian_cost_falls_to_wasserstein_and_rises_to_independence():
    m, k = jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])
    exact = gaussian.cost(m, A, k, B)
    assert jnp.allclose(gaussian.entropic_cost(m, A, k, B, 1e-6), exact, atol=1e-4)
    independent = jnp.sum((m - k) ** 2) + jnp.trace(A) + jnp.trace(B)
    assert jnp.allclose(gaussian.entropic_cost(m, A, k, B, 1e6), independent, atol=1e-4)
    costs = jnp.stack([gaussian.entropic_cost(m, A, k, B, e) for e in (1e-3, 1e-1, 1.0, 10.0)])
    assert jnp.all(jnp.diff(costs) > 0)


def test_entropic_gaussian_plan_is_optimal_among_gaussian_plans():
    def objective(cross):
        joint = jnp.block([[A, cross], [cross.T, B]])
        det = sum(s * jnp.linalg.slogdet(x)[1] for s, x in ((1, A), (1, B), (-1, joint)))
        return -2 * jnp.trace(cross) + 0.7 * 0.5 * det

    gradient = jax.grad(objective)(gaussian.entropic_cross_covariance(A, B, 0.7))
    assert jnp.allclose(gradient, 0, atol=1e-12)


def test_discretised_gaussians_have_the_closed_entropic_cost_and_covariance():
    # The trapezoidal rule on Gaussians converges exponentially: the grid adds 1e-10.
    t = jnp.linspace(-9, 9, 181)
    a, b = jnp.exp(-(t**2) / 2), jnp.exp(-((t - 0.5) ** 2) / (2 * 0.49))
    a, b = a / a.sum(), b / b.sum()
    cloud = PointCloud(t[:, None], t[:, None], epsilon=0.5)
    out: Any = SinkhornNewtonSparse(threshold=1e-12)(LinearProblem(cloud, a, b))
    one, other = jnp.eye(1), 0.49 * jnp.eye(1)
    closed = gaussian.entropic_cost(jnp.zeros(1), one, jnp.full(1, 0.5), other, 0.5)
    assert jnp.allclose(out.reg_ot_cost, closed, atol=1e-9)
    cross = t @ out.matrix @ (t - 0.5)
    expected = gaussian.entropic_cross_covariance(one, other, 0.5)[0, 0]
    assert jnp.allclose(cross, expected, atol=1e-9)


def test_rounding_is_feasible_and_moves_no_more_than_altschuler_s_bound():
    rng = np.random.default_rng(0)
    plan = jnp.asarray(rng.uniform(size=(20, 30)))
    a, b = (jnp.asarray(rng.dirichlet(np.ones(k))) for k in (20, 30))
    plan = plan / plan.sum()
    rounded = round_to_polytope(plan, a, b)
    assert jnp.all(rounded >= 0)
    assert jnp.allclose(rounded.sum(1), a, atol=1e-16, rtol=1e-13)
    assert jnp.allclose(rounded.sum(0), b, atol=1e-16, rtol=1e-13)
    violation = jnp.abs(plan.sum(1) - a).sum() + jnp.abs(plan.sum(0) - b).sum()
    assert jnp.abs(rounded - plan).sum() <= 2 * violation
    assert jnp.allclose(round_to_polytope(rounded, a, b), rounded, atol=1e-15)
