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

from ._grid import carried, soft_sums, spread_back
from ._schur import conjugate_gradients, direct, inverse_root, normalised
from ._semidual import masses_of


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
    q, _ = normalised(plan, row, column)

    # Change of the plan that potentials held fixed would cause, and that they must undo.
    drift = -(plan * d_cost + xlogy(plan, plan) * d_epsilon) / epsilon
    u = epsilon * (d_a - jnp.sum(drift, axis=1))
    v = epsilon * (d_b - jnp.sum(drift, axis=0))

    def solve(product, h):
        tiny = _tiny(h)
        if max(q.shape) <= 1000:
            # Once refined: the damping that makes it definite leaves no trace.
            s = direct(q, h, tiny)
            return s + direct(q, h - product(s), tiny)
        return _iterative(product, h, jnp.sum(q * q, axis=1))

    d_f, d_g = _response(lambda v: plan @ v, lambda s: s @ plan, row, column, u, v, solve)
    return (f, g), (d_f, d_g)


@jax.custom_jvp
def at_optimum_on_grid(
    f: Float[Array, " n"],
    g: Float[Array, " m"],
    costs: tuple[Float[Array, "n_k m_k"], ...],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    epsilon: Scalar,
) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
    """As `at_optimum`, of costs that are sums over axes; no plan is made."""
    return f, g


@at_optimum_on_grid.defjvp
def _at_optimum_on_grid_jvp(primals, tangents):
    f, g, costs, _, _, epsilon = primals
    _, _, d_costs, d_a, d_b, d_epsilon = tangents

    def marginals(costs, epsilon):
        back = soft_sums(g, [cost.T for cost in costs], epsilon)[1]
        ahead = soft_sums(f, costs, epsilon)[1]
        return masses_of(f + back, epsilon), masses_of(g + ahead, epsilon)

    moved = jax.jvp(marginals, (costs, epsilon), (d_costs, d_epsilon))
    (row, column), (row_drift, column_drift) = moved
    u, v = epsilon * (d_a - row_drift), epsilon * (d_b - column_drift)
    kernels, _ = soft_sums(f, costs, epsilon)
    squares = spread_back(tuple(kernel**2 for kernel in kernels), column)
    squares = squares / jnp.where(row > 0, row, 1)
    d_f, d_g = _response(
        lambda v: spread_back(kernels, column * v),
        lambda s: column * carried(kernels, s),
        row, column, u, v,
        lambda product, h: _iterative(product, h, squares),
    )  # fmt: skip
    return (f, g), (d_f, d_g)


def _response(times, transposed, row, column, u, v, solve):
    """Changes of the potentials, with which the marginals change by `u` and `v` over epsilon.

    `times` and `transposed` multiply by the plan, whose marginals are `row` and `column`.
    """
    by_row = inverse_root(row)
    by_column = jnp.where(column > 0, 1 / jnp.where(column > 0, column, 1), 0)
    rhs = by_row * (u - times(by_column * v))
    # Weights of unequal mass have no coupling: differentiate along those that keep it.
    null = jnp.sqrt(row) / jnp.sqrt(jnp.sum(row))
    rhs = rhs - null * (null @ rhs)

    def schur(s):
        return s - by_row * times(by_column * transposed(by_row * s))

    d_f = by_row * lax.custom_linear_solve(schur, rhs, solve, symmetric=True)
    d_g = by_column * (v - transposed(d_f))
    shift = jnp.sum(d_f) / jnp.sum(row > 0)
    return jnp.where(row > 0, d_f - shift, 0), jnp.where(column > 0, d_g + shift, 0)


def _iterative(product, h, squares):
    """By conjugate gradients, to rounding; `squares` are the sums of those of Q's rows."""
    tiny = _tiny(h)
    return conjugate_gradients(product, h, jnp.maximum(1 - squares, tiny), tiny, 10 * h.size)


def _tiny(like) -> Scalar:
    return jnp.asarray(500 * jnp.finfo(like.dtype).eps, like.dtype)
