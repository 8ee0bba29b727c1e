"""An evolution equation's solution from its start, by a network."""

from collections.abc import Callable
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact


class Equation(Protocol):
    """What a propagator's defect is asked of: those of [`pde.spectral`][] are."""

    @property
    def whole_term(self) -> Any:
        """The right-hand side, as `diffrax.ODETerm`."""
        ...

    def start(self, values: Array) -> Array:
        """What is stepped, from values at the points."""
        ...

    def fields(self, modes: Array) -> Array:
        """Values at the points, from what is stepped."""
        ...


class Propagator(eqx.Module):
    r"""$u(t) = u_0 + \frac tT\, G(u_0, t/T)$, right at $t = 0$ whatever the network $G$ is.

    **Arguments:** `network`, from fields of shape `(channels + 1, *grid)`, the last of which is
    $t/T$ everywhere, to `(channels, *grid)`; `end` $T$.

    **Called with** the start, `(channels, *grid)`, a time, and what else is given as fields on the
    same grid, such as a force, which come before the time.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp
        >>> from pde.operators import FNO, Propagator
        >>> fno = FNO(2, 1, modes=[6], width=8, depth=2, key=jax.random.key(0))
        >>> propagator = Propagator(fno, end=0.5)
        >>> start = jnp.ones((1, 32))
        >>> bool((propagator(start, 0.0) == start).all()), propagator(start, 0.5).shape
        (True, (1, 32))

        ```
    """

    network: Callable[[Array], Array]
    end: float = eqx.field(static=True)

    def __call__(
        self,
        start: Float[Array, "c *grid"],
        t: Any,
        given: Float[Array, "g *grid"] | None = None,
    ) -> Float[Array, "c *grid"]:
        share = jnp.asarray(t, start.dtype) / self.end
        clock = jnp.broadcast_to(share, (1, *start.shape[1:]))
        known = [start, clock] if given is None else [start, given, clock]
        return start + share * self.network(jnp.concatenate(known))

    def defect(
        self,
        equation: Equation,
        start: Float[Array, "c *grid"],
        t: Any,
        given: Float[Array, "g *grid"] | None = None,
    ) -> Inexact[Array, "c *grid"]:
        r"""$u_t - Lu - N(u)$ at a time, for training by the equation alone.

        The derivative by time is exact, in forward mode, and those in space are of the Fourier
        series: `equation` is one of [`pde.spectral`][] on the start's grid.
        """
        time = jnp.asarray(t, start.dtype)
        u, rate = jax.jvp(lambda t: self(start, t, given), (time,), (jnp.ones_like(time),))
        scalar = u.shape[0] == 1
        state = equation.start(u[0] if scalar else u)
        wanted = equation.fields(equation.whole_term.vf(time, state, None))
        return rate - (wanted[None] if scalar else wanted)
