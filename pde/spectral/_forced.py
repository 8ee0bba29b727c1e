"""An equation that something acts on: what control and identification through a solver change."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Scalar, Shaped

from ._semilinear import AbstractSemilinear


class Forced(AbstractSemilinear):
    r"""$u_t = Lu + N(t, u) + f(t)$ for another equation's L and N.

    **Arguments:**

    - `equation`: of any kind but those whose `start` is more than modes.
    - `force`: the modes of f as a function of `t` and `args`, such as [`pde.spectral.Hats`][].

    ```python
    >>> import jax.numpy as jnp
    >>> from pde import spectral
    >>> burgers = spectral.Burgers(spectral.Fourier((0, 2 * jnp.pi, 12)), 0.1)
    >>> pushed = spectral.Forced(burgers, lambda t, args: t * args)
    >>> pushed.nonlinear(2.0, jnp.zeros(4, complex), jnp.ones(4)).real.tolist()
    [2.0, 2.0, 2.0, 2.0]

    ```
    """

    equation: AbstractSemilinear
    force: Callable[[Any, Any], Array]

    @property
    def basis(self):
        return self.equation.basis

    @property
    def symbol(self):
        return self.equation.symbol

    def nonlinear(self, t: Any, modes: Complex[Array, "..."], args: Any = None) -> Array:
        return self.equation.nonlinear(t, modes, args) + self.force(t, args)

    def speeds(self, modes):
        return self.equation.speeds(modes)

    def start(self, values):
        return self.equation.start(values)

    def fields(self, modes):
        return self.equation.fields(modes)


class Hats(eqx.Module):
    """Linear in time between arrays at equal distances: a control that steps of any order resolve.

    **Arguments:** `nodes`, an array for each time; `until`, the time of the last; the first is 0.

    ```python
    >>> import jax.numpy as jnp
    >>> from pde import spectral
    >>> float(spectral.Hats(jnp.array([0.0, 1.0, 0.0]), until=4.0)(1.0))
    0.5

    ```
    """

    nodes: Shaped[Array, "times ..."]
    until: float | Scalar

    def __call__(self, t: Any, args: Any = None) -> Shaped[Array, "..."]:
        last = self.nodes.shape[0] - 1
        at = jnp.clip(t / self.until * last, 0, last)
        before = jnp.clip(jnp.floor(at).astype(int), 0, last - 1)
        share = at - before
        return (1 - share) * self.nodes[before] + share * self.nodes[before + 1]
