"""The randomised Nystrom approximation: the strongest directions of a matrix from a few products.

`nystrom` is algorithm 2.1 of Frangella, Tropp and Udell, *Randomized Nystrom Preconditioning*
(2023); the form without an orthonormal basis is algorithm 2 of Guzmán-Cordero, Dangel, Goldshlager
and Zeinhofer, *Improving Energy Natural Gradient Descent through Woodbury, Momentum, and
Randomization* (2025).
"""

from collections.abc import Callable
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int, Key, Scalar

from ._chunked import within
from ._solver import AbstractDampedSolver, AbstractDampedSystem

COLUMNS_AT_ONCE = 16
"""Products that are made together: enough for matrix units, and memory stays bounded."""


def of_columns(
    product: Callable[[Float[Array, " n"]], Float[Array, " n"]],
) -> Callable[[Float[Array, "n r"]], Float[Array, "n r"]]:
    """The product of a vector, of a block of them."""
    return lambda block: (
        jax.lax.map(product, block.T, batch_size=min(block.shape[1], COLUMNS_AT_ONCE)).T
    )


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


class NystromSystem(AbstractDampedSystem):
    r"""$J$ with a Nystrom approximation of the smaller of $J J^\top$ and $J^\top J$.

    It is $U \operatorname{diag}(\lambda) U^\top$ of the orthonormal form, or $B B^\top$ of the
    efficient one, with $B^\top B$ in the place of the eigenvalues.
    """

    jacobian: lx.AbstractLinearOperator
    factor: Float[Array, "k r"]
    core: Float[Array, " r"] | Float[Array, "r r"]

    def solve(self, vector: Float[Array, " m"], damping: Scalar) -> Float[Array, " n"]:
        if self.jacobian.out_size() < self.jacobian.in_size():
            return self.jacobian.T.mv(self._inverse(vector, damping))
        return self._inverse(self.jacobian.T.mv(vector), damping)

    def _inverse(self, vector: Float[Array, " k"], damping: Scalar) -> Float[Array, " k"]:
        within = self.factor.T @ vector
        if self.core.ndim == 1:
            rest = (vector - self.factor @ within) / damping
            return self.factor @ (within / (self.core + damping)) + rest
        core = self.core + damping * jnp.eye(within.size, dtype=within.dtype)
        solved = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(core, lower=True), within)
        return (vector - self.factor @ solved) / damping

    @property
    def floor(self) -> Scalar:
        largest = jnp.max(self.core if self.core.ndim == 1 else jnp.diag(self.core))
        return jnp.finfo(largest.dtype).eps * largest


class Nystrom(AbstractDampedSolver):
    r"""An approximate solve with a randomised Nystrom approximation of the cheap side's Gramian.

    With $\hat K \approx J J^\top$ of rank $r$ the solution is $J^\top (\hat K + \mu I)^{-1} b$,
    or $(\hat G + \mu I)^{-1} J^\top b$ with $\hat G \approx J^\top J$ if there are fewer
    parameters. That takes $2 r$ products with $J$ where a factorisation takes as many as there are
    rows, and it is worth it only if the spectrum falls below $\mu$ within $r$ directions: what is
    left of the spectrum is taken to be 0, so that steps there are too long. With damping 0 there is
    no finite solution.

    **Arguments:**

    - `rank`: $r$.
    - `key`: draws the test matrix; a method that tells the step's number (see `at`) has a new one
        each step, and the others the same.
    - `memory`: bytes that the rows which are worked on at a time may fill, where the Jacobian
        comes from [`sciopt.Residuals.operator`][], which is then never held. `None` makes the
        matrix, whose products are the cheaper ones.
    - `orthonormal`: whether to follow Frangella, Tropp and Udell, with a QR and a singular value
        decomposition; by default the form of Guzmán-Cordero et al., which needs only products and
        two Cholesky factorisations, and loses to rounding $\varepsilon / \mu$ relative to $b$.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, lineax as lx
        >>> from sciopt import damped
        >>> wide = lx.MatrixLinearOperator(jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        >>> system = damped.Nystrom(rank=2, key=jax.random.key(0)).factor(wide)
        >>> system.solve(jnp.array([3.0, 2.0]), jnp.array(1.0)).round(4).tolist()
        [1.0, 1.0, 1.0]

        ```
    """

    rank: int
    key: Key[Array, ""]
    orthonormal: bool = False
    memory: int | None = None

    @property
    def matrix_free(self) -> bool:
        return self.memory is not None

    def factor(self, jacobian: lx.AbstractLinearOperator) -> NystromSystem:
        rows, columns = jacobian.out_size(), jacobian.in_size()
        share = None if self.memory is None else max(self.memory // COLUMNS_AT_ONCE, 1)
        chunks = within(jacobian, share)
        first, second = (chunks.T, chunks) if rows < columns else (chunks, chunks.T)

        def product(block: Float[Array, "k r"]) -> Float[Array, "k r"]:
            if self.memory is None:
                return jax.vmap(lambda x: second.mv(first.mv(x)), 1, 1)(block)
            return of_columns(lambda x: second.mv(first.mv(x)))(block)

        size, dtype = min(rows, columns), jacobian.out_structure().dtype
        if self.orthonormal:
            left, eigenvalues = nystrom(product, size, self.rank, self.key, dtype)
            return NystromSystem(within(jacobian, self.memory), left, eigenvalues)
        test = jax.random.normal(self.key, (size, min(self.rank, size)), dtype)
        factor, _ = _sketch(product, test)
        return NystromSystem(within(jacobian, self.memory), factor, factor.T @ factor)

    def at(self, step: Int[Array, ""]) -> Self:
        return eqx.tree_at(lambda s: s.key, self, jax.random.fold_in(self.key, step))
