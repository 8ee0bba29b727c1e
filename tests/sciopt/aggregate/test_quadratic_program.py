"""The inner quadratic programs against Lawson and Hanson's NNLS, and their own conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from sciopt.aggregate._quadratic_program import (
    minimum_norm_weights,
    nonnegative_minimiser,
    nonnegative_minimisers,
)

SOLVE = jax.jit(nonnegative_minimiser, static_argnames="proximal_steps")
SHORTEST = jax.jit(minimum_norm_weights)


def gradients(kind, m, seed=0):
    rng = np.random.default_rng(seed)
    j = rng.standard_normal((m, m + 5))
    if kind == "conflicting":
        j -= 1.1 * j.mean(0)
    elif kind == "deficient":
        j = rng.standard_normal((m, m // 2 + 1)) @ rng.standard_normal((m // 2 + 1, m + 5))
    elif kind == "duplicated":
        j[m // 2 :] = j[: m - m // 2]
    elif kind == "opposed":
        j[-1] = -j[0]
    elif kind == "ill_conditioned":
        u, s, vt = np.linalg.svd(j, full_matrices=False)
        j = u * np.logspace(0, -4, len(s)) @ vt
    elif kind == "scaled":
        j *= np.logspace(0, -6, m)[:, None]
    elif kind == "one_zero":
        j[0] = 0
    elif kind == "zero":
        j[:] = 0
    return j


KINDS = [
    "random",
    "conflicting",
    "deficient",
    "duplicated",
    "opposed",
    "ill_conditioned",
    "scaled",
    "one_zero",
    "zero",
]


@pytest.mark.parametrize("m", [2, 7, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_shortest_combination_equals_nnls(kind, m):
    # min ||J^T y||^2 + (1 - sum y)^2 over y >= 0 points along the shortest convex combination.
    for seed in range(5):
        j = gradients(kind, m, seed)
        j /= max(np.linalg.norm(j, axis=1).max(), 1e-300)
        y, _ = nnls(np.vstack([j.T, np.ones(m)]), np.append(np.zeros(m + 5), 1), maxiter=10000)
        alpha = np.asarray(SHORTEST(j @ j.T))
        assert alpha.min() >= 0
        assert alpha.sum() == pytest.approx(1, abs=1e-14)
        np.testing.assert_allclose(alpha @ j, y @ j / y.sum(), atol=1e-10)


@pytest.mark.parametrize("m", [2, 7, 40])
@pytest.mark.parametrize("kind", ["random", "conflicting", "ill_conditioned"])
def test_nonnegative_minimiser_equals_nnls_on_a_cholesky_factor(kind, m):
    for seed in range(5):
        j = gradients(kind, m, seed)
        g = j @ j.T / np.trace(j @ j.T) + 1e-4 * np.eye(m)
        q = -g[:, seed % m]
        factor = np.linalg.cholesky(g)
        expected, _ = nnls(factor.T, np.linalg.solve(factor, q), maxiter=10000)
        for steps in (0, 4):
            x = np.asarray(SOLVE(g, q, proximal_steps=steps))
            np.testing.assert_allclose(x, expected, atol=1e-10)


@pytest.mark.parametrize("kind", ["random", "conflicting", "deficient", "duplicated", "zero"])
@pytest.mark.parametrize("m", [128, 512])
def test_large_programs_meet_their_conditions_of_optimality(kind, m):
    j = gradients(kind, m)
    g = j @ j.T / max(np.trace(j @ j.T), 1e-300)
    alpha = np.asarray(SHORTEST(g))
    assert np.min(g @ alpha) >= alpha @ g @ alpha - 1e-12
    regular = g + 1e-4 * np.eye(m)
    q = -regular[:, 0]
    x = np.asarray(SOLVE(regular, q, proximal_steps=0))
    multiplier = regular @ x - q
    assert x.min() >= 0
    assert multiplier.min() >= -1e-14
    assert np.abs(x * multiplier).max() <= 1e-14


def test_programs_batch_under_vmap():
    j = np.stack([gradients(kind, 6) for kind in KINDS])
    g = j @ j.transpose(0, 2, 1)
    batched = jax.jit(jax.vmap(minimum_norm_weights))(g)
    single = np.stack([SHORTEST(each) for each in g])
    np.testing.assert_allclose(
        np.einsum("bm,bmn->bn", batched, j), np.einsum("bm,bmn->bn", single, j), atol=1e-12
    )


def test_derivatives_are_those_of_finite_differences():
    j = jnp.asarray(gradients("conflicting", 5))
    direction = jnp.asarray(gradients("random", 5, 1))

    def nonnegative(t):
        moved = j + t * direction
        g = moved @ moved.T / 10 + 1e-2 * jnp.eye(5)
        return nonnegative_minimiser(g, -g[:, 0], proximal_steps=0)

    def shortest(t):
        moved = j + 0.5 + t * direction
        return minimum_norm_weights(moved @ moved.T)

    for fn in map(jax.jit, (nonnegative, shortest)):
        assert 0 < np.count_nonzero(fn(0.0)) < 5
        h = 1e-6
        expected = (fn(h) - fn(-h)) / (2 * h)
        forward = jax.jvp(fn, (0.0,), (1.0,))[1]
        reverse = jax.jacrev(fn)(0.0)
        np.testing.assert_allclose(forward, expected, atol=1e-7)
        np.testing.assert_allclose(reverse, expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["random", "conflicting", "deficient", "scaled", "one_zero"])
@pytest.mark.parametrize("m", [40, 150])
def test_programs_solved_together_equal_those_solved_one_by_one(kind, m):
    j = gradients(kind, m)
    g = jnp.asarray(j @ j.T / np.trace(j @ j.T) + 1e-4 * np.eye(m))
    together = jax.jit(nonnegative_minimisers)(g, -g)
    for i in (0, m // 3, m - 1):
        alone = SOLVE(g, -g[:, i], proximal_steps=0)
        np.testing.assert_allclose(together[:, i], alone, atol=1e-11)


def test_programs_solved_together_have_the_derivatives_of_those_solved_one_by_one():
    j, direction = (jnp.asarray(gradients("conflicting", 5, seed)) for seed in (0, 1))

    def matrix(t):
        moved = j + t * direction
        return moved @ moved.T / 10 + 1e-2 * jnp.eye(5)

    def together(t):
        return nonnegative_minimisers(matrix(t), -matrix(t))[:, 0]

    def alone(t):
        return nonnegative_minimiser(matrix(t), -matrix(t)[:, 0], proximal_steps=0)

    for derivative in (jax.jacfwd, jax.jacrev):
        expected = jax.jit(derivative(alone))(0.0)
        np.testing.assert_allclose(jax.jit(derivative(together))(0.0), expected, atol=1e-10)


def test_float32_stays_float32_and_is_right_to_rounding():
    j = gradients("conflicting", 20).astype(np.float32)
    alpha = SHORTEST(j @ j.T)
    assert alpha.dtype == jnp.float32
    exact = np.asarray(SHORTEST(j.astype(float) @ j.T.astype(float)))
    length, best = np.linalg.norm(alpha @ j), np.linalg.norm(exact @ j)
    assert length <= best + 1e-5 * np.linalg.norm(j, axis=1).max()
