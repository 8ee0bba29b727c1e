r"""Unknowns in the cells of a box that nothing flows out of, on coarser and coarser grids.

Wesseling, An Introduction to Multigrid Methods (1992): coarse cells are blocks of $2^d$;
corrections are interpolated linearly between their middles and residuals restricted by the
transpose. A constant is interpolated to a constant, so that a right-hand side that sums to zero
does so on all grids, and an operator may be singular by a constant.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._stencil import SYMMETRIC, Stencil


def interpolate_cells(coarse: Float[Array, "..."]) -> Float[Array, "..."]:
    """Linearly between the middles of cells; no slope on the walls."""
    for axis in range(coarse.ndim):
        here = jnp.moveaxis(coarse, axis, -1)
        padded = jnp.pad(here, [(0, 0)] * (here.ndim - 1) + [(1, 1)], mode="edge")
        # The nearer cell's middle is a quarter of a coarse cell away, the other's three.
        both = (3 * here + padded[..., :-2]) / 4, (3 * here + padded[..., 2:]) / 4
        here = jnp.stack(both, axis=-1).reshape(*here.shape[:-1], -1)
        coarse = jnp.moveaxis(here, -1, axis)
    return coarse


def restrict_cells(fine: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""The transpose of `interpolate_cells` over $2^d$."""
    for axis in range(fine.ndim):
        here = jnp.moveaxis(fine, axis, -1)
        low, high = here[..., ::2], here[..., 1::2]
        # From the neighbours; at a wall from the cell itself.
        after = jnp.concatenate([low[..., 1:], high[..., -1:]], axis=-1)
        before = jnp.concatenate([low[..., :1], high[..., :-1]], axis=-1)
        fine = jnp.moveaxis((3 * (low + high) + before + after) / 8, -1, axis)
    return fine


def coarsened_cells(fine: Stencil) -> Stencil:
    """The same equation on blocks of cells, between which the faces are the fine ones."""
    dim = len(fine.shape)

    def thinned(array: Array, axis: int, starts: tuple[int, ...]) -> Array:
        """The mean of every second entry from each start; what does not vary stays."""
        if array.shape[axis] == 1:
            return array
        ends = array.shape[axis]
        parts = [jax.lax.slice_in_dim(array, s, ends, stride=2, axis=axis) for s in starts]
        return sum(parts[1:], start=parts[0]) / len(parts)

    def side(array: Array, along: int, above: bool) -> Array:
        for axis in range(dim):
            array = thinned(array, axis, (int(above),) if axis == along else (0, 1))
        return array / 4

    shift = jnp.asarray(sum(fine.lower + fine.upper, start=fine.diagonal))
    for axis in range(dim):
        shift = thinned(shift, axis, (0, 1))
    lower = [side(a, axis, False) for axis, a in enumerate(fine.lower)]
    upper = [side(a, axis, True) for axis, a in enumerate(fine.upper)]
    shape = tuple(n // 2 for n in fine.shape)
    return Stencil(shift - sum(lower + upper), lower, upper, shape, SYMMETRIC)
