"""A network over a mini-batch, and the Jacobian of its outputs."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from ._residuals import jacobian_by_point


class Outputs(eqx.Module):
    """The outputs of `predict(params, input)`, a function of one example, over a batch.

    Calling it, `outputs(params, (inputs, targets))`, maps over the leading axis of `inputs`: the
    function to hand to [`sciopt.EGN`][] together with `options={"jac": outputs.jacobian}`. An
    example's outputs depend on that example alone, so its rows of the Jacobian are a reverse pass
    through one example each; of a function of the whole batch they would be one through the batch.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, sciopt
        >>> line = sciopt.Outputs(lambda p, x: p[0] * x + p[1])
        >>> batch = jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [5.0]])
        >>> line(jnp.array([2.0, 1.0]), batch).tolist()
        [[1.0], [5.0]]
        >>> line.jacobian(jnp.array([2.0, 1.0]), batch)[1].tolist()
        [[0.0, 1.0], [2.0, 1.0]]

        ```
    """

    predict: Callable[[PyTree, Any], Array]

    def __call__(self, params: PyTree, batch: tuple[PyTree, PyTree]) -> Float[Array, "batch ..."]:
        return jax.vmap(self.predict, (None, 0))(params, batch[0])

    def jacobian(
        self, params: PyTree, batch: tuple[PyTree, PyTree]
    ) -> tuple[Float[Array, "batch ..."], Float[Array, "outputs parameters"]]:
        """The outputs and their Jacobian, rows in the order of `ravel`."""
        outputs, jacobian = jacobian_by_point(self.predict, params, batch[0])
        return outputs, jacobian.reshape(-1, jacobian.shape[-1])
