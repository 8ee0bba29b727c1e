"""The classical relaxations: Jacobi, SOR and SSOR.

Young, Iterative Solution of Large Linear Systems (1971); Saad, Iterative Methods for Sparse Linear
Systems (2003), chapter 4. With $A = D + L + U$ each is $x \\gets x + M^{-1}(b - Ax)$.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, PyTree, Scalar

from ._iteration import AbstractIteration, AbstractMethod, Ordering, dtype_of, split
from ._red_black import RedBlackSplitting
from ._splitting import AbstractSplitting
from ._wavefront import WavefrontSplitting


class AbstractSmoother(AbstractMethod):
    """One step towards the solution: a preconditioner from zero, a smoother in a multigrid."""

    @abc.abstractmethod
    def relax(self, system: PyTree[Any], x: PyTree[Array], b: PyTree[Array]) -> PyTree[Array]:
        """$x + M^{-1}(b - Ax)$."""

    def relax_adjoint(
        self, system: PyTree[Any], x: PyTree[Array], b: PyTree[Array]
    ) -> PyTree[Array]:
        r"""$x + M^{-\top}(b - Ax)$ where $A$ is symmetric; the same where $M$ is."""
        return self.relax(system, x, b)


class AbstractRelaxation(AbstractIteration, AbstractSmoother):
    """A stationary iteration."""

    omega: eqx.AbstractVar[float | Scalar]
    ordering: eqx.AbstractVar[Ordering]

    def prepare(self, operator: lx.AbstractLinearOperator) -> AbstractSplitting:
        return split(operator, self.ordering)

    def splitting(self, system: AbstractSplitting) -> AbstractSplitting:
        return system

    def begin(self, system, r):
        return ()

    def advance(self, system, b, x, r, carry):
        x = self.relax(system, x, b)
        return x, system.residual(x, b), carry

    def omega_for(self, x: PyTree[Array]) -> Scalar:
        """In the system's precision, which a traced parameter of another must not change."""
        return jnp.asarray(self.omega, dtype_of(x))

    def admissible(self) -> Bool[Array, ""]:
        # Kahan: SOR's spectral radius is at least |omega - 1|. Jacobi: the eigenvalues of D^-1 A
        # have a mean of one, and each has to be below 2 / omega.
        return (jnp.asarray(self.omega) > 0) & (jnp.asarray(self.omega) < 2)


class Jacobi(AbstractRelaxation):
    r"""Weighted Jacobi, $x \gets x + \omega D^{-1}(b - Ax)$.

    **Arguments:**

    - `omega`: the weight. A JAX array may be traced and mapped over; a Python float is compiled in.
    - `rtol`, `atol`, `max_steps`: it stops where $|b - Ax| \le$ `atol` + `rtol` $|b|$, in Euclid's
        norm, or after that many steps.
    - `ordering`: of a stencil's points, which makes no difference here but for speed.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import relax
        >>> matrix = lx.MatrixLinearOperator(jnp.array([[4.0, 1.0], [1.0, 3.0]]))
        >>> solution = lx.linear_solve(matrix, jnp.array([6.0, 7.0]), relax.Jacobi(rtol=1e-12))
        >>> solution.value.round(9).tolist(), int(solution.stats["num_steps"])
        ([1.0, 2.0], 23)

        ```
    """

    omega: float | Scalar = 1.0
    rtol: float = 1e-8
    atol: float = 0.0
    max_steps: int = 10_000
    ordering: Ordering = "red_black"

    def relax(self, system, x, b):
        step = system.over_diagonal(system.residual(x, b))
        omega = self.omega_for(x)
        return jax.tree.map(lambda x, step: x + omega * step, x, step)


class SOR(AbstractRelaxation):
    r"""Successive over-relaxation, $x \gets x + (D/\omega + L)^{-1}(b - Ax)$.

    Gauss-Seidel at $\omega = 1$. Converges for symmetric positive definite matrices exactly if
    $0 < \omega < 2$ (Ostrowski-Reich); outside of that it never does (Kahan), and says `breakdown`
    without a step.

    **Arguments:**

    - `omega`: see [`sciopt.relax.optimal_omega`][]. A JAX array may be traced and mapped over; a
        Python float is compiled in.
    - `rtol`, `atol`, `max_steps`: it stops where $|b - Ax| \le$ `atol` + `rtol` $|b|$, in Euclid's
        norm, or after that many sweeps.
    - `backward`: through the rows from the last to the first.
    - `ordering`: of a [`sciopt.relax.Stencil`][]'s points. `"red_black"` relaxes half of them at
        once. `"natural"` gives the iterates of the loop over rows, a hyperplane at a time. Other
        operators are swept in their natural order.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import relax
        >>> poisson = relax.Stencil.laplacian((15, 15), spacing=1 / 16)
        >>> omega = relax.optimal_omega(jnp.cos(jnp.pi / 16))
        >>> b = jnp.ones((15, 15))
        >>> slow = lx.linear_solve(poisson, b, relax.SOR(omega=1.0, rtol=1e-6))
        >>> fast = lx.linear_solve(poisson, b, relax.SOR(omega=omega, rtol=1e-6))
        >>> int(slow.stats["num_steps"]), int(fast.stats["num_steps"])
        (362, 48)

        ```
    """

    omega: float | Scalar = 1.0
    rtol: float = 1e-8
    atol: float = 0.0
    max_steps: int = 10_000
    backward: bool = False
    ordering: Ordering = "red_black"

    def relax(self, system, x, b):
        return system.sweep(x, b, self.omega_for(x), self.backward)

    def relax_adjoint(self, system, x, b):
        return system.sweep(x, b, self.omega_for(x), not self.backward)


class SSOR(AbstractRelaxation):
    r"""Symmetric SOR: a sweep forward, then one backward.

    $M = \frac{\omega}{2 - \omega} (D/\omega + L) D^{-1} (D/\omega + U)$ is symmetric positive
    definite where $A$ is, so this is a preconditioner for [`sciopt.relax.CG`][]. The order of a
    stencil's points matters: as a preconditioner the natural one needs fewer steps (27 for 42 of
    red-black at $\omega = 1.5$ on 31 by 31 points), red-black sweeps are parallel.

    **Arguments:** as for [`sciopt.relax.SOR`][].

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import relax
        >>> matrix = lx.MatrixLinearOperator(jnp.array([[4.0, 1.0], [1.0, 3.0]]))
        >>> solution = lx.linear_solve(matrix, jnp.array([6.0, 7.0]), relax.SSOR(rtol=1e-12))
        >>> solution.value.round(9).tolist()
        [1.0, 2.0]

        ```
    """

    omega: float | Scalar = 1.0
    rtol: float = 1e-8
    atol: float = 0.0
    max_steps: int = 10_000
    ordering: Ordering = "red_black"

    def relax(self, system, x, b):
        omega = self.omega_for(x)
        x = system.sweep(x, b, omega, backward=False)
        return system.sweep(x, b, omega, backward=True)


class IncompleteCholesky(AbstractSmoother):
    r"""Incomplete Cholesky without fill, IC(0), of a symmetric [`sciopt.relax.Stencil`][].

    A preconditioner for [`sciopt.relax.CG`][]. A stencil's factors have no more entries than its
    triangles, so that $M = (\tilde D + L) \tilde D^{-1} (\tilde D + U)$ with pivots $\tilde d_i =
    a_{ii} - \sum_{j<i} a_{ij}^2 / \tilde d_j$: SSOR at $\omega = 1$ with other diagonals (Meijerink
    and van der Vorst, 1977). `prepare` raises `ValueError` for any other operator.

    **Arguments:**

    - `ordering`: of the points.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import relax
        >>> poisson = relax.Stencil.laplacian((15, 15), spacing=1 / 16)
        >>> solver = relax.CG(preconditioner=relax.IncompleteCholesky(), rtol=1e-8)
        >>> solution = lx.linear_solve(poisson, jnp.ones((15, 15)), solver)
        >>> bool(solution.result == lx.RESULTS.successful)
        True

        ```
    """

    ordering: Ordering = "natural"

    def prepare(self, operator: lx.AbstractLinearOperator) -> tuple[AbstractSplitting, ...]:
        splitting = split(operator, self.ordering)
        if not isinstance(splitting, RedBlackSplitting | WavefrontSplitting):
            raise ValueError("IncompleteCholesky is for stencils.")
        if not lx.is_symmetric(operator):
            raise ValueError("IncompleteCholesky is for symmetric operators.")
        return splitting, splitting.incomplete()

    def splitting(self, system: tuple[AbstractSplitting, ...]) -> AbstractSplitting:
        return system[0]

    def relax(self, system, x, b):
        splitting, factors = system
        r = splitting.residual(x, b)
        zero = jax.tree.map(jnp.zeros_like, r)
        half = factors.sweep(zero, r, 1.0, backward=False)
        step = factors.sweep(half, r, 1.0, backward=True)
        return jax.tree.map(jnp.add, x, step)
