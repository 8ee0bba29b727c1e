r"""Stencils in the natural order, a hyperplane of points at a time.

In the natural (lexicographic) order of its rows, a stencil's point $i$ waits for $i - e_k$ along
each axis $k$, all of which lie in the hyperplane $\sum_k i_k$ just before its own. The points of
one hyperplane do not touch each other: relaxing hyperplanes in turn gives the iterates of the
natural order, but for rounding. Skewed by $i_1 \mapsto \sum_k i_k$, a hyperplane is a slice.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._splitting import AbstractSplitting
from ._stencil import Stencil


class WavefrontSplitting(AbstractSplitting):
    """A stencil by hyperplanes, the first axis of all arrays; zero where none of its points is."""

    diagonal: Float[Array, "planes ..."]
    inverse: Float[Array, "planes ..."]
    lower: tuple[Float[Array, "planes ..."], ...]
    upper: tuple[Float[Array, "planes ..."], ...]
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, stencil: Stencil) -> "WavefrontSplitting":
        shape = stencil.shape

        def skewed(array: Array) -> Array:
            return _skew(jnp.broadcast_to(array, shape))

        diagonal = skewed(stencil.diagonal)
        points = skewed(jnp.ones((), diagonal.dtype)) > 0
        inverse = jnp.where(points, 1 / jnp.where(points, diagonal, 1), 0)
        lower, upper = (tuple(map(skewed, side)) for side in (stencil.lower, stencil.upper))
        return cls(diagonal, inverse, lower, upper, shape)

    def pack(self, vector: Float[Array, "..."]) -> Float[Array, "planes ..."]:
        return _skew(vector)

    def unpack(self, packed: Float[Array, "planes ..."]) -> Float[Array, "..."]:
        for axis in reversed(range(1, packed.ndim)):
            packed = _unshifted(packed, axis)
        return packed

    def mv(self, x: Float[Array, "planes ..."]) -> Float[Array, "planes ..."]:
        zero = jnp.zeros_like(x[:1])
        before, after = jnp.concatenate([zero, x[:-1]]), jnp.concatenate([x[1:], zero])
        total = jax.vmap(_neighbours)(before, after, self.lower, self.upper)
        # Where there is no point, the neighbours along the first axis are still there.
        return jnp.where(self.inverse != 0, self.diagonal * x + total, 0)

    def over_diagonal(self, r: Float[Array, "planes ..."]) -> Float[Array, "planes ..."]:
        return r * self.inverse

    def sweep(self, x, b, omega, backward):
        planes = len(x)
        zero = jnp.zeros_like(x[:1])

        def relax(k, padded):
            k = planes - 1 - k if backward else k
            lower, upper = (tuple(a[k] for a in side) for side in (self.lower, self.upper))
            total = _neighbours(padded[k], padded[k + 2], lower, upper)
            relaxed = (b[k] - total) * self.inverse[k]
            return padded.at[k + 1].set((1 - omega) * padded[k + 1] + omega * relaxed)

        return jax.lax.fori_loop(0, planes, relax, jnp.concatenate([zero, x, zero]))[1:-1]

    def has_zero_on_diagonal(self):
        points = _skew(jnp.ones(self.shape, self.diagonal.dtype)) > 0
        return jnp.any(points & (self.diagonal == 0))

    def incomplete(self) -> "WavefrontSplitting":
        r"""With the pivots of the incomplete Cholesky factorisation without fill for $D$."""
        squares = tuple(map(jnp.square, self.lower))
        zeros = tuple(map(jnp.zeros_like, squares))
        points = self.inverse != 0

        def eliminate(before, plane):
            diagonal, squares, zeros, points = plane
            pivot = diagonal - _neighbours(before, before, squares, zeros)
            inverse = jnp.where(points, 1 / jnp.where(points, pivot, 1), 0)
            return inverse, (pivot, inverse)

        start = jnp.zeros_like(self.diagonal[0])
        rows = (self.diagonal, squares, zeros, points)
        _, (pivots, inverse) = jax.lax.scan(eliminate, start, rows)
        return WavefrontSplitting(pivots, inverse, self.lower, self.upper, self.shape)


def _skew(array: Float[Array, "..."]) -> Float[Array, "planes ..."]:
    for axis in range(1, array.ndim):
        array = _shifted(array, axis)
    return array


def _shifted(array: Array, axis: int) -> Array:
    """Along the first axis by the position along another, which makes the first longer.

    Rows that are padded by one more than they grow move by one each where they are cut anew: no
    gather, whose indices XLA would be long in folding.
    """
    rows = jnp.moveaxis(array, (axis, 0), (-2, -1))
    *rest, n, length = rows.shape
    wide = length + n - 1
    padded = jnp.pad(rows, [(0, 0)] * (array.ndim - 1) + [(0, n)]).reshape(*rest, n * (wide + 1))
    return jnp.moveaxis(padded[..., : n * wide].reshape(*rest, n, wide), (-2, -1), (axis, 0))


def _unshifted(array: Array, axis: int) -> Array:
    rows = jnp.moveaxis(array, (axis, 0), (-2, -1))
    *rest, n, wide = rows.shape
    flat = jnp.pad(rows.reshape(*rest, n * wide), [(0, 0)] * (array.ndim - 2) + [(0, n)])
    return jnp.moveaxis(flat.reshape(*rest, n, wide + 1)[..., : wide - n + 1], (-2, -1), (axis, 0))


def _neighbours(before: Array, after: Array, lower: tuple[Array, ...], upper: tuple[Array, ...]):
    """$(L + U)x$ on a hyperplane, from the one before it and the one after."""
    total = lower[0] * before + upper[0] * after
    for axis in range(before.ndim):
        n = before.shape[axis]
        low = jax.lax.slice_in_dim(before, 0, n - 1, axis=axis)
        high = jax.lax.slice_in_dim(after, 1, n, axis=axis)
        pads = [(0, 0)] * before.ndim
        pads[axis] = (1, 0)
        total = total + lower[axis + 1] * jnp.pad(low, pads)
        pads[axis] = (0, 1)
        total = total + upper[axis + 1] * jnp.pad(high, pads)
    return total
