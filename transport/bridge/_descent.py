"""Steps of an optax transformation on a loss that draws its own batches, compiled as one loop."""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jaxtyping import Array, Float, Key, Scalar

Parameters = TypeVar("Parameters")


def descend(
    loss: Callable[[Parameters, Key[Array, ""]], Scalar],
    parameters: Parameters,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    steps: int,
    average: float = 0.0,
) -> optx.Solution:
    """Minimise the mean of `loss` over its key, from a fresh state of the optimizer.

    A step whose loss or gradient is not finite is not taken, and the `result` is `nonfinite` then.

    **Arguments:**

    - `loss`: of the parameters and a key.
    - `parameters`: any pytree; arrays of floating-point numbers are trained.
    - `optimizer`, `steps`: what makes each step, and how many.
    - `key`: of all steps.
    - `average`: the decay of the exponential average that is returned. Averages of few steps forget
        faster, so that the beginning has no part in them; zero returns the last step's.

    **Returns:** the parameters as `value`, the loss of each step as `aux`.
    """
    trained, rest = eqx.partition(parameters, eqx.is_inexact_array)

    def step(carry, index_and_key):
        index, key = index_and_key
        now, mean, state = carry
        value, gradient = jax.value_and_grad(lambda p: loss(eqx.combine(p, rest), key))(now)
        finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
        updates, new_state = optimizer.update(gradient, state, now)
        new = optax.apply_updates(now, updates)
        decay = jnp.minimum(average, (1 + index) / (10 + index)) if average else 0.0
        new_mean = jax.tree.map(lambda m, p: m + (1 - decay) * (p - m), mean, new)
        # In the types that they came in, whatever the decay and the optimizer made of them.
        new, new_mean, new_state = jax.tree.map(
            lambda a, b: jnp.where(finite, a, b).astype(jnp.result_type(b)),
            (new, new_mean, new_state),
            carry,
        )
        return (new, new_mean, new_state), (value, finite)

    start = (trained, trained, optimizer.init(trained))
    keys = jax.random.split(key, steps)
    (_, mean, state), (losses, finite) = jax.lax.scan(step, start, (jnp.arange(steps), keys))
    result = optx.RESULTS.where(jnp.all(finite), optx.RESULTS.successful, optx.RESULTS.nonfinite)
    return optx.Solution(
        value=eqx.combine(mean, rest), result=result, aux=losses,
        stats={"num_steps": steps}, state=state,
    )  # fmt: skip


def rows(key: Key[Array, ""], x: Float[Array, "n d"], count: int) -> Float[Array, "count d"]:
    """Rows drawn with replacement."""
    return x[jax.random.randint(key, (count,), 0, len(x))]
