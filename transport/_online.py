r"""The semi-dual of two point clouds, its cost recomputed block by block and never held.

A pass goes over blocks of $y$, scales these columns exactly and sums the rows; memory is that of
$n \times$ `block`. Rows may be sharded: all that has an axis of $n$ follows the sharding of `x`,
and devices exchange sums over rows, one number a column.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Scalar
from ott.geometry.costs import CostFn

from ._schur import conjugate_gradients
from ._semidual import AbstractSemidual, Iterate, damping_of, mass_of, scale_columns


class OnlineSemidual(AbstractSemidual):
    """Columns are kept in blocks of a static size; those that fill the last have no mass."""

    x: Float[Array, "n d"]
    y: Float[Array, "blocks block d"]
    a: Float[Array, " n"]
    b: Float[Array, "blocks block"]
    cost_fn: CostFn
    scale: Scalar

    def cost(self, y: Float[Array, "block d"]) -> Float[Array, "n block"]:
        return self.scale * self.cost_fn.all_pairs(self.x, y)

    def at(self, f: Float[Array, " n"], epsilon: Scalar) -> Iterate:
        def scale(row, block):
            y, b = block
            plan, g = scale_columns((f[:, None] - self.cost(y)) / epsilon, b, epsilon)
            return row + jnp.sum(plan, axis=1), g

        row, g = lax.scan(scale, jnp.zeros_like(f), (self.y, self.b))
        return Iterate(f, g, None, row, jnp.sum(jnp.abs(row - self.a)))

    def over_plan(self, it: Iterate, epsilon: Scalar, fold: Callable, start):
        """Folds `fold(carry, plan, b, index)` over the blocks of the plan's columns."""

        def step(carry, block):
            y, b, g, index = block
            plan = jnp.exp((it.f[:, None] + g - self.cost(y)) / epsilon)
            return fold(carry, plan, b, index), None

        index = jnp.arange(self.b.size).reshape(self.b.shape)
        return lax.scan(step, start, (self.y, self.b, it.g, index))[0]

    def direction(
        self, it: Iterate, epsilon: Scalar, density: float | None, direct_below: int
    ) -> Float[Array, " n"]:
        """By CG: on the `kept` largest entries of each row if no others matter, else on all."""
        n, m = self.a.size, self.b.size
        kept = min(m, 16 if density is None else max(1, int(density * m)))
        has_mass = (self.a > 0) & (it.row > 0)
        by_row = jnp.where(has_mass, lax.rsqrt(jnp.where(has_mass, it.row, 1)), 0)
        rhs = by_row * (self.a - it.row)
        error = it.error / jnp.sum(self.a)
        damping = damping_of(error, it.f.dtype)
        # A product with all entries costs a sweep: no more digits than Newton's step is to gain.
        rtol = jnp.clip(jnp.sqrt(error), 10 * jnp.finfo(it.f.dtype).eps, 0.1)
        threshold = 1e-2 * jnp.minimum(1e-2, error) / m

        def normalise(plan, b):
            return by_row[:, None] * plan * jnp.where(b > 0, lax.rsqrt(jnp.where(b > 0, b, 1)), 0)

        def look(carry, plan, b, _):
            count, squares = carry
            q = normalise(plan, b)
            return count + jnp.sum(q > threshold, axis=1), squares + jnp.sum(q * q, axis=1)

        start = (jnp.zeros(n, int), jnp.zeros_like(self.a))
        count, squares = self.over_plan(it, epsilon, look, start)
        diagonal = jnp.maximum(1 + damping - squares, damping)

        def solve(product):
            return conjugate_gradients(
                lambda s: (1 + damping) * s - product(s), rhs, diagonal, rtol, 100
            )

        def on_kept(_):
            def select(carry, plan, b, index):
                values, columns, used = carry
                q = normalise(plan, b)
                matters = q > threshold
                # The next free slots of the row; beyond the last for what is dropped.
                slot = used[:, None] + jnp.cumsum(matters, axis=1) - 1
                slot = jnp.where(matters, slot, kept)
                index = jnp.broadcast_to(index, q.shape)
                used = used + jnp.sum(matters, axis=1)
                return place(values, slot, q), place(columns, slot, index), used

            empty = jnp.zeros((n, kept), it.f.dtype), jnp.zeros((n, kept), int)
            values, columns, _ = self.over_plan(it, epsilon, select, (*empty, jnp.zeros(n, int)))

            def product(s):
                image = jnp.zeros(m, it.f.dtype).at[columns].add(values * s[:, None])
                return jnp.sum(values * image[columns], axis=1)

            return solve(product)

        def on_all(_):
            def product(s):
                def fold(out, plan, b, _):
                    q = normalise(plan, b)
                    return out + q @ (s @ q)

                return self.over_plan(it, epsilon, fold, jnp.zeros_like(s))

            return solve(product)

        return epsilon * by_row * lax.cond(jnp.max(count) <= kept, on_kept, on_all, None)

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


def place(rows: Array, slots: Array, values: Array) -> Array:
    """Each row's values put into its slots; those past the end are dropped."""
    return jax.vmap(lambda row, slot, value: row.at[slot].set(value, mode="drop"))(
        rows, slots, values
    )


def in_blocks(values: Float[Array, "m ..."], block: int, fill) -> Float[Array, "k block ..."]:
    """Cut along the first axis; the last block is filled up with `fill`."""
    filler = jnp.broadcast_to(jnp.asarray(fill), (-len(values) % block, *values.shape[1:]))
    return jnp.concatenate([values, filler]).reshape(-1, block, *values.shape[1:])


def total_mass(dual: OnlineSemidual, f, g, epsilon) -> Scalar:
    """The mass of the plan, differentiable in points and epsilon at the memory of one block."""

    @jax.checkpoint
    def step(total, block):
        y, g = block
        return total + mass_of(f[:, None] + g - dual.cost(y), epsilon), None

    return lax.scan(step, jnp.zeros((), f.dtype), (dual.y, g))[0]
