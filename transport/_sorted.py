r"""Exact transport on the line: sorted atoms are coupled in order.

For a cost $h(x - y)$ with $h$ convex the monotone coupling is optimal (Santambrogio, *Optimal
Transport for Applied Mathematicians*, 2015, theorem 2.9); with weights it is the north-west corner
rule on the sorted atoms.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar


def sorted_transport(
    x: Float[Array, " n"],
    y: Float[Array, " m"],
    a: Float[Array, " n"] | None = None,
    b: Float[Array, " m"] | None = None,
    cost: Callable[[Array], Array] = jnp.square,
) -> tuple[Scalar, tuple[Int[Array, " k"], Int[Array, " k"], Float[Array, " k"]]]:
    r"""Exact optimal transport between weighted points on the line.

    **Arguments:**

    - `x`, `y`: the points, in any order.
    - `a`, `b`: their weights, of equal mass; uniform if `None`.
    - `cost`: the convex function $h$ of the difference $x - y$, elementwise.

    **Returns:**

    The cost $\sum_{ij} P_{ij} h(x_i - y_j)$ and the plan as `(rows, columns, masses)`, with $k =
    n + m - 1$ entries at most of which are distinct; some masses may be zero.

    **Raises:**

    `ValueError` if weights and points differ in number.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> value, _ = transport.sorted_transport(jnp.array([2.0, 0.0]), jnp.array([1.0, 3.0]))
        >>> float(value)
        1.0

        ```
    """
    a = jnp.full(x.shape, 1 / x.size, x.dtype) if a is None else a
    b = jnp.full(y.shape, 1 / y.size, y.dtype) if b is None else b
    if a.shape != x.shape or b.shape != y.shape:
        raise ValueError(f"Weights {a.shape}, {b.shape} for points {x.shape}, {y.shape}.")
    by_x, by_y = jnp.argsort(x), jnp.argsort(y)
    upto_a, upto_b = jnp.cumsum(a[by_x]), jnp.cumsum(b[by_y])
    # Between two consecutive levels of either distribution function, one atom meets one atom.
    levels = jnp.sort(jnp.concatenate([upto_a, upto_b[:-1]]))
    levels = jnp.minimum(levels, upto_a[-1])
    masses = jnp.diff(levels, prepend=jnp.zeros_like(levels[:1]))
    middle = levels - masses / 2
    rows = by_x[jnp.clip(jnp.searchsorted(upto_a, middle), 0, x.size - 1)]
    columns = by_y[jnp.clip(jnp.searchsorted(upto_b, middle), 0, y.size - 1)]
    return jnp.sum(masses * cost(x[rows] - y[columns])), (rows, columns, masses)
