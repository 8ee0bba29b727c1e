"""The normal equations, held on their cheap side."""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Scalar

from ._solver import AbstractDampedSolver, AbstractDampedSystem


class CholeskySystem(AbstractDampedSystem):
    r"""$J$ with the smaller of $J J^\top$ and $J^\top J$."""

    jacobian: Float[Array, "m n"]
    gramian: Float[Array, "k k"]

    def solve(self, vector: Float[Array, " m"], damping: Scalar) -> Float[Array, " n"]:
        rows, columns = self.jacobian.shape
        eye = jnp.eye(self.gramian.shape[0], dtype=self.gramian.dtype)
        factor = jax.scipy.linalg.cho_factor(self.gramian + damping * eye, lower=True)
        if rows < columns:
            return self.jacobian.T @ jax.scipy.linalg.cho_solve(factor, vector)
        return jax.scipy.linalg.cho_solve(factor, self.jacobian.T @ vector)

    @property
    def floor(self) -> Scalar:
        return jnp.finfo(self.gramian.dtype).eps * jnp.max(jnp.diag(self.gramian))


class Cholesky(AbstractDampedSolver):
    r"""Cholesky factorisation of the normal equations, on their cheap side.

    With $m$ residuals and $n$ parameters, $J^\top (J J^\top + \mu I)^{-1} = (J^\top J + \mu
    I)^{-1} J^\top$ (the identity of Duncan and Guttman), so the matrix to factorise is $\min(m,
    n)$ square. The Gramian is formed once a Jacobian and refactorised for each damping.

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

    def factor(self, jacobian: lx.AbstractLinearOperator) -> CholeskySystem:
        matrix = jacobian.as_matrix()
        rows, columns = matrix.shape
        return CholeskySystem(matrix, inner_products(matrix.T if rows < columns else matrix))


def inner_products(columns: Float[Array, "m n"]) -> Float[Array, "n n"]:
    """$A^\\top A$ by halves: the lower left block is the upper right one, which saves a quarter."""
    half = columns.shape[1] // 2
    left, right = columns[:, :half], columns[:, half:]
    cross = left.T @ right
    return jnp.block([[left.T @ left, cross], [cross.T, right.T @ right]])
