"""Objectives in turns, as an optax transformation: a step costs one objective's gradient.

The alternating back-propagation of M-ConFIG: Liu, Chu and Thuerey, *ConFIG: Towards Conflict-free
Training of Physics Informed Neural Networks* (2025), section 3.3.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ._mconfig import MConFIG


class AlternatingDescentState(NamedTuple):
    """What `alternating_descent` carries: arrays only, so saving it is saving the run.

    `values` are the objectives, each as it was in its last turn.
    """

    aggregator: PyTree
    inner: PyTree
    values: Float[Array, " m"]
    step: Int[Array, ""]


class AlternatingDescent(optax.GradientTransformationExtraArgs):
    """An optax transformation that wants the gradient of the objective whose turn it is."""

    def turn(self, state: Any) -> Int[Array, ""]:
        """The index of the objective whose turn it is."""
        return state.step % state.values.shape[0]

    def seen(self, state: Any) -> Float[Array, " m"]:
        """The objectives, each as it was in its last turn."""
        return state.values


def alternating_descent(
    aggregator: MConFIG,
    optimizer: optax.GradientTransformation,
    *,
    num_objectives: int,
) -> AlternatingDescent:
    """Take one objective's gradient a step, in turns, and hand the aggregate to `optimizer`.

    **Arguments:**

    - `aggregator`: an [`sciopt.aggregate.MConFIG`][].
    - `optimizer`: any optax transformation; M-ConFIG scales its updates as Adam does, so that
        `optax.sgd(learning_rate)` is what it was published with.
    - `num_objectives`: how many objectives take turns.

    **Returns:** a transformation; `optimizer.turn(state)` says which objective's gradient (and
    `value=`) its next `update` wants, and [`sciopt.aggregate.value_and_row`][] makes them.

    ```python
    >>> import jax, jax.numpy as jnp, optax
    >>> from sciopt.aggregate import MConFIG, alternating_descent, value_and_row
    >>> row = value_and_row(lambda x: {"a": x @ x, "b": (x[0] - 1) ** 2})
    >>> optimizer = alternating_descent(MConFIG(), optax.sgd(0.05), num_objectives=2)
    >>> @jax.jit
    ... def step(x, state):
    ...     value, gradient = row(optimizer.turn(state), x)
    ...     updates, state = optimizer.update(gradient, state, x, value=value)
    ...     return optax.apply_updates(x, updates), state
    >>> x = jnp.array([2.0, 1.0])
    >>> state = optimizer.init(x)
    >>> for _ in range(200):
    ...     x, state = step(x, state)
    >>> bool(0 <= x[0] <= 1), bool(abs(x[1]) < 0.1)  # a compromise between 0 and 1, and 0
    (True, True)

    ```
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: PyTree) -> AlternatingDescentState:
        jacobian = jax.tree.map(lambda p: jnp.zeros((num_objectives, *p.shape), p.dtype), params)
        dtype = jnp.result_type(*(p.dtype for p in jax.tree.leaves(params)))
        return AlternatingDescentState(
            aggregator.init(jacobian),
            inner.init(params),
            jnp.zeros(num_objectives, dtype),
            jnp.zeros((), jnp.int32),
        )

    def update(updates, state, params=None, *, value=None, **extra):
        index = state.step % num_objectives
        aggregate, kept = aggregator.update_one(updates, index, state.aggregator)
        steps, inner_state = inner.update(aggregate, state.inner, params, **extra)
        values = state.values if value is None else state.values.at[index].set(value)
        return steps, AlternatingDescentState(kept, inner_state, values, state.step + 1)

    return AlternatingDescent(init, update)
