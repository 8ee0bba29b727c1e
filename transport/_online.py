r"""The semi-dual of two point clouds, its cost recomputed block by block and never held.

A pass goes over blocks of $y$, scales these columns exactly and sums the rows; memory is that of
$n \times$ `block`. Rows may be sharded: all that has an axis of $n$ follows the sharding of `x`,
and devices exchange sums over rows, one number a column.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Scalar
from ott.geometry.costs import CostFn

from ._schur import damped, inverse_root
from ._semidual import (
    AbstractSemidual,
    Iterate,
    damping_of,
    log_gradient,
    masses_of,
    scale_columns,
)


class OnlineSemidual(AbstractSemidual):
    """Columns are kept in blocks of a static size; those that fill the last have no mass.

    Rows come in `groups`, one a device, of tiles of `tile` rows.
    """

    x: Float[Array, "n d"]
    y: Float[Array, "blocks block d"]
    a: Float[Array, " n"]
    b: Float[Array, "blocks block"]
    cost_fn: CostFn
    scale: Scalar
    tile: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)

    def cost(self, y: Float[Array, "block d"], x: Float[Array, "n d"] | None = None) -> Array:
        return self.scale * self.cost_fn.all_pairs(self.x if x is None else x, y)

    def at(self, f: Float[Array, " n"], epsilon: Scalar) -> Iterate:
        """Of the plan are kept the rows' squares and the largest entry of each tile, normalised."""
        by_mass = inverse_root(self.a)[:, None]

        def scale(carry, block):
            row, squares = carry
            y, b = block
            plan, g = scale_columns((f[:, None] - self.cost(y)) / epsilon, b, epsilon)
            q = plan * inverse_root(b)
            most = jnp.max((by_mass * q).reshape(self.groups, -1, self.tile * len(y)), axis=-1)
            return (row + jnp.sum(plan, axis=1), squares + jnp.sum(q * q, axis=1)), (g, most)

        start = jnp.zeros_like(f), jnp.zeros_like(f)
        (row, squares), (g, most) = lax.scan(scale, start, (self.y, self.b))
        return Iterate(f, g, (squares, most), row, jnp.sum(jnp.abs(row - self.a)))

    def direction(
        self, it: Iterate, epsilon: Scalar, density: float | None, direct_below: int
    ) -> Float[Array, " n"]:
        """By CG on the tiles of the plan that hold an entry that matters."""
        squares, most = it.plan
        full = (self.a > 0) & (it.row > 0)
        by_row = jnp.where(full, inverse_root(it.row), 0)
        ratio = jnp.where(full, self.a / jnp.where(full, it.row, 1), 1)
        error = it.error / jnp.sum(self.a)
        damping = damping_of(error, it.f.dtype)
        # A product costs a part of a sweep: no more digits than Newton's step is to gain.
        rtol = jnp.clip(jnp.sqrt(error), 10 * jnp.finfo(it.f.dtype).eps, 0.1)
        raised = jnp.sqrt(jnp.max(ratio.reshape(self.groups, -1, self.tile), axis=-1))
        matters = most * raised > 1e-2 * rtol / self.b.size
        product = self.tiled_product(it, epsilon, by_row, matters)
        rhs = by_row * log_gradient(it.row, self.a)
        s = damped(product, squares * by_row**2, rhs, damping, rtol, max_steps=100)
        return epsilon * by_row * s

    def settled(self, it: Iterate, epsilon: Scalar) -> Iterate:
        """A sweep mends what Newton's model has wrong in single rows, at a fraction of its cost."""
        return self.sweep(it, epsilon)

    def tiled_product(self, it: Iterate, epsilon: Scalar, by_row, matters) -> Callable:
        r"""$s \mapsto Q Q^\top s$, with the tiles of $Q$ that `matters`, (blocks, groups, tiles).

        Within a block of columns the tiles that matter come first, as many in each group as in
        the group with most of them.
        """
        blocks, block, _ = self.y.shape
        wide = next(k for k in (8, 4, 2, 1) if blocks % k == 0 and (k * block <= 64 or k == 1))

        def widen(values):
            return values.reshape(-1, wide * values.shape[1], *values.shape[2:])

        y, g, by_column = map(widen, (self.y, it.g, inverse_root(self.b)))
        matters = jnp.any(matters.reshape(-1, wide, *matters.shape[1:]), axis=1)
        first = jnp.argsort(~matters, axis=-1)
        count = jnp.max(jnp.sum(matters, axis=-1), axis=-1)
        tiles = matters.shape[-1]

        def tiled(values):
            return values.reshape(self.groups, tiles, self.tile, *values.shape[1:])

        x, f, by_row = map(tiled, (self.x, it.f, by_row))
        pick = jax.vmap(lambda values, index: values[index])
        add = jax.vmap(lambda values, index, new: values.at[index].add(new))

        def product(s):
            s = tiled(s)

            def step(carry, block):
                y, g, by_column, first, count = block

                def gather(k, carry):
                    image, kept = carry
                    here = first[:, k]
                    cost = jax.vmap(lambda x: self.cost(y, x))(pick(x, here))
                    q = jnp.exp((pick(f, here)[..., None] + g - cost) / epsilon)
                    q = pick(by_row, here)[..., None] * q * by_column
                    return image + jnp.einsum("gi,gij->j", pick(s, here), q), kept.at[k].set(q)

                def scatter(k, out):
                    return add(out, first[:, k], kept[k] @ image)

                out, kept = carry
                image, kept = lax.fori_loop(0, count, gather, (jnp.zeros_like(g), kept))
                return (lax.fori_loop(0, count, scatter, out), kept), None

            kept = jnp.zeros((tiles, self.groups, self.tile, y.shape[1]), s.dtype)
            blocks = (y, g, by_column, first, count)
            return lax.scan(step, (jnp.zeros_like(s), kept), blocks)[0][0].ravel()

        return product

    def spread(self) -> tuple[Scalar, Scalar]:
        """The least and the largest cost; NaN or infinite if a cost is."""

        def step(carry, y):
            low, high = carry
            cost = self.cost(y)
            return (jnp.minimum(low, jnp.min(cost)), jnp.maximum(high, jnp.max(cost))), None

        worst = jnp.asarray(jnp.inf, self.a.dtype)
        return lax.scan(step, (worst, -worst), self.y)[0]

    def extended(
        self, y: Float[Array, "k block d"], g: Float[Array, "k block"], epsilon: Scalar
    ) -> Float[Array, " n"]:
        """Row potentials that meet `a` against other points `y` with known potentials `g`."""

        def step(total, block):
            y, g = block
            return jnp.logaddexp(total, logsumexp((g - self.cost(y)) / epsilon, axis=1)), None

        total = lax.scan(step, jnp.full_like(self.a, -jnp.inf), (y, g))[0]
        return jnp.where(self.a > 0, epsilon * (jnp.log(self.a) - total), -jnp.inf)


def cells(points: Float[Array, "n d"], size: int) -> Int[Array, "cells k"]:
    """A k-d tree's cells, of at most `size` points each: indices, `n` where there are too few."""
    depth = max(0, math.ceil(math.log2(len(points) / size)))
    index = jnp.arange(2**depth * -(-len(points) // 2**depth))[None]
    for _ in range(depth):
        inside = points[jnp.minimum(index, len(points) - 1)]
        widest = jnp.argmax(jnp.ptp(inside, axis=1), axis=-1)
        along = jnp.take_along_axis(inside, widest[:, None, None], axis=2)[..., 0]
        index = jnp.take_along_axis(index, jnp.argsort(along, axis=1), axis=1)
        index = index.reshape(2 * len(index), -1)
    return index


def taken(values: Float[Array, "n ..."], index: Int[Array, "cells k"], fill=None) -> Array:
    """Values in cells; where a cell is short, `fill`, or the last of them."""
    last = values[-1] if fill is None else jnp.asarray(fill, values.dtype)
    return jnp.concatenate([values, last[None]])[index]


def in_blocks(values: Float[Array, "m ..."], block: int, fill) -> Float[Array, "k block ..."]:
    """Cut along the first axis; the last block is filled up with `fill`."""
    filler = jnp.broadcast_to(jnp.asarray(fill), (-len(values) % block, *values.shape[1:]))
    return jnp.concatenate([values, filler]).reshape(-1, block, *values.shape[1:])


def total_mass(dual: OnlineSemidual, f, g, epsilon) -> Scalar:
    """The mass of the plan, differentiable in points and epsilon at the memory of one block."""

    @jax.checkpoint
    def step(total, block):
        y, g = block
        return total + jnp.sum(masses_of(f[:, None] + g - dual.cost(y), epsilon)), None

    return lax.scan(step, jnp.zeros((), f.dtype), (dual.y, g))[0]
