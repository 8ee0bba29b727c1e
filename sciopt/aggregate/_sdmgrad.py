"""SDMGrad: the direction of MGDA kept near a preferred one, from sampled gradients.

Xiao, Ban and Ji, *Direction-oriented Multi-objective Learning: Simple and Provable Stochastic
Algorithms* (2023), algorithm 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._aggregator import (
    AbstractAggregator,
    checked,
    combine,
    count_objectives,
    gramian,
    result_type,
)
from ._mean import preference
from ._modo import onto_simplex


class SDMGrad(AbstractAggregator):
    r"""Weights near those of MGDA, with a pull towards a preferred combination.

    Projected gradient steps with momentum on $\min_{w \in \Delta} \frac12 \|J^\top (w + \lambda
    \tilde w)\|^2$, whose gradient is estimated by $J_1 J_2^\top (w + \lambda \tilde w)$ with two
    independent batches, from the last weights; the update is $J^\top \frac{w + \lambda \tilde
    w}{1 + \lambda}$ (algorithm 1). As in the authors' code the products are first divided by the
    square of the mean gradient norm, which makes the step size free of units.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | no | yes |

    Stateful: the state is $w$. Pass the second batch's Jacobian as `update(jacobian, state,
    other=...)`. Without it the one Jacobian serves for both, which is right for exact gradients and
    biased for sampled ones.

    **Arguments:**

    - `lr`, `momentum`, `n_iter`: of the inner steps.
    - `lambda_`: the pull $\lambda$.
    - `preference`: $\tilde w$, uniform by default.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import SDMGrad
    >>> u = SDMGrad(lambda_=0.0, lr=0.1, n_iter=500)(jnp.array([[2.0, 0.0], [0.0, 1.0]]))
    >>> [round(float(v), 6) for v in u]
    [0.4, 0.8]

    ```
    """

    lr: float = 10.0
    momentum: float = 0.5
    n_iter: int = 20
    lambda_: float = 0.3
    preference: Float[Array, " m"] | None = None

    def init(self, jacobian):
        m = count_objectives(jacobian)
        return jnp.full(m, 1 / m, result_type(jacobian))

    def update(self, jacobian, state, *, key=None, other=None):
        weights, state = self.reweigh(checked(gramian(jacobian, other)), state)
        return combine(weights, jacobian), state

    def reweigh(
        self, products: Float[Array, "m m"], last: Float[Array, " m"]
    ) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """The weights of the update and the next state, from $J_1 J_2^\\top$ and the last state."""
        m, dtype = products.shape[0], products.dtype
        pull = self.lambda_ * preference(self.preference, m, dtype, 1 / m)
        scale = jnp.mean(jnp.sqrt(jnp.maximum(jnp.diagonal(products), 0)))
        scaled = products / (scale**2 + 1e-8)

        def step(_, carry):
            w, velocity = carry
            velocity = self.momentum * velocity + scaled @ (w + pull)
            return onto_simplex(w - self.lr * velocity), velocity

        w, _ = jax.lax.fori_loop(0, self.n_iter, step, (last, jnp.zeros_like(last)))
        return (w + pull) / (1 + self.lambda_), w
