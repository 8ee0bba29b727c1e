"""Jacobian descent as an optax transformation: aggregate first, then any first-order method.

Quinton and Rey, *Jacobian Descent for Multi-Objective Optimization* (2024), equation (3): the
update is $x - \\eta A(J(x))$ with an aggregator $A$ in the place of the gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ._aggregator import AbstractAggregator


class JacobianDescentState(NamedTuple):
    """What `jacobian_descent` carries: arrays only, so saving it is saving the run."""

    aggregator: PyTree
    inner: PyTree
    step: Int[Array, ""]


class JacobianDescent(optax.GradientTransformationExtraArgs):
    """An optax transformation that wants a Jacobian for its updates, and how many rows of it."""


def jacobian_descent(
    aggregator: AbstractAggregator,
    optimizer: optax.GradientTransformation | None = None,
    *,
    num_objectives: int | None = None,
    seed: int = 0,
) -> JacobianDescent:
    """Aggregate a Jacobian and hand the result to `optimizer` as if it were the gradient.

    **Arguments:**

    - `aggregator`: an [`sciopt.aggregate.AbstractAggregator`][].
    - `optimizer`: any optax transformation; the identity by default, so that the adaptor can
        stand first in an `optax.chain`.
    - `num_objectives`: the length of the Jacobian's leading axis. Only aggregators whose state
        depends on it need to be told; for all others it comes from the Jacobian.
    - `seed`: aggregators that draw at random draw from this seed and the number of the step, so a
        resumed run draws what an uninterrupted one would have drawn.

    **Returns:** a transformation whose `update` takes the Jacobian of
    [`sciopt.aggregate.value_and_jacobian`][] in the place of the gradient.

    **Raises:** `ValueError` from `init` where the aggregator's state needs `num_objectives`, and
    from `update` for a Jacobian of another length, or a gradient that was passed by mistake.

    ```python
    >>> import jax.numpy as jnp, optax
    >>> from sciopt.aggregate import Mean, jacobian_descent, value_and_jacobian
    >>> optimizer = jacobian_descent(Mean(), optax.sgd(0.5))
    >>> x = jnp.array([1.0, -1.0])
    >>> state = optimizer.init(x)
    >>> _, jacobian = value_and_jacobian(lambda x: jnp.stack([x @ x, x[0]]))(x)
    >>> updates, state = optimizer.update(jacobian, state, x)
    >>> optax.apply_updates(x, updates).tolist()
    [0.25, -0.5]

    ```
    """
    inner = optax.with_extra_args_support(optax.identity() if optimizer is None else optimizer)

    def init(params: PyTree) -> JacobianDescentState:
        m = num_objectives if num_objectives is not None else 1
        rows = jax.tree.map(lambda p: jax.ShapeDtypeStruct((m, *p.shape), p.dtype), params)
        state = aggregator.init(rows)
        if num_objectives is None and jax.tree.leaves(state):
            raise ValueError(
                f"{type(aggregator).__name__} keeps a state for each objective: give "
                "jacobian_descent(..., num_objectives=m)."
            )
        return JacobianDescentState(state, inner.init(params), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, **extra):
        _check(updates, params, num_objectives)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        gradient, kept = aggregator.update(updates, state.aggregator, key=key)
        steps, inner_state = inner.update(gradient, state.inner, params, **extra)
        return steps, JacobianDescentState(kept, inner_state, state.step + 1)

    return JacobianDescent(init, update)


def _check(jacobian: PyTree, params: PyTree | None, num_objectives: int | None) -> None:
    shapes = [x.shape for x in jax.tree.leaves(jacobian)]
    wrong = not all(shapes)
    if params is not None:
        wrong |= [shape[1:] for shape in shapes] != [p.shape for p in jax.tree.leaves(params)]
    if wrong:
        raise ValueError(
            "jacobian_descent wants a Jacobian, like the parameters with one more axis in front "
            f"over the objectives; it was given arrays of shapes {shapes}. "
            "sciopt.aggregate.value_and_jacobian makes one."
        )
    if num_objectives is not None and shapes and shapes[0][0] != num_objectives:
        raise ValueError(
            f"jacobian_descent was told of {num_objectives} objectives and got a Jacobian of "
            f"{shapes[0][0]}."
        )
