"""Claims about the proximal loop: the unregularised optimum, bounds on it, honest flags."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from transport_problems import assignment, clouds, densities, images, optimum

from transport import ProximalSinkhornNewton

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

N = 36
SOLVER = ProximalSinkhornNewton()


def problem(cost, a, b) -> Any:
    return LinearProblem(Geometry(jnp.asarray(cost)), jnp.asarray(a), jnp.asarray(b))


def scaled(by, shift=0.0):
    cost, a, b = clouds(N, N)
    return by * cost + shift, a, b


def doubled():
    cost, a, b = clouds(N // 2, N // 2)
    return np.repeat(np.repeat(cost, 2, 0), 2, 1), np.repeat(a, 2) / 2, np.repeat(b, 2) / 2


# One shape, hence one compiled program.
PROBLEMS = {
    "assignment": lambda: assignment(N),
    "images L1": lambda: images(1, side=6),
    "images L2": lambda: images(2, side=6),
    "W1": lambda: densities(1, N),
    "W2": lambda: densities(2, N),
    "clouds": lambda: clouds(N, N),
    "costs of 1e8": lambda: scaled(1e8),
    "costs of 1e-8": lambda: scaled(1e-8),
    "negative costs": lambda: scaled(1, -3),
    "duplicated points": doubled,
    "constant costs": lambda: (np.ones((N, N)), *clouds(N, N)[1:]),
    "one atom with mass": lambda: (clouds(N, N)[0], np.eye(N)[4], clouds(N, N)[2]),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_cost_is_the_simplex_s_and_plan_and_potentials_are_feasible(name):
    cost, a, b = PROBLEMS[name]()
    out = SOLVER(problem(cost, a, b))
    exact, scale = optimum(cost, a, b), np.abs(cost).max()
    assert out.converged
    assert abs(out.primal_cost - exact) <= 1e-8 * abs(exact)
    assert 0 <= out.gap <= 1e-9 * abs(exact)
    assert jnp.all(out.matrix >= 0)
    assert jnp.abs(out.matrix.sum(1) - a).sum() <= 1e-15
    assert jnp.abs(out.matrix.sum(0) - b).sum() <= 1e-15
    assert jnp.all(out.f[:, None] + out.g <= cost + 1e-15 * scale)
    assert jnp.abs(a @ out.f + b @ out.g - exact) <= 1e-8 * abs(exact)


def test_the_gap_falls_to_nothing_in_a_few_steps_and_the_history_tells():
    out, history = SOLVER.run(problem(*PROBLEMS["clouds"]()))
    gaps = np.asarray(out.errors)[: out.n_iters]
    assert 5 < len(gaps) < 15
    assert np.all(np.diff(gaps) < 0)
    assert gaps[-1] == out.gap
    steps = np.unique(np.asarray(history.epsilon)[np.asarray(history.error) >= 0])
    assert np.allclose(steps[1:] / steps[:-1], SOLVER.decay)


def test_measures_that_coincide_cost_nothing_and_that_is_convergence():
    cost, a, _ = densities(2, N)
    out = SOLVER(problem(cost, a, a))
    assert out.converged
    assert 0 <= out.primal_cost < 1e-14


def test_float32_stops_at_its_rounding_and_bounds_the_optimum_nonetheless():
    cost, a, b = clouds(N, 20)
    out = SOLVER(problem(*(v.astype(np.float32) for v in (cost, a, b))))
    exact = optimum(cost, a, b)
    assert out.f.dtype == out.matrix.dtype == jnp.float32
    assert not out.converged
    assert out.n_iters < 15
    assert 0 < out.gap < 1e-4 * exact
    assert out.dual_cost - 1e-6 < exact < out.primal_cost + 1e-6
    assert jnp.abs(out.matrix.sum(1) - a).sum() < 1e-6


def test_the_cost_s_derivatives_are_finite_differences_and_the_simplex_s_multipliers():
    cost, a, b = PROBLEMS["clouds"]()

    def value(cost, a, b):
        return SOLVER(problem(cost, a, b)).primal_cost

    slope, of_a, of_b = jax.grad(value, argnums=(0, 1, 2))(cost, a, b)
    out = SOLVER(problem(cost, a, b))
    assert jnp.allclose(slope, out.matrix, atol=1e-15)
    rng = np.random.default_rng(0)
    push = rng.normal(size=cost.shape), *(1e-2 * (r - r.mean()) for r in rng.normal(size=(2, N)))
    h = 1e-7
    ahead, behind = (
        optimum(*(v + s * p for v, p in zip((cost, a, b), push, strict=True))) for s in (h, -h)
    )
    predicted = jnp.sum(slope * push[0]) + of_a @ push[1] + of_b @ push[2]
    assert jnp.allclose(predicted, (ahead - behind) / (2 * h), rtol=1e-6)


def test_vmap_gives_what_a_loop_gives():
    cost, a, b = PROBLEMS["clouds"]()
    costs = jnp.stack([cost, cost[::-1] ** 2])

    def value(cost):
        return SOLVER(problem(cost, a, b)).primal_cost

    assert jnp.allclose(jax.vmap(value)(costs), jnp.stack([*map(value, costs)]), rtol=1e-9)


def test_apply_is_ott_s():
    out = SOLVER(problem(*PROBLEMS["clouds"]()))
    vectors = jnp.stack([jnp.arange(N), jnp.ones(N)])
    for axis, matrix in ((0, out.matrix.T), (1, out.matrix)):
        assert jnp.allclose(out.apply(vectors, axis)[0], matrix @ vectors[0], atol=1e-12)


def test_wrong_data_and_arguments_are_refused():
    cost, a, b = map(jnp.asarray, clouds(N, N))
    with pytest.raises(Exception, match="different masses"):
        SOLVER(problem(cost, 2 * a, b))
    with pytest.raises(Exception, match="NaN or infinite"):
        SOLVER(problem(cost.at[0, 0].set(jnp.inf), a, b))
    with pytest.raises(ValueError, match="ProximalSinkhornNewton solves balanced"):
        SOLVER(LinearProblem(Geometry(cost), a, b, tau_b=0.5))
    with pytest.raises(ValueError, match="decay"):
        ProximalSinkhornNewton(decay=1)
