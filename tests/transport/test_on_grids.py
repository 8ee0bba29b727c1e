"""Claims about grids: the answer of the cost matrix, found axis by axis."""

import re
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import costs
from ott.geometry.geometry import Geometry
from ott.geometry.grid import Grid
from ott.problems.linear.linear_problem import LinearProblem
from transport_problems import images, pixels

from transport import SinkhornNewtonSparse
from transport._grid import GridSemidual, soft_sums
from transport._semidual import Semidual, damping_of, log_gradient

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

RNG = np.random.default_rng(0)
AXES = [jnp.asarray(RNG.normal(size=k)) for k in (4, 3, 5)]
COST_FNS = [costs.PNormP(1.0), costs.SqPNorm(1.6), costs.SqEuclidean()]
A, B = (
    jnp.asarray(w).at[i].set(0) for w, i in zip(RNG.uniform(size=(2, 60)), (7, 59), strict=True)
)
A, B = A.at[20:35].set(0), B / B.sum()  # the second of the four layers has no mass
A = A / A.sum()
SOLVER: Any = SinkhornNewtonSparse(threshold=1e-13, direct_below=0)


def sum_over_axes(parts):
    """The whole cost matrix."""

    def join(one, other):
        both = one[:, None, :, None] + other[None, :, None, :]
        return both.reshape(one.shape[0] * other.shape[0], -1)

    return reduce(join, parts)


def test_potentials_and_cost_are_those_with_the_matrix_and_derivatives_finite_differences():
    weight = jnp.asarray(RNG.normal(size=(2, 60)))

    def value(axes, a, epsilon):
        geometry = Grid(axes, cost_fns=COST_FNS, epsilon=epsilon)
        out, history = SOLVER.run(LinearProblem(geometry, a, B))
        f, g = (jnp.where(jnp.isfinite(v), v, 0) for v in (out.f, out.g))
        values = jnp.stack([out.reg_ot_cost, weight[0] @ f + weight[1] @ g])
        return values, (out.f, out.g, out.converged, history.newton.sum())

    at = (AXES, A, jnp.asarray(0.05))
    axes, a, epsilon = jax.tree.map(lambda v: jnp.asarray(RNG.normal(size=v.shape)), at)
    push = (axes, 0.01 * A * (a - A @ a), epsilon)  # masses stay equal

    def values_and_slopes(step):
        moved = jax.tree.map(lambda v, d: v + step * d, at, push)
        values, pull, more = jax.vjp(value, *moved, has_aux=True)
        gradients = jax.vmap(pull)(jnp.eye(2))
        products = jax.tree.map(lambda g, d: jnp.sum((g * d).reshape(2, -1), 1), gradients, push)
        return values, sum(jax.tree.leaves(products)), more

    steps = jnp.array([0, 1e-5, -1e-5])
    values, slopes, more = jax.jit(jax.vmap(values_and_slopes))(steps)
    assert jnp.allclose(slopes[0], (values[1] - values[2]) / 2e-5, rtol=1e-7)

    f, g, converged, newton = (v[0] for v in more)
    along = [fn.all_pairs(t[:, None], t[:, None]) for fn, t in zip(COST_FNS, AXES, strict=True)]
    geometry = Geometry(sum_over_axes(along), epsilon=0.05)
    dense: Any = SinkhornNewtonSparse(threshold=1e-13)(LinearProblem(geometry, A, B))
    assert converged
    assert newton > 0
    assert jnp.all(jnp.isinf(f) == (A == 0))
    assert jnp.allclose(f, dense.f, atol=1e-12, rtol=0)
    assert jnp.allclose(g, dense.g, atol=1e-12, rtol=0)
    assert jnp.allclose(values[0, 0], dense.reg_ot_cost, atol=1e-12, rtol=0)


@pytest.mark.parametrize("power", [1, 2])
def test_images_end_with_exact_marginals_at_eta_1200(power):
    cost, a, b = images(power)
    geometry = pixels(power, epsilon=1 / 1200)
    solver = SinkhornNewtonSparse(threshold=1e-12)
    out: Any = solver(LinearProblem(geometry, jnp.asarray(a), jnp.asarray(b)))
    plan = np.exp(1200 * (np.asarray(out.f)[:, None] + np.asarray(out.g) - cost))
    assert out.converged
    assert np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum() <= 1e-12


def test_positions_that_are_not_finite_are_refused():
    t = (jnp.arange(28.0) / 54).at[3].set(jnp.nan)
    geometry = Grid([t, t], cost_fns=[costs.PNormP(1.0)], epsilon=1 / 1200)
    with pytest.raises(Exception, match="NaN or infinite"):
        SinkhornNewtonSparse(threshold=1e-12)(LinearProblem(geometry))


def test_a_rectangular_plan_is_the_product_of_its_kernels():
    parts = tuple(jnp.asarray(RNG.uniform(size=shape)) for shape in ((4, 6), (5, 3), (2, 2)))
    a, b = (jnp.asarray(RNG.dirichlet(np.ones(k))) for k in (40, 36))
    a, b, epsilon = a.at[10:20].set(0), b.at[4].set(0), jnp.asarray(0.05)
    f = jnp.where(a > 0, jnp.asarray(RNG.normal(size=40)), -jnp.inf)
    dual, dense = GridSemidual(costs=parts, a=a, b=b), Semidual(sum_over_axes(parts), a, b)

    @jax.jit
    def swept(dual):
        it = dual.at(f, epsilon)
        later = dual.sweep(it, epsilon)
        return it, later, dual.direction(later, epsilon, None, 0)

    (ours, later, direction), (theirs, dense_later, _) = swept(dual), swept(dense)
    np.testing.assert_allclose(ours.g, theirs.g, atol=1e-14)
    np.testing.assert_allclose(ours.row, theirs.row, rtol=1e-11)
    np.testing.assert_allclose(later.f, dense_later.f, rtol=1e-11)
    # The direction solves Newton's damped system, up to the tolerance of CG.
    plan, row = np.asarray(dense_later.plan), np.asarray(later.row)
    damping = float(damping_of(later.error, row.dtype))
    image = (1 + damping) * row * direction - plan @ ((plan.T @ direction) / np.where(b > 0, b, 1))
    rhs = np.asarray(log_gradient(later.row, a))
    scale = np.sqrt(np.where(row > 0, row, 1))
    off = np.linalg.norm((image / epsilon - rhs) / scale)
    assert off <= 0.05 * np.linalg.norm(rhs / scale)


def test_derivatives_beside_atoms_without_mass_are_finite_at_small_epsilon():
    f = jnp.array([-jnp.inf, -5, -5.1, -jnp.inf, -5.2, -5.3])
    parts = tuple(jnp.abs(jnp.arange(k)[:, None] - jnp.arange(float(k))) for k in (2, 3))
    slope = jax.jit(jax.grad(lambda epsilon: jnp.sum(soft_sums(f, parts, epsilon)[1])))
    assert jnp.isfinite(slope(1e-3))


def test_nothing_of_the_size_of_the_plan_is_made():
    side = 100
    weights = jax.ShapeDtypeStruct((side**2,), jnp.float64)

    def value(t, a, b):
        geometry = Grid([t, t], epsilon=1e-3)
        return SinkhornNewtonSparse()(LinearProblem(geometry, a, b)).reg_ot_cost

    program = jax.jit(jax.grad(value)).lower(jnp.linspace(0, 1, side), weights, weights).as_text()
    sizes = [
        np.prod([int(k) for k in shape.split("x")])
        for shape in re.findall(r"tensor<([\dx]+)xf64>", program)
    ]
    assert max(sizes) == side**3
