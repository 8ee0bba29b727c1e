r"""The process that a bridge is closest to, and the coordinates in which it is Brownian.

An Ornstein-Uhlenbeck process is a Brownian motion $u$ on a clock $f$ of its own:
$X_t = \mu + \ell(t)\, u_{f(t)}$ with $f(0) = 0$, $f(1) = 1$. In these *unit coordinates* every
bridge has $\varepsilon = 1$, whatever the rates and diffusivities, coordinate by coordinate.
"""

from collections.abc import Callable

import equinox as eqx
import jax
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
        epsilon, rate, centre = map(_weak, (epsilon, rate, centre))
        if max(v.ndim for v in (epsilon, rate, centre)) > 1:
            raise ValueError("`epsilon`, `rate` and `centre` are numbers, or one a coordinate.")
        self.epsilon, self.rate, self.centre = _positive(epsilon), rate, centre

    def drift(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        r"""$\lambda (\mu - x)$, the same at all times."""
        return self.rate * (self.centre - x)

    def over(self, length: float) -> "Reference":
        """The process on an interval of this length, in units of it."""
        return Reference(length * self.epsilon, length * self.rate, self.centre)

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


class Langevin(eqx.Module):
    r"""$dX = -\nabla U(X)\,dt + \sqrt{\varepsilon}\,dW$: a reference in any potential.

    Its transitions have no closed form, so it is a reference for what works by simulation,
    [`transport.bridge.proportional_fitting`][]. There is one $\varepsilon$ for all coordinates:
    only then does the process look the same when time is reversed.

    **Arguments:**

    - `epsilon`: the diffusivity $\varepsilon > 0$.
    - `energy`: $U$, of one point of shape `(d,)`; differentiable by JAX.

    **Raises:** a runtime error where `epsilon` is not positive and finite.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> wells = transport.bridge.Langevin(0.5, lambda x: jnp.sum((x**2 - 1) ** 2))
        >>> float(wells.drift(jnp.array([[2.0]]))[0, 0])
        -24.0

        ```
    """

    epsilon: Float[Array, ""]
    energy: Callable[[Float[Array, " d"]], Scalar]

    def __init__(self, epsilon: ArrayLike, energy: Callable):
        self.epsilon, self.energy = _positive(_weak(epsilon)), energy
        if self.epsilon.ndim:
            raise ValueError("`epsilon` is one number for all coordinates.")

    def drift(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        r"""$-\nabla U(x)$, the same at all times."""
        return -jnp.vectorize(jax.grad(self.energy), signature="(d)->(d)")(x)

    def over(self, length: float) -> "Langevin":
        """The process on an interval of this length, in units of it."""
        return Langevin(length * self.epsilon, lambda x: length * self.energy(x))


def _weak(value: ArrayLike) -> Array:
    # Python's numbers stay weakly typed, so that the points' precision is kept.
    return jnp.asarray(float(value) if isinstance(value, int) else value)


def _positive(epsilon: Array) -> Array:
    bad = ~jnp.all((epsilon > 0) & jnp.isfinite(epsilon))
    return eqx.error_if(epsilon, bad, "epsilon must be positive and finite.")


def as_reference(epsilon: ArrayLike | Reference) -> Reference:
    """A reference as it is; a number is the diffusivity of Brownian motion."""
    if isinstance(epsilon, Langevin):
        raise TypeError("Only a `NeuralBridge` can have a reference that is not linear.")
    return epsilon if isinstance(epsilon, Reference) else Reference(epsilon)
