"""DualProj: the mean gradient projected onto the dual cone.

Lopez-Paz and Ranzato, *Gradient Episodic Memory for Continual Learning* (2017), equation (11).
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._aggregator import AbstractWeighting
from ._mean import preference
from ._quadratic_program import nonnegative_minimiser


class DualProj(AbstractWeighting):
    r"""The update closest to the mean gradient that conflicts with no gradient.

    $\pi_J(J^\top p)$, the projection of the mean ($p_i = 1/m$) onto $\{x : J x \ge 0\}$, which is
    $J^\top v$ with $v = \arg\min_{v \ge p} v^\top G v$ (equation 11 and its dual, with the past
    tasks' gradients in $J$).

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | yes | no | yes |

    Non-conflict holds up to `reg_eps`.

    **Arguments:**

    - `preference`: the weights $p$, uniform by default.
    - `norm_eps`: a squared Frobenius norm of $J$ below this counts as zero.
    - `reg_eps`: added to the diagonal of the Gramian after scaling it to unit trace.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import DualProj
    >>> u = DualProj(reg_eps=0.0)(jnp.array([[1.0, 0.0], [-3.0, 1.0]]))
    >>> [round(float(v), 12) for v in u]
    [0.0, 0.5]

    ```
    """

    preference: Float[Array, " m"] | None = None
    norm_eps: float = 1e-4
    reg_eps: float = 1e-4

    def weights(self, gramian, *, key=None):
        p, matrix, steps = dual_cone_program(self, gramian)
        return p + nonnegative_minimiser(matrix, -matrix @ p, proximal_steps=steps)


def normalised(gramian: Float[Array, "m m"], norm_eps: float) -> Float[Array, "m m"]:
    """The Gramian at unit trace, or zero where its trace is below `norm_eps`."""
    trace = jnp.trace(gramian)
    small = trace < norm_eps
    return jnp.where(small, 0, gramian / jnp.where(small | (trace == 0), 1, trace))


def dual_cone_program(
    aggregator: Any, gramian: Float[Array, "m m"]
) -> tuple[Float[Array, " m"], Float[Array, "m m"], int]:
    """What a projection onto the dual cone wants: the preference, the Gramian at unit trace with
    `reg_eps` added to the diagonal, and how many proximal steps that leaves to be made."""
    m, reg_eps = gramian.shape[0], aggregator.reg_eps
    p = preference(aggregator.preference, m, gramian.dtype, 1 / m)
    matrix = normalised(gramian, aggregator.norm_eps) + reg_eps * jnp.eye(m, dtype=gramian.dtype)
    return p, matrix, 0 if reg_eps >= 1e-6 else 4
