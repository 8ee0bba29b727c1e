"""Aligned-MTL: gradients made orthogonal and of equal length.

Senushkin, Patakin, Kuznetsov and Konushin, *Independent Component Alignment for Multi-Task
Learning* (2023), algorithm 1.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._aggregator import AbstractWeighting
from ._mean import preference


class AlignedMTL(AbstractWeighting):
    r"""The combination of the gradients after aligning their principal components.

    With $G = V \Lambda V^\top$ of rank $r$, the weights are $\sigma V_r \Lambda_r^{-1/2} V_r^\top
    p$: the gradient matrix becomes the nearest one of condition number one, times a scale $\sigma$
    (algorithm 1). The paper's $\sigma$ is the smallest singular value, $\sqrt{\lambda_r}$.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | no | yes |

    **Arguments:**

    - `preference`: the weights $p$, uniform by default.
    - `scale_mode`: $\sigma^2$ is the smallest (`"min"`), the lower median (`"median"`) or the mean
        (`"rmse"`) of the nonzero eigenvalues.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import AlignedMTL
    >>> u = AlignedMTL()(jnp.array([[4.0, 0.0], [0.0, 2.0]]))
    >>> [round(float(v), 12) for v in u]
    [1.0, 1.0]

    ```
    """

    preference: Float[Array, " m"] | None = None
    scale_mode: Literal["min", "median", "rmse"] = "min"

    def __check_init__(self):
        if self.scale_mode not in ("min", "median", "rmse"):
            raise ValueError(
                f"AlignedMTL's scale_mode is 'min', 'median' or 'rmse', not {self.scale_mode!r}."
            )

    def weights(self, gramian, *, key=None):
        m, dtype = gramian.shape[0], gramian.dtype
        p = preference(self.preference, m, dtype, 1 / m)
        eigenvalues, vectors = jnp.linalg.eigh(gramian)
        kept = eigenvalues > jnp.max(eigenvalues) * m * jnp.finfo(dtype).eps
        rank = jnp.sum(kept)
        if self.scale_mode == "min":
            square = eigenvalues[m - rank]
        elif self.scale_mode == "median":
            square = eigenvalues[m - rank + (rank - 1) // 2]
        else:
            square = jnp.sum(jnp.where(kept, eigenvalues, 0)) / rank
        ratio = jnp.where(kept, square / jnp.where(kept, eigenvalues, 1), 0)
        aligned = vectors @ (jnp.sqrt(ratio) * (vectors.T @ p))
        return jnp.where(rank > 0, aligned, p)
