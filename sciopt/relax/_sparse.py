"""Sparse matrices by padded rows, whose structure is known and whose values may be traced."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, Int

from ._tagged import tagged


class Rows(eqx.Module):
    """For each row its columns and where their values lie, padded to the longest row."""

    columns: Int[Array, "n k"]
    slots: Int[Array, "n k"]
    """Beyond the last value where a row is padded."""

    def values(self, data: Float[Array, " nse"]) -> Float[Array, "n k"]:
        return data.at[self.slots].get(mode="fill", fill_value=0)


@tagged
class Sparse(lx.AbstractLinearOperator):
    """A square sparse matrix, as an operator whose rows can be swept one after the other.

    Make one by [`sciopt.relax.Sparse.of`][]. The values in `data` may be traced and
    differentiated; the structure is fixed when it is made.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, numpy as np, lineax as lx
        >>> from sciopt import relax
        >>> rows, columns = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
        >>> matrix = relax.Sparse.of(jnp.array([4.0, 1.0, 1.0, 3.0]), rows, columns, 2)
        >>> solver = relax.SOR(omega=1.1, rtol=1e-12)
        >>> lx.linear_solve(matrix, jnp.array([6.0, 7.0]), solver).value.round(9).tolist()
        [1.0, 2.0]

        ```
    """

    data: Float[Array, " nse"]
    rows: Rows
    transposed: Rows
    tags: frozenset[object] = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        data: Float[Array, " nse"],
        rows: np.ndarray,
        columns: np.ndarray,
        size: int,
        tags: frozenset[object] | object = frozenset(),
    ) -> "Sparse":
        """From values and where they stand, as SciPy's COO or JAX's `BCOO(...).indices` have it.

        Values that stand in one place are added. Raises `ValueError` for an index outside the
        matrix.
        """
        rows, columns = np.asarray(rows), np.asarray(columns)
        both = np.concatenate([rows, columns])
        if np.any((both < 0) | (both >= size)):
            raise ValueError(f"There are indices outside a matrix of {size} rows.")
        tags = tags if isinstance(tags, frozenset) else frozenset({tags})
        return cls(data, _padded(rows, columns, size), _padded(columns, rows, size), tags)

    def mv(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.sum(self.rows.values(self.data) * vector[self.rows.columns], axis=1)

    def as_matrix(self) -> Float[Array, "n n"]:
        n = self.in_size()
        rows = jnp.arange(n)[:, None]
        zeros = jnp.zeros((n, n), self.data.dtype)
        return zeros.at[rows, self.rows.columns].add(self.rows.values(self.data))

    def transpose(self) -> "Sparse":
        return Sparse(self.data, self.transposed, self.rows, lx.transpose_tags(self.tags))

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((len(self.rows.columns),), self.data.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


def _padded(rows: np.ndarray, columns: np.ndarray, size: int) -> Rows:
    order = np.lexsort((columns, rows))
    counts = np.bincount(rows, minlength=size)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = counts.max(initial=0)
    # Padding points at the row itself: it is multiplied by zero.
    padded_columns = np.tile(np.arange(size)[:, None], (1, width))
    slots = np.full((size, width), len(rows))
    padded_columns[rows[order], place] = columns[order]
    slots[rows[order], place] = order
    return Rows(jnp.asarray(padded_columns), jnp.asarray(slots))


@lx.diagonal.register(Sparse)
def _(operator: Sparse) -> Float[Array, " n"]:
    own = operator.rows.columns == jnp.arange(operator.in_size())[:, None]
    return jnp.sum(jnp.where(own, operator.rows.values(operator.data), 0), axis=1)
