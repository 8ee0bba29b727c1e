"""Conjugate gradients, preconditioned by any of our smoothers in the layout that it likes."""

import jax
import jax.numpy as jnp
import lineax as lx

from ._iteration import AbstractIteration, dtype_of, inner
from ._relaxation import AbstractSmoother, Jacobi
from ._splitting import AbstractSplitting


class CG(AbstractIteration):
    r"""Preconditioned conjugate gradients (Hestenes and Stiefel; Saad, algorithm 9.1).

    As `lineax.CG`, but the preconditioner is a method and not an operator, it stops by Euclid's
    norm of the residual, and works in the layout of the preconditioner, so that vectors are not
    rearranged in each step. For operators that are tagged positive semidefinite; others raise
    `ValueError`. A direction of no positive curvature, where the operator or the preconditioner
    turns out not to be definite, is a `breakdown`.

    **Arguments:**

    - `preconditioner`: [`sciopt.relax.Jacobi`][], [`sciopt.relax.SSOR`][],
        [`sciopt.relax.IncompleteCholesky`][], [`sciopt.relax.Chebyshev`][],
        [`sciopt.relax.Multigrid`][] or [`sciopt.relax.Nystrom`][]: one step of it from zero.
    - `rtol`, `atol`, `max_steps`: it stops where $|b - Ax| \le$ `atol` + `rtol` $|b|$, or after
        that many steps. The residual is the recurrence's, which drifts from the true one by
        rounding: by about $10^{-16}$ of the largest $|A||x_k|$ on the way.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import relax
        >>> poisson = relax.Stencil.laplacian((31, 31), spacing=1 / 32)
        >>> solver = relax.CG(preconditioner=relax.Multigrid(), rtol=1e-10)
        >>> int(lx.linear_solve(poisson, jnp.ones((31, 31)), solver).stats["num_steps"])
        10

        ```
    """

    preconditioner: AbstractSmoother = Jacobi()
    rtol: float = 1e-8
    atol: float = 0.0
    max_steps: int = 10_000

    def prepare(self, operator: lx.AbstractLinearOperator):
        if not lx.is_positive_semidefinite(operator):
            raise ValueError("CG is for operators tagged lineax.positive_semidefinite_tag.")
        return self.preconditioner.prepare(operator)

    def splitting(self, system) -> AbstractSplitting:
        return self.preconditioner.splitting(system)

    def admissible(self):
        return self.preconditioner.admissible()

    def begin(self, system, r):
        # In a step and not before the first, so that the preconditioner is compiled once and not
        # applied to the last residual. There is no direction yet: beta is zero.
        return jax.tree.map(jnp.zeros_like, r), jnp.array(jnp.inf, dtype_of(r))

    def advance(self, system, b, x, r, carry):
        direction, before = carry
        z = self._precondition(system, r)
        gamma = inner(r, z)
        beta = gamma / before
        direction = jax.tree.map(lambda z, p: z + beta * p, z, direction)
        image = self.splitting(system).mv(direction)
        curvature = inner(direction, image)
        # The iteration stops where this is not a number.
        alpha = jnp.where((curvature > 0) & (gamma > 0), gamma / curvature, jnp.nan)
        x = jax.tree.map(lambda x, p: x + alpha * p, x, direction)
        r = jax.tree.map(lambda r, q: r - alpha * q, r, image)
        return x, r, (direction, gamma)

    def _precondition(self, system, r):
        return self.preconditioner.relax(system, jax.tree.map(jnp.zeros_like, r), r)
