"""Nash-MTL: the Nash bargaining solution between the objectives.

Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik and Fetaya, *Multi-Task Learning as a
Bargaining Game* (2022), claim 3.1 and algorithm 1.
"""

import jax.numpy as jnp

from ._aggregator import AbstractWeighting
from ._fairgrad import fair_weights


class NashMTL(AbstractWeighting):
    r"""The Nash bargaining solution: the update of the largest product of the gains.

    The weights are the positive solution of $G \alpha = 1 / \alpha$ (claim 3.1). The paper
    approaches it by a sequence of convex programs; but it is the optimality condition of the
    strictly convex $\frac12 \alpha^\top G \alpha - \sum_i \log \alpha_i$, whose Newton iteration
    converges to rounding.

    As in the authors' code $G$ is first scaled to unit Frobenius norm, and an update longer than
    `max_norm` is shortened to it; `max_norm=0` leaves it as it is.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | yes | no | yes |

    There is no bargain where some convex combination of the gradients is zero (a Pareto-stationary
    point, one zero gradient included): the update is then zero.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import NashMTL
    >>> u = NashMTL(max_norm=0.5)(jnp.array([[3.0, 0.0], [0.0, 4.0]]))
    >>> [round(float(v / u[0]), 12) for v in u]
    [1.0, 1.0]

    ```
    """

    max_norm: float = 1.0

    def weights(self, gramian, *, key=None):
        frobenius = jnp.linalg.norm(gramian)
        frobenius = jnp.where(frobenius > 0, frobenius, 1)
        alpha, found = fair_weights(gramian / frobenius, 1.0)
        alpha = jnp.where(found, alpha, 0)
        if self.max_norm > 0:
            square = jnp.maximum(alpha @ gramian @ alpha, self.max_norm**2)
            alpha = alpha * self.max_norm / jnp.sqrt(square)
        return alpha
