"""Claims about the randomised Nystrom approximation and the damped solve that uses it."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from sciopt import damped

KEY = jax.random.key(0)
pytestmark = pytest.mark.usefixtures("compiled_in_haste")


def test_the_approximation_is_near_the_best_and_never_above():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    spectrum = 0.7 ** np.arange(60)
    matrix = basis * spectrum @ basis.T
    left, values = damped.nystrom(lambda x: jnp.asarray(matrix) @ x, 60, 20, KEY)
    np.testing.assert_allclose(left.T @ left, np.eye(20), atol=1e-13)
    gap = np.linalg.eigvalsh(matrix - np.asarray(left * values @ left.T))
    assert gap[0] > -1e-13
    # Frangella, Tropp and Udell, proposition 2.2, with oversampling 10 (in expectation).
    assert gap[-1] < (1 + 2 * 10 / 9) * spectrum[10] + 2 * np.e**2 * 20 / 99 * spectrum[10:].sum()


@pytest.mark.parametrize("rank", [0, 4])
def test_the_approximation_is_exact_at_the_rank(rank):
    factor = np.random.default_rng(0).normal(size=(30, rank))
    left, values = damped.nystrom(lambda x: jnp.asarray(factor @ factor.T) @ x, 30, 6, KEY)
    np.testing.assert_allclose(left * values @ left.T, factor @ factor.T, atol=1e-12)


@pytest.mark.parametrize("orthonormal", [False, True])
@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_a_sketch_of_full_rank_solves_the_damped_problem(shape, orthonormal):
    rng = np.random.default_rng(0)
    jac, b, damping = rng.normal(size=shape), rng.normal(size=shape[0]), jnp.asarray(0.3)
    operator = lx.MatrixLinearOperator(jnp.asarray(jac))
    solver = damped.Nystrom(12, KEY, orthonormal)
    found = solver.factor(operator).solve(jnp.asarray(b), damping)
    expected = damped.Cholesky().factor(operator).solve(jnp.asarray(b), damping)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_both_forms_are_the_same_approximation_and_draw_anew_each_step():
    jac = np.random.default_rng(0).normal(size=(12, 40)) * 0.3 ** np.arange(12)[:, None]
    operator, b = lx.MatrixLinearOperator(jnp.asarray(jac)), jnp.ones(12)

    def solve(orthonormal, step):
        system = damped.Nystrom(5, KEY, orthonormal).at(jnp.array(step)).factor(operator)
        return system.solve(b, jnp.asarray(1e-2))

    # The column space of the test matrix is all that matters, and QR keeps it.
    np.testing.assert_allclose(solve(False, 3), solve(True, 3), rtol=0, atol=1e-10)
    assert np.max(np.abs(solve(True, 3) - solve(True, 4))) > 1e-6
