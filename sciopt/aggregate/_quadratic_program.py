r"""The two quadratic programs inside the aggregators, solved exactly.

Both are solved by block principal pivoting (Portugal, Judice and Vicente, *A comparison of block
pivoting and interior-point algorithms for linear least squares problems with nonnegative variables*
(1994); Kim and Park, *Fast nonnegative matrix factorization: an active-set-like method and
comparisons* (2011), algorithm 1): guess which variables are free, solve one linear system, move
every variable of the wrong sign to the other side, repeat. Where that stops making progress, one
variable at a time is moved, which ends after finitely many moves (Murty, 1974). A handful of
factorisations is the rule, whatever the size; an interior point or a first-order method needs tens
or hundreds of cheaper steps and gives fewer digits.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Kim and Park's budget of block moves that may fail to reduce the number of wrong signs.
BUDGET = 3


def nonnegative_minimiser(
    matrix: Float[Array, "m m"], linear: Float[Array, " m"], *, proximal_steps: int = 4
) -> Float[Array, " m"]:
    r"""$\arg\min_{x \ge 0} \frac12 x^\top G x - q^\top x$ for a positive semidefinite $G$.

    A singular $G$ is handled by proximal steps, $x \leftarrow \arg\min_{x \ge 0} \frac12 x^\top G x
    - q^\top x + \frac\delta2 \|x - x_k\|^2$ with $\delta$ far below the largest diagonal entry of
    $G$. They converge to a minimiser of the unregularised problem (Rockafellar, 1976), by a factor
    of about $\delta / \lambda$ a step with $\lambda$ the smallest nonzero eigenvalue, and later
    steps start from the right free set, so each costs one factorisation. `proximal_steps=0` says
    that $G$ is safely positive definite.

    In float64 the minimum is exact to about 1e-14 of its scale. The derivative is the implicit
    one: the solution's free set is held fixed. It is defined wherever no variable is zero with a
    zero multiplier.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate._quadratic_program import nonnegative_minimiser
    >>> x = nonnegative_minimiser(jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([2.0, -1.0]))
    >>> [round(float(v), 12) for v in x]
    [1.0, 0.0]

    ```
    """
    return _minimiser(proximal_steps, matrix, linear)


def minimum_norm_weights(gramian: Float[Array, "m m"]) -> Float[Array, " m"]:
    r"""$\arg\min_\alpha \alpha^\top G \alpha$ over the simplex $\alpha \ge 0$, $\sum \alpha = 1$.

    The simplex constraint is absorbed: with $N = \operatorname{diag}(\|g_i\|)$, the unit Gramian
    $C = N^{-1} G N^{-1}$ and $d \propto N^{-1} 1$, the minimiser $y$ of $\frac12 y^\top (C + d
    d^\top) y - d^\top y$ over $y \ge 0$ has $C y + (d^\top y - 1) d \ge 0$, with equality where
    $y > 0$. For $\alpha \propto N^{-1} y$ this is $G \alpha \ge (\alpha^\top G \alpha) 1$, the
    condition of optimality. Working on unit gradients keeps the digits of small ones.

    Where several weights are optimal (duplicated, dependent or zero gradients) one of them is
    given; the combined gradient is the same for all.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate._quadratic_program import minimum_norm_weights
    >>> alpha = minimum_norm_weights(jnp.diag(jnp.array([1.0, 3.0])))
    >>> [round(float(a), 12) for a in alpha]
    [0.75, 0.25]

    ```
    """
    unit, norms = unit_gramian(gramian)
    # Zero gradients count as ones too short to matter, so that the others get no weight.
    tiny = jnp.finfo(gramian.dtype).eps * jnp.max(norms)
    tiny = jnp.where(tiny > 0, tiny, 1)
    lengths = jnp.maximum(norms, tiny)
    d = jnp.min(lengths) / lengths
    y = nonnegative_minimiser(unit + jnp.outer(d, d), d)
    alpha = y * d
    return alpha / jnp.sum(alpha)


def unit_gramian(
    gramian: Float[Array, "m m"],
) -> tuple[Float[Array, "m m"], Float[Array, " m"]]:
    """The Gramian of the gradients scaled to unit length, and their lengths; zero stays zero."""
    squares = jnp.diagonal(gramian)
    positive = squares > 0
    norms = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
    inverse = jnp.where(positive, 1 / jnp.where(positive, norms, 1), 0)
    return gramian * inverse[:, None] * inverse, norms


def nonnegative_minimisers(
    matrix: Float[Array, "m m"], linear: Float[Array, "m k"]
) -> Float[Array, "m k"]:
    r"""[`nonnegative_minimiser`][] for many linear terms (columns) and one positive definite $G$.

    A factorisation for each column's free set costs $m^3 / 3$; here all columns share the product
    of $G$ with a matrix, $2 m^3$ for all of them, inside conjugate gradients that run to rounding.
    That wins from some tens of columns on, and errors are at most rounding times the condition
    number of $G$.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate._quadratic_program import nonnegative_minimisers
    >>> x = nonnegative_minimisers(jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([[2.0], [-1.0]]))
    >>> [round(float(v), 12) for v in x[:, 0]]
    [1.0, 0.0]

    ```
    """
    return _minimisers(matrix, linear)


@jax.custom_jvp
def _minimisers(matrix, linear):
    return _pivot_columns(matrix, linear)[0]


@_minimisers.defjvp
def _minimisers_jvp(primals, tangents):
    (matrix, linear), (matrix_dot, linear_dot) = primals, tangents
    x, free = _pivot_columns(matrix, linear)
    rhs = jnp.where(free, linear_dot - matrix_dot @ x, 0)
    x_dot = jax.lax.custom_linear_solve(
        lambda v: jnp.where(free, matrix @ v, v),
        rhs,
        lambda _, b: _conjugate_gradients(matrix, free, b, jnp.zeros_like(b)),
        symmetric=True,
    )
    return x, x_dot


def _conjugate_gradients(matrix, free, rhs, start):
    """Columns of the solution on their free variables, to rounding."""
    eps = jnp.finfo(matrix.dtype).eps
    scale = jnp.diagonal(matrix)[:, None]
    tolerance = (eps * jnp.linalg.norm(rhs, axis=0)) ** 2

    def over(numerator, denominator):
        return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 0)

    def step(carry):
        x, r, p, rz, steps = carry
        product = jnp.where(free, matrix @ p, 0)
        length = over(rz, jnp.sum(p * product, axis=0))
        x, r = x + length * p, r - length * product
        z = r / scale
        after = jnp.sum(r * z, axis=0)
        return x, r, z + over(after, rz) * p, after, steps + 1

    def unfinished(carry):
        _, r, _, _, steps = carry
        return jnp.any(jnp.sum(r**2, axis=0) > tolerance) & (steps < 4 * matrix.shape[0])

    r = jnp.where(free, rhs - matrix @ start, 0)
    z = r / scale
    init = (start, r, z, jnp.sum(r * z, axis=0), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, step, init)[0]


def _pivot_columns(matrix, linear) -> tuple[Any, Any]:
    """The minimisers and their free sets."""
    m, columns = linear.shape
    # Conjugate gradients leave more rounding than a factorisation does.
    slack = 100 * m**0.5 * jnp.finfo(matrix.dtype).eps
    indices = jnp.arange(m)[:, None]

    def move(carry):
        x, free, _, best, budget, moves = carry
        x = _conjugate_gradients(matrix, free, linear, jnp.where(free, x, 0))
        multiplier = matrix @ x - linear
        size = jnp.abs(matrix) @ jnp.abs(x) + jnp.abs(linear)
        lowest = -slack * jnp.max(jnp.abs(x), axis=0)
        wrong = jnp.where(free, x < lowest, multiplier < -slack * size)
        count = jnp.sum(wrong, axis=0, dtype=jnp.int32)
        better = count < best
        last = indices == jnp.max(jnp.where(wrong, indices, -1), axis=0)
        free = free ^ jnp.where(better | (budget > 0), wrong, last)
        budget = jnp.where(better, BUDGET, jnp.maximum(budget - 1, 0)).astype(jnp.int32)
        return x, free, jnp.any(wrong), jnp.minimum(best, count), budget, moves + 1

    def unfinished(carry):
        _, _, wrong, _, _, moves = carry
        return wrong & (moves < 50 + 10 * m)

    start = (
        jnp.zeros_like(linear),
        linear > 0,
        jnp.array(True),
        jnp.full(columns, m + 1, jnp.int32),
        jnp.full(columns, BUDGET, jnp.int32),
        jnp.zeros((), jnp.int32),
    )
    x, free, *_ = jax.lax.while_loop(unfinished, move, start)
    return jnp.maximum(x, 0), free


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _minimiser(proximal_steps, matrix, linear):
    return _pivot(proximal_steps, matrix, linear)[0]


@_minimiser.defjvp
def _minimiser_jvp(proximal_steps, primals, tangents):
    matrix, linear = primals
    matrix_dot, linear_dot = tangents
    x, free = _pivot(proximal_steps, matrix, linear)
    delta = _proximal_weight(matrix) if proximal_steps else 0.0
    # On the free set G x = q, so G dx = dq - dG x there; elsewhere x stays at zero.
    solve = _masked_solver(matrix, free, delta)
    return x, solve(linear_dot - matrix_dot @ x)


def _proximal_weight(matrix):
    largest = jnp.max(jnp.diagonal(matrix))
    eps = jnp.finfo(matrix.dtype).eps
    return jnp.where(largest > 0, largest, 1) * 4 * eps ** (3 / 4) * matrix.shape[0] ** 0.5


def _masked_solver(matrix, free, delta):
    """Solves with the rows and columns of the free variables; the others come out zero."""
    m = matrix.shape[0]
    both = free[:, None] & free
    masked = jnp.where(both, matrix, 0) + jnp.diag(jnp.where(free, delta, 1))
    factor = jnp.linalg.cholesky(masked, symmetrize_input=False)

    def solve(rhs):
        half = jax.lax.linalg.triangular_solve(
            factor, jnp.where(free, rhs, 0)[:, None], left_side=True, lower=True
        )
        full = jax.lax.linalg.triangular_solve(
            factor, half, left_side=True, lower=True, transpose_a=True
        )
        return jnp.where(free, full.reshape(m), 0)

    return solve


def _pivot(proximal_steps, matrix, linear) -> tuple[Any, Any]:
    """The minimiser and its free set."""
    m = matrix.shape[0]
    eps = jnp.finfo(matrix.dtype).eps
    delta = _proximal_weight(matrix) if proximal_steps else jnp.zeros((), matrix.dtype)
    no_failures, indices = jnp.array(m + 1, jnp.int32), jnp.arange(m)

    def move(carry):
        x, center, free, best, budget, rounds, moves = carry
        rhs = linear + delta * center
        x = _masked_solver(matrix, free, delta)(rhs)
        multiplier = matrix @ x + delta * x - rhs
        # What a zero can come out as: signs below this say nothing.
        size = jnp.abs(matrix) @ jnp.abs(x) + jnp.abs(rhs)
        wrong = jnp.where(free, x < 0, multiplier < -4 * m**0.5 * eps * size)
        count = jnp.sum(wrong, dtype=jnp.int32)
        better = count < best
        last = indices == jnp.max(jnp.where(wrong, indices, -1))
        free = free ^ jnp.where(better | (budget > 0), wrong, last)
        budget = jnp.where(better, BUDGET, jnp.maximum(budget - 1, 0))
        # With all signs right a round is over, and the next one is centred on its solution.
        over = count == 0
        x = jnp.maximum(x, 0)
        settled = jnp.max(jnp.abs(x - center)) <= 4 * eps * jnp.max(x)
        center = jnp.where(over, x, center)
        best = jnp.where(over, no_failures, jnp.minimum(best, count))
        rounds = jnp.where(over & settled, proximal_steps + 1, rounds + over)
        return x, center, free, best, budget.astype(jnp.int32), rounds.astype(jnp.int32), moves + 1

    def unfinished(carry):
        *_, rounds, moves = carry
        # The bound on the moves is out of reach but for adversarial rounding.
        return (rounds <= proximal_steps) & (moves < 50 + 10 * m)

    zero, none = jnp.zeros_like(linear), jnp.zeros((), jnp.int32)
    start = (zero, zero, linear > 0, no_failures, none + BUDGET, none, none)
    x, _, free, *_ = jax.lax.while_loop(unfinished, move, start)
    return x, free
