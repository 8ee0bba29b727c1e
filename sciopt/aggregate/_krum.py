"""Krum and Multi-Krum: the gradients closest to their neighbours.

Blanchard, El Mhamdi, Guerraoui and Stainer, *Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent* (2017).
"""

import jax
import jax.numpy as jnp

from ._aggregator import AbstractWeighting


class Krum(AbstractWeighting):
    r"""The mean of the gradients that lie closest to their neighbours.

    The score of gradient $i$ is $s(i) = \sum_{i \to j} \|g_i - g_j\|^2$ over its $m - f - 2$
    closest gradients; the `n_selected` lowest scores are averaged (Multi-Krum for more than one).

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | no | yes |

    **Arguments:**

    - `n_byzantine`: $f$, how many gradients may be hostile.
    - `n_selected`: how many gradients to average.
    - `power`: of the distances in the score; 2 in the paper, 1 in TorchJD.

    **Raises:** `ValueError` for fewer than $f + 3$ or `n_selected` objectives.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import Krum
    >>> Krum(n_byzantine=1)(jnp.array([[1.0], [1.2], [1.3], [1.9], [9.0]])).tolist()
    [1.2]

    ```
    """

    n_byzantine: int
    n_selected: int = 1
    power: float = 2

    def __check_init__(self):
        if self.n_byzantine < 0 or self.n_selected < 1:
            raise ValueError(
                "Krum wants n_byzantine >= 0 and n_selected >= 1, not "
                f"{self.n_byzantine} and {self.n_selected}."
            )

    def weights(self, gramian, *, key=None):
        m = gramian.shape[0]
        least = max(self.n_byzantine + 3, self.n_selected)
        if m < least:
            raise ValueError(f"{self} needs at least {least} objectives, not {m}.")
        squares = jnp.diagonal(gramian)
        distances = jnp.maximum(squares[:, None] + squares - 2 * gramian, 0)
        # A gradient is no neighbour of itself, however rounding leaves that distance.
        distances = jnp.where(jnp.eye(m, dtype=bool), jnp.inf, distances)
        closest, _ = jax.lax.top_k(-distances, m - self.n_byzantine - 2)
        scores = jnp.sum((-closest) ** (self.power / 2), axis=1)
        _, selected = jax.lax.top_k(-scores, self.n_selected)
        return jnp.zeros(m, gramian.dtype).at[selected].set(1 / self.n_selected)
