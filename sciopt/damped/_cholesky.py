"""The normal equations, held on their cheap side."""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Scalar

from ._chunked import AbstractChunkedJacobian
from ._solver import AbstractDampedSolver, AbstractDampedSystem

JITTERS = 3
LEAF = 512
"""Columns of which XLA's product is as quick as two of half the size and a third between them."""


class CholeskySystem(AbstractDampedSystem):
    r"""$J$ with the smaller of $J J^\top$ and $J^\top J$."""

    jacobian: lx.AbstractLinearOperator
    gramian: Float[Array, "k k"]

    def solve(self, vector: Float[Array, " m"], damping: Scalar) -> Float[Array, " n"]:
        return self.with_damping(damping)(vector)

    def with_damping(self, damping: Scalar):
        factor = (self._factor(damping), True)

        def solve(vector: Float[Array, " m"]) -> Float[Array, " n"]:
            if self.jacobian.out_size() < self.jacobian.in_size():
                return self.jacobian.T.mv(jax.scipy.linalg.cho_solve(factor, vector))
            return jax.scipy.linalg.cho_solve(factor, self.jacobian.T.mv(vector))

        return solve

    def _factor(self, damping: Scalar) -> Float[Array, "k k"]:
        k, dtype = len(self.gramian), self.gramian.dtype
        # An upper bound of the norm: rounding lowers no eigenvalue by more than a few eps of it.
        jitter = jnp.finfo(dtype).eps * jnp.trace(self.gramian)

        def attempt(shift):
            return jnp.linalg.cholesky(self.gramian + shift * jnp.eye(k, dtype=dtype))

        def broken(carry):
            factor, tried = carry
            # A matrix that is not finite cannot be mended.
            mendable = (tried < JITTERS) & jnp.isfinite(jitter)
            return mendable & ~jnp.all(jnp.isfinite(jnp.diag(factor)))

        def again(carry):
            _, tried = carry
            return attempt(damping + jitter * 10.0**tried), tried + 1

        return jax.lax.while_loop(broken, again, (attempt(damping), jnp.array(0)))[0]

    @property
    def floor(self) -> Scalar:
        largest = jnp.max(jnp.diag(self.gramian), initial=0.0)
        return jnp.finfo(self.gramian.dtype).eps * largest


class Cholesky(AbstractDampedSolver):
    r"""Cholesky factorisation of the normal equations, on their cheap side.

    With $m$ residuals and $n$ parameters, $J^\top (J J^\top + \mu I)^{-1} = (J^\top J + \mu
    I)^{-1} J^\top$ (the identity of Duncan and Guttman), so the matrix to factorise is $\min(m,
    n)$ square. The Gramian $G$ is formed once a Jacobian and refactorised for each damping.

    Where $G + \mu I$ is not positive definite to rounding, $\epsilon \operatorname{tr} G$ is
    added to $\mu$, then 10 and 100 times that: more than what rounding can have taken from its
    eigenvalues. If that does not help either, the step is NaN. A factorisation that succeeds at
    once costs nothing more.

    **Arguments:**

    - `memory`: bytes. If given and the Jacobian comes from [`sciopt.Residuals.operator`][], $J^\top
        J$ is summed over chunks of rows that fill no more than that, and $J$ is never held. On the
        wide side it is held all the same.

    The relative error of a step is about $\epsilon |J|^2 / \mu$, the square of what
    [`sciopt.damped.QR`][] and [`sciopt.damped.SVD`][] have.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import damped
        >>> wide = lx.MatrixLinearOperator(jnp.array([[1.0, 1.0]]))
        >>> system = damped.Cholesky().factor(wide)
        >>> system.solve(jnp.array([1.0]), jnp.array(0.0)).round(6).tolist()
        [0.5, 0.5]

        ```
    """

    memory: int | None = None

    @property
    def matrix_free(self) -> bool:
        return self.memory is not None

    def factor(self, jacobian: lx.AbstractLinearOperator) -> CholeskySystem:
        tall = jacobian.out_size() >= jacobian.in_size()
        if self.memory is not None and tall and isinstance(jacobian, AbstractChunkedJacobian):
            jacobian = jacobian.within(self.memory)
            return CholeskySystem(jacobian, jacobian.gramian())
        matrix = jacobian.as_matrix()
        rows, columns = matrix.shape
        gramian = inner_products(matrix.T if rows < columns else matrix)
        return CholeskySystem(lx.MatrixLinearOperator(matrix), gramian)


def inner_products(columns: Float[Array, "m n"]) -> Float[Array, "n n"]:
    """$A^\\top A$ by halves: the lower left block is the upper right one, and not computed."""
    if columns.shape[1] <= LEAF:
        return columns.T @ columns
    half = columns.shape[1] // 2
    left, right = columns[:, :half], columns[:, half:]
    cross = left.T @ right
    return jnp.block([[inner_products(left), cross], [cross.T, inner_products(right)]])
