"""Claims about Sinkhorn divergences: ott's values and slopes, and those of a translation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.costs import Euclidean
from ott.tools.sinkhorn_divergence import sinkdiv

from transport import SinkhornNewtonSparse, sinkhorn_divergence

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

SOLVER = SinkhornNewtonSparse(threshold=1e-12)
RNG = np.random.default_rng(0)
# As many points on either side: the three terms share one compiled program.
X, Y = (jnp.asarray(RNG.normal(size=(14, 2))) for _ in range(2))
A, B = (jnp.asarray(RNG.dirichlet(np.full(14, 5.0))) for _ in range(2))


def ours(x, a, epsilon):
    return sinkhorn_divergence(x, Y, a, B, epsilon=epsilon, solver=SOLVER)


def test_the_value_is_ott_s_with_its_defaults():
    value = sinkhorn_divergence(X, Y, cost_fn=Euclidean(), solver=SOLVER)
    precise = {"threshold": 1e-13, "max_iterations": 10_000}
    expected, _ = sinkdiv(X, Y, cost_fn=Euclidean(), solve_kwargs=precise)
    assert jnp.allclose(value, expected, atol=1e-10, rtol=0)


def test_derivatives_are_finite_differences():
    at = (X, A, jnp.asarray(0.3))
    slopes = jax.grad(ours, argnums=(0, 1, 2))(*at)
    rng = np.random.default_rng(1)
    # Masses stay equal: of the weights only differences count.
    push = rng.normal(size=X.shape), 0.01 * (A - A[::-1]), 0.7
    h = 1e-5
    for k, (slope, by) in enumerate(zip(slopes, push, strict=True)):
        ahead, behind = (
            ours(*(v + s * by if i == k else v for i, v in enumerate(at))) for s in (h, -h)
        )
        assert jnp.allclose(jnp.sum(slope * by), (ahead - behind) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("epsilon", [1e-2, 1.0, 100.0])
def test_a_translation_costs_its_square_and_a_measure_is_at_no_distance_from_itself(epsilon):
    for by in (0.0, 1.5):
        value = sinkhorn_divergence(X, X + by, A, A, epsilon=epsilon, solver=SOLVER)
        assert jnp.allclose(value, 2 * by**2, atol=1e-11)


def test_the_divergence_is_positive_where_entropic_cost_is_biased():
    # Shrinking the points lowers the entropic cost to x itself, and raises the divergence.
    shrunk = X.mean(0) + 0.7 * (X - X.mean(0))
    assert ours(X, A, 2.0) > 0
    assert sinkhorn_divergence(shrunk, X, A, A, epsilon=2.0, solver=SOLVER) > 1e-3
