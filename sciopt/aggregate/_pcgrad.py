"""PCGrad: conflicting gradients lose their components against each other.

Yu, Kumar, Gupta, Levine, Hausman and Finn, *Gradient Surgery for Multi-Task Learning* (2020),
algorithm 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._aggregator import AbstractWeighting, required


class PCGrad(AbstractWeighting):
    r"""The sum of the gradients after surgery.

    Each gradient in turn meets the others in random order; where its product with $g_j$ is
    negative, it is projected onto the plane normal to $g_j$: $g_i^{PC} \leftarrow g_i^{PC} -
    \frac{g_i^{PC} \cdot g_j}{\|g_j\|^2} g_j$ (algorithm 1). All that happens in the span of the
    gradients, so the weights follow from the Gramian.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | for two objectives | yes | yes |

    Random: wants a `key`.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from sciopt.aggregate import PCGrad
    >>> PCGrad()(jnp.array([[1.0, 0.0], [-1.0, 1.0]]), key=jax.random.key(0)).tolist()
    [0.5, 1.5]

    ```
    """

    def weights(self, gramian, *, key=None):
        return project_conflicts(gramian, random_orders(required(key, self), gramian.shape[0]))


def random_orders(key, m: int) -> Int[Array, "m m"]:
    """For each objective an order in which it meets them all."""
    return jax.vmap(lambda k: jax.random.permutation(k, m))(jax.random.split(key, m))


def project_conflicts(
    gramian: Float[Array, "m m"], orders: Int[Array, "m m"]
) -> Float[Array, " m"]:
    """The weights after every gradient has met the others in its order."""
    m = gramian.shape[0]

    def surgery(i, order):
        def meet(k, weights):
            j = order[k]
            product = gramian[j] @ weights
            conflict = (product < 0) & (j != i)
            return weights.at[j].add(jnp.where(conflict, -product / gramian[j, j], 0))

        return jax.lax.fori_loop(0, m, meet, jnp.zeros(m, gramian.dtype).at[i].set(1))

    return jnp.sum(jax.vmap(surgery)(jnp.arange(m), orders), axis=0)
