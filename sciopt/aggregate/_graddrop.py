"""GradDrop: every coordinate keeps the gradients of one sign only.

Chen, Ngiam, Huang, Luong, Kretzschmar, Chai and Anguelov, *Just Pick a Sign: Optimizing Deep
Multitask Models with Gradient Sign Dropout* (2020), algorithm 1, lines 10 to 15.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._aggregator import AbstractAggregator, count_objectives, required
from ._mean import preference


class GradDrop(AbstractAggregator):
    r"""The sum of the gradients, of which each coordinate keeps one sign.

    With the sign purity $P = \frac12 \big(1 + \frac{\sum_i g_i}{\sum_i |g_i|}\big)$ of a coordinate
    and $U$ uniform on $[0, 1]$, the positive entries are kept where $f(P) > U$ and the negative
    ones where $f(P) < U$ (lines 10 to 15). A fraction `leak[i]` of gradient $i$ always passes.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | no | no |

    Random: wants a `key`.

    **Arguments:**

    - `f`: an increasing function of the purity.
    - `leak`: the fraction of each gradient that is never dropped, zero by default.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from sciopt.aggregate import GradDrop
    >>> GradDrop()(jnp.array([[1.0, 2.0], [1.0, 3.0]]), key=jax.random.key(0)).tolist()
    [2.0, 5.0]

    ```
    """

    f: Callable[[Array], Array] = lambda purity: purity
    leak: Float[Array, " m"] | None = None

    def update(self, jacobian, state, *, key=None):
        m = count_objectives(jacobian)
        leaves, structure = jax.tree.flatten(jacobian)
        keys = jax.random.split(required(key, self), len(leaves))
        updates = []
        for leaf, leaf_key in zip(leaves, keys, strict=True):
            uniform = jax.random.uniform(leaf_key, leaf.shape[1:], leaf.dtype)
            leak = preference(self.leak, m, leaf.dtype, 0.0)
            updates.append(keep_one_sign(leaf, uniform, self.f, leak))
        return jax.tree.unflatten(structure, updates), state


def keep_one_sign(
    leaf: Float[Array, "m *n"],
    uniform: Float[Array, "*n"],
    f: Callable[[Array], Array],
    leak: Float[Array, " m"],
) -> Float[Array, "*n"]:
    """One leaf's update for given uniform draws."""
    zero = jnp.zeros_like(uniform)

    # Row by row, because XLA's CPU reduction over the leading axis is tens of times slower.
    def measure(carry, row):
        total, size = carry
        return (total + row, size + jnp.abs(row)), None

    (total, size), _ = jax.lax.scan(measure, (zero, zero), leaf)
    level = f(0.5 * (1 + total / jnp.where(size > 0, size, 1)))

    def drop(update, row_and_leak):
        row, leak = row_and_leak
        kept = jnp.where(row > 0, level > uniform, level < uniform)
        return update + jnp.where(kept, row, leak * row), None

    return jax.lax.scan(drop, zero, (leaf, leak))[0]
