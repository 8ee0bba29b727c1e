"""SOR against SciPy's triangular solves, multigrid's rate, and what is said of failure."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.linalg

from sciopt import relax

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

N, OMEGA, SWEEPS = 5, 1.3, 7


def swept(matrix, b):
    """SOR by the textbook: x + (D / omega + L)^-1 (b - Ax)."""
    left, x = np.diag(np.diag(matrix)) / OMEGA + np.tril(matrix, -1), np.zeros(len(b))
    for _ in range(SWEEPS):
        x = x + scipy.linalg.solve_triangular(left, b - matrix @ x, lower=True)
    return x


@pytest.mark.parametrize("kind", ["wavefront", "red_black", "dense", "sparse"])
def test_sor_makes_the_textbook_s_iterates(kind):
    kappa = 1 + jax.random.uniform(jax.random.key(1), (N + 2, N + 2))
    stencil = relax.Stencil.diffusion(kappa, 1 / (N + 1))
    matrix, b = np.array(stencil.as_matrix()), np.random.default_rng(0).normal(size=N * N)
    order = np.arange(N * N)
    if kind == "red_black":
        order = np.argsort(np.indices((N, N)).sum(axis=0).ravel() % 2, kind="stable")
    rows, columns = np.nonzero(matrix)
    operator = {
        "dense": lx.MatrixLinearOperator(jnp.array(matrix)),
        "sparse": relax.Sparse.of(jnp.array(matrix[rows, columns]), rows, columns, N * N),
    }.get(kind, stencil)
    vector = b if kind in ("dense", "sparse") else b.reshape(N, N)
    ordering = "red_black" if kind == "red_black" else "natural"
    solver = relax.SOR(omega=OMEGA, rtol=0.0, max_steps=SWEEPS, ordering=ordering)
    found = lx.linear_solve(operator, jnp.array(vector), solver, throw=False)
    assert found.result == lx.RESULTS.max_steps_reached
    expected = swept(matrix[np.ix_(order, order)], b[order])
    np.testing.assert_allclose(np.ravel(found.value)[order], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("ordering", ["red_black", "natural"])
def test_sor_s_asymptotic_rate_is_young_s(ordering):
    n, beta = 8, np.cos(np.pi / 9)
    poisson = relax.Stencil.laplacian((n, n), 1.0)

    @jax.jit
    @jax.vmap
    def propagated(error, omega):
        solver = relax.SOR(omega=omega, rtol=0.0, max_steps=1, ordering=ordering)
        options = {"y0": error.reshape(n, n)}
        found = lx.linear_solve(poisson, jnp.zeros((n, n)), solver, options=options, throw=False)
        return found.value.reshape(-1)

    best = float(relax.optimal_omega(beta))
    for omega, rate in ((best, best - 1), (1.2, float(relax.sor_radius(1.2, beta))), (1.7, 0.7)):
        matrix = propagated(jnp.eye(n * n), jnp.full(n * n, omega)).T
        assert abs(np.abs(np.linalg.eigvals(matrix)).max() - rate) < 1e-3


def test_ssor_preconditioned_cg_makes_the_iterates_of_a_dense_one():
    kappa = 1 + jax.random.uniform(jax.random.key(1), (N + 2, N + 2))
    stencil = relax.Stencil.diffusion(kappa, 1 / (N + 1))
    matrix, b = np.array(stencil.as_matrix()), np.random.default_rng(1).normal(size=N * N)
    diagonal = np.diag(np.diag(matrix))
    left = diagonal / OMEGA + np.tril(matrix, -1)
    m = left @ np.linalg.inv(diagonal) @ left.T * OMEGA / (2 - OMEGA)
    x, r, residuals = np.zeros(N * N), b, [np.linalg.norm(b)]
    p = z = np.linalg.solve(m, r)
    for _ in range(SWEEPS):
        alpha = r @ z / (p @ matrix @ p)
        x, before, r = x + alpha * p, r @ z, r - alpha * matrix @ p
        z = np.linalg.solve(m, r)
        p = z + r @ z / before * p
        residuals.append(np.linalg.norm(r))
    preconditioner = relax.SSOR(omega=OMEGA, ordering="natural")
    solver = relax.CG(preconditioner=preconditioner, rtol=0.0, max_steps=SWEEPS)
    found = lx.linear_solve(stencil, jnp.array(b.reshape(N, N)), solver, throw=False)
    np.testing.assert_allclose(found.value.reshape(-1), x, rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.stats["residuals"], residuals, rtol=1e-11)


def test_a_v_cycle_that_preconditions_is_symmetric_and_definite():
    shape = (9, 10)
    cycle = relax.Multigrid()
    system = cycle.prepare(relax.Stencil.laplacian(shape, 1.0))
    splitting = cycle.splitting(system)

    @jax.jit
    @jax.vmap
    def preconditioned(column):
        b = splitting.pack(column.reshape(shape))
        x = cycle.relax(system, jax.tree.map(jnp.zeros_like, b), b)
        return splitting.unpack(x).reshape(-1)

    matrix = np.array(preconditioned(jnp.eye(90)))
    np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-13)
    assert np.linalg.eigvalsh(matrix).min() > 0


@pytest.mark.parametrize("n", [100, 257])
def test_a_v_cycle_s_rate_does_not_depend_on_the_mesh(n):
    b = jax.random.normal(jax.random.key(0), (n, n))
    poisson = relax.Stencil.laplacian((n, n), 1 / (n + 1))
    stats = lx.linear_solve(poisson, b, relax.Multigrid(rtol=1e-12)).stats
    steps = int(stats["num_steps"])
    assert stats["residuals"][steps] / stats["residuals"][steps - 1] <= 0.15


@pytest.mark.parametrize("n", [16, 64])
def test_a_v_cycle_on_cells_between_closed_walls_has_a_rate_too(n):
    """Poisson's equation with no slope on the walls, singular by a constant."""
    shape = (n, 2 * n)
    inner, ends = jnp.ones((n, 1)), jnp.ones((1, 2 * n))
    lower = [-inner.at[0].set(0), -ends.at[:, 0].set(0)]
    upper = [-inner.at[-1].set(0), -ends.at[:, -1].set(0)]
    diagonal = -sum(lower[1:] + upper, start=lower[0])
    operator = relax.Stencil(diagonal, lower, upper, shape,
                             frozenset({lx.positive_semidefinite_tag}))  # fmt: skip
    b = jax.random.normal(jax.random.key(0), shape)
    cycle = relax.Multigrid(unknowns="cells", rtol=1e-10)
    stats = lx.linear_solve(operator, b - b.mean(), cycle).stats
    steps = int(stats["num_steps"])
    assert stats["residuals"][steps] / stats["residuals"][steps - 1] <= 0.15


def test_a_multigrid_on_an_odd_number_of_cells_is_refused():
    with pytest.raises(ValueError, match="must be even"):
        relax.Multigrid(unknowns="cells").prepare(relax.Stencil.laplacian((9, 9), 1.0))


@pytest.mark.parametrize(
    ("matrix", "omega", "expected"),
    [
        ([[0.0, 1.0], [1.0, 1.0]], 1.0, "singular"),
        ([[1.0, 3.0], [3.0, 1.0]], 1.0, "breakdown"),
        ([[2.0, 1.0], [1.0, 2.0]], 2.0, "breakdown"),
        ([[2.0, jnp.nan], [1.0, 2.0]], 1.0, "nonfinite_input"),
    ],
)
def test_failures_have_codes(matrix, omega, expected):
    operator = lx.MatrixLinearOperator(jnp.array(matrix))
    found = lx.linear_solve(operator, jnp.ones(2), relax.SOR(omega=jnp.array(omega)), throw=False)
    assert found.result == getattr(lx.RESULTS, expected)
