"""Instance-wise risk minimisation: every example of a batch is an objective of its own.

Quinton and Rey, *Jacobian Descent for Multi-Objective Optimization* (2024), section 5 and, for the
Gramian path that makes it affordable, section 6.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ._aggregator import AbstractWeighting
from ._per_example import MEMORY, Loss, per_example_gramian


def iwrm(
    loss: Loss,
    weighting: AbstractWeighting,
    *,
    memory: int = MEMORY,
    structure: bool = True,
) -> Callable[..., tuple[Float[Array, " batch"], PyTree]]:
    r"""Values and update of instance-wise risk minimisation.

    The Gramian $G$ of the per-example gradients gives weights $w$, and the update $J^\top w$ is one
    reverse pass through $\sum_i w_i \ell_i$: the Jacobian is never formed.

    **Arguments:**

    - `loss`: `loss(params, example)`, the scalar loss of *one* example.
    - `weighting`: an aggregator that is a function of the Gramian.
    - `memory`, `structure`: see [`sciopt.aggregate.per_example_gramian`][].

    **Returns:** `fn(params, batch, *, key=None)`, which gives the loss of each example and an
    update like `params`, to be handed to any optax transformation as if it were a gradient.

    **Raises:** `TypeError` for an aggregator that needs the Jacobian itself.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import Mean, iwrm
    >>> loss = lambda w, xy: (w @ xy[0] - xy[1]) ** 2 / 2
    >>> batch = jnp.array([[1.0, 0.0], [1.0, 2.0]]), jnp.array([0.0, 0.0])
    >>> values, update = iwrm(loss, Mean())(jnp.array([1.0, 1.0]), batch)
    >>> values.tolist(), update.tolist()
    ([0.5, 4.5], [2.0, 3.0])

    ```
    """
    if not isinstance(weighting, AbstractWeighting):
        raise TypeError(
            f"{type(weighting).__name__} needs the Jacobian itself; instance-wise risk "
            "minimisation wants an aggregator with `weights(gramian)`."
        )

    def value_and_update(
        params: PyTree, batch: PyTree, *, key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, " batch"], PyTree]:
        gram = per_example_gramian(loss, params, batch, memory=memory, structure=structure)
        weights = jax.lax.stop_gradient(weighting.weights(gram, key=key))
        diff, rest = eqx.partition(params, eqx.is_inexact_array)

        def weighted(p) -> tuple[Any, Any]:
            values = jax.vmap(loss, (None, 0))(eqx.combine(p, rest), batch)
            return jnp.vdot(weights, values), values

        update, values = jax.grad(weighted, has_aux=True)(diff)
        return values, update

    return value_and_update
