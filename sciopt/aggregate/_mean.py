"""Fixed weights."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._aggregator import AbstractWeighting, combine, count_objectives, result_type


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

    def update(self, jacobian, state, *, key=None):
        m = count_objectives(jacobian)
        return combine(jnp.full(m, 1 / m, result_type(jacobian)), jacobian), state


class Sum(AbstractWeighting):
    """The sum of the gradients: gradient descent on the sum of the objectives.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | yes | yes |

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import Sum
    >>> Sum()(jnp.array([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [1.0, 3.0]

    ```
    """

    def weights(self, gramian, *, key=None):
        return jnp.ones(gramian.shape[0], gramian.dtype)

    def update(self, jacobian, state, *, key=None):
        # A product, because XLA's CPU reduction over the leading axis is tens of times slower.
        return combine(jnp.ones(count_objectives(jacobian), result_type(jacobian)), jacobian), state


class Constant(AbstractWeighting):
    """Weights chosen beforehand.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | yes | yes |

    **Raises:** `ValueError` where the number of weights is not the number of objectives.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import Constant
    >>> Constant(jnp.array([1.0, 2.0]))(jnp.array([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [1.0, 6.0]

    ```
    """

    values: Float[Array, " m"] = eqx.field(converter=jnp.asarray)

    def weights(self, gramian, *, key=None):
        return preference(self.values, gramian.shape[0], gramian.dtype)

    def update(self, jacobian, state, *, key=None):
        m = count_objectives(jacobian)
        return combine(preference(self.values, m, result_type(jacobian)), jacobian), state


def preference(values: Any, m: int, dtype: Any, default: float = 1.0) -> Float[Array, " m"]:
    """The relative weights that the user prefers, all `default` where none are given."""
    if values is None:
        return jnp.full(m, default, dtype)
    values = jnp.asarray(values, dtype)
    if values.shape != (m,):
        raise ValueError(f"{m} objectives want weights of shape ({m},), not {values.shape}.")
    return values
