"""What an aggregator is: several objectives' gradients in, one update out.

Gradients come as a *Jacobian*: a pytree like the parameters whose leaves have one more axis in
front, over the objectives. No method here ever flattens it into a matrix: all that most methods
need is the Gramian, one small matrix, and one weighted sum of the rows (Quinton and Rey, *Jacobian
Descent for Multi-Objective Optimization* (2024), section 6: the Gramian path).
"""

import abc
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree


def gramian(jacobian: PyTree) -> Float[Array, "m m"]:
    """The inner products of the gradients, $J J^\\top$.

    **Raises:** `ValueError` for a Jacobian without leaves, or whose leaves do not agree on the
    number of objectives.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import gramian
    >>> gramian({"w": jnp.eye(2), "b": jnp.ones((2, 1))}).tolist()
    [[2.0, 1.0], [1.0, 2.0]]

    ```
    """
    count_objectives(jacobian)
    products = []
    for leaf in jax.tree.leaves(jacobian):
        axes = tuple(range(1, leaf.ndim))
        # Contracting over the axes as they are, and not over a reshaped leaf, lets a sharded
        # Jacobian stay where it is: only this m x m product is reduced over devices.
        products.append(jnp.tensordot(leaf, leaf.conj(), axes=(axes, axes)).real)
    return functools.reduce(jnp.add, products)


def combine(weights: Float[Array, " m"], jacobian: PyTree) -> PyTree:
    """The weighted sum of the gradients, $J^\\top w$, like the parameters.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import combine
    >>> combine(jnp.array([2.0, 1.0]), {"w": jnp.eye(2)})
    {'w': Array([2., 1.], dtype=float64)}

    ```
    """
    return jax.tree.map(lambda leaf: jnp.tensordot(weights.astype(leaf.dtype), leaf, 1), jacobian)


def count_objectives(jacobian: PyTree) -> int:
    """The length of the leading axis that all leaves share; `ValueError` where they do not."""
    leaves = jax.tree.leaves(jacobian)
    if not leaves:
        raise ValueError("A Jacobian needs at least one array.")
    counts = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
    if len(counts) > 1 or None in counts:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise ValueError(
            "The leaves of a Jacobian must share a leading axis over the objectives; they have "
            f"the shapes {shapes}."
        )
    (count,) = counts
    if count == 0:
        raise ValueError("A Jacobian needs at least one objective.")
    return count


class AbstractAggregator(eqx.Module):
    """Reduces the gradients of several objectives to one update.

    `agg(jacobian)` gives the update, a pytree like the parameters. Methods that remember earlier
    steps are used as `state = agg.init(jacobian)` and `update, state = agg.update(jacobian,
    state)`; for all others the state is `None`. Methods that draw at random want a `key`.
    """

    def init(self, jacobian: PyTree) -> PyTree:
        """The state before the first update, from a Jacobian or the shapes of one."""
        return None

    @abc.abstractmethod
    def update(
        self, jacobian: PyTree, state: PyTree, *, key: Key[Array, ""] | None = None
    ) -> tuple[PyTree, PyTree]:
        """The update, and the state for the next one."""

    def __call__(self, jacobian: PyTree, *, key: Key[Array, ""] | None = None) -> PyTree:
        """The update of a first step."""
        return self.update(jacobian, self.init(jacobian), key=key)[0]


class AbstractWeighting(AbstractAggregator):
    """An aggregator whose update is a weighted sum, with weights from the Gramian alone."""

    @abc.abstractmethod
    def weights(
        self, gramian: Float[Array, "m m"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, " m"]:
        """The weight of each objective's gradient."""

    def update(self, jacobian, state, *, key=None):
        return combine(self.weights(gramian(jacobian), key=key), jacobian), state
