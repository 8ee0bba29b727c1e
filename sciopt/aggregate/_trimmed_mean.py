"""The coordinate-wise trimmed mean.

Yin, Chen, Ramchandran and Bartlett, *Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates* (2018), definition 2.
"""

import jax
import jax.numpy as jnp

from ._aggregator import AbstractAggregator, count_objectives


class TrimmedMean(AbstractAggregator):
    r"""The mean of each coordinate without its largest and smallest values.

    `trim_number` values are left out at either end of every coordinate (definition 2, with
    $\beta = $ `trim_number` $/ m$).

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | no | no |

    **Raises:** `ValueError` for fewer than `2 * trim_number + 1` objectives.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import TrimmedMean
    >>> TrimmedMean(1)(jnp.array([[1.0, -90.0], [2.0, 0.0], [60.0, 3.0]])).tolist()
    [2.0, 0.0]

    ```
    """

    trim_number: int

    def __check_init__(self):
        if self.trim_number < 0:
            raise ValueError(f"TrimmedMean wants trim_number >= 0, not {self.trim_number}.")

    def update(self, jacobian, state, *, key=None):
        m = count_objectives(jacobian)
        if m < 2 * self.trim_number + 1:
            raise ValueError(
                f"{self} needs at least {2 * self.trim_number + 1} objectives, not {m}."
            )
        return jax.tree.map(lambda leaf: _trimmed_mean(leaf, self.trim_number), jacobian), state


def _trimmed_mean(leaf, trim):
    """One pass over the rows that holds the extremes seen so far and sums what falls out of them.

    Sorting would cost several passes, and subtracting the extremes from a plain sum would drown
    the rest in the rounding of an outlier.
    """
    m = leaf.shape[0]
    lowest, highest = list(leaf[:trim]), []
    for row in leaf[trim : 2 * trim]:
        lowest, row = _exchange(lowest, row, jnp.minimum, jnp.maximum)
        highest.append(row)

    def take(carry, row):
        lowest, highest, total = carry
        lowest, row = _exchange(lowest, row, jnp.minimum, jnp.maximum)
        highest, row = _exchange(highest, row, jnp.maximum, jnp.minimum)
        return (lowest, highest, total + row), None

    start = (lowest, highest, jnp.zeros_like(leaf[0]))
    (_, _, total), _ = jax.lax.scan(take, start, leaf[2 * trim :])
    return total / (m - 2 * trim)


def _exchange(held, row, keep, drop):
    """What is held of those held and the row, in no order, and the one that falls out."""
    kept = []
    for each in held:
        kept.append(keep(each, row))
        row = drop(each, row)
    return kept, row
