"""Solvers that need no matrix: products with the Jacobian and its transpose are enough."""

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Scalar

from ._chunked import within
from ._nystrom import COLUMNS_AT_ONCE
from ._preconditioner import NystromPreconditioner, Sketch
from ._solver import AbstractDampedSolver, AbstractDampedSystem


def _gramian(jacobian: lx.AbstractLinearOperator, wide: bool) -> lx.FunctionLinearOperator:
    first, then = (jacobian.T, jacobian) if wide else (jacobian, jacobian.T)
    return lx.FunctionLinearOperator(
        lambda v: then.mv(first.mv(v)), first.in_structure(), lx.positive_semidefinite_tag
    )


def _sketch(
    preconditioner: NystromPreconditioner | None,
    jacobian: lx.AbstractLinearOperator,
    memory: int | None,
    wide: bool,
) -> Sketch | None:
    """Of the Gramian, if there is one to sketch."""
    if preconditioner is None or min(jacobian.out_size(), jacobian.in_size()) == 0:
        return None
    # As many products are made at once.
    share = None if memory is None else max(memory // COLUMNS_AT_ONCE, 1)
    return preconditioner.sketch(_gramian(within(jacobian, share), wide))


class CGSystem(AbstractDampedSystem):
    """The Gramian as an operator, with its sketch."""

    jacobian: lx.AbstractLinearOperator
    sketch: Sketch | None
    cg: lx.CG

    @property
    def wide(self) -> bool:
        return self.jacobian.out_size() < self.jacobian.in_size()

    def solve(self, vector: Float[Array, " m"], damping: Scalar) -> Float[Array, " n"]:
        target = vector if self.wide else self.jacobian.T.mv(vector)
        gramian = _gramian(self.jacobian, self.wide)
        matrix = lx.FunctionLinearOperator(
            lambda v: gramian.mv(v) + damping * v,
            gramian.in_structure(),
            lx.positive_semidefinite_tag,
        )
        options = {}
        if self.sketch is not None:
            options["preconditioner"] = self.sketch.preconditioner(damping, -1)
        found = lx.linear_solve(matrix, target, self.cg, options=options, throw=False).value
        # A Jacobian that is not finite shows in its transposed product, which CG may not return.
        found = jnp.where(jnp.all(jnp.isfinite(target)), found, jnp.nan)
        return self.jacobian.T.mv(found) if self.wide else found

    @property
    def floor(self) -> Scalar:
        limits = jnp.finfo(self.jacobian.in_structure().dtype)
        return jnp.maximum(limits.eps * _largest(self.sketch), limits.tiny)


def _largest(sketch: Sketch | None) -> Scalar | float:
    """Eigenvalue; without a sketch nothing is known of the scale but that it is positive."""
    return 0.0 if sketch is None else sketch.eigenvalues[0]


class CG(AbstractDampedSolver):
    r"""Conjugate gradients on the cheap side's normal equations, Nyström-preconditioned.

    Needs products with $J$ and $J^\top$ only. The sketch is made once a Jacobian and
    preconditions every damping.

    **Arguments:**

    - `rtol`, `max_steps`: of the iteration; `rtol` is relative to the right-hand side of the
        normal equations. After `max_steps` the last iterate is the step: less good, and on the
        tall side still downhill.
    - `preconditioner`: a [`sciopt.damped.NystromPreconditioner`][], or `None`.
    - `memory`: bytes that the rows which are worked on at a time may fill, where the Jacobian
        comes from [`sciopt.Residuals.operator`][]; `None` for all at once.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import damped
        >>> jacobian = lx.FunctionLinearOperator(lambda v: 3 * v, jnp.zeros(3))
        >>> system = damped.CG().factor(jacobian)
        >>> system.solve(jnp.ones(3), jnp.array(3.0)).round(6).tolist()
        [0.25, 0.25, 0.25]

        ```
    """

    rtol: float = 1e-10
    max_steps: int = 500
    preconditioner: NystromPreconditioner | None = NystromPreconditioner()
    memory: int | None = None

    @property
    def matrix_free(self) -> bool:
        return True

    def factor(self, jacobian: lx.AbstractLinearOperator) -> CGSystem:
        jacobian = within(jacobian, self.memory)
        wide = jacobian.out_size() < jacobian.in_size()
        sketch = _sketch(self.preconditioner, jacobian, self.memory, wide)
        return CGSystem(jacobian, sketch, lx.CG(self.rtol, 0.0, max_steps=self.max_steps))


class StackedSystem(AbstractDampedSystem):
    r"""$[J; \sqrt{\mu} I]$ as an operator, preconditioned on its right."""

    jacobian: lx.AbstractLinearOperator
    sketch: Sketch | None
    solver: lx.AbstractLinearSolver

    def solve(self, vector: Float[Array, " m"], damping: Scalar) -> Float[Array, " n"]:
        structure = self.jacobian.in_structure()
        right = lx.IdentityLinearOperator(structure)
        if self.sketch is not None:
            right = self.sketch.preconditioner(damping, -1 / 2)

        def stacked(z):
            step = right.mv(z)
            return self.jacobian.mv(step), jnp.sqrt(damping) * step

        found = lx.linear_solve(
            lx.FunctionLinearOperator(stacked, structure),
            (vector, jnp.zeros(structure.shape, structure.dtype)),
            self.solver,
            throw=False,
        )
        return right.mv(found.value)

    @property
    def floor(self) -> Scalar:
        limits = jnp.finfo(self.jacobian.in_structure().dtype)
        size = min(self.jacobian.out_size(), self.jacobian.in_size())
        return jnp.maximum((size * limits.eps) ** 2 * _largest(self.sketch), limits.tiny)


class Stacked(AbstractDampedSolver):
    r"""Any least-squares solver of lineax, on $[J; \sqrt{\mu} I] s = [b; 0]$.

    With [`lineax.LSMR`][], the default, neither a matrix nor normal equations are needed, and
    the accuracy is that of [`sciopt.damped.QR`][] where its tolerance allows; [`lineax.QR`][] and
    [`lineax.SVD`][] make the stacked matrix anew for each damping.

    **Arguments:**

    - `solver`: the solver; it must accept rectangular operators.
    - `preconditioner`: a [`sciopt.damped.NystromPreconditioner`][] of $J^\top J$, whose inverse
        square root multiplies from the right; or `None`.
    - `memory`: as for [`sciopt.damped.CG`][].

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import damped
        >>> jacobian = lx.FunctionLinearOperator(lambda v: 3 * v, jnp.zeros(3))
        >>> system = damped.Stacked().factor(jacobian)
        >>> system.solve(jnp.ones(3), jnp.array(3.0)).round(6).tolist()
        [0.25, 0.25, 0.25]

        ```
    """

    solver: lx.AbstractLinearSolver = lx.LSMR(1e-12, 0.0, max_steps=1000, conlim=float("inf"))
    preconditioner: NystromPreconditioner | None = NystromPreconditioner()
    memory: int | None = None

    @property
    def matrix_free(self) -> bool:
        return True

    def factor(self, jacobian: lx.AbstractLinearOperator) -> StackedSystem:
        jacobian = within(jacobian, self.memory)
        sketch = _sketch(self.preconditioner, jacobian, self.memory, wide=False)
        return StackedSystem(jacobian, sketch, self.solver)
