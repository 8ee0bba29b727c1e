"""Fourier neural operators: layers that act on the low modes of a field, whatever its grid."""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from .._network import glorot_linear
from ._modes import low_modes, of_modes


class SpectralConvolution(eqx.Module):
    r"""A linear map of each of a field's low Fourier modes, and zero for the others.

    $(Kv)(x) = \mathcal{F}^{-1}(R \cdot \mathcal{F} v)(x)$ with a matrix $R_k$ from channels to
    channels for each wave vector of $|k_i| < m_i$: Li et al., *Fourier Neural Operator for
    Parametric Partial Differential Equations* (ICLR 2021), equations (4) and (5). The transform is
    that of the function, not of its samples, so the same weights act alike on every grid.

    **Arguments:** `in_channels`, `out_channels`; `modes` $m_i$, one a direction; `key`.

    **Called with** a field of shape `(in_channels, *grid)`, periodic in each direction.

    **Raises:** `ValueError` where there is no mode to keep; when called, where a direction has
    fewer than `2*m - 1` points, which do not tell its modes apart.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp
        >>> from pde.operators import SpectralConvolution
        >>> layer = SpectralConvolution(1, 3, modes=[4], key=jax.random.key(0))
        >>> def field(n):
        ...     x = 2 * jnp.pi * jnp.arange(n) / n
        ...     return layer(jnp.sin(2 * x)[None])
        >>> bool(jnp.allclose(field(64)[:, ::4], field(16)))
        True

        ```
    """

    real: Float[Array, "i o *k"]
    imaginary: Float[Array, "i o *k"]
    modes: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, in_channels: int, out_channels: int, *, modes: Sequence[int], key: Key[Array, ""]
    ):
        self.modes = tuple(modes)
        if not self.modes or min(self.modes) < 1:
            raise ValueError(f"Each direction keeps at least one mode; got modes={self.modes}.")
        # A real field's transform is known from half of the last direction.
        kept = (*(2 * m - 1 for m in self.modes[:-1]), self.modes[-1])
        # Of unit variance to unit variance, where all the input's power is in the kept modes.
        scale = 1 / math.sqrt(2 * in_channels)
        both = scale * jax.random.normal(key, (2, in_channels, out_channels, *kept))
        self.real, self.imaginary = both

    def __call__(self, v: Float[Array, "i *grid"]) -> Float[Array, "o *grid"]:
        spectrum = low_modes(v, self.modes)
        weight = jax.lax.complex(self.real, self.imaginary).astype(spectrum.dtype)
        return of_modes(jnp.einsum("i...,io...->o...", spectrum, weight), v.shape[1:])


class FNO(eqx.Module):
    r"""A Fourier neural operator: fields on a grid to fields on the same grid, whichever it is.

    A pointwise map to `width` channels; `depth` layers
    $v \mapsto \sigma(Wv + b + Kv)$, $K$ a [`pde.operators.SpectralConvolution`][], the last without
    $\sigma$; and a pointwise network of one hidden layer to the result. Li et al. (ICLR 2021),
    section 4. Trained on one grid, it may be called with another.

    **Arguments:**

    - `in_channels`, `out_channels`.
    - `modes`: how many wave numbers are kept in each direction; there are as many directions.
    - `width`, `depth`, and `projection`, the width of the last network's hidden layer.
    - `activation`.
    - `coordinates`: give each point its place in the unit cube as further inputs. Without them the
        operator commutes with translations, which is right where equation and domain do. Along
        a periodic direction a place is a sawtooth, whose modes are a grid's own by about `1/n`.
    - `padding`: by which fraction of its length the domain is continued by zeros in each direction,
        where a field is not periodic; one number, or one a direction.
    - `key`.

    **Called with** a field of shape `(in_channels, *grid)`; `jax.vmap` it over a batch. A grid
    includes the first end of a periodic direction and not the last.

    **Raises:** `ValueError` as the convolution does, or for a negative padding.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp
        >>> from pde.operators import FNO
        >>> fno = FNO(1, 1, modes=[6, 6], width=8, depth=2, key=jax.random.key(0))
        >>> jax.vmap(fno)(jnp.ones((5, 1, 16, 32))).shape
        (5, 1, 16, 32)

        ```
    """

    lift: eqx.nn.Linear
    convolutions: tuple[SpectralConvolution, ...]
    pointwise: tuple[eqx.nn.Linear, ...]
    hidden: eqx.nn.Linear
    project: eqx.nn.Linear
    activation: Callable[[Array], Array]
    coordinates: bool = eqx.field(static=True)
    padding: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        modes: Sequence[int],
        width: int = 32,
        depth: int = 4,
        projection: int = 128,
        activation: Callable[[Array], Array] = jax.nn.gelu,
        coordinates: bool = True,
        padding: float | Sequence[float] = 0.0,
        key: Key[Array, ""],
    ):
        dims = len(modes)
        self.padding = (
            (float(padding),) * dims if isinstance(padding, (int, float)) else tuple(padding)
        )
        if len(self.padding) != dims or min(self.padding, default=0.0) < 0:
            raise ValueError(f"padding is one number from 0 up a direction; got {padding}.")
        keys = iter(jax.random.split(key, 2 * depth + 3))
        inputs = in_channels + dims * coordinates
        self.lift = glorot_linear(inputs, width, key=next(keys))
        self.convolutions = tuple(
            SpectralConvolution(width, width, modes=modes, key=next(keys)) for _ in range(depth)
        )
        self.pointwise = tuple(glorot_linear(width, width, key=next(keys)) for _ in range(depth))
        self.hidden = glorot_linear(width, projection, key=next(keys))
        self.project = glorot_linear(projection, out_channels, key=next(keys))
        self.activation, self.coordinates = activation, coordinates

    def __call__(self, v: Float[Array, "i *grid"]) -> Float[Array, "o *grid"]:
        grid = v.shape[1:]
        if self.coordinates:
            ticks = [np.arange(n) / n for n in grid]
            v = jnp.concatenate(
                [v, jnp.asarray(np.stack(np.meshgrid(*ticks, indexing="ij")), v.dtype)]
            )
        added = [math.ceil(p * n) for p, n in zip(self.padding, grid, strict=True)]
        v = jnp.pad(_pointwise(self.lift, v), [(0, 0), *((0, more) for more in added)])
        for i, (mix, convolve) in enumerate(zip(self.pointwise, self.convolutions, strict=True)):
            v = _pointwise(mix, v) + convolve(v)
            if i < len(self.pointwise) - 1:
                v = self.activation(v)
        v = v[(slice(None), *(slice(n) for n in grid))]
        return _pointwise(self.project, self.activation(_pointwise(self.hidden, v)))


def _pointwise(layer: eqx.nn.Linear, v: Float[Array, "i *grid"]) -> Float[Array, "o *grid"]:
    assert layer.bias is not None
    bias = layer.bias.astype(v.dtype).reshape(-1, *(1,) * (v.ndim - 1))
    return jnp.tensordot(layer.weight.astype(v.dtype), v, axes=1) + bias
