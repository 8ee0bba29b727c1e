"""MoDo: multi-objective descent with double sampling.

Chen, Fernando, Ying and Chen, *Three-Way Trade-Off in Multi-Objective Learning: Optimization,
Generalization and Conflict-Avoidance* (2024), algorithm 1.
"""

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


class MoDo(AbstractAggregator):
    r"""Weights that take one projected-gradient step towards those of MGDA at each update.

    $\lambda \leftarrow \Pi_\Delta\big(\lambda - \gamma (J_1 J_2^\top \lambda + \rho \lambda)\big)$,
    with $\Pi_\Delta$ the projection onto the simplex and $J_1$, $J_2$ from independent batches, so
    that the product is an unbiased estimate.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | no | yes |

    Stateful: the state is $\lambda$. Pass the second batch's Jacobian as `update(jacobian, state,
    other=...)`. Without it the one Jacobian serves for both, which is right for exact gradients and
    biased for sampled ones.

    **Arguments:**

    - `gamma`: $\gamma$, the step size of the weights.
    - `rho`: $\rho$, the regularisation.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import MoDo
    >>> u = MoDo(gamma=0.1, rho=0.0)(jnp.array([[2.0, 0.0], [0.0, 1.0]]))
    >>> [round(float(v), 12) for v in u]
    [0.85, 0.575]

    ```
    """

    gamma: float = 0.1
    rho: float = 0.1

    def init(self, jacobian):
        m = count_objectives(jacobian)
        return jnp.full(m, 1 / m, result_type(jacobian))

    def update(self, jacobian, state, *, key=None, other=None):
        weights = self.reweigh(checked(gramian(jacobian, other)), state)
        return combine(weights, jacobian), weights

    def reweigh(
        self, products: Float[Array, "m m"], weights: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        """The next weights, from $J_1 J_2^\\top$ and the last ones."""
        gradient = products @ weights + self.rho * weights
        return onto_simplex(weights - self.gamma * gradient)


def onto_simplex(point: Float[Array, " m"]) -> Float[Array, " m"]:
    r"""The closest point with $\alpha \ge 0$, $\sum \alpha = 1$ (Held, Wolfe and Crowder, 1974)."""
    m = point.shape[0]
    ordered = jnp.sort(point)[::-1]
    thresholds = (jnp.cumsum(ordered) - 1) / jnp.arange(1, m + 1, dtype=point.dtype)
    # The positive entries are the first ones, as many as exceed their own threshold.
    count = jnp.sum(ordered > thresholds)
    return jnp.maximum(point - thresholds[count - 1], 0)
