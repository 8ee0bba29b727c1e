r"""$A = D + L + U$: an operator laid out for sweeps through its rows, in some order of them.

A splitting packs a vector into its layout, works on what it packed, and unpacks it. $L$ couples a
row with those that come before it in the order, $U$ with those that come after.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar

from ._sparse import Sparse


class AbstractSplitting(eqx.Module):
    """An operator in a layout of its own, in which vectors are pytrees of arrays."""

    @abc.abstractmethod
    def pack(self, vector: PyTree[Array]) -> PyTree[Array]:
        """A vector of the operator's in the splitting's layout."""

    @abc.abstractmethod
    def unpack(self, packed: PyTree[Array]) -> PyTree[Array]:
        """The inverse of `pack`."""

    @abc.abstractmethod
    def mv(self, x: PyTree[Array]) -> PyTree[Array]:
        """$Ax$."""

    @abc.abstractmethod
    def over_diagonal(self, r: PyTree[Array]) -> PyTree[Array]:
        """$D^{-1} r$."""

    @abc.abstractmethod
    def sweep(
        self, x: PyTree[Array], b: PyTree[Array], omega: Scalar | float, backward: bool
    ) -> PyTree[Array]:
        r"""$x + (D/\omega + L)^{-1} (b - Ax)$, or with $U$ for $L$ if backward."""

    @abc.abstractmethod
    def has_zero_on_diagonal(self) -> Bool[Array, ""]:
        """Whether $D$ is singular."""

    def residual(self, x: PyTree[Array], b: PyTree[Array]) -> PyTree[Array]:
        """$b - Ax$."""
        return jax.tree.map(jnp.subtract, b, self.mv(x))


class DenseSplitting(AbstractSplitting):
    """A matrix, in the order of its rows."""

    matrix: Float[Array, "n n"]
    unravel: Callable[[Array], PyTree[Array]] = eqx.field(static=True)

    @classmethod
    def of(cls, operator: lx.AbstractLinearOperator) -> "DenseSplitting":
        return cls(operator.as_matrix(), Unravel(operator.in_structure()))

    def pack(self, vector):
        return jax.flatten_util.ravel_pytree(vector)[0]

    def unpack(self, packed):
        return self.unravel(packed)

    def mv(self, x):
        return self.matrix @ x

    def over_diagonal(self, r):
        return r / jnp.diagonal(self.matrix)

    def sweep(self, x, b, omega, backward):
        diagonal = jnp.diagonal(self.matrix)
        # A triangular solve reads one triangle only.
        scaled = self.matrix + jnp.diag(diagonal / omega - diagonal)
        step = jax.scipy.linalg.solve_triangular(scaled, b - self.matrix @ x, lower=not backward)
        return x + step

    def has_zero_on_diagonal(self):
        return jnp.any(jnp.diagonal(self.matrix) == 0)


class Unravel:
    """Hashable, so that two solves of the same structure share a compilation."""

    def __init__(self, structure: PyTree[jax.ShapeDtypeStruct]):
        leaves, self.tree = jax.tree.flatten(structure)
        self.shapes = tuple((leaf.shape, leaf.dtype.name) for leaf in leaves)

    def __call__(self, flat: Array) -> PyTree[Array]:
        leaves, start = [], 0
        for shape, dtype in self.shapes:
            stop = start + int(np.prod(shape))
            leaves.append(flat[start:stop].reshape(shape).astype(dtype))
            start = stop
        return jax.tree.unflatten(self.tree, leaves)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Unravel)
        return same and (self.tree, self.shapes) == (other.tree, other.shapes)

    def __hash__(self) -> int:
        return hash((self.tree, self.shapes))


class RowSplitting(AbstractSplitting):
    """Padded rows, swept one after the other."""

    columns: Int[Array, "n k"]
    values: Float[Array, "n k"]
    diagonal: Float[Array, " n"]

    @classmethod
    def of(cls, operator: Sparse | lx.TridiagonalLinearOperator) -> "RowSplitting":
        if isinstance(operator, Sparse):
            values = operator.rows.values(operator.data)
            return cls(operator.rows.columns, values, lx.diagonal(operator))
        n = operator.in_size()
        columns = jnp.clip(jnp.arange(n)[:, None] + jnp.array([-1, 0, 1]), 0, n - 1)
        diagonal, lower, upper = lx.tridiagonal(operator)
        values = jnp.stack([jnp.pad(lower, (1, 0)), diagonal, jnp.pad(upper, (0, 1))], axis=1)
        return cls(columns, values, diagonal)

    def pack(self, vector):
        return vector

    def unpack(self, packed):
        return packed

    def mv(self, x):
        return jnp.sum(self.values * x[self.columns], axis=1)

    def over_diagonal(self, r):
        return r / self.diagonal

    def sweep(self, x, b, omega, backward):
        def relax(i, x):
            i = len(b) - 1 - i if backward else i
            residual = b[i] - jnp.dot(self.values[i], x[self.columns[i]])
            return x.at[i].add(omega * residual / self.diagonal[i])

        return jax.lax.fori_loop(0, len(b), relax, x)

    def has_zero_on_diagonal(self):
        return jnp.any(self.diagonal == 0)
