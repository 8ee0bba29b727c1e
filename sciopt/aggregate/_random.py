"""Random loss weighting.

Lin, Ye, Zhang and Tsang, *Reasonable Effectiveness of Random Weighting: A Litmus Test for
Multi-Task Learning* (2022), algorithm 2.
"""

import jax

from ._aggregator import AbstractWeighting, combine, count_objectives, required, result_type


class Random(AbstractWeighting):
    r"""Weights that are the softmax of independent standard normals, drawn anew each step.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | yes | yes |

    Random: wants a `key`.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from sciopt.aggregate import Random
    >>> u = Random()(jnp.eye(3), key=jax.random.key(0))
    >>> round(float(u.sum()), 12)
    1.0

    ```
    """

    def weights(self, gramian, *, key=None):
        return self._draw(gramian.shape[0], gramian.dtype, key)

    def update(self, jacobian, state, *, key=None):
        dtype = result_type(jacobian)
        return combine(self._draw(count_objectives(jacobian), dtype, key), jacobian), state

    def _draw(self, m, dtype, key):
        return jax.nn.softmax(jax.random.normal(required(key, self), (m,), dtype))
