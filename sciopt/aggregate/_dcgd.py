"""Dual cone gradient descent, for two objectives.

Hwang and Lim, *Dual Cone Gradient Descent for Training Physics-Informed Neural Networks* (2024),
the variants DCGD (Projection), DCGD (Average) and DCGD (Center).
"""

from typing import Literal

import jax.numpy as jnp

from ._aggregator import AbstractWeighting
from ._quadratic_program import unit_gramian


class DCGD(AbstractWeighting):
    r"""An update in the dual cone of two gradients: no angle to either beyond a right one.

    With $s = g_1 + g_2$ and $g_{i \perp j}$ the part of $g_i$ that is normal to $g_j$:

    - `"projection"`: $s$ where it lies in the dual cone, or else the closest point there, which is
        $g_{1 \perp 2}$ or $g_{2 \perp 1}$;
    - `"average"`: $s$ where it lies in the dual cone, or else the mean of $g_{1 \perp 2}$ and $g_{2
        \perp 1}$;
    - `"center"`: the projection of $s$ onto the bisector $b = \frac{g_1}{\|g_1\|} +
        \frac{g_2}{\|g_2\|}$, $\frac{s^\top b}{\|b\|^2} b$.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | yes | the center variant | yes |

    Opposed gradients leave only the zero update in the cone, as far as the span of the two goes. A
    zero gradient is left out.

    **Raises:** `ValueError` unless there are two objectives. For more, the projection is
    [`sciopt.aggregate.DualProj`][] and a bisector is [`sciopt.aggregate.ConFIG`][].

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import DCGD
    >>> u = DCGD("projection")(jnp.array([[1.0, 0.0], [-3.0, 1.0]]))
    >>> [round(float(v), 12) for v in u]
    [0.0, 1.0]

    ```
    """

    variant: Literal["projection", "average", "center"] = "center"

    def __check_init__(self):
        if self.variant not in ("projection", "average", "center"):
            raise ValueError(
                f"DCGD's variant is 'projection', 'average' or 'center', not {self.variant!r}."
            )

    def weights(self, gramian, *, key=None):
        if gramian.shape[0] != 2:
            raise ValueError(
                f"DCGD reduces two objectives, not {gramian.shape[0]}; for more there are DualProj "
                "and ConFIG."
            )
        if self.variant == "center":
            return _bisector(gramian)
        products = jnp.sum(gramian, axis=1)
        squares = jnp.diagonal(gramian)
        # Adding these multiples of the other gradient makes each normal to it.
        normal = -gramian[0, 1] / jnp.where(squares > 0, squares, 1)
        if self.variant == "projection":
            return 1 + jnp.where(products < 0, normal - 1, 0)
        return jnp.where(jnp.any(products < 0), (1 + normal) / 2, 1)


def _bisector(gramian):
    r"""$\frac{s^\top b}{\|b\|^2}$ is $\frac12 (\|g_1\| + \|g_2\|)$, whatever the angle."""
    unit, norms = unit_gramian(gramian)
    opposed = 1 + unit[0, 1] <= 4 * jnp.finfo(gramian.dtype).eps
    both = jnp.min(norms) > 0
    weights = jnp.where(both, jnp.mean(norms) / jnp.where(norms > 0, norms, 1), 1)
    return jnp.where(opposed, 0, weights)
