r"""The process that a bridge is closest to, and the coordinates in which it is Brownian.

An Ornstein-Uhlenbeck process is a Brownian motion $u$ on a clock $f$ of its own:
$X_t = \mu + \ell(t)\, u_{f(t)}$ with $f(0) = 0$, $f(1) = 1$. In these *unit coordinates* every
bridge has $\varepsilon = 1$, whatever the rates and diffusivities, coordinate by coordinate.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Scalar


class Reference(eqx.Module):
    r"""$dX = \lambda (\mu - X)\,dt + \sqrt{\varepsilon}\,dW$ on $0 \le t \le 1$.

    **Arguments:**

    - `epsilon`: the diffusivity $\varepsilon > 0$, one or one for each coordinate.
    - `rate`: $\lambda$, one or one for each coordinate; zero (the default) is Brownian motion,
        negative drives away from the centre.
    - `centre`: $\mu$, likewise.

    **Raises:** a runtime error where `epsilon` is not positive and finite.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> reference = transport.bridge.Reference(epsilon=0.5, rate=1.0)
        >>> float(reference.drift(jnp.array([2.0]))[0])
        -2.0

        ```
    """

    epsilon: Float[Array, "*#d"]
    rate: Float[Array, "*#d"]
    centre: Float[Array, "*#d"]

    def __init__(self, epsilon: ArrayLike, rate: ArrayLike = 0.0, centre: ArrayLike = 0.0):
        # Python's numbers stay weakly typed, so that the points' precision is kept.
        epsilon, rate, centre = (
            jnp.asarray(float(v) if isinstance(v, int) else v) for v in (epsilon, rate, centre)
        )
        if max(v.ndim for v in (epsilon, rate, centre)) > 1:
            raise ValueError("`epsilon`, `rate` and `centre` are numbers, or one a coordinate.")
        bad = ~jnp.all((epsilon > 0) & jnp.isfinite(epsilon))
        self.epsilon = eqx.error_if(epsilon, bad, "epsilon must be positive and finite.")
        self.rate, self.centre = rate, centre

    def drift(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        r"""$\lambda (\mu - x)$, the same at all times."""
        return self.rate * (self.centre - x)

    def clock(self, t: Scalar | float) -> Float[Array, "*#d"]:
        r"""$f(t) = (e^{2\lambda t} - 1) / (e^{2\lambda} - 1)$; $t$ itself for Brownian motion."""
        still = self.rate == 0
        twice = 2 * jnp.where(still, 1, self.rate)
        ratio = jnp.expm1(-twice * t) / jnp.expm1(-twice)
        return jnp.where(still, t, jnp.exp(twice * (t - 1)) * ratio)

    def scale(self, t: Scalar | float) -> Float[Array, "*#d"]:
        r"""$\ell(t) = e^{-\lambda t} \sqrt{\varepsilon (e^{2\lambda} - 1) / 2\lambda}$."""
        still = self.rate == 0
        twice = 2 * jnp.where(still, 1, self.rate)
        variance = jnp.where(still, 1, -jnp.expm1(-twice) / twice)
        return jnp.sqrt(self.epsilon * variance) * jnp.exp(self.rate * (1 - t))

    def to_unit(self, t: Scalar | float, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """The unit coordinates of points at time `t`."""
        return (x - self.centre) / self.scale(t)

    def from_unit(self, t: Scalar | float, u: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """The points at time `t` of unit coordinates."""
        return self.centre + self.scale(t) * u


def as_reference(epsilon: ArrayLike | Reference) -> Reference:
    """A reference as it is; anything else is the diffusivity of Brownian motion."""
    return epsilon if isinstance(epsilon, Reference) else Reference(epsilon)
