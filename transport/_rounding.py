r"""Rounding to the transport polytope: Altschuler, Weed and Rigollet (2017), algorithm 2."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def round_to_polytope(
    plan: Float[Array, "n m"], a: Float[Array, " n"], b: Float[Array, " m"]
) -> Float[Array, "n m"]:
    r"""A plan with marginals `a` and `b`, near a non-negative one that nearly has them.

    Rows and then columns that carry too much are scaled down; what is missing is added as a matrix
    of rank one. The result moves at most $2(\|P1 - a\|_1 + \|P^\top 1 - b\|_1)$ (lemma 7 of
    *Near-linear time approximation algorithms for optimal transport via Sinkhorn iteration*), is
    non-negative, and has its marginals up to rounding.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> half = jnp.array([0.5, 0.5])
        >>> plan = transport.round_to_polytope(jnp.array([[0.9, 0.0], [0.0, 0.3]]), half, half)
        >>> [round(float(x), 5) for x in plan.sum(0)]
        [0.5, 0.5]

        ```
    """
    row = jnp.sum(plan, axis=1)
    plan = plan * jnp.where(row > a, a / jnp.where(row > 0, row, 1), 1)[:, None]
    column = jnp.sum(plan, axis=0)
    plan = plan * jnp.where(column > b, b / jnp.where(column > 0, column, 1), 1)
    missing_a = jnp.maximum(a - jnp.sum(plan, axis=1), 0)
    missing_b = jnp.maximum(b - jnp.sum(plan, axis=0), 0)
    total = jnp.sum(missing_a)
    return plan + jnp.outer(missing_a, missing_b) / jnp.where(total > 0, total, 1)
