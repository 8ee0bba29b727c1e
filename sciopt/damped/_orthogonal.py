r"""Orthogonal factorisations: no Gramian, hence no squared condition number.

Golub and Van Loan, *Matrix Computations* (2013), sections 5.3.8 and 6.1.4. Both methods reduce a
tall $J$ to a core of $n \times n$ and a wide one to $m \times m$.
"""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Scalar

from ._solver import AbstractDampedSolver, AbstractDampedSystem


class QRSystem(AbstractDampedSystem):
    r"""$J = QR$ if it is tall, $J^\top = QR$ if it is wide."""

    jacobian: lx.AbstractLinearOperator
    q: Float[Array, "long k"]
    r: Float[Array, "k k"]

    def solve(self, vector: Float[Array, " m"], damping: Scalar) -> Float[Array, " n"]:
        k = len(self.r)
        wide = self.jacobian.out_size() < self.jacobian.in_size()
        core, target = (self.r.T, vector) if wide else (self.r, self.q.T @ vector)
        # R of [core, target; sqrt(mu) I, 0] holds the right-hand side in its last column: the
        # second factorisation needs no Q.
        above = jnp.concatenate([core, target[:, None]], axis=1)
        below = jnp.concatenate(
            [jnp.sqrt(damping) * jnp.eye(k, dtype=core.dtype), jnp.zeros_like(target)[:, None]],
            axis=1,
        )
        reduced = jnp.linalg.qr(jnp.concatenate([above, below]), mode="r")
        found = jax.scipy.linalg.solve_triangular(reduced[:k, :k], reduced[:k, k])
        diagonal = jnp.abs(jnp.diag(reduced[:k, :k]))
        unresolved = k * jnp.finfo(core.dtype).eps * jnp.max(diagonal, initial=0.0)
        found = jnp.where(jnp.all(diagonal > unresolved), found, jnp.nan)
        return self.q @ found if wide else found

    @property
    def floor(self) -> Scalar:
        return (len(self.r) * jnp.finfo(self.r.dtype).eps) ** 2 * jnp.sum(self.r**2)


class QR(AbstractDampedSolver):
    r"""Two QR factorisations, one a Jacobian and one a damping.

    $J = QR$ (or $J^\top = QR$ on the wide side), then the triangle and $\sqrt{\mu} I$ below it
    are reduced again: about $2 m n^2$ work a Jacobian and $\frac{10}{3} n^3$ a damping for $m >
    n$. The relative error of a step is about $\epsilon |J| / \sqrt{\mu}$, with half as many
    digits lost as with [`sciopt.damped.Cholesky`][]. Where the damped problem is singular
    to rounding the step is NaN; [`sciopt.damped.SVD`][] has an answer there.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import damped
        >>> jacobian = lx.MatrixLinearOperator(jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))
        >>> system = damped.QR().factor(jacobian)
        >>> system.solve(jnp.array([1.0, 4.0, 5.0]), jnp.array(0.0)).round(6).tolist()
        [1.0, 2.0]

        ```
    """

    def factor(self, jacobian: lx.AbstractLinearOperator) -> QRSystem:
        matrix = jacobian.as_matrix()
        rows, columns = matrix.shape
        q, r = jnp.linalg.qr(matrix.T if rows < columns else matrix)
        return QRSystem(lx.MatrixLinearOperator(matrix), q, r)


class SVDSystem(AbstractDampedSystem):
    r"""$J = U \Sigma V^\top$."""

    jacobian: lx.AbstractLinearOperator
    u: Float[Array, "m k"]
    sigma: Float[Array, " k"]
    vt: Float[Array, "k n"]

    def solve(self, vector: Float[Array, " m"], damping: Scalar) -> Float[Array, " n"]:
        largest = jnp.max(self.sigma, initial=0.0)
        resolved = self.sigma > self._unresolved
        # Not sigma / (sigma^2 + mu), where squares may underflow.
        filtered = jnp.where(resolved, self.sigma, 1)
        filtered = 1 / (filtered + damping / filtered)
        coefficients = jnp.where(resolved, filtered, 0) * (self.u.T @ vector)
        return self.vt.T @ jnp.where(jnp.isfinite(largest), coefficients, jnp.nan)

    @property
    def _unresolved(self) -> Scalar:
        size = max(self.jacobian.out_size(), self.jacobian.in_size())
        return size * jnp.finfo(self.sigma.dtype).eps * jnp.max(self.sigma, initial=0.0)

    @property
    def floor(self) -> Scalar:
        return self._unresolved**2


class SVD(AbstractDampedSolver):
    r"""Singular value decomposition: one a Jacobian, and then any damping for two products.

    $s = V \operatorname{diag}(\sigma / (\sigma^2 + \mu)) U^\top b$. Singular values below
    $\epsilon \max(m, n) \sigma_1$ count as zero, so that without damping the step is the shortest
    of the least-squares solutions. The accuracy is that of [`sciopt.damped.QR`][], and the
    factorisation about five times its work.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import damped
        >>> singular = lx.MatrixLinearOperator(jnp.array([[1.0, 1.0], [1.0, 1.0]]))
        >>> system = damped.SVD().factor(singular)
        >>> system.solve(jnp.array([1.0, 3.0]), jnp.array(0.0)).round(6).tolist()
        [1.0, 1.0]

        ```
    """

    def factor(self, jacobian: lx.AbstractLinearOperator) -> SVDSystem:
        matrix = jacobian.as_matrix()
        u, sigma, vt = jnp.linalg.svd(matrix, full_matrices=False)
        return SVDSystem(lx.MatrixLinearOperator(matrix), u, sigma, vt)
