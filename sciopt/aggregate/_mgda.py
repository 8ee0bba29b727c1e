"""MGDA: the shortest convex combination of the gradients.

Desideri, *Multiple-gradient descent algorithm (MGDA) for multiobjective optimization* (2012).
"""

from ._aggregator import AbstractWeighting
from ._quadratic_program import minimum_norm_weights


class MGDA(AbstractWeighting):
    r"""The shortest convex combination of the gradients.

    $\omega = \arg\min \|u\|$ over the convex hull of the gradients: its product with every
    gradient is at least $\|\omega\|^2$, and it is zero at Pareto-stationary points. The quadratic
    program over the simplex is solved exactly, not by the Frank-Wolfe steps of Sener and Koltun
    (2018, algorithm 2).

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | yes | no | yes |

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import MGDA
    >>> u = MGDA()(jnp.array([[2.0, 0.0], [0.0, 1.0]]))
    >>> [round(float(v), 12) for v in u]
    [0.4, 0.8]

    ```
    """

    def weights(self, gramian, *, key=None):
        return minimum_norm_weights(gramian)
