"""Blocks of residuals, and every Jacobian that the suite makes of them.

A block is a function of the parameters and of *one* point. That locality is worth keeping: the
row of the Jacobian that belongs to a point needs one reverse pass through a function of that
point, whereas a Jacobian of the stacked residual vector would need one through all points a row.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree, Scalar


class Residuals(eqx.Module):
    r"""The least-squares problem $\min_p \sum_b w_b \operatorname{mean}_i |r_b(p, x_{b,i})|^2$.

    **Arguments:**

    - `blocks`: name of the block to `r_b(params, point)`, which returns an array of any shape.
    - `weights`: name of the block to $w_b \ge 0$; a block that is not named has weight 1.

    Calling it, `residuals(params, points)` with `points` a mapping from the block's name to an
    array (or pytree of arrays) with a leading axis over points, gives the unweighted residuals by
    name. `scaled` is the function to hand to `optimistix.least_squares`, together with
    `options={"jac": residuals.jacobian}`.

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from sciopt import Residuals
        >>> fit = Residuals({"line": lambda p, xy: p[0] * xy[0] + p[1] - xy[1]})
        >>> points = {"line": jnp.array([[0.0, 1.0], [1.0, 3.0]])}
        >>> float(fit.loss(jnp.array([2.0, 1.0]), points))
        0.0
        >>> scaled, jac = fit.jacobian(jnp.array([2.0, 1.0]), points)
        >>> jac.shape
        (2, 2)

        ```
    """

    blocks: dict[str, Callable[[PyTree, Any], Array]]
    weights: dict[str, float]

    def __init__(
        self,
        blocks: Mapping[str, Callable[[PyTree, Any], Array]],
        weights: Mapping[str, float] | None = None,
    ):
        weights = {} if weights is None else weights
        if not blocks:
            raise ValueError("Residuals needs at least one block.")
        if unknown := sorted(set(weights) - set(blocks)):
            raise ValueError(f"Weights name blocks that do not exist: {', '.join(unknown)}.")
        self.blocks = dict(blocks)
        self.weights = {name: float(weights.get(name, 1.0)) for name in blocks}

    def __call__(self, params: PyTree, points: Mapping[str, PyTree]) -> dict[str, Array]:
        return {
            name: jax.vmap(block, (None, 0))(params, points[name])
            for name, block in self.blocks.items()
        }

    def scaled(self, params: PyTree, points: Mapping[str, PyTree]) -> dict[str, Array]:
        """The residuals scaled so that their sum of squares is the loss."""
        return {
            name: jnp.sqrt(jnp.asarray(self.weights[name] / r.shape[0], r.dtype)) * r
            for name, r in self(params, points).items()
        }

    def objectives(self, params: PyTree, points: Mapping[str, PyTree]) -> dict[str, Scalar]:
        """The loss by block, weight times mean square: objectives whose sum is the loss."""
        return {name: jnp.sum(r**2) for name, r in self.scaled(params, points).items()}

    def loss(self, params: PyTree, points: Mapping[str, PyTree]) -> Scalar:
        """The sum over blocks of weight times mean (over points) square."""
        return sum(self.objectives(params, points).values(), start=jnp.zeros(()))

    def rms(self, params: PyTree, points: Mapping[str, PyTree]) -> dict[str, Scalar]:
        """Root mean square of each block's residual, unweighted: what a person watches."""
        return {name: jnp.sqrt(jnp.mean(r**2)) for name, r in self(params, points).items()}

    def jacobian(
        self, params: PyTree, points: Mapping[str, PyTree]
    ) -> tuple[dict[str, Array], Float[Array, "residuals parameters"]]:
        """The scaled residuals and their Jacobian.

        **Returns:** `scaled(params, points)` and a dense matrix whose rows follow
        `ravel_pytree(scaled)` and whose columns follow `ravel_pytree(params)`.
        """
        flat, unravel = ravel_pytree(params)
        residuals, rows = {}, []
        # Rows must come in the order in which `ravel_pytree` lists a dictionary: sorted.
        for name in sorted(self.blocks):

            def row(point, block=self.blocks[name]):
                def at_point(p):
                    r = block(unravel(p), point)
                    return jnp.ravel(r), r

                jac, r = jax.jacrev(at_point, has_aux=True)(flat)
                return r, jac

            r, jac = jax.vmap(row)(points[name])
            scale = jnp.sqrt(jnp.asarray(self.weights[name] / r.shape[0], r.dtype))
            residuals[name] = scale * r
            rows.append(scale * jac.reshape(-1, flat.size))
        return residuals, jnp.concatenate(rows)
