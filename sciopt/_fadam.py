"""FAdam: Adam as a natural gradient with the diagonal of the empirical Fisher information.

Follows Hwang, *FAdam: Adam is a natural gradient optimizer using diagonal empirical Fisher
information* (2024), algorithm 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree


class FAdamState(NamedTuple):
    """How many steps there were; the momentum $m$; the diagonal Fisher information $f$."""

    steps: Int[Array, ""]
    momentum: PyTree
    fisher: PyTree


def fadam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps2: float = 0.01,
    clip: float = 1.0,
    weight_decay: float = 1e-3,
    power: float = 0.5,
) -> optax.GradientTransformation:
    r"""Fisher Adam (Hwang 2024, algorithm 1), as an optax transformation.

    For each parameter array with gradient $g_t$, where RMS is over the array,

    $$\hat\beta_2 = \beta_2 \frac{1 - \beta_2^{t-1}}{1 - \beta_2^t}, \quad
    f_t = \hat\beta_2 f_{t-1} + (1 - \hat\beta_2) g_t^2, \quad
    \hat\epsilon = \min(\epsilon, \epsilon_2 \operatorname{RMS}(g_t)),$$

    the natural gradient $\bar g_t = g_t / (f_t^\rho + \hat\epsilon^{2\rho})$ and the natural
    weights $\bar g_w = \theta_{t-1} / (f_t^\rho + \hat\epsilon^{2\rho})$ are each divided by
    $\max(1, \operatorname{RMS} / c)$, and

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1) \hat g_t, \quad
    \theta_t = \theta_{t-1} - \eta (m_t + \lambda \hat g_w).$$

    The momentum is of natural gradients, not of gradients as in Adam. Where the gradient is zero
    the natural gradient is zero.

    **Arguments:**

    - `learning_rate`: $\eta$, a number or an optax schedule.
    - `b1`, `b2`, `eps`, `eps2`, `clip`, `weight_decay`, `power`: $\beta_1$, $\beta_2$, $\epsilon$,
        $\epsilon_2$, $c$, $\lambda$ and $\rho$.

    **Raises:** `ValueError` in `update` without `params`, if there is weight decay.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, optax, sciopt
        >>> loss = lambda x: jnp.sum((x - jnp.array([1.0, -2.0])) ** 2)
        >>> optimizer = sciopt.fadam(0.1, weight_decay=0.0)
        >>> x = jnp.zeros(2)
        >>> @jax.jit
        ... def step(x, state):
        ...     updates, state = optimizer.update(jax.grad(loss)(x), state, x)
        ...     return optax.apply_updates(x, updates), state
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     x, state = step(x, state)
        >>> bool(loss(x) < 1e-2)
        True

        ```
    """

    def init(params):
        zeros, ones = (jax.tree.map(f, params) for f in (jnp.zeros_like, jnp.ones_like))
        return FAdamState(jnp.array(0), zeros, ones)

    def update(updates, state: Any, params=None):
        if weight_decay and params is None:
            raise ValueError("fadam decays weights, and its update needs the params.")
        count = state.steps + 1
        decay = b2 * (1 - b2 ** (count - 1)) / (1 - b2**count)

        def rms(x):
            return jnp.sqrt(jnp.mean(x**2))

        def natural(x, scale):
            # Zero over zero is a parameter that the loss does not depend on.
            x = x / jnp.where(scale == 0, 1, scale)
            return x / jnp.maximum(1, rms(x) / clip)

        def of_array(g, m, f, w):
            f = decay.astype(g.dtype) * f + (1 - decay).astype(g.dtype) * g**2
            scale = f**power + jnp.minimum(eps, eps2 * rms(g)) ** (2 * power)
            m = b1 * m + (1 - b1) * natural(g, scale)
            return (m + weight_decay * natural(w, scale) if weight_decay else m), m, f

        trees = updates, state.momentum, state.fisher, updates if params is None else params
        new = jax.tree.map(of_array, *trees)
        step, momentum, fisher = jax.tree.transpose(
            jax.tree.structure(updates), jax.tree.structure((0, 0, 0)), new
        )
        return step, FAdamState(count, momentum, fisher)

    return optax.chain(
        optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate)
    )
