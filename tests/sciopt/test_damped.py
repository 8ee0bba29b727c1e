"""Claims about damped least squares, against NumPy's singular value decomposition."""

from fractions import Fraction

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from sciopt import damped

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

DENSE = {"cholesky": damped.Cholesky(), "qr": damped.QR(), "svd": damped.SVD()}
SOLVERS = DENSE | {
    "cg": damped.CG(preconditioner=damped.NystromPreconditioner(rank=4)),
    "lsmr": damped.Stacked(preconditioner=damped.NystromPreconditioner(rank=4)),
    "lineax_qr": damped.Stacked(lx.QR(), preconditioner=None),
    "auto": damped.Auto(),
    "auto_without_memory": damped.Auto(memory=16),
}


def textbook(jac, b, damping):
    """The shortest minimiser of the stacked problem."""
    u, sigma, vt = np.linalg.svd(jac, full_matrices=False)
    kept = sigma > 1e-14 * sigma[0]
    return vt[kept].T @ ((sigma / (sigma**2 + damping))[kept] * (u.T @ b)[kept])


def solved(solver, jac, b, damping):
    # One compilation a solver and shape: most of these tests share theirs.
    return _solved(solver, *map(jnp.asarray, (jac, b, damping)))


@eqx.filter_jit
def _solved(solver, jac, b, damping):
    return solver.factor(lx.MatrixLinearOperator(jac)).solve(b, damping)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
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


@pytest.mark.parametrize("name", DENSE)
def test_singular_without_damping(name):
    """SVD gives the shortest solution, Cholesky's jitter one that fits, QR none."""
    rng = np.random.default_rng(1)
    jac, b = rng.normal(size=(40, 7)), rng.normal(size=40)
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
    jac = np.outer(np.ones(40), np.arange(1.0, 8.0))
    assert np.isnan(np.asarray(jnp.linalg.cholesky(jnp.asarray(jac.T @ jac)))).any()
    found = solved(damped.Cholesky(), jac, np.ones(40), 0.0)
    np.testing.assert_allclose(jac @ found, 1, rtol=0, atol=1e-10)
    jac[0, 0] = np.nan
    assert np.isnan(solved(damped.Cholesky(), jac, np.ones(40), 0.0)).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_what_is_not_finite_gives_nan(name):
    jac = np.ones((40, 7))
    jac[2, 1] = np.nan
    assert np.isnan(solved(SOLVERS[name], jac, np.ones(40), 1.0)).all()


@pytest.mark.parametrize("name", [*DENSE, "auto", "cg"])
def test_without_residuals_the_step_is_zero(name):
    assert solved(SOLVERS[name], np.zeros((0, 3)), np.zeros(0), 1.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", [*DENSE, "auto", "cg"])
def test_follows_the_dtype_of_its_inputs(name):
    ones = np.ones(3, np.float32)
    found = solved(SOLVERS[name], np.diag(ones), ones, np.float32(1.0))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 0.5, rtol=1e-6)


@pytest.mark.parametrize("name", [*DENSE, "auto"])
def test_the_floor_is_enough_damping_for_what_is_singular(name):
    rng = np.random.default_rng(2)
    jac = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 40))
    b = jac @ rng.normal(size=40)

    @eqx.filter_jit
    def at_the_floor(jac, b):
        system = SOLVERS[name].factor(lx.MatrixLinearOperator(jac))
        return system.solve(b, system.floor)

    found = at_the_floor(jnp.asarray(jac), jnp.asarray(b))
    np.testing.assert_allclose(jac @ found, b, rtol=0, atol=1e-10)


def test_the_factorised_matrix_has_the_smaller_size():
    for shape in [(3, 50), (50, 3)]:
        operator = lx.MatrixLinearOperator(jnp.ones(shape))
        assert damped.Cholesky().factor(operator).gramian.shape == (3, 3)
        assert damped.QR().factor(operator).r.shape == (3, 3)
        assert damped.SVD().factor(operator).sigma.shape == (3,)


def exact(jac, b, damping):
    """The damped normal equations in rational arithmetic: no rounding at all."""
    rows = [[Fraction(float(x)) for x in row] for row in jac]
    n = len(rows[0])
    right = [Fraction(float(x)) for x in b]
    table: list[list] = [
        [sum(r[i] * r[j] for r in rows) + (Fraction(float(damping)) if i == j else 0)
         for j in range(n)] + [sum(r[i] * x for r, x in zip(rows, right, strict=True))]
        for i in range(n)
    ]  # fmt: skip
    for i in range(n):  # positive definite: no pivoting
        for k in range(i + 1, n):
            by = table[k][i] / table[i][i]
            table[k] = [x - by * y for x, y in zip(table[k], table[i], strict=True)]
    found: list = [Fraction(0)] * n
    for i in reversed(range(n)):
        known = sum(table[i][j] * found[j] for j in range(i + 1, n))
        found[i] = (table[i][n] - known) / table[i][i]
    return np.array([float(x) for x in found])


def graded(shape, decades, seed=0):
    """A matrix whose singular values fall from 1 by so many decades, and a vector in its range."""
    rng = np.random.default_rng(seed)
    k = min(shape)
    u, _ = np.linalg.qr(rng.normal(size=(shape[0], k)))
    v, _ = np.linalg.qr(rng.normal(size=(shape[1], k)))
    jac = u * np.logspace(0, -decades, k) @ v.T
    return jac, jac @ rng.normal(size=shape[1])


def test_normal_equations_lose_the_digits_that_qr_svd_and_lsmr_keep():
    jac, b = graded((40, 7), 7)
    error = {}
    for damping in (1e-4, 1e-12):
        truth = exact(jac, b, damping)
        for name in ("cholesky", "cg", "qr", "svd", "lsmr", "auto"):
            found = solved(SOLVERS[name], jac, b, damping)
            error[name, damping] = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    assert max(error[name, 1e-4] for name in ("cholesky", "qr", "svd", "lsmr", "auto")) < 1e-11
    for name in ("cholesky", "cg"):
        assert error[name, 1e-12] > 1e-7, error
    for name in ("qr", "svd", "lsmr", "auto"):
        assert error[name, 1e-12] < 1e-9, error


def test_auto_chooses_by_shape_and_memory():
    operator = lx.MatrixLinearOperator(jnp.ones((20, 5)))
    for memory, choice in ((10**4, "SwitchingSystem"), (100, "CGSystem")):
        assert type(damped.Auto(memory=memory).factor(operator)).__name__ == choice


def test_a_nystrom_sketch_bounds_the_condition_number():
    """Frangella, Tropp and Udell, theorem 5.1: once the rank passes the effective dimension."""
    jac, _ = graded((60, 40), 8)
    gramian, damping = jac.T @ jac, 1e-6  # 15 eigenvalues are above the damping
    sketch = damped.NystromPreconditioner(rank=30).sketch(
        lx.MatrixLinearOperator(jnp.asarray(gramian))
    )
    half = np.asarray(sketch.preconditioner(jnp.asarray(damping), -0.5).as_matrix())
    inverse = np.asarray(sketch.preconditioner(jnp.asarray(damping), -1).as_matrix())
    np.testing.assert_allclose(half @ half, inverse, atol=1e-12 * inverse.max())
    damped_gramian = gramian + damping * np.eye(40)
    assert np.linalg.cond(damped_gramian) > 1e5
    assert np.linalg.cond(half @ damped_gramian @ half) < 10
