r"""Derivatives of the optimal potentials and of the plan, by the implicit function theorem.

The optimum satisfies $P1 = a$, $P^\top 1 = b$ with $P = \exp((f \oplus g - C) / \varepsilon)$;
differentiating both (as in Cuturi, Teboul, Berthet, Doucet and Vert 2020, section 3) gives a
system with the Hessian of the dual, whose Schur complement [`transport._schur`][] solves.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import xlogy
from jaxtyping import Array, Float, Scalar

from ._schur import conjugate_gradients, direct, normalised


def centred(f: Float[Array, " n"], g: Float[Array, " m"]):
    """The representative that ott chooses: `f` has mean zero over the atoms that have mass."""
    finite = jnp.isfinite(f)
    shift = jnp.sum(jnp.where(finite, f, 0)) / jnp.sum(finite)
    return f - shift, g + shift


@jax.custom_jvp
def at_optimum(
    f: Float[Array, " n"],
    g: Float[Array, " m"],
    cost: Float[Array, "n m"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    epsilon: Scalar,
) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
    """`f` and `g`, known to be optimal for the other arguments, with the derivatives of that."""
    return f, g


@at_optimum.defjvp
def _at_optimum_jvp(primals, tangents):
    f, g, cost, _, _, epsilon = primals
    _, _, d_cost, d_a, d_b, d_epsilon = tangents
    plan = jnp.exp((f[:, None] + g - cost) / epsilon)
    row, column = jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)
    q, by_row = normalised(plan, row, column)
    by_column = jnp.where(column > 0, 1 / jnp.where(column > 0, column, 1), 0)

    # Change of the plan that potentials held fixed would cause, and that they must undo.
    drift = (plan * d_cost + xlogy(plan, plan) * d_epsilon) / epsilon
    u = epsilon * (d_a + jnp.sum(drift, axis=1))
    v = epsilon * (d_b + jnp.sum(drift, axis=0))
    rhs = by_row * (u - plan @ (by_column * v))
    # Weights of unequal mass have no coupling: differentiate along those that keep it.
    null = jnp.sqrt(row) / jnp.sqrt(jnp.sum(row))
    rhs = rhs - null * (null @ rhs)

    tiny = jnp.asarray(500 * jnp.finfo(f.dtype).eps, f.dtype)

    def solve(product, h):
        if max(q.shape) <= 1000:
            # Once refined: the damping that makes it definite leaves no trace.
            s = direct(q, h, tiny)
            return s + direct(q, h - product(s), tiny)
        diagonal = jnp.maximum(1 - jnp.sum(q * q, axis=1), tiny)
        return conjugate_gradients(product, h, diagonal, tiny, 10 * h.size)

    s = lax.custom_linear_solve(lambda s: s - q @ (s @ q), rhs, solve, symmetric=True)
    d_f = by_row * s
    d_g = by_column * (v - plan.T @ d_f)
    shift = jnp.sum(d_f) / jnp.sum(jnp.isfinite(f))
    d_f = jnp.where(jnp.isfinite(f), d_f - shift, 0)
    d_g = jnp.where(jnp.isfinite(g), d_g + shift, 0)
    return (f, g), (d_f, d_g)
