"""CR-MOGM: smoothed weights.

Zhou, Zhang, Jiang, Zhong, Gu and Zhu, *On the Convergence of Stochastic Multi-Objective Gradient
Manipulation and Beyond* (2022).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._aggregator import (
    AbstractAggregator,
    AbstractWeighting,
    checked,
    combine,
    count_objectives,
    gramian,
    result_type,
)
from ._mean import preference


class SmoothedState(eqx.Module):
    weights: Float[Array, " m"]
    started: Bool[Array, ""]


class CRMOGM(AbstractAggregator):
    r"""Another method's weights, averaged over the steps.

    $\lambda_k = \alpha \lambda_{k-1} + (1 - \alpha) \hat\lambda_k$ with $\hat\lambda_k$ the weights
    of the wrapped method, and $\lambda_0 = \hat\lambda_1$ unless given: the correction that makes
    stochastic multi-gradient methods converge.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | no | yes |

    Stateful: the state is $\lambda$.

    **Arguments:**

    - `weighting`: the wrapped method, one that has `weights`.
    - `alpha`: $\alpha$. The paper lets it grow as the learning rate falls: pass an array and
        replace it with `equinox.tree_at`.
    - `initial_weights`: $\lambda_0$.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import CRMOGM, MGDA
    >>> agg = CRMOGM(MGDA(), alpha=0.5)
    >>> state = agg.init(jnp.eye(2))
    >>> for scale in (1.0, 3.0):
    ...     jacobian = jnp.diag(jnp.array([1.0, scale**0.5]))
    ...     update, state = agg.update(jacobian, state)
    >>> [round(float(v), 12) for v in state.weights]
    [0.625, 0.375]

    ```
    """

    weighting: AbstractWeighting
    alpha: float | Float[Array, ""] = 0.9
    initial_weights: Float[Array, " m"] | None = None

    def init(self, jacobian):
        m, dtype = count_objectives(jacobian), result_type(jacobian)
        weights = preference(self.initial_weights, m, dtype, 0.0)
        return SmoothedState(weights, jnp.array(self.initial_weights is not None))

    def update(self, jacobian, state: SmoothedState, *, key=None):
        newest = self.weighting.weights(checked(gramian(jacobian)), key=key)
        last = jnp.where(state.started, state.weights, newest)
        weights = self.alpha * last + (1 - self.alpha) * newest
        return combine(weights, jacobian), SmoothedState(weights, jnp.array(True))
