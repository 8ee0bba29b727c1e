"""ott's own Sinkhorn test problems (its `sinkhorn_test.py`), through our solver.

Rebuilt at one size, so that they share one compiled program. A plan of the form
exp((f + g - C) / epsilon) that has the marginals is the optimum: no reference is needed for that.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import costs
from ott.geometry.geometry import Geometry
from ott.geometry.grid import Grid
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn
from scipy.optimize import linear_sum_assignment

from transport import SinkhornNewtonSparse

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

N = 20
RNG = np.random.default_rng(0)
X, Y = (jnp.asarray(RNG.uniform(size=(N, 4))) for _ in range(2))
A, B = (jnp.asarray(w).at[i].set(0) for w, i in zip(RNG.uniform(size=(2, N)), (0, 3), strict=True))
A, B = A / A.sum(), B / B.sum()
AXES = [jnp.asarray(RNG.normal(size=k)) for k in (4, 5)]
SOLVER: Any = SinkhornNewtonSparse(threshold=1e-12)
REFERENCE = jax.jit(Sinkhorn(threshold=1e-13, max_iterations=20_000))

GEOMETRIES = {
    "default epsilon": lambda: PointCloud(X, Y),
    "squared Euclidean": lambda: PointCloud(X, Y, epsilon=0.1),
    "Euclidean": lambda: PointCloud(X, Y, cost_fn=costs.Euclidean(), epsilon=0.1),
    "p-norm 2.2": lambda: PointCloud(X, Y, cost_fn=costs.SqPNorm(p=2.2), epsilon=0.1),
    "p-norm 1": lambda: PointCloud(X, Y, cost_fn=costs.SqPNorm(p=1.0), epsilon=0.1),
    "itself": lambda: PointCloud(X, epsilon=0.01),
    "low rank": lambda: PointCloud(X, Y, epsilon=0.1).to_LRCGeometry(),
    "grid of p-norms": lambda: Grid(AXES, cost_fns=[costs.SqPNorm(1.6)], epsilon=0.1),
    "small epsilon": lambda: PointCloud(X, Y, epsilon=1e-3),
    "small epsilon, p-norm 1.6": lambda: PointCloud(X, Y, cost_fn=costs.SqPNorm(1.6), epsilon=1e-3),
    "small epsilon, dot product": lambda: PointCloud(
        X, Y, cost_fn=costs.NegDotProduct(), epsilon=1e-3
    ),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_plan_is_optimal_and_the_output_is_what_ott_s_would_be(name):
    geometry = GEOMETRIES[name]()
    out = SOLVER(LinearProblem(geometry, A, B))
    cost = geometry.apply_cost(jnp.eye(N), axis=1)  # what a grid has instead of a matrix
    plan = jnp.exp((out.f[:, None] + out.g - cost) / geometry.epsilon)
    assert out.converged
    assert jnp.abs(plan.sum(1) - A).sum() <= 2e-12
    assert jnp.abs(plan.sum(0) - B).sum() <= 2e-12
    assert jnp.abs(jnp.sum(jnp.where(A > 0, out.f, 0))) <= 1e-11
    if "small" in name:
        assert jnp.allclose(jnp.sum(plan * cost), out.primal_cost, atol=1e-11)
        assert 0 < out.primal_cost - out.dual_cost < 0.1 * abs(out.primal_cost)
    else:
        dense = Geometry(cost, epsilon=geometry.epsilon)
        theirs = REFERENCE(LinearProblem(dense, A, B))
        assert theirs.converged
        assert jnp.allclose(out.reg_ot_cost, theirs.reg_ot_cost, atol=1e-10, rtol=0)
        assert jnp.allclose(plan, theirs.matrix, atol=1e-10)


def test_small_epsilon_is_near_the_hungarian_assignment():
    geometry = PointCloud(X, Y, epsilon=1e-3)
    plan = SOLVER(LinearProblem(geometry)).matrix
    rows, columns = linear_sum_assignment(np.asarray(geometry.cost_matrix))
    assert jnp.sum(plan[rows, columns]) > 0.9
