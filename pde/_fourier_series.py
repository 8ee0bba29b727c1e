"""A model that is linear in its parameters: a Fourier series, whose waves may be rescaled."""

import itertools
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._network import Frozen


class FourierSeries(eqx.Module):
    r"""All real waves up to some order over the box, as a network that is linear.

    De Ryck, Bonnet, Mishra and de Bézenac, *An operator preconditioning perspective on training in
    physics-informed machine learning* (ICLR 2024), whose linear model this is: a
    constant, and $\sqrt 2 \cos \pi k \cdot \xi$ and $\sqrt 2 \sin \pi k \cdot \xi$ for each wave
    vector $k$ up to sign, which are orthonormal in the mean over the box. Each coefficient is
    multiplied by a `scale`, the diagonal of the paper's $P$, which does not change what the model
    can be, but how it is trained: see [`pde.preconditioning.diagonal`][].

    **Arguments:** `in_size`, the coordinates, scaled to [-1, 1]; `out_size`; `modes`, the largest
    wave number, for all coordinates or for each. All coefficients start at zero.

    The waves are periodic over the box: no hard [`pde.Periodic`][] is needed (nor understood, since
    it takes the coordinate away from the network).

    ```python
    >>> import jax.numpy as jnp, pde
    >>> series = pde.FourierSeries(1, 1, modes=2)
    >>> [round(float(wave), 3) for wave in series.waves(jnp.array([0.0]))]
    [1.0, 1.414, 1.414, 0.0, 0.0]
    >>> pde.FourierSeries(2, 1, modes=(2, 3)).coefficients.shape  # (2*2 + 1) * (2*3 + 1)
    (1, 35)

    ```
    """

    coefficients: Float[Array, "k waves"]
    scale: Frozen
    vectors: Frozen

    def __init__(self, in_size: int, out_size: int, *, modes: int | Sequence[int]):
        orders = np.broadcast_to(np.asarray(modes), (in_size,))
        if orders.min() < 1:
            raise ValueError(f"A Fourier series needs one mode at least; got modes={modes}.")
        lattice = itertools.product(*(range(-order, order + 1) for order in orders))
        zero = (0,) * in_size
        # Half of the lattice: k and -k are the same waves.
        half = np.array([k for k in lattice if k > zero], float)
        self.vectors = Frozen(jnp.asarray(half))
        count = 1 + 2 * len(half)
        self.coefficients = jnp.zeros((out_size, count))
        self.scale = Frozen(jnp.ones(count))

    def waves(self, x: Float[Array, " d"]) -> Float[Array, " waves"]:
        """The basis at a point, before it is scaled: the constant, the cosines, the sines."""
        phase = jnp.pi * self.vectors.value.astype(x.dtype) @ x
        one = jnp.ones(1, x.dtype)
        return jnp.concatenate([one, np.sqrt(2.0) * jnp.cos(phase), np.sqrt(2.0) * jnp.sin(phase)])

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " k"]:
        return self.coefficients @ (self.scale.value.astype(x.dtype) * self.waves(x))

    def rescaled(self, factor: Float[Array, " waves"]) -> "FourierSeries":
        """The series whose waves are multiplied by a factor each."""
        scaled = self.scale.value * factor
        return eqx.tree_at(lambda series: series.scale.value, self, scaled)
