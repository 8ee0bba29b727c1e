r"""What an equation is to its steps: a symbol, and what is not linear, on a basis of waves."""

import abc
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact, Scalar

from ._fourier import Fourier


class AbstractSemilinear(eqx.Module):
    r"""$u_t = Lu + N(t, u)$, periodic, L a diagonal of waves.

    Equations are immutable; coefficients are numbers, or arrays to differentiate by.
    """

    basis: eqx.AbstractVar[Fourier]

    @property
    @abc.abstractmethod
    def symbol(self) -> Inexact[Array | np.ndarray, "..."]:
        """Of L, which broadcasts against modes; NumPy's where coefficients are numbers."""

    @abc.abstractmethod
    def nonlinear(self, t: Any, modes: Complex[Array, "..."], args: Any = None) -> Array:
        """The modes of N."""

    def speeds(self, modes: Complex[Array, "..."]) -> Float[Array, " dim"]:
        """The largest along each axis with which something moves; none by default."""
        return jnp.zeros(self.basis.dim, modes.real.dtype)

    @property
    def term(self) -> diffrax.ODETerm:
        """N, for [`pde.spectral.ETDRK`][]."""
        return diffrax.ODETerm(self.nonlinear)

    @property
    def whole_term(self) -> diffrax.ODETerm:
        """L and N, for any other of diffrax's solvers."""
        return diffrax.ODETerm(lambda t, v, args: self.symbol * v + self.nonlinear(t, v, args))

    def start(self, values: Float[Array, "..."]) -> Complex[Array, "..."]:
        """What is stepped, from values at the points."""
        return self.basis.modes(values)

    def fields(self, modes: Complex[Array, "..."]) -> Float[Array, "..."]:
        """Values at the points, from what is stepped."""
        return self.basis.values(modes)

    def courant(self, t: Scalar, modes: Complex[Array, "..."], dt: Scalar) -> Scalar:
        """How many points something moves in a step."""
        return dt * jnp.sum(self.speeds(modes) / jnp.asarray(self.basis.mesh.spacing))


class Semilinear(AbstractSemilinear):
    r"""An equation of one's own.

    **Arguments:**

    - `basis`: [`pde.spectral.Fourier`][].
    - `linear`: the symbol of L as a function of the wavenumbers, one an axis, or an array.
    - `term_of`: N as a function of `t`, modes and `args`, of modes.

    !!! Example

        ```python
        >>> import jax, numpy as np
        >>> from pde import grid, spectral
        >>> basis = spectral.Fourier((0, 32 * np.pi, 96))
        >>> def steepening(t, v, args):
        ...     return -basis.derivative(basis.modes(basis.values(v) ** 2), 0) / 2
        >>> flames = spectral.Semilinear(basis, lambda k: k**2 - k**4, steepening)
        >>> loop = grid.March(flames, spectral.ETDRK(flames, 0.25))
        >>> start = np.cos(np.arange(96) * np.pi / 48)
        >>> run = jax.jit(lambda u: loop.run(loop.init(flames.start(u)), steps=40)[0].y)
        >>> run(start).shape
        (32,)

        ```
    """

    basis: Fourier
    linear: Callable[..., Any] | Inexact[Array | np.ndarray, "..."]
    term_of: Callable[[Any, Array, Any], Array]

    @property
    def symbol(self) -> Inexact[Array | np.ndarray, "..."]:
        if callable(self.linear):
            return self.linear(*self.basis.waves)
        return self.linear

    def nonlinear(self, t: Any, modes: Complex[Array, "..."], args: Any = None) -> Array:
        return self.term_of(t, modes, args)
