"""Networks from a point's features to the unknowns, and the embeddings that go in front."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

Activation = Callable[[Array], Array]


class Frozen(eqx.Module):
    """An array that belongs to a network but is not trained."""

    value: Array


def partition(network: PyTree) -> tuple[PyTree, PyTree]:
    """The trainable arrays of a network, and all the rest; `equinox.combine` joins them again.

    ```python
    >>> import jax, pde
    >>> features = pde.FourierEmbedding(2, 8, key=jax.random.key(0))
    >>> jax.tree.leaves(pde.partition(features)[0])
    []

    ```
    """

    def is_frozen(node: Any) -> bool:
        return isinstance(node, Frozen)

    return eqx.partition(
        network, lambda leaf: not is_frozen(leaf) and eqx.is_inexact_array(leaf), is_leaf=is_frozen
    )


def glorot_linear(in_size: int, out_size: int, *, key: Key[Array, ""]) -> eqx.nn.Linear:
    """A layer with Glorot normal weights and zero biases.

    Glorot and Bengio (2010), equation (12) with a normal law: the usual start of PINNs, whose
    derivatives shrink or grow with each layer under Equinox's default.
    """
    layer = eqx.nn.Linear(in_size, out_size, key=key)
    std = math.sqrt(2 / (in_size + out_size))
    weight = std * jax.random.normal(key, layer.weight.shape, layer.weight.dtype)
    return eqx.tree_at(
        lambda n: (n.weight, n.bias), layer, (weight, jnp.zeros(out_size, weight.dtype))
    )


class FourierEmbedding(eqx.Module):
    r"""Random Fourier features $(\cos 2\pi Bx, \sin 2\pi Bx)$, $B_{ij} \sim N(0, s^2)$, frozen.

    Tancik et al., *Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
    Domains* (2020), equation (4).

    **Arguments:** `in_size`; `features`, the length of the result (even); `scale` $s$, in
    cycles per half of the domain; `key`.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> pde.FourierEmbedding(2, 8, scale=1.0, key=jax.random.key(0))(jnp.zeros(2)).shape
    (8,)

    ```
    """

    matrix: Frozen
    out_size: int = eqx.field(static=True)

    def __init__(self, in_size: int, features: int, *, scale: float = 1.0, key: Key[Array, ""]):
        if features < 2 or features % 2:
            raise ValueError(f"Fourier features come in pairs; got features={features}.")
        self.matrix = Frozen(scale * jax.random.normal(key, (features // 2, in_size)))
        self.out_size = features

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " features"]:
        phase = 2 * jnp.pi * self.matrix.value.astype(x.dtype) @ x
        return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)])


class MLP(eqx.Module):
    """A multilayer perceptron with `depth` hidden layers of `width`.

    **Arguments:** `in_size`, `out_size`; `width`, `depth`; `activation`; `embedding`, applied to
    the input first (its `out_size` is the first layer's input); `key`.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> net = pde.MLP(2, 1, width=20, depth=3, key=jax.random.key(0))
    >>> net(jnp.zeros(2)).shape
    (1,)

    ```
    """

    embedding: FourierEmbedding | None
    layers: list[eqx.nn.Linear]
    activation: Activation

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        width: int,
        depth: int,
        activation: Activation = jnp.tanh,
        embedding: FourierEmbedding | None = None,
        key: Key[Array, ""],
    ):
        first = in_size if embedding is None else embedding.out_size
        sizes = [first] + [width] * depth + [out_size]
        keys = jax.random.split(key, len(sizes) - 1)
        self.embedding = embedding
        self.layers = [
            glorot_linear(a, b, key=k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
        ]
        self.activation = activation

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " k"]:
        if self.embedding is not None:
            x = self.embedding(x)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class FilterNet(eqx.Module):
    r"""A multiplicative filter network: a sum of sinusoids, whose frequencies are trained.

    Fathony, Sahu, Willmott and Kolter, *Multiplicative Filter Networks* (ICLR 2021), section 3.1:
    $z_1 = g_1(x)$, $z_{i+1} = (W_i z_i + b_i) \circ g_{i+1}(x)$, and a linear layer, with filters
    $g_i(x) = \sin(\omega_i x + \phi_i)$. It is linear in an exponential number of sinusoids (their
    theorem 1), so there is nothing between them that training has to bend: for waves.

    **Arguments:** `in_size`, `out_size`; `width` sinusoids in each of `depth` + 1 filters; `scale`,
    the standard deviation of the sums of frequencies that the products have at the start, in
    radians per half of the domain, one number or one an input; `key`.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> net = pde.FilterNet(2, 1, width=20, depth=1, scale=(1.0, 30.0), key=jax.random.key(0))
    >>> net(jnp.zeros(2)).shape
    (1,)

    ```
    """

    filters: list[eqx.nn.Linear]
    layers: list[eqx.nn.Linear]

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        width: int,
        depth: int,
        scale: float | Sequence[float] = 1.0,
        key: Key[Array, ""],
    ):
        scales = np.broadcast_to(np.asarray(scale), (in_size,)) / math.sqrt(depth + 1)
        filter_key, layer_key = jax.random.split(key)
        self.filters = [
            _sinusoids(jnp.asarray(scales), width, key=k)
            for k in jax.random.split(filter_key, depth + 1)
        ]
        self.layers = [
            glorot_linear(width, out, key=k)
            for out, k in zip(
                [width] * depth + [out_size], jax.random.split(layer_key, depth + 1), strict=True
            )
        ]

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " k"]:
        first, *others = self.filters
        z = jnp.sin(first(x))
        for layer, sinusoids in zip(self.layers, others, strict=False):
            z = layer(z) * jnp.sin(sinusoids(x))
        return self.layers[-1](z)


def _sinusoids(scale: Float[Array, " d"], width: int, *, key: Key[Array, ""]) -> eqx.nn.Linear:
    """Phases of normal frequencies and uniform shifts."""
    layer = eqx.nn.Linear(scale.size, width, key=key)
    frequency_key, shift_key = jax.random.split(key)
    dtype = layer.weight.dtype
    frequencies = scale.astype(dtype) * jax.random.normal(frequency_key, layer.weight.shape, dtype)
    shifts = jax.random.uniform(shift_key, (width,), dtype, -jnp.pi, jnp.pi)
    return eqx.tree_at(lambda n: (n.weight, n.bias), layer, (frequencies, shifts))


class PirateBlock(eqx.Module):
    """One adaptive residual block: equations (4.3)-(4.8) of the PirateNet paper."""

    layers: list[eqx.nn.Linear]
    alpha: Array

    def __init__(self, width: int, *, key: Key[Array, ""]):
        self.layers = [glorot_linear(width, width, key=k) for k in jax.random.split(key, 3)]
        self.alpha = jnp.zeros(())

    def __call__(self, x, u, v, activation: Activation) -> Float[Array, " width"]:
        f, g, h = self.layers
        gate = activation(f(x))
        z = gate * u + (1 - gate) * v
        gate = activation(g(z))
        z = gate * u + (1 - gate) * v
        return self.alpha * activation(h(z)) + (1 - self.alpha) * x


class PirateNet(eqx.Module):
    """Physics-informed residual adaptive network: starts as a linear model of its embedding.

    Wang, Li, Chen and Perdikaris, *PirateNets: Physics-informed Deep Learning with Residual
    Adaptive Networks* (2024), section 4. Every block's trainable $\\alpha$ starts at zero, so at
    first the network is linear in the Fourier features, and depth is switched on by training.

    **Arguments:** as [`pde.MLP`][], but `depth` counts blocks of three layers; the embedding is
    required and its `out_size` must be `width`, since the blocks' skip connections carry it.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> k1, k2 = jax.random.split(jax.random.key(0))
    >>> net = pde.PirateNet(2, 1, width=32, depth=2, key=k1,
    ...                     embedding=pde.FourierEmbedding(2, 32, key=k2))
    >>> net(jnp.zeros(2)).shape
    (1,)

    ```
    """

    embedding: FourierEmbedding
    gates: tuple[eqx.nn.Linear, eqx.nn.Linear]
    blocks: list[PirateBlock]
    out: eqx.nn.Linear
    activation: Activation

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        width: int,
        depth: int,
        activation: Activation = jnp.tanh,
        embedding: FourierEmbedding,
        key: Key[Array, ""],
    ):
        if embedding.out_size != width:
            raise ValueError(
                f"A PirateNet's width must be its embedding's features: {width} is not "
                f"{embedding.out_size}."
            )
        k_u, k_v, k_out, *k_blocks = jax.random.split(key, depth + 3)
        self.embedding = embedding
        self.gates = (glorot_linear(width, width, key=k_u), glorot_linear(width, width, key=k_v))
        self.blocks = [PirateBlock(width, key=k) for k in k_blocks]
        self.out = glorot_linear(width, out_size, key=k_out)
        self.activation = activation

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " k"]:
        x = self.embedding(x)
        u, v = (self.activation(gate(x)) for gate in self.gates)
        for block in self.blocks:
            x = block(x, u, v, self.activation)
        return self.out(x)
