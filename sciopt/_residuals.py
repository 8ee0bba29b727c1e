"""Blocks of residuals, and every Jacobian that the suite makes of them.

A block gives the residuals that are measured at the same points. It is a function of the
parameters and of *one* point. That locality is worth keeping: the row of the Jacobian that belongs
to a point needs one reverse pass through a function of that point, whereas a Jacobian of the
stacked residual vector would need one through all points a row.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, Scalar

from .damped._cholesky import inner_products
from .damped._chunked import AbstractChunkedJacobian

Block = Callable[[PyTree, Any], Array | dict[str, Array]]


def jacobian_by_point(
    fn: Callable[[PyTree, Any], PyTree], params: PyTree, points: PyTree
) -> tuple[PyTree, PyTree]:
    """`fn(params, point)` at each point, and its Jacobian by the flat parameters.

    Of an output of $k$ numbers the Jacobian has the shape `(points, k, parameters)`, and took $k$
    reverse passes through one point each.
    """
    flat, unravel = ravel_pytree(params)

    def at(point):
        def raveled(p):
            found = fn(unravel(p), point)
            return jax.tree.map(jnp.ravel, found), found

        jacobian, found = jax.jacrev(raveled, has_aux=True)(flat)
        return found, jacobian

    return jax.vmap(at)(points)


class Residuals(eqx.Module):
    r"""The least-squares problem $\min_p \sum_b w_b \operatorname{mean}_i |r_b(p, x_{b,i})|^2$.

    **Arguments:**

    - `blocks`: name of the block to `r_b(params, point)`, which returns an array of any shape; or
        a dictionary of them by name, where several residuals are made from the same work at the
        same points (the equations of a system, from one evaluation of the fields' derivatives).
    - `weights`: name of the residual to $w_b \ge 0$; one that is not named has weight 1.
    - `mesh`: devices over which `jacobian` spreads the points of each block, whose number must be
        a multiple of theirs. Rows then follow the devices, in `scaled` as in the matrix.
        With more residuals than parameters each device holds its own rows, with fewer its own
        columns: of a Gramian's making, what is summed over devices is the Gramian.
    - `left`: name of the residual to a linear map of its values at all points, of the same shape:
        a left preconditioner. What is minimised, and what Jacobians are of, is the map's output.

    Calling it, `residuals(params, points)` with `points` a mapping from the block's name to an
    array (or pytree of arrays) with a leading axis over points, gives the unweighted residuals by
    name: the block's own, or the names in its dictionary. `scaled` is the function to hand to
    `optimistix.least_squares`, together with `options={"jac": residuals.jacobian}`.

    **Raises:** `ValueError` without blocks, with both `left` and `mesh`, and, when called, where
    two blocks give the same name or a weight or a map is for a name that none gives.

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
    mesh: Mesh | None = eqx.field(static=True)
    left: dict[str, Callable[[Array], Array]]

    def __init__(
        self,
        blocks: Mapping[str, Block],
        weights: Mapping[str, float] | None = None,
        mesh: Mesh | None = None,
        left: Mapping[str, Callable[[Array], Array]] | None = None,
    ):
        if not blocks:
            raise ValueError("Residuals needs at least one block.")
        if left and mesh is not None:
            raise ValueError("A left preconditioner mixes points, which a mesh keeps apart.")
        self.left = dict(left or {})
        self.blocks = dict(blocks)
        self.weights = {name: float(weight) for name, weight in (weights or {}).items()}
        self.mesh = mesh

    def __call__(self, params: PyTree, points: Mapping[str, PyTree]) -> dict[str, Array]:
        return self._named({b: self._block(b, params, points[b]) for b in self.blocks})

    def _block(self, block: str, params: PyTree, points: PyTree) -> dict[str, Array]:
        return jax.vmap(functools.partial(self._at, block), (None, 0))(params, points)

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
        if unknown := sorted({*self.weights, *self.left} - set(named)):
            raise ValueError(
                f"Weights or maps name residuals that do not exist: {', '.join(unknown)}."
            )
        return named

    def _mixed(self, name: str, values: Array) -> Array:
        """Scaled, and through the left preconditioner, along the leading axis of points."""
        scaled = self._scale(name, values) * values
        return self.left[name](scaled) if name in self.left else scaled

    def _unmixed(self, name: str, values: Array) -> Array:
        """The transpose of `_mixed`."""
        (found,) = jax.linear_transpose(functools.partial(self._mixed, name), values)(values)
        return found

    def _scale(self, name: str, residual: Array | jax.ShapeDtypeStruct) -> Array:
        # The mean over no points is 0: an empty block adds nothing.
        weight = self.weights.get(name, 1.0) / max(residual.shape[0], 1)
        return jnp.sqrt(jnp.asarray(weight, residual.dtype))

    def scaled(
        self, params: PyTree, points: Mapping[str, PyTree]
    ) -> dict[str, Array] | Float[Array, " residuals"]:
        """The residuals scaled so that their sum of squares is the loss; with a mesh, a vector."""
        scaled = self._scaled(params, points)
        if self.mesh is None:
            return scaled
        devices = [r.reshape(self.mesh.size, -1) for _, r in sorted(scaled.items())]
        return jnp.concatenate(devices, axis=1).ravel()

    def _scaled(self, params: PyTree, points: Mapping[str, PyTree]) -> dict[str, Array]:
        return {name: self._mixed(name, r) for name, r in self(params, points).items()}

    def objectives(self, params: PyTree, points: Mapping[str, PyTree]) -> dict[str, Scalar]:
        """The loss by block, weight times mean square: objectives whose sum is the loss."""
        return {name: jnp.sum(r**2) for name, r in self._scaled(params, points).items()}

    def loss(self, params: PyTree, points: Mapping[str, PyTree]) -> Scalar:
        """The sum over blocks of weight times mean (over points) square."""
        return sum(self.objectives(params, points).values(), start=jnp.zeros(()))

    def rms(self, params: PyTree, points: Mapping[str, PyTree]) -> dict[str, Scalar]:
        """Root mean square of each block's residual, unweighted: what a person watches."""
        return {name: jnp.sqrt(jnp.mean(r**2)) for name, r in self(params, points).items()}

    def jacobian(
        self, params: PyTree, points: Mapping[str, PyTree]
    ) -> tuple[PyTree, Float[Array, "residuals parameters"]]:
        """The scaled residuals and their Jacobian.

        **Returns:** `scaled(params, points)` and a dense matrix whose rows follow
        `ravel_pytree(scaled)` and whose columns follow `ravel_pytree(params)`.
        """
        if self.mesh is not None:
            return self._over(self.mesh, params, points)
        return self._jacobian(params, points)

    def _over(self, mesh: Mesh, params: PyTree, points: Mapping[str, PyTree]):
        spread, columns = PartitionSpec(mesh.axis_names), PartitionSpec(None, mesh.axis_names)

        def of_device(params, points):
            residuals, jacobian = self._jacobian(params, points)
            # The mean is over the points of all devices.
            share = mesh.size**-0.5
            return share * ravel_pytree(residuals)[0], share * jacobian

        # Unchecked, a device's derivatives by the parameters are its own and not the sum of all.
        residuals, jacobian = jax.shard_map(
            of_device,
            mesh=mesh,
            in_specs=(PartitionSpec(), spread),
            out_specs=spread,
            check_vma=False,
        )(params, dict(points))
        if jacobian.shape[0] < jacobian.shape[1]:
            jacobian = jax.lax.with_sharding_constraint(jacobian, NamedSharding(mesh, columns))
        return residuals, jacobian

    def _jacobian(
        self, params: PyTree, points: Mapping[str, PyTree]
    ) -> tuple[dict[str, Array], Float[Array, "residuals parameters"]]:
        named = self._named({b: self._rows(b, params, points[b]) for b in self.blocks})
        residuals = {name: self._mixed(name, r) for name, (r, _) in named.items()}
        # Rows must come in the order in which `ravel_pytree` lists a dictionary: sorted.
        jacobian = [
            jax.vmap(functools.partial(self._mixed, name), -1, -1)(
                jac.reshape(*r.shape, jac.shape[-1])
            ).reshape(-1, jac.shape[-1])
            for name, (r, jac) in sorted(named.items(), key=lambda item: item[0])
        ]
        return residuals, jnp.concatenate(jacobian)

    def _rows(self, block: str, params: PyTree, points: PyTree) -> dict[str, tuple[Array, Array]]:
        """The residuals of a block, and the rows of their Jacobian by point, both unscaled."""
        at_point = functools.partial(self._at, block)
        found, jacobian = jacobian_by_point(at_point, params, points)
        return {name: (r, jacobian[name]) for name, r in found.items()}

    def operator(
        self, params: PyTree, points: Mapping[str, PyTree]
    ) -> tuple[PyTree, "BlockJacobian"]:
        """The scaled residuals and their Jacobian, as an operator that is not yet a matrix.

        **Returns:** `scaled(params, points)` and a lineax operator with the rows and columns of
        `jacobian`.
        With a mesh each device makes the products of its own rows.
        """
        kind = BlockJacobian if self.mesh is None else ShardedJacobian
        return self.scaled(params, points), kind(self, params, dict(points))


class BlockJacobian(AbstractChunkedJacobian):
    """The Jacobian of scaled residuals, by products; chunks of points are worked on in turn.

    A chunk has as many points as have rows that fill `memory`. Products make no rows: what they
    hold of a point, the intermediate values of its residuals, is taken to be no more.
    """

    residuals: Residuals
    params: PyTree
    points: dict[str, PyTree]
    memory: int | None = eqx.field(static=True, default=None)

    def within(self, memory: int) -> "BlockJacobian":
        return type(self)(self.residuals, self.params, self.points, memory)

    def as_matrix(self) -> Float[Array, "m n"]:
        return self.residuals.jacobian(self.params, self.points)[1]

    def mv(self, vector: Float[Array, " n"]) -> Float[Array, " m"]:
        tangent = ravel_pytree(self.params)[1](vector)

        def of_block(block):
            def product(points):
                return jax.jvp(
                    lambda p: self.residuals._block(block, p, points), (self.params,), (tangent,)
                )[1]

            points = self.points[block]
            if (chunks := self._chunks(block)) is None:
                return product(points)
            found = jax.lax.map(lambda chunk: product(_take(points, chunk[0])), chunks)
            size = len(jax.tree.leaves(points)[0])
            return jax.tree.map(lambda r: r.reshape(-1, *r.shape[2:])[:size], found)

        named = self.residuals._named({b: of_block(b) for b in self.residuals.blocks})
        return ravel_pytree({n: self.residuals._mixed(n, r) for n, r in named.items()})[0]

    def transpose(self) -> lx.FunctionLinearOperator:
        return lx.FunctionLinearOperator(self._transposed_mv, self.out_structure())

    def _transposed_mv(self, vector: Float[Array, " m"]) -> Float[Array, " n"]:
        shapes = jax.eval_shape(self.residuals._scaled, self.params, self.points)
        zeros = jax.tree.map(lambda r: jnp.zeros(r.shape, r.dtype), shapes)
        scaled = ravel_pytree(zeros)[1](vector)
        scaled = {name: self.residuals._unmixed(name, r) for name, r in scaled.items()}

        def of_block(block):
            def product(points, cotangent):
                pull = jax.vjp(lambda p: self.residuals._block(block, p, points), self.params)[1]
                return ravel_pytree(pull(cotangent))[0]

            cotangent = {name: scaled[name] for name in self._shapes(block)}
            return self._summed(block, product, cotangent)

        return sum(map(of_block, self.residuals.blocks), start=jnp.zeros((), vector.dtype))

    def gramian(self) -> Float[Array, "n n"]:
        if self.residuals.left:  # which mixes the chunks
            return inner_products(self.as_matrix())

        def of_block(block):
            def product(points, weights):
                rows = self.residuals._rows(block, self.params, points)
                rows = [
                    (weights[name][:, None] * jac).reshape(-1, jac.shape[-1])
                    for name, (_, jac) in rows.items()
                ]
                return inner_products(jnp.concatenate(rows))

            weights = {
                name: jnp.broadcast_to(self.residuals._scale(name, r), (r.shape[0], 1))
                for name, r in self._shapes(block).items()
            }
            return self._summed(block, product, weights)

        return sum(map(of_block, self.residuals.blocks), start=jnp.zeros(()))

    def _summed(self, block: str, product: Callable, by_point: PyTree) -> Array:
        """The sum over chunks of a product that is linear in what each point has `by_point`."""
        points = self.points[block]
        if (chunks := self._chunks(block)) is None:
            return product(points, by_point)

        def add(total, chunk):
            index, exists = chunk
            own = jax.tree.map(
                lambda x: x[index] * exists.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype),
                by_point,
            )
            return total + product(_take(points, index), own), None

        first = jax.tree.map(lambda x: x[0], chunks)
        shape = jax.eval_shape(lambda c: add(0, c)[0], first)
        return jax.lax.scan(add, jnp.zeros(shape.shape, shape.dtype), chunks)[0]

    def _shapes(self, block: str) -> dict[str, jax.ShapeDtypeStruct]:
        return jax.eval_shape(
            functools.partial(self.residuals._block, block), self.params, self.points[block]
        )

    def _chunks(self, block: str) -> tuple[Array, Array] | None:
        """Indices of points, a row a chunk, and whether there is such a point."""
        number = len(jax.tree.leaves(self.points[block])[0])
        row = self.in_structure()
        shapes = self._shapes(block).values()
        rows = sum(math.prod(r.shape) for r in shapes)
        if self.memory is None or number == 0:
            return None
        count = math.ceil(rows * row.size * row.dtype.itemsize / self.memory)
        if count <= 1:
            return None
        size = math.ceil(number / min(count, number))
        index = jnp.arange(math.ceil(number / size) * size).reshape(-1, size)
        return jnp.minimum(index, number - 1), index < number

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.eval_shape(lambda p: ravel_pytree(p)[0], self.params)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return jax.eval_shape(
            lambda p, x: ravel_pytree(self.residuals.scaled(p, x))[0], self.params, self.points
        )


class ShardedJacobian(BlockJacobian):
    """The Jacobian of residuals over a mesh: rows stay where their points are, sums are over all.

    `memory` is what chunks fill on each device.
    """

    def _over(self, product: Callable, out: PartitionSpec, *vectors: Array, spec=None) -> Array:
        """What `product` makes of a device's own Jacobian, and its part of vectors by `spec`."""
        mesh = self.residuals.mesh
        assert mesh is not None

        def of_device(params, points, *vectors):
            own = BlockJacobian(self.residuals, params, points, self.memory)
            # The mean is over the points of all devices.
            return mesh.size**-0.5 * product(own, *vectors)

        # Unchecked, a device's derivatives by the parameters are its own and not the sum of all.
        return jax.shard_map(
            of_device,
            mesh=mesh,
            in_specs=(PartitionSpec(), self._rows, *(spec for _ in vectors)),
            out_specs=out,
            check_vma=False,
        )(self.params, self.points, *vectors)

    @property
    def _rows(self) -> PartitionSpec:
        assert self.residuals.mesh is not None
        return PartitionSpec(self.residuals.mesh.axis_names)

    def _sum(self, of_devices: Array) -> Array:
        assert self.residuals.mesh is not None
        return jax.lax.psum(of_devices, self.residuals.mesh.axis_names)

    def mv(self, vector: Float[Array, " n"]) -> Float[Array, " m"]:
        return self._over(
            lambda own, vector: own.mv(vector), self._rows, vector, spec=PartitionSpec()
        )

    def _transposed_mv(self, vector: Float[Array, " m"]) -> Float[Array, " n"]:
        return self._over(
            lambda own, vector: self._sum(own._transposed_mv(vector)),
            PartitionSpec(), vector, spec=self._rows,
        )  # fmt: skip

    def gramian(self) -> Float[Array, "n n"]:
        assert self.residuals.mesh is not None
        share = self.residuals.mesh.size**-0.5
        return self._over(lambda own: self._sum(share * own.gramian()), PartitionSpec())


def _take(points: PyTree, index: Array) -> PyTree:
    return jax.tree.map(lambda x: x[index], points)
