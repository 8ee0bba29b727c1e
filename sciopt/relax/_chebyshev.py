"""Chebyshev's semi-iteration: the best polynomial of a degree on an interval of eigenvalues."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Scalar

from ._iteration import AbstractIteration, Ordering, dtype_of, split
from ._relaxation import AbstractSmoother
from ._splitting import AbstractSplitting


class Chebyshev(AbstractIteration, AbstractSmoother):
    r"""Chebyshev's semi-iteration on $D^{-1}A$ (Golub and Varga, 1961; Saad, algorithm 12.1).

    For eigenvalues of $D^{-1}A$ in an interval of positive numbers. Needs no inner products. As a
    preconditioner or a smoother it makes `degree` steps from where it starts, of which a polynomial
    comes that does not depend on $b$.

    **Arguments:**

    - `lower`, `upper`: the interval. Eigenvalues above it diverge. Those of a stencil with
        $\sum_j |a_{ij}| \le 2 a_{ii}$ are below 2 (Gershgorin); with
        [`sciopt.relax.jacobi_radius`][] $\beta$, those of a Laplacian are in $[1 - \beta, 1 +
        \beta]$. The default is the upper three quarters, for smoothing. JAX arrays may be traced.
    - `rtol`, `atol`, `max_steps`: it stops where $|b - Ax| \le$ `atol` + `rtol` $|b|$, in Euclid's
        norm, or after that many steps.
    - `degree`: as a preconditioner or smoother.
    - `ordering`: of a stencil's points, for speed.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import relax
        >>> poisson = relax.Stencil.laplacian((15, 15), spacing=1 / 16)
        >>> beta = jnp.cos(jnp.pi / 16)
        >>> solver = relax.Chebyshev(1 - beta, 1 + beta, rtol=1e-6)
        >>> int(lx.linear_solve(poisson, jnp.ones((15, 15)), solver).stats["num_steps"])
        74

        ```
    """

    lower: float | Scalar = 0.5
    upper: float | Scalar = 2.0
    rtol: float = 1e-8
    atol: float = 0.0
    max_steps: int = 10_000
    degree: int = 2
    ordering: Ordering = "red_black"

    def prepare(self, operator):
        return split(operator, self.ordering)

    def splitting(self, system: AbstractSplitting) -> AbstractSplitting:
        return system

    def admissible(self):
        return (jnp.asarray(self.lower) > 0) & (jnp.asarray(self.upper) > self.lower)

    def begin(self, system: AbstractSplitting, r: PyTree[Array]) -> tuple[PyTree[Array], Scalar]:
        centre, radius = self._interval(r)
        step = jax.tree.map(lambda r: r / centre, system.over_diagonal(r))
        return step, radius / centre

    def advance(self, system, b, x, r, carry: tuple[PyTree[Array], Scalar]) -> Any:
        step, rho = carry
        centre, radius = self._interval(r)
        x = jax.tree.map(jnp.add, x, step)
        r = system.residual(x, b)
        after = 1 / (2 * centre / radius - rho)
        step = jax.tree.map(
            lambda step, z: after * rho * step + 2 * after / radius * z,
            step,
            system.over_diagonal(r),
        )
        return x, r, (step, after)

    def relax(self, system, x, b):
        r = system.residual(x, b)
        carry = self.begin(system, r)
        for _ in range(self.degree - 1):
            x, r, carry = self.advance(system, b, x, r, carry)
        return jax.tree.map(jnp.add, x, carry[0])

    def _interval(self, r: PyTree[Array]) -> tuple[Scalar, Scalar]:
        lower, upper = (jnp.asarray(end, dtype_of(r)) for end in (self.lower, self.upper))
        return (lower + upper) / 2, (upper - lower) / 2
