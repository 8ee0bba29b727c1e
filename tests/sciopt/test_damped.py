"""Claims about damped least squares, against NumPy's singular value decomposition."""

import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from sciopt import damped

SOLVERS = {"cholesky": damped.Cholesky(), "qr": damped.QR(), "svd": damped.SVD()}


def textbook(jac, b, damping):
    """The shortest minimiser of the stacked problem."""
    u, sigma, vt = np.linalg.svd(jac, full_matrices=False)
    kept = sigma > 1e-14 * sigma[0]
    return vt[kept].T @ ((sigma / (sigma**2 + damping))[kept] * (u.T @ b)[kept])


def solved(solver, jac, b, damping):
    system = solver.factor(lx.MatrixLinearOperator(jnp.asarray(jac)))
    return system.solve(jnp.asarray(b), jnp.asarray(damping))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (9, 9)])
def test_solves_the_stacked_problem(name, shape):
    rng = np.random.default_rng(0)
    jac, b = rng.normal(size=shape), rng.normal(size=shape[0])
    found = solved(SOLVERS[name], jac, b, 0.3)
    np.testing.assert_allclose(found, textbook(jac, b, 0.3), rtol=0, atol=1e-13)
    jac[:, 0] = jac[:, 1]  # rank-deficient on either side
    jac[0] = jac[1]
    found = solved(SOLVERS[name], jac, b, 0.3)
    np.testing.assert_allclose(found, textbook(jac, b, 0.3), rtol=0, atol=1e-12)
    assert not np.any(solved(SOLVERS[name], jac, 0 * b, 0.3))


@pytest.mark.parametrize("name", SOLVERS)
def test_singular_without_damping(name):
    """SVD gives the shortest solution, Cholesky's jitter one that fits, QR none."""
    rng = np.random.default_rng(1)
    jac, b = rng.normal(size=(30, 8)), rng.normal(size=30)
    jac[:, 3] = jac[:, 0]
    found = solved(SOLVERS[name], jac, b, 0.0)
    expected = textbook(jac, b, 0.0)
    match name:
        case "svd":
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
        case "cholesky":
            np.testing.assert_allclose(jac @ found, jac @ expected, rtol=0, atol=1e-6)
        case "qr":
            assert np.isnan(found).all()


def test_jitter_mends_what_is_singular_to_rounding_and_nothing_else():
    jac = np.outer(np.ones(6), [1.0, 2.0, 3.0])
    assert np.isnan(np.asarray(jnp.linalg.cholesky(jnp.asarray(jac.T @ jac)))).any()
    found = solved(damped.Cholesky(), jac, np.ones(6), 0.0)
    np.testing.assert_allclose(jac @ found, 1, rtol=0, atol=1e-10)
    jac[0, 0] = np.nan
    assert np.isnan(solved(damped.Cholesky(), jac, np.ones(6), 0.0)).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_what_is_not_finite_gives_nan(name):
    jac = np.ones((5, 3))
    jac[2, 1] = np.nan
    assert np.isnan(solved(SOLVERS[name], jac, np.ones(5), 1.0)).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_without_residuals_the_step_is_zero(name):
    assert solved(SOLVERS[name], np.zeros((0, 3)), np.zeros(0), 1.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", SOLVERS)
def test_follows_the_dtype_of_its_inputs(name):
    operator = lx.MatrixLinearOperator(jnp.eye(3, dtype=jnp.float32))
    found = SOLVERS[name].factor(operator).solve(jnp.ones(3, jnp.float32), jnp.float32(1.0))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 0.5, rtol=1e-6)


def test_the_factorised_matrix_has_the_smaller_size():
    for shape in [(3, 50), (50, 3)]:
        operator = lx.MatrixLinearOperator(jnp.ones(shape))
        assert damped.Cholesky().factor(operator).gramian.shape == (3, 3)
        assert damped.QR().factor(operator).r.shape == (3, 3)
        assert damped.SVD().factor(operator).sigma.shape == (3,)
