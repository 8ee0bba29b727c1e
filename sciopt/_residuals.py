"""Blocks of residuals, and every Jacobian that the suite makes of them.

A block gives the residuals that are measured at the same points. It is a function of the
parameters and of *one* point. That locality is worth keeping: the row of the Jacobian that belongs
to a point needs one reverse pass through a function of that point, whereas a Jacobian of the
stacked residual vector would need one through all points a row.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree, Scalar

Block = Callable[[PyTree, Any], Array | dict[str, Array]]


class Residuals(eqx.Module):
    r"""The least-squares problem $\min_p \sum_b w_b \operatorname{mean}_i |r_b(p, x_{b,i})|^2$.

    **Arguments:**

    - `blocks`: name of the block to `r_b(params, point)`, which returns an array of any shape; or
        a dictionary of them by name, where several residuals are made from the same work at the
        same points (the equations of a system, from one evaluation of the fields' derivatives).
    - `weights`: name of the residual to $w_b \ge 0$; one that is not named has weight 1.

    Calling it, `residuals(params, points)` with `points` a mapping from the block's name to an
    array (or pytree of arrays) with a leading axis over points, gives the unweighted residuals by
    name: the block's own, or the names in its dictionary. `scaled` is the function to hand to
    `optimistix.least_squares`, together with `options={"jac": residuals.jacobian}`.

    **Raises:** `ValueError` without blocks and, when called, where two blocks give the same name or
    a weight is for a name that none gives.

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

    blocks: dict[str, Block]
    weights: dict[str, float]

    def __init__(
        self,
        blocks: Mapping[str, Block],
        weights: Mapping[str, float] | None = None,
    ):
        if not blocks:
            raise ValueError("Residuals needs at least one block.")
        self.blocks = dict(blocks)
        self.weights = {name: float(weight) for name, weight in (weights or {}).items()}

    def __call__(self, params: PyTree, points: Mapping[str, PyTree]) -> dict[str, Array]:
        found = {
            block: jax.vmap(functools.partial(self._at, block), (None, 0))(params, points[block])
            for block in self.blocks
        }
        return self._named(found)

    def _at(self, block: str, params: PyTree, point: PyTree) -> dict[str, Array]:
        """The residuals of a block at a point, by name."""
        found = self.blocks[block](params, point)
        return found if isinstance(found, dict) else {block: found}

    def _named(self, blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        named = {}
        for found in blocks.values():
            if twice := sorted(set(named) & set(found)):
                raise ValueError(f"Two blocks give residuals named {', '.join(twice)}.")
            named |= found
        if unknown := sorted(set(self.weights) - set(named)):
            raise ValueError(f"Weights name residuals that do not exist: {', '.join(unknown)}.")
        return named

    def _scale(self, name: str, residual: Array) -> Array:
        # The mean over no points is 0: an empty block adds nothing.
        weight = self.weights.get(name, 1.0) / max(residual.shape[0], 1)
        return jnp.sqrt(jnp.asarray(weight, residual.dtype))

    def scaled(self, params: PyTree, points: Mapping[str, PyTree]) -> dict[str, Array]:
        """The residuals scaled so that their sum of squares is the loss."""
        return {name: self._scale(name, r) * r for name, r in self(params, points).items()}

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

        def rows(block, point):
            def at_point(p):
                found = self._at(block, unravel(p), point)
                return jax.tree.map(jnp.ravel, found), found

            jac, found = jax.jacrev(at_point, has_aux=True)(flat)
            return {name: (r, jac[name]) for name, r in found.items()}

        named = self._named(
            {b: jax.vmap(functools.partial(rows, b))(points[b]) for b in self.blocks}
        )
        residuals = {name: self._scale(name, r) * r for name, (r, _) in named.items()}
        # Rows must come in the order in which `ravel_pytree` lists a dictionary: sorted.
        jacobian = [
            self._scale(name, r) * jac.reshape(-1, flat.size)
            for name, (r, jac) in sorted(named.items(), key=lambda item: item[0])
        ]
        return residuals, jnp.concatenate(jacobian)
