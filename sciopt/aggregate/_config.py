"""ConFIG: the update of equal cosine with every gradient.

Liu, Chu and Thuerey, *ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks*
(2025), equations (2) and (3).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._aggregator import AbstractWeighting
from ._mean import preference
from ._quadratic_program import unit_gramian


class ConFIG(AbstractWeighting):
    r"""The update that makes an equal angle with every gradient, as long as their projections.

    With $U$ the matrix of unit gradients, the paper's update is $g_c = \big(\sum_i g_i^\top
    g_u\big)\, g_u$ with $g_u$ the unit vector along $x = U^{+} \mathbf 1$ (equations 2 and 3). It
    needs no pseudo-inverse of $U$: $U^{+} = U^\top (U U^\top)^{+}$, so with the unit Gramian $C = U
    U^\top$ and $c = C^{+} \mathbf 1$

    $$x = U^\top c, \quad \|x\|^2 = c^\top C c, \quad \sum_i g_i^\top x = \sum_i \|g_i\| (C c)_i,$$

    and the weight of gradient $i$ is $\frac{\sum_j \|g_j\| (C c)_j}{c^\top C c}
    \frac{c_i}{\|g_i\|}$. Duplicated gradients keep the meaning that the pseudo-inverse gives them.
    A zero gradient has no direction and is left out.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | yes, for independent gradients | yes | yes |

    Dependent gradients may admit no equal angle (three in a plane, say); the update is then the
    least-squares one and may conflict. Where no cosine but zero is possible (two opposed
    gradients), it is zero.

    The Gramian squares the condition number $\kappa$ of $U$: the update is accurate to about
    $\epsilon \kappa^2$, and directions of $U$ with singular values below $\sqrt{\text{rtol}}$ of
    the largest count as absent. A pseudo-inverse of $U$ resolves more, at many times the cost.

    **Arguments:**

    - `preference`: the relative cosines wanted, all one by default.
    - `rtol`: eigenvalues of $C$ below this fraction of the largest count as zero; $10 m \epsilon$
        by default.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import ConFIG
    >>> u = ConFIG()(jnp.array([[3.0, 0.0], [0.0, 1.0]]))
    >>> [round(float(v), 12) for v in u]
    [2.0, 2.0]

    ```
    """

    preference: Float[Array, " m"] | None = None
    rtol: float | None = None

    def weights(self, gramian, *, key=None):
        m, dtype = gramian.shape[0], gramian.dtype
        unit, norms = unit_gramian(gramian)
        rtol = 10 * m * jnp.finfo(dtype).eps if self.rtol is None else self.rtol
        cosines = preference(self.preference, m, dtype)
        c = jnp.linalg.pinv(unit, rtol=rtol, hermitian=True) @ cosines
        projections = unit @ c
        square = c @ projections
        # Opposed gradients, say, admit no cosines but zero: what is left then is rounding.
        size = jnp.max(jnp.abs(projections)) / jnp.max(jnp.abs(cosines))
        square = jnp.where(size > 100 * m * jnp.finfo(dtype).eps, square, jnp.inf)
        scale = (norms @ projections) / jnp.where(square > 0, square, 1)
        return jnp.where(norms > 0, scale * c / jnp.where(norms > 0, norms, 1), 0)
