"""PCD: follow the primary objective, and leave each secondary one a share of its progress.

*Not All Objectives Are Born Equal: Priority-Constrained Descent for Hierarchical Multi-Objective
Optimization* (2026), arXiv:2606.29521.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._aggregator import (
    AbstractAggregator,
    checked,
    combine,
    count_objectives,
    gramian,
    result_type,
)
from ._mean import preference
from ._quadratic_program import nonnegative_minimiser


class PCDState(eqx.Module):
    square: Float[Array, " m"]
    step: Int[Array, ""]


class PCD(AbstractAggregator):
    r"""Priority-constrained descent: the first gradient, bent as little as the others demand.

    With the gradients scaled to $\tilde g_i = g_i / \sqrt{\hat v_i + \epsilon}$, $\hat v_i$ being
    the debiased moving average of $\|g_i\|^2$,

    $$\tilde d = \arg\min_d \tfrac12 \|d - \tilde g_1\|^2 \quad\text{subject to}\quad
    \tilde g_j^\top d \ge \tau_j \|\tilde g_j\|^2, \quad j \ge 2,$$

    then scaled to the length of $g_1$. Its dual is $\min_{\mu \ge 0} \frac12 \mu^\top \tilde G \mu
    - \sum_j \mu_j (\tau_j \tilde G_{jj} - \tilde G_{1j})$ over the secondary objectives, and
    $\tilde d = \tilde g_1 + \sum_j \mu_j \tilde g_j$. Where the constraints contradict each other
    they are dropped and the update is $g_1$; where $g_1$ or $\tilde d$ is zero, so is the update.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | with the secondary objectives, where feasible | at a first step | yes |

    Stateful: the state is the moving average.

    **Arguments:**

    - `tau`: the share, one number or one a secondary objective, in $[0, 1]$.
    - `beta`, `eps`: of the moving average and of its inverse root.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import PCD
    >>> u = PCD(tau=0.0)(jnp.array([[1.0, 1.0], [0.0, -1.0]]))
    >>> [round(float(v), 6) + 0.0 for v in u]
    [1.414214, 0.0]

    ```
    """

    tau: float | Float[Array, " secondary"] = 0.02
    beta: float = 0.999
    eps: float = 1e-8

    def init(self, jacobian):
        dtype = result_type(jacobian)
        return PCDState(jnp.zeros(count_objectives(jacobian), dtype), jnp.array(0))

    def update(self, jacobian, state: PCDState, *, key=None):
        products = checked(gramian(jacobian))
        m, dtype = products.shape[0], products.dtype
        squares = jnp.diagonal(products)
        step = state.step + 1
        average = self.beta * state.square + (1 - self.beta) * squares
        variance = average / (1 - jnp.asarray(self.beta, dtype) ** step) + self.eps
        scales = jnp.where(variance > 0, 1 / jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
        w = self._constrained(products * scales[:, None] * scales)
        # Squared length of the direction, and what rounding can leave of it.
        scaled = products * scales[:, None] * scales
        square = w @ scaled @ w
        rounding = 10 * jnp.finfo(dtype).eps * (w @ jnp.sqrt(jnp.diagonal(scaled))) ** 2
        moves = (square > rounding) & (squares[0] > 0)
        length = jnp.sqrt(squares[0] / jnp.where(moves, square, 1))
        weights = jnp.where(moves, w * scales * length, 0)
        return combine(weights.reshape(m), jacobian), PCDState(average, step)

    def _constrained(self, scaled):
        m, dtype = scaled.shape[0], scaled.dtype
        if m == 1:
            return jnp.ones(1, dtype)
        tau = self.tau if isinstance(self.tau, float | int) else 0.0
        tau = preference(None if isinstance(self.tau, float | int) else self.tau, m - 1, dtype, tau)
        secondary = scaled[1:, 1:]
        demand = tau * jnp.diagonal(secondary) - scaled[1:, 0]
        mu = nonnegative_minimiser(secondary, demand)
        largest = jnp.max(jnp.diagonal(scaled))
        # Contradictory constraints leave the dual unbounded, and its proximal steps short of them.
        tolerance = jnp.finfo(dtype).eps ** 0.5 * largest
        feasible = jnp.min(secondary @ mu - demand) >= -tolerance
        return jnp.concatenate([jnp.ones(1, dtype), jnp.where(feasible, mu, 0)])
