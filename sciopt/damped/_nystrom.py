"""The randomised Nystrom approximation: the strongest directions of a matrix from a few products.

`nystrom` is algorithm 2.1 of Frangella, Tropp and Udell, *Randomized Nystrom Preconditioning*
(2023).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def _sketch(
    product: Callable[[Float[Array, "n r"]], Float[Array, "n r"]],
    test: Float[Array, "n r"],
) -> tuple[Float[Array, "n r"], Float[Array, ""]]:
    r"""$B$ with $B B^\top \approx A + \nu I$ from the product $A \Omega$, and the shift $\nu$."""
    image = product(test)
    # Without the shift the core loses its definiteness to rounding as soon as A's spectrum decays;
    # with it, a zero matrix is no exception.
    real = jnp.finfo(image.dtype)
    scale = jnp.sqrt(image.shape[0]) * jnp.linalg.norm(image)
    shift = real.eps * scale + real.tiny / real.eps
    image = image + shift * test
    core = test.T @ image
    factor = jnp.linalg.cholesky((core + core.T) / 2)
    return jax.scipy.linalg.solve_triangular(factor, image.T, lower=True).T, shift


def nystrom(
    product: Callable[[Float[Array, "n r"]], Float[Array, "n r"]],
    size: int,
    rank: int,
    key: Key[Array, ""],
    dtype: jnp.dtype = jnp.float64,
) -> tuple[Float[Array, "n r"], Float[Array, " r"]]:
    r"""Approximate eigenvectors and eigenvalues, $A \approx U \operatorname{diag}(\lambda) U^\top$.

    **Arguments:**

    - `product`: $X \mapsto AX$ on a block of columns; $A$ must be positive semidefinite.
    - `size`: $n$, the rows of $A$.
    - `rank`: how many columns to multiply by $A$; above `size` it is `size`.
    - `key`: draws the test matrix, which is made orthonormal.
    - `dtype`: of the test matrix.

    **Returns:** $U$ with orthonormal columns and $\lambda \ge 0$, descending. Exact where `rank` is
    the rank of $A$ or more, up to rounding; never above $A$ in the order of definite matrices.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp
        >>> from sciopt.damped import nystrom
        >>> a = jnp.diag(jnp.array([4.0, 1.0, 0.0]))
        >>> u, eigenvalues = nystrom(lambda x: a @ x, 3, 2, jax.random.key(0), a.dtype)
        >>> [round(float(x), 4) for x in eigenvalues]
        [4.0, 1.0]

        ```
    """
    test = jax.random.normal(key, (size, min(rank, size)), dtype)
    factor, shift = _sketch(product, jnp.linalg.qr(test)[0])
    left, singular, _ = jnp.linalg.svd(factor, full_matrices=False)
    return left, jnp.maximum(singular**2 - shift, 0)
