"""Claims about damped least squares, against NumPy's singular value decomposition."""

import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from sciopt import damped

SOLVERS = {"cholesky": damped.Cholesky()}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (9, 9)])
def test_solves_the_stacked_problem(name, shape):
    rng = np.random.default_rng(0)
    jac, b, damping = rng.normal(size=shape), rng.normal(size=shape[0]), 0.3
    system = SOLVERS[name].factor(lx.MatrixLinearOperator(jnp.asarray(jac)))
    found = system.solve(jnp.asarray(b), jnp.asarray(damping))
    stacked = np.vstack([jac, np.sqrt(damping) * np.eye(shape[1])])
    expected = np.linalg.lstsq(stacked, np.r_[b, np.zeros(shape[1])], rcond=None)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_the_factorised_matrix_has_the_smaller_size():
    for shape in [(3, 50), (50, 3)]:
        system = damped.Cholesky().factor(lx.MatrixLinearOperator(jnp.ones(shape)))
        assert system.gramian.shape == (3, 3)
