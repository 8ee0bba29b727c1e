"""CAGrad: the best worst objective within a ball around the mean gradient.

Liu, Liu, Jin, Stone and Liu, *Conflict-Averse Gradient Descent for Multi-task Learning* (2021),
algorithm 1.
"""

import jax
import jax.numpy as jnp

from ._aggregator import AbstractWeighting
from ._dualproj import normalised
from ._quadratic_program import minimum_norm_weights


class CAGrad(AbstractWeighting):
    r"""The update that helps the worst objective most, within a ball around the mean gradient.

    $\max_d \min_i g_i^\top d$ subject to $\|d - g_0\| \le c \|g_0\|$ with $g_0$ the mean gradient.
    The dual is $\min_w g_w^\top g_0 + \sqrt\phi \|g_w\|$ over the simplex, with $g_w = \sum_i w_i
    g_i$ and $\sqrt\phi = c \|g_0\|$, and then $d = g_0 + \frac{\sqrt\phi}{\|g_w\|} g_w$
    (algorithm 1).

    Since $\|g_w\| = \min_{t > 0} \frac12 (\|g_w\|^2 / t + t)$, the dual at a fixed $t = \sqrt\phi\,
    \tau$ is the shortest convex combination of the shifted gradients $g_i + \tau g_0$, the
    quadratic program of MGDA, and the best $\tau$ has $\|g_{w(\tau)}\| = \sqrt\phi\, \tau$. The
    difference of the two sides changes sign once, so $\tau$ is found by Newton's method inside a
    bracket: each piece of $\|g_{w(\tau)}\|^2$ is quadratic, and on the right piece Newton ends in a
    few steps.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | for $c \ge 1$ | no | yes |

    **Arguments:**

    - `c`: the radius of the ball, in units of $\|g_0\|$.
    - `norm_eps`: at unit trace of the Gramian, $\|g_w\|$ below this counts as Pareto stationary and
        gives a zero update.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import CAGrad
    >>> u = CAGrad(c=0.0)(jnp.array([[1.0, 0.0], [0.0, 3.0]]))
    >>> [round(float(v), 12) for v in u]
    [0.5, 1.5]

    ```
    """

    c: float
    norm_eps: float = 1e-4

    def __check_init__(self):
        if self.c < 0:
            raise ValueError(f"CAGrad wants c >= 0, not {self.c}.")

    def weights(self, gramian, *, key=None):
        m, dtype = gramian.shape[0], gramian.dtype
        matrix = normalised(gramian, self.norm_eps)
        mean = jnp.full(m, 1 / m, dtype)
        mean_square = jnp.maximum(mean @ matrix @ mean, 0)
        positive = mean_square > 0
        radius = self.c * jnp.sqrt(jnp.where(positive, mean_square, 1)) * positive

        def dual(tau):
            shift = jnp.eye(m, dtype=dtype) + tau / m
            return minimum_norm_weights(shift.T @ matrix @ shift)

        def excess(tau):
            w = dual(tau)
            return w @ matrix @ w - (radius * tau) ** 2

        # ||g_w|| is at most one, so the root is below 1 / radius.
        top = 1 / jnp.where(radius > 0, radius, 1)

        def narrow(carry):
            low, high, tau, steps, _ = carry
            value, slope = jax.jvp(excess, (tau,), (jnp.ones_like(tau),))
            low, high = jnp.where(value > 0, tau, low), jnp.where(value > 0, high, tau)
            newton = tau - value / slope
            inside = (newton >= low) & (newton <= high)  # False for NaN, too.
            following = jnp.where(inside, newton, (low + high) / 2)
            # Newton squares the relative error: one step as short as this was the last to matter.
            moved = jnp.abs(following - tau) > jnp.finfo(dtype).eps ** 0.5 * high
            return low, high, following, steps + 1, moved & (value != 0)

        def unfinished(carry):
            *_, steps, moving = carry
            return moving & (steps < 100)

        start = (jnp.zeros_like(top), top, top, jnp.zeros((), jnp.int32), jnp.array(True))
        _, _, tau, _, _ = jax.lax.while_loop(unfinished, narrow, start)
        w = dual(tau)
        square = w @ matrix @ w
        stationary = square < self.norm_eps**2
        length = jnp.sqrt(jnp.where(stationary, 1, square))
        return jnp.where(stationary, 0, mean + radius / length * w)
