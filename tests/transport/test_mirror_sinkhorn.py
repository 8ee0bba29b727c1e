"""Claims about Mirror Sinkhorn: its rate, its feasibility, its limits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from scipy.optimize import linear_sum_assignment

from transport import MirrorSinkhorn, SinkhornNewtonSparse

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

N = 20
COST = jnp.asarray(np.random.default_rng(0).uniform(size=(N, N)))
UNIFORM = jnp.full(N, 1 / N)
OPTIMUM = float(COST[linear_sum_assignment(np.asarray(COST))].sum() / N)


def linear(plan):
    return jnp.sum(COST * plan)


PAPER = {"rate": "decreasing", "extrapolate": False, "burn_in": 0.0}


def gaps_of(objective, counts, **options):
    outs = [MirrorSinkhorn(t, **options)(objective, UNIFORM, UNIFORM) for t in counts]
    return np.array([float(linear(out.matrix)) - OPTIMUM for out in outs])


def test_a_linear_objective_falls_to_the_assignment_at_the_paper_s_rate():
    steps = [100, 500, 2500]
    gaps = gaps_of(linear, steps, **PAPER)
    slope = np.polyfit(np.log(steps), np.log(gaps), 1)[0]
    assert -0.7 <= slope <= -0.4, (slope, gaps)
    assert 0 < gaps[-1] < 0.05


def test_extrapolated_potentials_and_adaptive_steps_leave_that_rate_behind():
    steps = [100, 300, 1000]
    gaps = gaps_of(linear, steps)
    slope = np.polyfit(np.log(steps), np.log(gaps), 1)[0]
    assert slope <= -1.5, (slope, gaps)
    assert 0 <= gaps[-1] < 1e-4
    # Neither does it alone.
    for without in ({"extrapolate": False}, {"rate": "decreasing"}):
        assert gaps_of(linear, [1000], **without) > 1e-3


@pytest.mark.parametrize("options", [PAPER, {"rate": "constant"}, {}])
def test_the_rounded_plan_is_feasible_whatever_the_average_lacks(options):
    rng = np.random.default_rng(1)
    a, b = (jnp.asarray(rng.dirichlet(np.ones(N))) for _ in range(2))
    a = a.at[0].set(0) / a[1:].sum()
    out = MirrorSinkhorn(50, **options)(linear, a, b)
    assert out.marginal_error > 1e-6
    assert jnp.all(out.matrix >= 0)
    assert jnp.abs(out.matrix.sum(1) - a).sum() < 1e-15
    assert jnp.abs(out.matrix.sum(0) - b).sum() < 1e-15


def test_a_squared_norm_reaches_the_projection_of_the_uniform_plan():
    # Over couplings of uniform marginals, the least squared norm is the product's.
    out = MirrorSinkhorn(500)(lambda plan: jnp.sum((plan - 0.04 * COST / N) ** 2), UNIFORM, UNIFORM)
    centred = COST - COST.mean(0) - COST.mean(1, keepdims=True) + COST.mean()
    projection = 1 / N**2 + 0.04 * centred / N  # positive, hence the constrained minimiser too
    assert jnp.all(projection > 0)
    assert jnp.sum(jnp.abs(out.matrix - projection)) < 2e-3


def test_an_entropic_objective_has_sinkhorn_s_optimum():
    def objective(plan):
        return linear(plan) + 0.1 * jnp.sum(plan * jnp.log(plan * N**2))

    out = MirrorSinkhorn(500)(objective, UNIFORM, UNIFORM)
    exact: Any = SinkhornNewtonSparse()(LinearProblem(Geometry(COST, epsilon=0.1)))
    assert 0 <= objective(out.matrix) - exact.reg_ot_cost < 1e-5


def test_an_objective_that_is_infinite_where_no_mass_may_be_does_no_harm():
    a = UNIFORM.at[3].set(0) / (1 - UNIFORM[3])

    def objective(plan):
        return linear(plan) + 0.1 * jnp.sum(plan * jnp.log(plan))

    out = MirrorSinkhorn(500)(objective, a, UNIFORM)
    posed = LinearProblem(Geometry(COST, epsilon=0.1), a, UNIFORM)
    exact: Any = SinkhornNewtonSparse()(posed)
    assert jnp.abs(out.matrix - exact.matrix).sum() < 3e-3


def test_a_constant_objective_keeps_the_product():
    out = MirrorSinkhorn(10)(lambda plan: 0 * jnp.sum(plan), UNIFORM, UNIFORM)
    assert jnp.allclose(out.matrix, 1 / N**2, atol=1e-12)


def test_noisy_costs_reach_the_same_optimum():
    def noisy(plan, key):
        return jnp.sum((COST + 0.3 * jax.random.normal(key, COST.shape)) * plan)

    out = MirrorSinkhorn(2000)(noisy, UNIFORM, UNIFORM, key=jax.random.key(0))
    assert 0 < linear(out.matrix) - OPTIMUM < 0.01


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="num_steps"):
        MirrorSinkhorn(0)
    with pytest.raises(ValueError, match="rate"):
        MirrorSinkhorn(rate="fast")
    with pytest.raises(ValueError, match="burn_in"):
        MirrorSinkhorn(burn_in=1.0)
    with pytest.raises(Exception, match="masses differ"):
        MirrorSinkhorn(5)(linear, UNIFORM, 2 * UNIFORM)
