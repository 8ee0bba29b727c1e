"""Derivatives of a field at a point, by forward propagation of truncated Taylor polynomials.

Orders one and two are a `jvp` and a `jvp` of a `jvp`: nested twice, forward mode carries one
redundant term, and it is the faster of the two there. From the third order on nesting carries
2**k terms for k + 1 useful ones and `jax.experimental.jet` carries just those. The crossing was
measured (`benchmarks/derivatives.py`).
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jax.experimental.jet import jet
from jaxtyping import Array, Float

Field = Callable[[Float[Array, " d"]], Float[Array, " k"]]


def taylor(field: Field, point: Float[Array, " d"], axis: int, order: int) -> list[Array]:
    """The derivatives of orders `0..order` of a field along one coordinate.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> [round(float(d[0]), 9) for d in pde.taylor(lambda x: x**3, jnp.array([2.0]), 0, 3)]
    [8.0, 12.0, 12.0, 6.0]

    ```
    """
    direction = jnp.zeros_like(point).at[axis].set(1)

    def along(f):
        return lambda x: jax.jvp(f, (x,), (direction,))

    if order == 0:
        return [field(point)]
    if order == 1:
        return list(along(field)(point))
    if order == 2:
        (value, first), (_, second) = along(along(field))(point)
        return [value, first, second]
    series = [direction] + [jnp.zeros_like(point)] * (order - 1)
    value, derivatives = jet(field, (point,), (series,))
    return [value, *derivatives]


def derivatives(
    field: Field, point: Float[Array, " d"], wanted: Iterable[tuple[int, ...]]
) -> dict[tuple[int, ...], Float[Array, " k"]]:
    """Partial derivatives of a field at a point.

    **Arguments:**

    - `field`: from a point, shape `(d,)`, to `k` unknowns.
    - `point`: where.
    - `wanted`: multi-indices as tuples of axes: `()` is the value, `(0, 0, 1)` is the derivative
        twice by axis 0 and once by axis 1. Their order within a tuple does not matter.

    **Returns:** the derivatives of all unknowns, shape `(k,)`, by sorted tuple.

    Pure derivatives along an axis come from one expansion. A mixed one is an expansion along its
    last axis of the expansion along the axes before it.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> f = lambda p: jnp.array([p[0] ** 2 * p[1] ** 3])
    >>> d = pde.derivatives(f, jnp.array([1.0, 2.0]), [(), (0, 0), (0, 1)])
    >>> {k: float(v[0]) for k, v in d.items()}
    {(): 8.0, (0, 0): 16.0, (0, 1): 24.0}

    ```
    """
    tuples = sorted({tuple(sorted(w)) for w in wanted}, key=lambda w: (len(w), w))
    pure: dict[int, int] = {}
    for w in tuples:
        if len(set(w)) == 1:
            pure[w[0]] = max(pure.get(w[0], 0), len(w))
    found = {}
    for axis, order in pure.items():
        for k, value in enumerate(taylor(field, point, axis, order)):
            found[(axis,) * k] = value
    for w in tuples:
        if w not in found:
            found[w] = _mixed(field, w)(point)
    return {w: found[w] for w in tuples}


def _mixed(field: Field, axes: tuple[int, ...]) -> Field:
    if not axes:
        return field
    last = axes[-1]
    order = axes.count(last)
    inner = _mixed(field, axes[:-order])
    return lambda point: taylor(inner, point, last, order)[order]
