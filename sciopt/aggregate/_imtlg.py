"""IMTL-G: the update whose projections on all gradients are equal.

Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, *Towards Impartial Multi-task Learning* (2021),
in the form that Quinton and Rey (2024) give it for dependent gradients.
"""

import jax.numpy as jnp

from ._aggregator import AbstractWeighting


class IMTLG(AbstractWeighting):
    r"""The affine combination of the gradients with equal projections on all of them.

    $u^\top \frac{g_i}{\|g_i\|}$ is the same for all $i$ where $G w \propto d$ with $d_i
    = \|g_i\|$: $w = v / \sum v$ with $v = G^{+} d$.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no: the equal projections may be negative | no | yes |

    Where $\sum v$ vanishes there is no such combination and the update is zero.

    **Arguments:**

    - `rtol`: eigenvalues of $G$ below this fraction of the largest count as zero; $m \epsilon$ by
        default.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import IMTLG
    >>> u = IMTLG()(jnp.array([[3.0, 0.0], [0.0, 1.0]]))
    >>> [round(float(v), 12) for v in u]
    [0.75, 0.75]

    ```
    """

    rtol: float | None = None

    def weights(self, gramian, *, key=None):
        m = gramian.shape[0]
        rtol = m * jnp.finfo(gramian.dtype).eps if self.rtol is None else self.rtol
        squares = jnp.diagonal(gramian)
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        v = jnp.linalg.pinv(gramian, rtol=rtol, hermitian=True) @ norms
        total = jnp.sum(v)
        vanishes = jnp.abs(total) < 1e-12
        return jnp.where(vanishes, 0, v / jnp.where(vanishes, 1, total))
