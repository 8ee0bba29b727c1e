r"""Stencils in red-black order, each class of points that have a parity in an array of its own.

A grid is padded by its boundary, position $p = i + 1$, and cut into $2^d$ arrays by the parity of
$p$ along each axis. The neighbours of a point then lie in other arrays at the same place or one
beside it: a sweep is slices and sums with no gather, no mask and no wasted half, and all points of
a colour (an even or odd sum of the index $i$) are relaxed at once. The array of even positions is
the next coarser grid of multigrid, padded by its own boundary.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._splitting import AbstractSplitting
from ._stencil import Stencil

Packed = tuple[Float[Array, "..."], ...]


class Coefficients(eqx.Module):
    """Of the points of one parity, without the boundary."""

    diagonal: Float[Array, "..."]
    inverse: Float[Array, "..."]
    lower: tuple[Float[Array, "..."], ...]
    upper: tuple[Float[Array, "..."], ...]


class RedBlackSplitting(AbstractSplitting):
    """A stencil by parities. All that is packed is zero on the boundary."""

    coefficients: tuple[Coefficients, ...]
    shape: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, stencil: Stencil) -> "RedBlackSplitting":
        def take(array: Array, parity: tuple[int, ...]) -> Array:
            starts = [1 - p for p in parity]
            varies = zip(array.shape, starts, strict=True)
            return array[tuple(slice(s, None, 2) if n > 1 else slice(None) for n, s in varies)]

        def of_parity(parity: tuple[int, ...]) -> Coefficients:
            diagonal = take(stencil.diagonal, parity)
            lower, upper = (
                tuple(take(a, parity) for a in side) for side in (stencil.lower, stencil.upper)
            )
            return Coefficients(diagonal, 1 / diagonal, lower, upper)

        parities = itertools.product((0, 1), repeat=len(stencil.shape))
        return cls(tuple(of_parity(p) for p in parities), stencil.shape)

    @property
    def parities(self) -> list[tuple[int, ...]]:
        return list(itertools.product((0, 1), repeat=len(self.shape)))

    @property
    def colours(self) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """The parities of the red points and of the black ones."""
        parities, dim = self.parities, len(self.shape)
        red = [p for p in parities if (sum(p) - dim) % 2 == 0]
        return red, [p for p in parities if p not in red]

    @property
    def halves(self) -> tuple[int, ...]:
        """The shape of each array: the boundary on both sides, and one more if that is odd."""
        return tuple((n + 3) // 2 for n in self.shape)

    def interior(self, parity: tuple[int, ...]) -> tuple[slice, ...]:
        """Where an array holds points of the grid."""
        return tuple(
            slice(0, (n + 1) // 2) if odd else slice(1, n // 2 + 1)
            for n, odd in zip(self.shape, parity, strict=True)
        )

    def pack(self, vector: Float[Array, "..."]) -> Packed:
        sizes = zip(self.halves, self.shape, strict=True)
        padded = jnp.pad(vector, [(1, 2 * half - n - 1) for half, n in sizes])
        return tuple(padded[tuple(slice(p, None, 2) for p in parity)] for parity in self.parities)

    def unpack(self, packed: Packed) -> Float[Array, "..."]:
        dim = len(self.shape)
        stacked = jnp.stack(packed).reshape((2,) * dim + self.halves)
        axes = [axis for pair in zip(range(dim, 2 * dim), range(dim), strict=True) for axis in pair]
        whole = stacked.transpose(axes).reshape([2 * half for half in self.halves])
        return whole[tuple(slice(1, n + 1) for n in self.shape)]

    def mv(self, x: Packed) -> Packed:
        def row(parity, own, c):
            here = self.interior(parity)
            return self._embed(parity, c.diagonal * own[here] + self.neighbours(x, parity))

        return tuple(map(row, self.parities, x, self.coefficients))

    def residual(self, x: Packed, b: Packed) -> Packed:
        def row(parity, own, c, b):
            here = self.interior(parity)
            total = c.diagonal * own[here] + self.neighbours(x, parity)
            return self._embed(parity, b[here] - total)

        return tuple(map(row, self.parities, x, self.coefficients, b))

    def over_diagonal(self, r: Packed) -> Packed:
        def row(parity, r, c):
            return self._embed(parity, r[self.interior(parity)] * c.inverse)

        return tuple(map(row, self.parities, r, self.coefficients))

    def sweep(self, x, b, omega, backward):
        first, then = reversed(self.colours) if backward else self.colours
        x = list(x)
        for parity in first + then:
            here, place = self.interior(parity), self.parities.index(parity)
            old, c = x[place], self.coefficients[place]
            relaxed = (b[place][here] - self.neighbours(x, parity)) * c.inverse
            new = (1 - omega) * old[here] + omega * relaxed
            x[place] = jax.lax.dynamic_update_slice(old, new, [s.start for s in here])
        return tuple(x)

    def has_zero_on_diagonal(self):
        return jnp.any(jnp.stack([jnp.any(c.diagonal == 0) for c in self.coefficients]))

    def neighbours(self, x: Packed | list, parity: tuple[int, ...]) -> Float[Array, "..."]:
        """$(L + U)x$ at the points of a parity."""
        here, terms = self.interior(parity), []
        c = self.coefficients[self.parities.index(parity)]
        for axis, odd in enumerate(parity):
            other = self.parities.index((*parity[:axis], 1 - odd, *parity[axis + 1 :]))
            # Position 2k lies between 2k - 1 and 2k + 1, places k - 1 and k among the odd ones.
            for coefficient, shift in ((c.lower[axis], odd - 1), (c.upper[axis], odd)):
                there = list(here)
                there[axis] = slice(here[axis].start + shift, here[axis].stop + shift)
                terms.append(coefficient * x[other][tuple(there)])
        return sum(terms[1:], start=terms[0])

    def incomplete(self) -> "RedBlackSplitting":
        r"""With the pivots of the incomplete Cholesky factorisation without fill for $D$.

        $\tilde d_i = a_{ii} - \sum_{j < i} a_{ij}^2 / \tilde d_j$, where all $j$ before a black
        point are red, and the red points keep theirs.
        """
        squared = jax.tree.map(jnp.square, self)
        ones = self.pack(jnp.ones(self.shape, self.coefficients[0].diagonal.dtype))
        inverse, coefficients = self.over_diagonal(ones), list(self.coefficients)
        for parity in self.colours[1]:
            place = self.parities.index(parity)
            c = coefficients[place]
            pivot = c.diagonal - squared.neighbours(inverse, parity)
            coefficients[place] = Coefficients(pivot, 1 / pivot, c.lower, c.upper)
        return RedBlackSplitting(tuple(coefficients), self.shape)

    def _embed(self, parity: tuple[int, ...], values: Float[Array, "..."]) -> Float[Array, "..."]:
        here = self.interior(parity)
        zeros = jnp.zeros(self.halves, values.dtype)
        return jax.lax.dynamic_update_slice(zeros, values, [s.start for s in here])
