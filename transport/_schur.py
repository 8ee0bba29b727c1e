r"""The Newton system of entropic transport's dual, with one block of potentials eliminated.

The Hessian of the Lyapunov potential is $\begin{pmatrix} \mathrm{diag}(P1) & P \\ P^\top &
\mathrm{diag}(P^\top 1) \end{pmatrix}$ (Tang et al. 2024, equation 4). Once the columns are scaled,
$P^\top 1 = b$, its Schur complement $\mathrm{diag}(r) - P\,\mathrm{diag}(1/b) P^\top$, with $r =
P1$, is the Hessian of the semi-dual, and half the size.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float, Scalar

Vector = Float[Array, " n"]


def normalised(plan: Float[Array, "n m"], row: Vector, b: Float[Array, " m"]):
    r"""$Q = \mathrm{diag}(r)^{-1/2} P\,\mathrm{diag}(b)^{-1/2}$ and $r^{-1/2}$.

    In the variables $r^{1/2} \mathrm{d}f$ the Schur complement is $I - Q Q^\top$, whose spectrum
    is in $[0, 1]$ whatever the masses are; its null vector $r^{1/2}$ is the constant shift of the
    potentials. Atoms without mass become rows and columns of zeros, hence an identity block.
    """
    by_row = inverse_root(row)
    return by_row[:, None] * plan * inverse_root(b), by_row


def inverse_root(mass: Array) -> Array:
    """One over the square root; zero where there is no mass."""
    return jnp.where(mass > 0, lax.rsqrt(jnp.where(mass > 0, mass, 1)), 0)


def conjugate_gradients(product: Callable, rhs: Vector, diagonal: Vector, rtol, max_steps: int):
    r"""Jacobi-preconditioned CG for a positive semi-definite product; stops at a relative residual.

    A right-hand side orthogonal to the null direction keeps every iterate orthogonal to it, so
    nothing is pinned. Breakdown (a direction of no curvature) ends the iteration with what it has.
    """
    target = rtol**2 * (rhs @ rhs)

    def unfinished(carry):
        _, residual, _, _, step, sound = carry
        return (residual @ residual > target) & (step < max_steps) & sound

    def advance(carry):
        x, residual, direction, rho, step, _ = carry
        image = product(direction)
        curvature = direction @ image
        sound = curvature > 0
        alpha = jnp.where(sound, rho / jnp.where(sound, curvature, 1), 0)
        x, residual = x + alpha * direction, residual - alpha * image
        z = residual / diagonal
        rho_next = residual @ z
        direction = z + (rho_next / jnp.where(rho > 0, rho, 1)) * direction
        return x, residual, direction, rho_next, step + 1, sound

    z = rhs / diagonal
    start = (jnp.zeros_like(rhs), rhs, z, rhs @ z, jnp.array(0), jnp.array(True))
    return lax.while_loop(unfinished, advance, start)[0]


def damped(
    product: Callable, squares: Vector, rhs: Vector, damping: Scalar, rtol, max_steps: int
) -> Vector:
    r"""Solves $((1 + \mu) I - Q Q^\top) s = h$ by CG, from `product`, that with $Q Q^\top$.

    `squares` are the sums of those of Q's rows.
    """
    # What is left of a nearly isolated pair's diagonal may be rounding: keep it positive.
    diagonal = jnp.maximum(1 + damping - squares, damping)
    return conjugate_gradients(
        lambda s: (1 + damping) * s - product(s), rhs, diagonal, rtol, max_steps
    )


def direct(q: Float[Array, "n m"], rhs: Vector, damping: Scalar) -> Vector:
    r"""Solves $((1 + \mu) I - Q Q^\top) s = h$ by Cholesky; NaN where that is not definite."""
    gram = jnp.eye(q.shape[0], dtype=q.dtype) * (1 + damping) - q @ q.T
    return cho_solve((jnp.linalg.cholesky(gram), True), rhs)


def sparse(
    q: Float[Array, "n m"],
    rhs: Vector,
    damping: Scalar,
    *,
    threshold: Scalar,
    capacity: int,
    rtol: Scalar,
    max_steps: int,
) -> Vector:
    r"""Solves $((1 + \mu) I - \tilde Q \tilde Q^\top) s = h$ by CG on entries above `threshold`.

    $\tilde Q$ holds at most `capacity` entries, a static number. Where more of them matter the
    plan is not sparse, and dropping some would turn Newton's quadratic convergence into a slow
    linear one; CG then multiplies by the whole of $Q$.

    The diagonal keeps the mass that was dropped: the sparsified Hessian dominates the exact one,
    so the step stays a direction of ascent (Tang et al., section 4).
    """
    n, m = q.shape
    kept = q > threshold
    count = jnp.sum(kept)

    def solve(product, squares):
        return damped(product, squares, rhs, damping, rtol, max_steps)

    def on_kept(_):
        (flat,) = jnp.nonzero(kept.ravel(), size=capacity, fill_value=0)
        rows, columns = flat // m, flat % m
        values = jnp.where(jnp.arange(capacity) < count, q.ravel()[flat], 0)

        def product(s):
            image = jnp.zeros(m, q.dtype).at[columns].add(values * s[rows])
            return jnp.zeros(n, q.dtype).at[rows].add(values * image[columns])

        return solve(product, jnp.zeros(n, q.dtype).at[rows].add(values**2))

    def on_all(_):
        return solve(lambda s: q @ (s @ q), jnp.sum(q * q, axis=1))

    return lax.cond(count <= capacity, on_kept, on_all, None)
