"""Bridges whose drifts are networks, one for each direction of time."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ._bridge import AbstractBridge, Positions
from ._reference import Langevin, Reference, as_reference
from ._simulation import diffuse

Network = Callable[[Float[Array, " d+1"]], Float[Array, " d"]]


class NeuralBridge(AbstractBridge):
    r"""A process whose control is a network, and a second one that runs back from the end.

    With $\tilde x$ the point in units of the samples' mean and spread, the drift is the reference's
    plus the spread times `forward` of $(t, \tilde x)$. The references look the same when time is
    reversed, so the way back is a bridge as well: `reverse`, whose control is `backward` of
    $(1 - t, \tilde x)$. Of a trained bridge the two are the same process, up to what the networks
    missed.

    Make one with `NeuralBridge.from_samples`, and train it with
    [`transport.bridge.markovian_fitting`][] or [`transport.bridge.proportional_fitting`][].

    **Arguments:**

    - `reference`: the reference process, a [`transport.bridge.Reference`][], a
        [`transport.bridge.Langevin`][], or a number, Brownian motion's $\varepsilon$.
    - `forward`, `backward`: networks from `d + 1` numbers, the first being time, to `d`.
    - `mean`, `spread`: of the points, by coordinate. They are not trained.

    !!! Example

        ```python
        >>> import jax, transport
        >>> x0, x1 = jax.random.normal(jax.random.key(0), (2, 100, 2))
        >>> bridge = transport.bridge.NeuralBridge.from_samples(jax.random.key(1), 0.5, x0, x1 + 3)
        >>> bridge.drift(0.5, x0).shape, float(abs(bridge.drift(0.5, x0)).max())
        ((100, 2), 0.0)

        ```
    """

    reference: Reference | Langevin
    forward: Network
    backward: Network
    mean: Float[Array, " d"]
    spread: Float[Array, " d"]

    def __init__(self, reference, forward: Network, backward: Network, mean, spread):
        general = isinstance(reference, Langevin)
        self.reference = reference if general else as_reference(reference)
        self.forward, self.backward = forward, backward
        self.mean, self.spread = mean, spread

    @classmethod
    def from_samples(
        cls,
        key: Key[Array, ""],
        reference,
        x0: Float[Array, "n d"],
        x1: Float[Array, "m d"],
        *,
        width: int = 64,
        depth: int = 3,
        activation: Callable = jax.nn.silu,
    ) -> "NeuralBridge":
        """The reference itself: two perceptrons whose last layer is zero.

        **Arguments:**

        - `key`: of the other layers.
        - `reference`: the reference process, a number being Brownian motion's diffusivity.
        - `x0`, `x1`: samples of the ends, of which the mean and the spread are taken.
        - `width`, `depth`, `activation`: of `equinox.nn.MLP`.
        """
        both = jnp.concatenate([x0, x1])
        d = both.shape[1]

        def silent(key):
            mlp = eqx.nn.MLP(d + 1, d, width, depth, activation, dtype=both.dtype, key=key)
            return eqx.tree_at(
                lambda mlp: (mlp.layers[-1].weight, mlp.layers[-1].bias), mlp,
                replace_fn=jnp.zeros_like,
            )  # fmt: skip

        spread = jnp.std(both, axis=0)
        # A coordinate in which nothing varies has no unit of its own.
        spread = jnp.where(spread > 0, spread, 1)
        forward, backward = map(silent, jax.random.split(key))
        return cls(reference, forward, backward, jnp.mean(both, axis=0), spread)

    @property
    def dim(self) -> int:
        """The number of coordinates, $d$."""
        return len(self.mean)

    @property
    def reverse(self) -> "NeuralBridge":
        """The bridge in reversed time, from the end at 0 to the start at 1."""
        return NeuralBridge(self.reference, self.backward, self.forward, self.mean, self.spread)

    def control(self, t: Float[Array, "*#n"] | float, x: Positions) -> Positions:
        """What the drift adds to the reference's: the spread times `forward`."""

        def at(t, x):
            unit = (x - self.mean) / self.spread
            time = jnp.asarray(t, unit.dtype)
            return self.spread * self.forward(jnp.concatenate([time[None], unit]))

        return jnp.vectorize(at, signature="(),(d)->(d)")(t, x)

    def sample(self, key: Key[Array, ""], x0: Positions, steps: int = 100) -> Positions:
        """Draws of the end, one for each `x0`, by `steps` steps of Euler-Maruyama."""
        return self.simulate(key, x0, [1.0], steps=steps)[0]

    def _paths(self, key, x0, ts, steps, adjoint):
        epsilon = self.reference.epsilon
        return diffuse(self.drift, epsilon, key, x0, ts, diffrax.Euler(), steps, adjoint)
