r"""Learning-rate annealing: weigh the conditions of a PINN so that no gradient drowns.

Wang, Teng and Perdikaris, *Understanding and mitigating gradient flow pathologies in
physics-informed neural networks* (2021), algorithm 1.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._aggregator import AbstractAggregator, combine, count_objectives


class LRA(AbstractAggregator):
    r"""The reference gradient plus all others, weighted to its size.

    With $g_r$ the sum of the reference rows (the equations) and $g_i$ any other row,

    $$\hat\lambda_i = \frac{\max |g_r|}{\operatorname{mean} |g_i|}, \qquad
    \lambda_i \leftarrow \beta \lambda_i + (1 - \beta) \hat\lambda_i,$$

    with maximum and mean over the parameters, and the update is $g_r + \sum_i \lambda_i g_i$. A
    zero gradient keeps its weight. The weights start at one.

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | no | yes |

    **Arguments:** `reference`, the indices of the reference rows; `decay` $\beta$.

    **Raises:** `ValueError` for a reference that is no row of the Jacobian.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import LRA
    >>> LRA(reference=(0,), decay=0.0)(jnp.array([[4.0, 0.0], [0.0, 1.0]])).tolist()
    [4.0, 8.0]

    ```
    """

    reference: tuple[int, ...] = eqx.field(static=True, default=(0,))
    decay: float = 0.9

    def init(self, jacobian):
        m = count_objectives(jacobian)
        if not self.reference or not set(self.reference) < set(range(m)):
            raise ValueError(
                f"LRA's reference rows {self.reference} must be some, but not all, of the "
                f"{m} rows of the Jacobian."
            )
        dtype = jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(jacobian)))
        return jnp.ones(m, dtype)

    def update(self, jacobian: PyTree, state: Float[Array, " m"], *, key=None):
        rows = list(self.reference)
        leaves = jax.tree.leaves(jacobian)
        largest = functools.reduce(
            jnp.maximum, [jnp.max(jnp.abs(leaf[jnp.array(rows)].sum(axis=0))) for leaf in leaves]
        )
        size = sum(leaf[0].size for leaf in leaves)
        totals = [jnp.abs(leaf).reshape(leaf.shape[0], -1).sum(axis=1) for leaf in leaves]
        mean = functools.reduce(jnp.add, totals) / size
        wanted = jnp.where(mean > 0, largest / jnp.where(mean > 0, mean, 1), state)
        weights = self.decay * state + (1 - self.decay) * wanted
        weights = weights.at[jnp.array(rows)].set(1)
        return combine(weights, jacobian), weights
