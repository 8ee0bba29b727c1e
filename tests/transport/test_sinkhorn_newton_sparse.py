"""Claims about Sinkhorn-Newton-Sparse, against ott, finite differences and exact marginals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ott.geometry.geometry import Geometry
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn, SinkhornOutput
from transport_problems import assignment, clouds, densities, images

from transport import SinkhornNewtonSparse

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

ETA = 1200.0
PRECISE: Any = SinkhornNewtonSparse(threshold=1e-12)  # ott's fields are all Optional


def problem(cost, a=None, b=None, epsilon: Any = 1 / ETA):
    a, b = (None if w is None else jnp.asarray(w) for w in (a, b))
    return LinearProblem(Geometry(jnp.asarray(cost), epsilon=epsilon), a, b)


def marginal_error(out):
    """L1 error of both marginals, by ott's own evaluation of the plan."""
    return float(
        jnp.sum(jnp.abs(out.matrix.sum(1) - out.a)) + jnp.sum(jnp.abs(out.matrix.sum(0) - out.b))
    )


HARD = {
    "assignment": lambda: assignment(500),
    "assignment 1000": lambda: assignment(1000),
    "assignment 4000": lambda: assignment(4000),
    "images L1": lambda: images(1),
    "images L2": lambda: images(2),
    "W1": lambda: densities(1),
    "W2": lambda: densities(2),
    "clouds": lambda: clouds(),
}


@pytest.mark.parametrize("name", HARD)
def test_marginals_are_exact_at_eta_1200(name):
    out = PRECISE(problem(*HARD[name]()))
    assert out.converged
    assert marginal_error(out) <= 1e-12


@pytest.mark.parametrize("direct_below", [0, 1000])
def test_newton_converges_quadratically_each_last_step_gains_twice_the_digits(direct_below):
    solver = SinkhornNewtonSparse(threshold=1e-12, direct_below=direct_below)
    _, history = solver.run(problem(*assignment(500)))
    errors = np.asarray(history.error)[np.asarray(history.newton)]
    gained = -np.diff(np.log10(errors))
    # Errors e -> C e^2: the ratio of successive gains is the order of convergence.
    order = gained[1:] / gained[:-1]
    assert np.all(order[-2:] >= 1.9), (errors, order)
    assert len(errors) < 20


@pytest.mark.parametrize(("direct_below", "shape"), [(0, (60, 40)), (1000, (40, 60))])
def test_dual_optimum_potentials_and_costs_are_ott_s(direct_below, shape):
    ot_prob = problem(*clouds(*shape), epsilon=0.03)
    theirs = Sinkhorn(threshold=1e-13, max_iterations=50_000, recenter_potentials=True)(ot_prob)
    ours: Any = SinkhornNewtonSparse(threshold=1e-12, direct_below=direct_below)(ot_prob)
    assert isinstance(ours, SinkhornOutput)
    for name in ("reg_ot_cost", "ent_reg_cost", "primal_cost", "dual_cost", "transport_mass"):
        assert jnp.abs(getattr(ours, name) - getattr(theirs, name)) <= 1e-10, name
    assert jnp.allclose(ours.f, theirs.f, atol=1e-10, rtol=0)
    assert jnp.allclose(ours.g, theirs.g, atol=1e-10, rtol=0)
    vector = jnp.arange(float(shape[0]))
    assert jnp.allclose(ours.apply(vector), theirs.apply(vector), rtol=1e-8)
    assert ours.n_iters < theirs.n_iters


def test_dual_optimum_and_plan_are_pot_s():
    cost, a, b = (np.asarray(v) for v in clouds(60, 40))
    # POT's u and v are exponents of the plan, as ott's f / epsilon and g / epsilon are.
    theirs, log = ot.bregman.sinkhorn_log(a, b, cost, 0.03, 50_000, stopThr=1e-14, log=True)
    ours: Any = PRECISE(problem(cost, a, b, epsilon=0.03))
    dual = 0.03 * (a @ log["log_u"] + b @ log["log_v"])
    assert abs(ours.f @ a + ours.g @ b - dual) <= 1e-10
    np.testing.assert_allclose(ours.matrix, theirs, atol=1e-10)


def test_a_plan_that_is_not_sparse_is_solved_as_well():
    ot_prob = problem(*clouds(40, 60), epsilon=0.1)
    solver = SinkhornNewtonSparse(threshold=1e-12, density=1e-3, direct_below=0)
    assert solver(ot_prob).converged


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_scale_of_the_cost_does_not_matter(scale):
    cost, a, b = clouds(40, 60)
    one, other = (PRECISE(problem(s * cost, a, b, epsilon=s / 100)) for s in (1.0, scale))
    assert other.converged
    assert jnp.allclose(other.reg_ot_cost, scale * one.reg_ot_cost, rtol=1e-10)
    assert jnp.allclose(other.matrix, one.matrix, atol=1e-12)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-3, 1e-1, 10.0])
def test_epsilon_from_1e_minus_4_to_10(epsilon):
    out = PRECISE(problem(*clouds(40, 60), epsilon=epsilon))
    assert out.converged
    assert marginal_error(out) <= 4e-12


def test_negative_costs_shift_the_cost_and_nothing_else():
    cost, a, b = clouds(40, 60)
    plain, shifted = (PRECISE(problem(c, a, b, epsilon=0.01)) for c in (cost, cost - 3))
    assert jnp.allclose(shifted.reg_ot_cost, plain.reg_ot_cost - 3, atol=1e-12)
    assert jnp.allclose(shifted.matrix, plain.matrix, atol=1e-12)


def test_atoms_without_mass_are_as_if_they_were_not_there():
    cost, a, b = clouds(40, 60)
    a[:7] = 0
    b[50:] = 0
    a, b = a / a.sum(), b / b.sum()
    out = PRECISE(problem(cost, a, b, epsilon=0.01))
    without = PRECISE(problem(cost[7:, :50], a[7:], b[:50], epsilon=0.01))
    assert out.converged
    assert jnp.all(out.f[:7] == -jnp.inf)
    assert jnp.allclose(out.matrix[7:, :50], without.matrix, atol=1e-12)
    assert jnp.allclose(out.reg_ot_cost, without.reg_ot_cost, atol=1e-12)


def test_one_atom_and_duplicated_points():
    single = PRECISE(problem(np.array([[1.0, 2.0, 3.0]])))
    assert single.converged
    assert jnp.allclose(single.matrix, 1 / 3)
    cost, a, b = clouds(20, 30)
    once = PRECISE(problem(cost, a, b))
    cost, a, b = np.repeat(cost, 2, axis=0), np.repeat(a, 2) / 2, np.repeat(b, 2) / 2
    twice = PRECISE(problem(np.repeat(cost, 2, axis=1), a, b))
    assert twice.converged
    assert jnp.allclose(twice.reg_ot_cost, once.reg_ot_cost, atol=1e-11)


def test_masses_need_not_be_one():
    cost, a, b = clouds(40, 60)
    one, many = (PRECISE(problem(cost, s * a, s * b, epsilon=0.01)) for s in (1, 1000))
    assert many.converged
    assert jnp.allclose(many.matrix, 1000 * one.matrix, atol=1e-9)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c, a, b: (c.at[3, 4].set(jnp.nan), a, b), "NaN or infinite"),
        (lambda c, a, b: (c.at[3, 4].set(jnp.inf), a, b), "NaN or infinite"),
        (lambda c, a, b: (c, 2 * a, b), "different masses"),
        (lambda c, a, b: (c, a.at[0].set(-1), b), "not negative"),
        (lambda c, a, b: (c, 0 * a, b), "no mass"),
    ],
)
def test_wrong_data_are_refused_with_a_reason(spoil, message):
    with pytest.raises(Exception, match=message):
        PRECISE(problem(*spoil(*map(jnp.asarray, clouds(40, 60)))))


def test_unbalanced_problems_and_wrong_shapes_are_refused():
    cost, a, b = map(jnp.asarray, clouds(40, 60))
    with pytest.raises(ValueError, match="balanced"):
        PRECISE(LinearProblem(Geometry(cost), a, b, tau_a=0.9))
    with pytest.raises(ValueError, match="Weights of sizes"):
        PRECISE(LinearProblem(Geometry(cost), b, a))


def test_float32_stops_at_what_its_rounding_allows_and_says_so():
    cost, a, b = (np.asarray(x, np.float32) for x in clouds(40, 60))
    out = PRECISE(problem(cost, a, b, epsilon=np.float32(0.01)))
    assert out.f.dtype == jnp.float32
    assert not out.converged
    assert out.n_iters < 100
    assert marginal_error(out) < 1e-4


def test_vmap_gives_what_a_loop_gives():
    cost, a, b = clouds(20, 30)
    costs = jnp.stack([jnp.asarray(cost), jnp.asarray(cost[::-1]) ** 2])

    def matrix(cost):
        return PRECISE(problem(cost, a, b, 0.01)).matrix

    assert jnp.allclose(jax.vmap(matrix)(costs), jnp.stack([*map(matrix, costs)]), atol=1e-12)


def test_a_second_epsilon_and_second_data_compile_nothing(compilations):
    PRECISE(problem(*clouds(40, 60), epsilon=0.02))
    data = problem(*clouds(40, 60, seed=5), epsilon=0.03)
    jax.block_until_ready(data.geom.cost_matrix)
    compilations.clear()
    PRECISE(data)
    assert compilations == []


def _points():
    rng = np.random.default_rng(3)
    x, y = jnp.asarray(rng.normal(size=(12, 2))), jnp.asarray(rng.normal(size=(15, 2)))
    a, b = (jnp.asarray(w / w.sum()) for w in (rng.uniform(1, 2, 12), rng.uniform(1, 2, 15)))
    return x, y, a, b


def test_gradients_of_the_cost_are_ott_s_and_finite_differences():
    x, y, a, b = _points()

    def cost(solver, x, a, b, epsilon):
        return solver(LinearProblem(PointCloud(x, y, epsilon=epsilon), a, b)).reg_ot_cost

    gradients = jax.jit(jax.grad(cost, argnums=(1, 2, 3, 4)))
    at = (x, a, b, jnp.asarray(0.3))
    ours, theirs = gradients(PRECISE, *at), gradients(Sinkhorn(threshold=1e-13), *at)
    assert jnp.allclose(ours[0], theirs[0], atol=1e-9)
    # Derivatives with respect to weights are defined up to a constant: masses stay equal.
    for one, other in zip(ours[1:3], theirs[1:3], strict=True):
        assert jnp.allclose(one - one.mean(), other - other.mean(), atol=1e-9)

    rng = np.random.default_rng(4)
    push = [jnp.asarray(rng.normal(size=v.shape)) for v in at]
    push[1], push[2] = (0.01 * (p - p.mean()) for p in push[1:3])
    predicted = sum(jnp.sum(g * p) for g, p in zip(ours, push, strict=True))
    h = 1e-5
    ahead, behind = (
        cost(PRECISE, *(v + s * p for v, p in zip(at, push, strict=True))) for s in (h, -h)
    )
    assert jnp.allclose(predicted, (ahead - behind) / (2 * h), rtol=1e-7)


def test_gradients_of_the_plan_are_finite_differences():
    x, y, a, b = _points()
    weight = jnp.asarray(np.random.default_rng(5).normal(size=(12, 15)))

    def of_plan(x, a, epsilon):
        out = PRECISE(LinearProblem(PointCloud(x, y, epsilon=epsilon), a, b))
        return jnp.sum(weight * out.matrix)

    rng = np.random.default_rng(6)
    push = (jnp.asarray(rng.normal(size=x.shape)), rng.normal(size=a.shape), jnp.asarray(0.7))
    push = (push[0], jnp.asarray(0.01 * (push[1] - push[1].mean())), push[2])
    at = (x, a, jnp.asarray(0.3))
    gradient = jax.jit(jax.grad(of_plan, argnums=(0, 1, 2)))(*at)
    predicted = sum(jnp.sum(g * p) for g, p in zip(gradient, push, strict=True))
    h = 1e-5
    ahead, behind = (of_plan(*(v + s * p for v, p in zip(at, push, strict=True))) for s in (h, -h))
    assert jnp.allclose(predicted, (ahead - behind) / (2 * h), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(-4, 1), st.floats(-8, 8))
def test_any_finite_problem_ends_with_exact_marginals(seed, log_epsilon, log_scale):
    rng = np.random.default_rng(seed)
    cost = 10**log_scale * rng.normal(size=(6, 9))
    a, b = (rng.uniform(size=k) * (rng.uniform(size=k) < 0.8) + 1e-12 for k in (6, 9))
    epsilon = 10**log_epsilon * 10**log_scale
    out = PRECISE(problem(cost, a / a.sum(), b / b.sum(), epsilon))
    # At epsilon = 1e-4 of the scale rounding alone is worth 1e-12.
    assert marginal_error(out) <= 1e-11
    assert out.converged or marginal_error(out) > 1e-13
