"""Gradient Vaccine: PCGrad towards the usual angle between two tasks, not only the right one.

Wang, Tsvetkov, Firat and Cao, *Gradient Vaccine: Investigating and Improving Multi-task
Optimization in Massively Multilingual Models* (2021), algorithm 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._aggregator import (
    AbstractAggregator,
    checked,
    combine,
    count_objectives,
    gramian,
    required,
    result_type,
)
from ._pcgrad import random_orders


class GradVac(AbstractAggregator):
    r"""The sum of the gradients, each turned towards those that it is further from than usual.

    Gradient $i$ meets the others in random order. Where its cosine $\phi_{ij}$ to $g_j$ is below
    the target $\hat\phi_{ij}$, it gains

    $$\frac{\|g_i\| \big(\hat\phi_{ij} \sqrt{1 - \phi_{ij}^2} - \phi_{ij} \sqrt{1 -
    \hat\phi_{ij}^2}\big)}{\|g_j\| \sqrt{1 - \hat\phi_{ij}^2}}\, g_j,$$

    after which the cosine is the target. The targets are moving averages of the cosines, $\hat\phi
    \leftarrow (1 - \beta) \hat\phi + \beta \phi$, from zero, so that a first step is
    [`sciopt.aggregate.PCGrad`][].

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | yes, up to `eps` | yes |

    Stateful: the state is the matrix of targets. Random: wants a `key`.

    **Arguments:**

    - `beta`: the weight of the newest cosine.
    - `eps`: added to the denominators.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from sciopt.aggregate import GradVac
    >>> u = GradVac()(jnp.array([[1.0, 0.0], [-1.0, 1.0]]), key=jax.random.key(0))
    >>> [round(float(v), 6) for v in u]
    [0.5, 1.5]

    ```
    """

    beta: float = 0.5
    eps: float = 1e-8

    def init(self, jacobian):
        m = count_objectives(jacobian)
        return jnp.zeros((m, m), result_type(jacobian))

    def update(self, jacobian, state, *, key=None):
        orders = random_orders(required(key, self), count_objectives(jacobian))
        products = checked(gramian(jacobian))
        weights, state = self.vaccinate(products, state, orders)
        return combine(weights, jacobian), state

    def vaccinate(
        self, gramian: Float[Array, "m m"], targets: Float[Array, "m m"], orders: Int[Array, "m m"]
    ) -> tuple[Float[Array, " m"], Float[Array, "m m"]]:
        """The weights and the next targets, for given orders of meeting."""
        m = gramian.shape[0]
        lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0))

        def sine(cosine):
            return jnp.sqrt(jnp.maximum(1 - cosine**2, 0))

        def one_gradient(i, targets, order):
            def meet(k, carry):
                weights, products, targets = carry
                j = order[k]
                length = jnp.sqrt(jnp.maximum(products @ weights, 0))
                cosine = products[j] / (length * lengths[j] + self.eps)
                target = targets[j]
                gain = length * (target * sine(cosine) - cosine * sine(target))
                gain = gain / (lengths[j] * sine(target) + self.eps)
                gain = jnp.where((cosine < target) & (j != i), gain, 0)
                average = (1 - self.beta) * target + self.beta * cosine
                targets = targets.at[j].set(jnp.where(j != i, average, target))
                return weights.at[j].add(gain), products + gain * gramian[j], targets

            start = (jnp.zeros_like(lengths).at[i].set(1), gramian[i], targets)
            weights, _, targets = jax.lax.fori_loop(0, m, meet, start)
            return weights, targets

        weights, targets = jax.vmap(one_gradient)(jnp.arange(m), targets, orders)
        return jnp.sum(weights, axis=0), targets
