"""FairGrad: the update of alpha-fair gains.

Ban and Ji, *Fair Resource Allocation in Multi-Task Learning* (2024), equation (4).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._aggregator import AbstractWeighting


class FairGrad(AbstractWeighting):
    r"""The update that maximises the alpha-fair sum of the objectives' gains.

    The weights solve $G w = w^{-1/\alpha}$ elementwise (equation 4): $\alpha = 1$ is the
    proportional fairness of [`sciopt.aggregate.NashMTL`][], $\alpha \to \infty$ helps the worst
    objective only, $\alpha = 0$ is the mean.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | yes, for $\alpha > 0$ | no | yes |

    The equation has no solution where some convex combination of the gradients is zero (a
    Pareto-stationary point, one zero gradient included): the update is then zero.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import FairGrad
    >>> u = FairGrad(alpha=1.0)(jnp.array([[2.0, 0.0], [0.0, 0.5]]))
    >>> [round(float(v), 12) for v in u]
    [1.0, 1.0]

    ```
    """

    alpha: float

    def __check_init__(self):
        if self.alpha < 0:
            raise ValueError(f"FairGrad wants alpha >= 0, not {self.alpha}.")

    def weights(self, gramian, *, key=None):
        m = gramian.shape[0]
        if self.alpha == 0:
            return jnp.full(m, 1 / m, gramian.dtype)
        w, found = fair_weights(gramian, 1 / self.alpha)
        return jnp.where(found, w, 0)


def fair_weights(
    gramian: Float[Array, "m m"], power: float
) -> tuple[Float[Array, " m"], Bool[Array, ""]]:
    r"""The positive solution of $G w = w^{-p}$, and whether there is one.

    It is the minimiser of the convex function $\frac12 w^\top G w - \sum_i \int^{w_i} s^{-p}
    \mathrm ds$, found by Newton's method. With $D = \operatorname{diag}(w)$ and $\theta_i =
    w_i^{1-p}$ the step is $\Delta w = D s$ with $(D G D + p\, \operatorname{diag}\theta) s = \theta
    - D G w$: positive definite also for a singular $G$. A step is shortened until the weights stay
    positive and the slope along it has not turned to more than half the descent it started from.
    """
    m, dtype = gramian.shape[0], gramian.dtype
    eps = jnp.finfo(dtype).eps
    largest = jnp.max(jnp.diagonal(gramian))
    scale = jnp.where(largest > 0, largest, 1)
    # Each gradient alone would have w = ||g||^(-2 / (1 + p)).
    squares = jnp.maximum(jnp.diagonal(gramian), eps * scale)
    start = (m * squares) ** (-1 / (1 + power))

    def descent(w):
        return w ** (-power) - gramian @ w

    def imbalance(w):
        return jnp.max(jnp.abs(1 - w**power * (gramian @ w)))

    def newton(carry):
        w, steps, _ = carry
        theta = w ** (1 - power)
        hessian = w[:, None] * gramian * w + power * jnp.diag(theta)
        size = jnp.sqrt(jnp.diagonal(hessian))
        factor = jax.scipy.linalg.cho_factor(hessian / size[:, None] / size, lower=True)
        s = jax.scipy.linalg.cho_solve(factor, w * descent(w) / size) / size
        slope = jnp.sum(s * w * descent(w))
        longest = jnp.minimum(1, 0.9 / jnp.max(jnp.maximum(-s, 0.9)))

        def overshoots(t):
            after = jnp.sum(s * w * descent(w + t * w * s))
            return (after < -0.5 * slope) & (t > 1e-3)

        t = jax.lax.while_loop(overshoots, lambda t: t / 2, longest)
        w = w + t * w * s
        return w, steps + 1, jnp.max(jnp.abs(t * s))

    def unfinished(carry):
        _, steps, change = carry
        return (change > 4 * eps) & (steps < 100)

    init = (start, jnp.zeros((), jnp.int32), jnp.ones((), dtype))
    w, _, _ = jax.lax.while_loop(unfinished, newton, init)
    return w, imbalance(w) < eps**0.5
