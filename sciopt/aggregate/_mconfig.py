"""M-ConFIG: ConFIG on momenta, with one objective's gradient a step.

Liu, Chu and Thuerey, *ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks*
(2025), algorithm 1.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ._aggregator import (
    AbstractAggregator,
    checked,
    combine,
    count_objectives,
    gramian,
    result_type,
)
from ._config import ConFIG


class MomentumState(eqx.Module):
    moments: PyTree
    counts: Int[Array, " m"]
    products: Float[Array, "m m"]
    aggregate: PyTree
    square: PyTree
    step: Int[Array, ""]


class MConFIG(AbstractAggregator):
    r"""ConFIG of the objectives' momenta, of which each step renews one, then scaled as in Adam.

    Each objective has a first moment $m_i \leftarrow \beta_1 m_i + (1 - \beta_1) g_i$, renewed only
    when its turn comes, so a step costs one backward pass and not $m$. The update is ConFIG of the
    debiased moments, $\hat g$, divided by the root of a second moment. That one is of the
    gradients for which Adam's first moment would have been $\hat g$ (algorithm 1):

    $$\hat m \leftarrow (1 - \beta_1^t)\, \hat g, \qquad g_c = \frac{\hat m_t - \beta_1 \hat
    m_{t-1}}{1 - \beta_1}, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g_c^2, \qquad u =
    \frac{\hat g}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}.$$

    Use it with plain gradient descent: it is an optimiser already.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no: with the momenta, before the scaling | no | no |

    Stateful, as large as $m + 2$ gradients. Until every objective had a turn the update is zero.
    `update_one(gradient, index, state)` takes the gradient whose turn it is; `update(jacobian,
    state)` renews all momenta at once.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import MConFIG
    >>> agg, gradients = MConFIG(), jnp.array([[3.0, 0.0], [0.0, 1.0]])
    >>> state = agg.init(gradients)
    >>> for step in range(2):
    ...     index = step % 2
    ...     update, state = agg.update_one(gradients[index], index, state)
    >>> [round(float(v), 6) for v in update]
    [1.0, 1.0]

    ```
    """

    config: ConFIG = ConFIG()
    beta_1: float = 0.9
    beta_2: float = 0.999
    eps: float = 1e-8

    def init(self, jacobian):
        m = count_objectives(jacobian)
        dtype = result_type(jacobian)
        one = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), jacobian)
        return MomentumState(
            moments=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jacobian),
            counts=jnp.zeros(m, int),
            products=jnp.zeros((m, m), dtype),
            aggregate=one,
            square=one,
            step=jnp.array(0),
        )

    def update(self, jacobian, state: MomentumState, *, key=None):
        moments = jax.tree.map(self._average, state.moments, jacobian)
        return self._finish(moments, state.counts + 1, gramian(moments), state)

    def update_one(
        self, gradient: PyTree, index: int | Int[Array, ""], state: MomentumState
    ) -> tuple[PyTree, MomentumState]:
        """The update after one objective's gradient, and the state for the next one."""
        moment = jax.tree.map(lambda m, g: self._average(m[index], g), state.moments, gradient)
        moments = jax.tree.map(lambda m, new: m.at[index].set(new), state.moments, moment)
        # Only one row of the Gramian is new: one pass over the moments.
        row = gramian(jax.tree.map(lambda new: new[None], moment), moments)[0]
        products = state.products.at[index, :].set(row).at[:, index].set(row)
        return self._finish(moments, state.counts.at[index].add(1), products, state)

    def _average(self, moment, gradient):
        return self.beta_1 * moment + (1 - self.beta_1) * gradient

    def _finish(self, moments, counts, products, state):
        dtype = products.dtype
        complete = jnp.all(counts > 0)
        step = state.step + complete
        beta_1, beta_2 = jnp.asarray(self.beta_1, dtype), jnp.asarray(self.beta_2, dtype)
        debias = 1 / (1 - beta_1 ** jnp.maximum(counts, 1))
        weights = self.config.weights(checked(products) * debias[:, None] * debias) * debias
        aggregate = combine(weights, moments)
        first, second = 1 - beta_1**step, 1 - beta_2 ** jnp.maximum(step, 1)

        def momentum(g):
            return jnp.where(complete, first.astype(g.dtype) * g, 0)

        def second_moment(v, last, g):
            pseudo = (momentum(g) - self.beta_1 * last) / (1 - self.beta_1)
            return jnp.where(complete, self.beta_2 * v + (1 - self.beta_2) * pseudo**2, 0)

        def scaled(g, v):
            return jnp.where(complete, g / (jnp.sqrt(v / second.astype(g.dtype)) + self.eps), 0)

        square = jax.tree.map(second_moment, state.square, state.aggregate, aggregate)
        update = jax.tree.map(scaled, aggregate, square)
        aggregate = jax.tree.map(momentum, aggregate)
        return update, MomentumState(moments, counts, products, aggregate, square, step)
