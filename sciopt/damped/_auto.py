"""The solver that a problem's shape, its damping and a number of bytes ask for."""

import logging

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Scalar

from ._cholesky import Cholesky, CholeskySystem
from ._chunked import AbstractChunkedJacobian
from ._iterative import CG
from ._orthogonal import QR
from ._solver import AbstractDampedSolver, AbstractDampedSystem

log = logging.getLogger(__name__)


class SwitchingSystem(AbstractDampedSystem):
    """Normal equations where the damping allows them, else QR, made when it is asked for."""

    jacobian: lx.AbstractLinearOperator
    cholesky: CholeskySystem
    smallest: Scalar
    """The damping below which the normal equations are not accurate."""

    def solve(self, vector: Float[Array, " m"], damping: Scalar) -> Float[Array, " n"]:
        return jax.lax.cond(
            damping < self.smallest,
            lambda: QR().factor(self.jacobian).solve(vector, damping),
            lambda: self.cholesky.solve(vector, damping),
        )

    @property
    def floor(self) -> Scalar:
        # As small as QR's: a singular system is QR's to solve.
        gramian = self.cholesky.gramian
        return len(gramian) ** 2 * jnp.finfo(gramian.dtype).eps * self.cholesky.floor


class Auto(AbstractDampedSolver):
    r"""The cheapest of the solvers that fits into memory and is accurate at the damping it gets.

    With $m$ residuals, $n$ parameters and $k = \min(m, n)$:

    - if $2mn + 6k^2$ numbers fit into `memory`: [`sciopt.damped.Cholesky`][], and
        [`sciopt.damped.QR`][] for dampings below $\epsilon |J|^2 /$ `accuracy`, where the normal
        equations lose too many digits. The factorisation is made only for such a damping;
    - else, if $m \ge n$ and $4 n^2$ numbers fit, and the rows can be made a chunk at a time:
        Cholesky on $J^\top J$ summed over chunks of half of `memory`;
    - else [`sciopt.damped.CG`][], which holds neither matrix.

    What was chosen is logged, at level INFO, when the step is compiled.

    **Arguments:**

    - `memory`: bytes for the linear algebra of a step.
    - `accuracy`: the relative error of a step that the normal equations may make.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import damped
        >>> jacobian = lx.MatrixLinearOperator(jnp.array([[1.0, 1.0], [0.0, 1e-7]]))
        >>> system = damped.Auto().factor(jacobian)
        >>> system.solve(jnp.array([2.0, 1e-7]), jnp.array(1e-28)).round(6).tolist()
        [1.0, 1.0]

        ```
    """

    memory: int = 2**31
    accuracy: float = 1e-6

    @property
    def matrix_free(self) -> bool:
        return True

    def factor(self, jacobian: lx.AbstractLinearOperator) -> AbstractDampedSystem:
        rows, columns = jacobian.out_size(), jacobian.in_size()
        k, numbers = min(rows, columns), self.memory // jacobian.in_structure().dtype.itemsize
        chunked = rows >= columns and isinstance(jacobian, AbstractChunkedJacobian)
        if 2 * rows * columns + 6 * k**2 <= numbers:
            choice, system = "Cholesky, or QR at small damping", self._switching(jacobian)
        elif chunked and 4 * columns**2 <= numbers:
            choice, system = "Cholesky, in chunks", Cholesky(self.memory // 2).factor(jacobian)
        else:
            choice, system = "CG, matrix-free", CG(memory=self.memory // 2).factor(jacobian)
        log.info("%d residuals, %d parameters: %s.", rows, columns, choice)
        return system

    def _switching(self, jacobian: lx.AbstractLinearOperator) -> SwitchingSystem:
        cholesky = Cholesky().factor(jacobian)
        # Frobenius' norm of the Gramian: |J|^2, but for the width of the spectrum.
        square, eps = jnp.linalg.norm(cholesky.gramian), jnp.finfo(cholesky.gramian.dtype).eps
        return SwitchingSystem(cholesky.jacobian, cholesky, eps * square / self.accuracy)
