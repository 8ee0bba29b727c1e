"""Nyström preconditioning: what a matrix does on its strongest directions, from a few products.

Frangella, Tropp and Udell, *Randomized Nyström Preconditioning* (2023), equation (1.3).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree

from sciopt.damped import NystromPreconditioner
from sciopt.damped._preconditioner import Sketch

from ._iteration import split
from ._relaxation import AbstractSmoother
from ._splitting import AbstractSplitting, Unravel


class Sketched(eqx.Module):
    """The operator's layout, and its approximation on flat vectors."""

    splitting: AbstractSplitting
    sketch: Sketch
    unravel: Unravel = eqx.field(static=True)


class Nystrom(AbstractSmoother):
    r"""A randomised Nyström approximation $U \Lambda U^\top$ as a preconditioner.

    $M^{-1} = U \Lambda^{-1} U^\top + (I - U U^\top) / \lambda_\ell$: for [`sciopt.relax.CG`][] on
    matrices whose eigenvalues fall off and then stay, such as a kernel's with a ridge; a stencil's
    do neither. Where `rank` is about twice the number of eigenvalues above the ridge, the number of
    steps is bounded. `prepare` raises `ValueError` for an operator that is not tagged positive
    semidefinite.

    **Arguments:**

    - `rank`: $\ell$, as many products with the operator; a rank below 1 raises `ValueError`.
    - `seed`: of the test matrix.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import relax
        >>> x = jnp.linspace(0, 1, 100)
        >>> kernel = jnp.exp(-8 * (x[:, None] - x) ** 2) + 1e-6 * jnp.eye(100)
        >>> operator = lx.MatrixLinearOperator(kernel, lx.positive_semidefinite_tag)
        >>> solver = relax.CG(preconditioner=relax.Nystrom(rank=20), rtol=1e-8)
        >>> int(lx.linear_solve(operator, jnp.ones(100), solver).stats["num_steps"]) < 10
        True

        ```
    """

    rank: int = 32
    seed: int = 0

    def __check_init__(self):
        if self.rank < 1:
            raise ValueError(
                f"The rank of a Nystrom preconditioner is 1 at least, not {self.rank}."
            )

    def prepare(self, operator: lx.AbstractLinearOperator) -> Sketched:
        if not lx.is_positive_semidefinite(operator):
            raise ValueError("Nystrom is for operators tagged lineax.positive_semidefinite_tag.")
        unravel = Unravel(operator.in_structure())
        leaf = jax.tree.leaves(operator.in_structure())[0]
        flat = lx.FunctionLinearOperator(
            lambda x: ravel_pytree(operator.mv(unravel(x)))[0],
            jax.ShapeDtypeStruct((operator.in_size(),), leaf.dtype),
            lx.positive_semidefinite_tag,
        )
        sketch = NystromPreconditioner(self.rank, self.seed).sketch(flat)
        return Sketched(split(operator, "red_black"), sketch, unravel)

    def splitting(self, system: Sketched) -> AbstractSplitting:
        return system.splitting

    def relax(self, system: Sketched, x, b):
        splitting, last = system.splitting, system.sketch.eigenvalues[-1]
        residual, _ = ravel_pytree(splitting.unpack(splitting.residual(x, b)))
        # Off its directions the inverse is the identity there.
        step = system.sketch.preconditioner(jnp.zeros_like(last), power=-1).mv(residual) / last
        return jax.tree.map(jnp.add, x, splitting.pack(system.unravel(step)))
