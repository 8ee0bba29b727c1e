"""The low Fourier modes of periodic fields, on whatever grid."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float


def low_modes(v: Float[Array, "c *grid"], modes: Sequence[int]) -> Complex[Array, "c *k"]:
    """The coefficients of the waves with `|k_i| < modes[i]`, as of the function, not its samples.

    A direction has them in the order 0, 1, ..., m-1, -(m-1), ..., -1; the last one, whose other
    half is conjugate, only from 0 up.

    **Raises:** `ValueError` for a grid that has fewer than `2*m - 1` points in a direction.
    """
    grid = v.shape[1:]
    if len(grid) != len(modes):
        raise ValueError(f"A field in {len(modes)} directions, got one in {len(grid)}.")
    if any(n < 2 * m - 1 for n, m in zip(grid, modes, strict=True)):
        raise ValueError(f"A grid of {grid} does not resolve modes below {tuple(modes)}.")
    spectrum = jnp.fft.rfftn(v, axes=range(1, v.ndim), norm="forward")[..., : modes[-1]]
    for axis, m in enumerate(modes[:-1], start=1):
        n = spectrum.shape[axis]
        spectrum = jnp.concatenate(
            [
                jax.lax.slice_in_dim(spectrum, 0, m, axis=axis),
                jax.lax.slice_in_dim(spectrum, n - (m - 1), n, axis=axis),
            ],
            axis=axis,
        )
    return spectrum


def of_modes(spectrum: Complex[Array, "c *k"], grid: Sequence[int]) -> Float[Array, "c *grid"]:
    """The field with these coefficients, in the order of `low_modes`, and no others."""
    for axis, n in enumerate(grid[:-1], start=1):
        kept = spectrum.shape[axis]
        m = (kept + 1) // 2
        between = list(spectrum.shape)
        between[axis] = n - kept
        spectrum = jnp.concatenate(
            [
                jax.lax.slice_in_dim(spectrum, 0, m, axis=axis),
                jnp.zeros(between, spectrum.dtype),
                jax.lax.slice_in_dim(spectrum, m, kept, axis=axis),
            ],
            axis=axis,
        )
    return jnp.fft.irfftn(spectrum, s=tuple(grid), axes=range(1, spectrum.ndim), norm="forward")


def resample(v: Float[Array, "c *grid"], grid: Sequence[int]) -> Float[Array, "c *new"]:
    """A periodic field on another grid: by its Fourier series, without what either cannot hold.

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from pde.operators import resample
        >>> def wave(n):
        ...     return jnp.sin(2 * jnp.pi * jnp.arange(n) / n)[None]
        >>> bool(jnp.allclose(resample(wave(9), [32]), wave(32), atol=1e-6))
        True

        ```
    """
    modes = [(min(n, m) + 1) // 2 for n, m in zip(v.shape[1:], grid, strict=True)]
    return of_modes(low_modes(v, modes), grid)
