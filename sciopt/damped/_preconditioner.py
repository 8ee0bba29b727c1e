r"""Randomised Nyström preconditioning, from products with a matrix only.

Frangella, Tropp and Udell, *Randomized Nyström Preconditioning*, SIAM J. Matrix Anal. Appl. 44
(2023): algorithm 2.1 (the shifted sketch) and equations (1.3) and (5.3) (the preconditioner). For
Gauss-Newton on equations: Bioli, Marcati and Sangalli, arXiv:2505.11638 (2025).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Scalar

from ._nystrom import nystrom, of_columns


class Sketch(eqx.Module):
    r"""$G \approx U \Lambda U^\top$, eigenvalues descending."""

    basis: Float[Array, "k rank"]
    eigenvalues: Float[Array, " rank"]

    def preconditioner(self, damping: Scalar, power: float) -> lx.FunctionLinearOperator:
        r"""$P^{p}$ of $P = U (\Lambda + \mu I) U^\top / (\lambda_\ell + \mu) + I - U U^\top$."""
        damped = jnp.maximum(self.eigenvalues + damping, jnp.finfo(self.basis.dtype).tiny)
        change = (damped / damped[-1]) ** power - 1

        def apply(vector):
            return vector + self.basis @ (change * (self.basis.T @ vector))

        structure = jax.ShapeDtypeStruct(self.basis.shape[:1], self.basis.dtype)
        return lx.FunctionLinearOperator(apply, structure, lx.positive_semidefinite_tag)


class NystromPreconditioner(eqx.Module):
    r"""A randomised Nyström approximation of a Gramian, once a Jacobian.

    **Arguments:**

    - `rank`: of the approximation, $\ell$: as many products with the Gramian. The number of
        iterations is then bounded once $\ell$ is about twice the number of eigenvalues above the
        damping.
    - `seed`: of the Gaussian test matrix, which is the same for each Jacobian.

    **Raises:** `ValueError` for a rank below 1.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import damped
        >>> gramian = lx.DiagonalLinearOperator(jnp.array([3.0, 1.0]))
        >>> sketch = damped.NystromPreconditioner(rank=2).sketch(gramian)
        >>> inverse = sketch.preconditioner(jnp.array(1.0), power=-1)
        >>> inverse.as_matrix().diagonal().round(6).tolist()
        [0.5, 1.0]

        ```
    """

    rank: int = 64
    seed: int = 0

    def __check_init__(self):
        if self.rank < 1:
            raise ValueError(
                f"The rank of a NystromPreconditioner must be at least 1; got {self.rank}."
            )

    def sketch(self, gramian: lx.AbstractLinearOperator) -> Sketch:
        """Sketch a positive semidefinite operator on flat vectors."""
        key, dtype = jax.random.key(self.seed), gramian.in_structure().dtype
        basis, eigenvalues = nystrom(
            of_columns(gramian.mv), gramian.in_size(), self.rank, key, dtype
        )
        # Without a sketch there is still the identity.
        sound = jnp.all(jnp.isfinite(basis)) & jnp.all(jnp.isfinite(eigenvalues))
        return Sketch(jnp.where(sound, basis, 0), jnp.where(sound, eigenvalues, 0))
