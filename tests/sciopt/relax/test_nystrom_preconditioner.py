"""Claims about conjugate gradients with a Nystrom preconditioner."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from sciopt import relax

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


def solved(operator, vector, preconditioner):
    solver = relax.CG(preconditioner=preconditioner, rtol=1e-8)
    return lx.linear_solve(operator, vector, solver)


def test_a_kernel_s_strong_directions_are_taken_out():
    # Eigenvalues 2^-k, and a ridge that twelve of them exceed.
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    matrix = basis * (0.5 ** np.arange(60) + 2.0**-12) @ basis.T
    operator = lx.MatrixLinearOperator(jnp.asarray(matrix), lx.positive_semidefinite_tag)
    b = rng.normal(size=60)
    steps = {}
    for name, made in (("nystrom", relax.Nystrom(rank=24)), ("jacobi", relax.Jacobi())):
        solution = solved(operator, jnp.asarray(b), made)
        steps[name] = int(solution.stats["num_steps"])
        found = np.linalg.norm(matrix @ solution.value - b) / np.linalg.norm(b)
        assert found < 1e-7
    assert steps["nystrom"] <= 15
    assert steps["jacobi"] >= 60


def test_of_full_rank_one_step_is_the_inverse():
    poisson = relax.Stencil.laplacian((3, 4), spacing=0.2)
    b = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)))
    nystrom = relax.Nystrom(rank=12)

    @jax.jit
    def step(b):
        system = nystrom.prepare(poisson)
        zero = system.splitting.pack(jnp.zeros_like(b))
        return system.splitting.unpack(nystrom.relax(system, zero, system.splitting.pack(b)))

    found = step(b)
    exact = np.linalg.solve(np.asarray(poisson.as_matrix()), np.asarray(b).ravel())
    np.testing.assert_allclose(np.ravel(found), exact, rtol=1e-8)


def test_it_is_for_definite_operators():
    with pytest.raises(ValueError, match="positive_semidefinite_tag"):
        jax.eval_shape(lambda a: relax.Nystrom().prepare(lx.MatrixLinearOperator(a)), jnp.eye(3))
    with pytest.raises(ValueError, match="1 at least"):
        relax.Nystrom(rank=0)
