"""Fixed weights."""

import jax.numpy as jnp

from ._aggregator import AbstractWeighting


class Mean(AbstractWeighting):
    """The mean of the gradients: gradient descent on the mean of the objectives.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | yes | yes |

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import Mean
    >>> Mean()(jnp.array([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [0.5, 1.5]

    ```
    """

    def weights(self, gramian, *, key=None):
        m = gramian.shape[0]
        return jnp.full(m, 1 / m, gramian.dtype)
