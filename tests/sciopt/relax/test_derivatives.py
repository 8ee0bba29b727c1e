"""Derivatives through the solves against dense ones; many right-hand sides and parameters at once;
the other ways to fail."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from sciopt import relax

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

N = 4
B = jax.random.normal(jax.random.key(2), (N, N))
KAPPA = 1 + jax.random.uniform(jax.random.key(3), (N + 2, N + 2))
SOLVERS = [
    relax.SOR(omega=1.3, rtol=1e-13),
    relax.CG(preconditioner=relax.SSOR(omega=1.3), rtol=1e-13),
    relax.CG(preconditioner=relax.Multigrid(), rtol=1e-13),
]


def diffusion(kappa):
    return relax.Stencil.diffusion(kappa, 1 / (N + 1))


def assembled(kappa):
    """The matrix from differences and the conductivities between points, with none of our code."""
    difference = (N + 1) * (np.eye(N + 1, N) - np.eye(N + 1, N, -1))
    along = np.kron(difference, np.eye(N)), np.kron(np.eye(N), difference)
    first = (kappa[1:, 1:-1] + kappa[:-1, 1:-1]) / 2
    second = (kappa[1:-1, 1:] + kappa[1:-1, :-1]) / 2
    faces = first.reshape(-1), second.reshape(-1)
    return sum(g.T * k @ g for g, k in zip(along, faces, strict=True))


@pytest.mark.parametrize("solver", SOLVERS, ids=["sor", "ssor_cg", "multigrid_cg"])
def test_gradients_are_those_of_a_dense_solve(solver):
    def iterated(kappa, b):
        return jnp.sum(jnp.sin(lx.linear_solve(diffusion(kappa), b, solver).value))

    def dense(kappa, b):
        return jnp.sum(jnp.sin(jnp.linalg.solve(assembled(kappa), b.reshape(-1))))

    found, expected = (jax.grad(loss, (0, 1))(KAPPA, B) for loss in (iterated, dense))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_gradients_of_a_matrix_that_is_not_symmetric_are_finite_differences():
    rows, columns = np.nonzero(np.ones((3, 3)))
    data = jnp.array([5.0, 1.0, -2.0, 0.5, 4.0, 1.0, 2.0, -1.0, 6.0])

    def loss(data):
        matrix = relax.Sparse.of(data, rows, columns, 3)
        x = lx.linear_solve(matrix, jnp.array([1.0, 2.0, 3.0]), relax.SOR(rtol=1e-14)).value
        return jnp.sum(x**3)

    steps = 1e-5 * jnp.eye(9)
    differences = jax.vmap(lambda step: (loss(data + step) - loss(data - step)) / 2e-5)(steps)
    np.testing.assert_allclose(jax.grad(loss)(data), differences, atol=1e-8)


def test_many_right_hand_sides_and_many_omegas_at_once():
    vectors = jax.random.normal(jax.random.key(4), (3, N, N))
    vectors *= jnp.array([1.0, 1e3, 1.0])[:, None, None]
    omegas = jnp.array([0.7, 1.3, 1.8])
    operator = diffusion(KAPPA)

    @jax.jit
    @jax.vmap
    def together(b, omega):
        found = lx.linear_solve(operator, b, relax.SOR(omega=omega, rtol=1e-12))
        return found.value, found.stats["num_steps"]

    values, steps = together(vectors, omegas)
    exact = np.linalg.solve(operator.as_matrix(), vectors.reshape(3, -1).T).T
    for value, expected in zip(values.reshape(3, -1), exact, strict=True):
        assert jnp.linalg.norm(value - expected) <= 1e-10 * np.linalg.norm(expected)
    alone = [
        lx.linear_solve(operator, b, relax.SOR(omega=omega, rtol=1e-12)).stats["num_steps"]
        for b, omega in zip(vectors, omegas, strict=True)
    ]
    assert steps.tolist() == [int(k) for k in alone]
    assert len(set(steps.tolist())) == 3  # the parameter was heard


@pytest.mark.parametrize(
    "solver",
    [
        relax.SOR(omega=jnp.array(1.2), rtol=1e-5),
        relax.Chebyshev(lower=jnp.array(0.1), upper=jnp.array(1.9), rtol=1e-5),
    ],
    ids=["sor", "chebyshev"],
)
def test_single_precision_stays_single(solver):
    operator = diffusion(KAPPA.astype(jnp.float32))
    assert lx.linear_solve(operator, B.astype(jnp.float32), solver).value.dtype == jnp.float32


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1.0, 2.0], [2.0, 1.0]], "breakdown"),
        ([[1.0, 1.0], [1.0, 1.0]], "breakdown"),
        ([[0.0, 1.0], [1.0, 1.0]], "singular"),
        ([[1.0, jnp.nan], [jnp.nan, 1.0]], "nonfinite_input"),
    ],
    ids=["indefinite", "singular", "zero_diagonal", "nan"],
)
def test_cg_says_what_is_wrong_with_a_matrix(matrix, expected):
    operator = lx.MatrixLinearOperator(jnp.array(matrix), lx.positive_semidefinite_tag)
    found = lx.linear_solve(operator, jnp.array([1.0, -1.0]), relax.CG(), throw=False)
    assert found.result == getattr(lx.RESULTS, expected)
    assert found.stats["num_steps"] <= 2


@pytest.mark.parametrize("omega", [0.0, -0.5, 2.0, jnp.nan])
def test_an_omega_that_cannot_converge_makes_no_step(omega):
    traced = jnp.array(omega)
    for solver in (relax.SOR(omega=traced), relax.CG(preconditioner=relax.SSOR(omega=traced))):
        found = lx.linear_solve(diffusion(KAPPA), B, solver, throw=False)
        assert found.result == lx.RESULTS.breakdown
        assert found.stats["num_steps"] == 0


def test_a_cap_on_the_steps_is_kept_and_zero_needs_none():
    capped = relax.SOR(max_steps=3)
    found = lx.linear_solve(diffusion(KAPPA), B, capped, throw=False)
    assert found.result == lx.RESULTS.max_steps_reached
    assert found.stats["num_steps"] == 3
    assert found.stats["residuals"].shape == (4,)
    assert lx.linear_solve(diffusion(KAPPA), 0 * B, capped).stats["num_steps"] == 0


def test_what_is_not_for_a_solver_is_refused():
    plain = lx.MatrixLinearOperator(jnp.eye(2))
    with pytest.raises(ValueError, match="positive_semidefinite_tag"):
        lx.linear_solve(plain, jnp.ones(2), relax.CG())
    with pytest.raises(ValueError, match="symmetric stencils"):
        lx.linear_solve(plain, jnp.ones(2), relax.Multigrid())
    with pytest.raises(ValueError, match="real operators"):
        lx.linear_solve(lx.MatrixLinearOperator(1j * jnp.eye(2)), 1j * jnp.ones(2), relax.SOR())
