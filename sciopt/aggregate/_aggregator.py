"""What an aggregator is: several objectives' gradients in, one update out.

Gradients come as a *Jacobian*: a pytree like the parameters whose leaves have one more axis in
front, over the objectives. No method here ever flattens it into a matrix: all that most methods
need is the Gramian, one small matrix, and one weighted sum of the rows (Quinton and Rey, *Jacobian
Descent for Multi-Objective Optimization* (2024), section 6: the Gramian path).
"""

import abc
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

# Columns in a block of the Gramian, so that a block of up to 64 rows stays in a core's cache.
BLOCK = 8192


def gramian(jacobian: PyTree, other: PyTree | None = None) -> Float[Array, "m m"]:
    r"""The inner products of the gradients, $J J^\top$, or with a second Jacobian $J K^\top$.

    Half-precision gradients are accumulated in single precision.

    **Raises:** `ValueError` for a Jacobian without leaves, whose leaves do not agree on the number
    of objectives, or that differs in structure from the second.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import gramian
    >>> gramian({"w": jnp.eye(2), "b": jnp.ones((2, 1))}).tolist()
    [[2.0, 1.0], [1.0, 2.0]]

    ```
    """
    count_objectives(jacobian)
    leaves, structure = jax.tree.flatten(jacobian)
    if other is None:
        return functools.reduce(jnp.add, [_leaf_gramian(leaf) for leaf in leaves])
    if jax.tree.structure(other) != structure:
        raise ValueError(
            f"The two Jacobians differ in structure: {structure} and {jax.tree.structure(other)}."
        )
    return functools.reduce(jnp.add, map(_inner_products, leaves, jax.tree.leaves(other)))


def _inner_products(a, b):
    axes = tuple(range(1, a.ndim))
    precise = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    # Contracting over the axes as they are, and not over a reshaped leaf, lets a sharded Jacobian
    # stay where it is: only this m x m product is reduced over devices.
    return jnp.tensordot(a, b.conj(), axes=(axes, axes), preferred_element_type=precise).real


def _leaf_gramian(leaf):
    m, n = leaf.shape[0], leaf[0].size
    # XLA's CPU product runs at half speed or less where the contracted axis is far longer than
    # the others. With several devices the leaf may be sharded, and blocks would gather it.
    if n < 2 * BLOCK or jax.default_backend() != "cpu" or jax.device_count() > 1:
        return _inner_products(leaf, leaf)
    rows = leaf.reshape(m, n)
    blocks = n // BLOCK

    def add_block(i, total):
        block = jax.lax.dynamic_slice(rows, (0, i * BLOCK), (m, BLOCK))
        return total + _symmetric_product(block)

    return jax.lax.fori_loop(0, blocks, add_block, _symmetric_product(rows[:, blocks * BLOCK :]))


def _symmetric_product(rows, splits=2):
    """The Gramian with the products below the diagonal blocks left out: they are transposes."""
    m = rows.shape[0]
    if splits == 0 or 2 < m < 64 or m == 1:
        return _inner_products(rows, rows)
    upper, lower = rows[: m // 2], rows[m // 2 :]
    cross = _inner_products(upper, lower)
    first, last = _symmetric_product(upper, splits - 1), _symmetric_product(lower, splits - 1)
    return jnp.block([[first, cross], [cross.T, last]])


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
    counts = {leaf.shape[:1] for leaf in leaves}
    if len(counts) > 1 or () in counts:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise ValueError(
            "The leaves of a Jacobian must share a leading axis over the objectives; they have "
            f"the shapes {shapes}."
        )
    ((count,),) = counts
    if count == 0:
        raise ValueError("A Jacobian needs at least one objective.")
    return count


def result_type(jacobian: PyTree) -> Any:
    """The dtype of the Gramian: what all leaves promote to, and at least single precision."""
    return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in jax.tree.leaves(jacobian)))


def checked(gramian: Float[Array, "m k"]) -> Float[Array, "m k"]:
    """The Gramian, or an error at run time, also under `jit`, where it is not finite.

    A gradient that is NaN would otherwise spread to the others, or silently drop out of the
    comparisons that many methods make.
    """
    return eqx.error_if(
        gramian,
        ~jnp.isfinite(gramian).all(),
        "A gradient is NaN or infinite, or so long that its square overflows.",
    )


def required(key: Key[Array, ""] | None, aggregator: "AbstractAggregator") -> Key[Array, ""]:
    """The key of a method that draws at random; `ValueError` where there is none."""
    if key is None:
        name = type(aggregator).__name__
        raise ValueError(f"{name} draws at random: pass a key, as in `agg(jacobian, key=key)`.")
    return key


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
        return combine(self.weights(checked(gramian(jacobian)), key=key), jacobian), state
