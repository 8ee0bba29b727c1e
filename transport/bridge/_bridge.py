r"""What every bridge can do, given its reference and its Schrödinger potential.

$\varphi$ weighs the paths of the reference: transitions of the bridge from $(s, x)$ to $(t, y)$ are
the reference's times $\varphi_t(y) / \varphi_s(x)$, and its drift is the reference's plus
$\varepsilon \nabla \log \varphi$ (Chen, Georgiou and Pavon, *On the relation between optimal
transport and Schrödinger bridges*, 2016; Léonard, *A survey of the Schrödinger problem*, 2014).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ._potential import SumExpQuadratic
from ._reference import Reference
from ._simulation import diffuse

Positions = Float[Array, "*n d"]
# Numbers that a block of points may hold of the components, one set for each point.
BLOCK = 2**18


class AbstractBridge(eqx.Module):
    r"""The law of a process on $0 \le t \le 1$, from any start `x0`.

    Positions are rows: `x` has shape `(*n, d)` and `t` is a number or has shape `(*n)`.
    """

    # Of a type that each family narrows, and fields are invariant.
    reference: eqx.AbstractVar[Any]

    @abstractmethod
    def control(self, t: Float[Array, "*#n"] | float, x: Positions) -> Positions:
        r"""What the drift adds to the reference's: $\varepsilon \nabla \log \varphi_t(x)$."""

    @abstractmethod
    def sample(self, key: Key[Array, ""], x0: Positions) -> Positions:
        """Draws of the end, one for each `x0`."""

    @abstractmethod
    def _paths(self, key, x0, ts, steps, adjoint) -> Float[Array, "times *n d"]:
        """Paths by the family's own means, where no solver is given."""

    def drift(self, t: Float[Array, "*#n"] | float, x: Positions) -> Positions:
        r"""$b(t, x)$ of $dX = b\,dt + \sqrt{\varepsilon}\,dW$.

        Finite at $t = 1$, unless the bridge ends in points.
        """
        return self.reference.drift(x) + self.control(t, x)

    @eqx.filter_jit
    def simulate(
        self,
        key: Key[Array, ""],
        x0: Positions,
        ts: Float[Array, " times"] | Sequence[float],
        solver: diffrax.AbstractSolver | None = None,
        steps: int = 100,
        adjoint: diffrax.AbstractAdjoint | None = None,
    ) -> Float[Array, "times *n d"]:
        """Paths from `x0`, at the times `ts`.

        **Arguments:**

        - `key`: of the randomness.
        - `x0`: the starts, at time 0.
        - `ts`: times in [0, 1], ascending.
        - `solver`: a solver of diffrax that takes stochastic equations with additive noise, such as
            `diffrax.Euler()` (Euler-Maruyama) or `diffrax.Heun()`. `None` makes exact draws where
            the potential is known: the end, then Brownian bridges (in the reference's unit
            coordinates) to it. Of a network it is Euler-Maruyama.
        - `steps`: the number of the solver's steps in unit time.
        - `adjoint`: of diffrax, how paths of a solver are differentiated. The default keeps every
            step for a reverse pass; `diffrax.RecursiveCheckpointAdjoint(checkpoints=...)` keeps a
            few and repeats the others.

        **Raises:** a runtime error for times that leave [0, 1] or do not ascend.
        """
        times = ascending(ts, 0, 1, x0.dtype)
        if solver is None:
            return self._paths(key, x0, times, steps, adjoint)
        return diffuse(self.drift, self.reference.epsilon, key, x0, times, solver, steps, adjoint)


def ascending(ts, begin: float, end: float, dtype) -> Float[Array, " times"]:
    """The times as an array, or a runtime error for those that leave the interval or step back."""
    times = jnp.asarray(ts, dtype)
    bad = jnp.any(jnp.diff(times) < 0) | (times[0] < begin) | (times[-1] > end)
    return eqx.error_if(times, bad, f"The times must ascend within [{begin}, {end}].")


class AbstractPotentialBridge(AbstractBridge):
    """A bridge whose Schrödinger potential is known, and with it every law."""

    reference: eqx.AbstractVar[Reference]
    potential: eqx.AbstractVar[SumExpQuadratic]

    @property
    def dim(self) -> int:
        """The number of coordinates, $d$."""
        return self.potential.r.shape[-1]

    def log_potential(self, t: Float[Array, "*#n"] | float, x: Positions) -> Float[Array, "*n"]:
        r"""$\log \varphi_t(x)$, up to a constant.

        With one $\varepsilon$ for all coordinates, $-\varepsilon \log \varphi$ solves the
        Hamilton-Jacobi-Bellman equation of the bridge, and its negative gradient is the control.
        """

        def at(t, x):
            u = self.reference.to_unit(t, x)
            return self.potential.at(self.reference.clock(t)).log_value(u)

        return jnp.vectorize(at, signature="(),(d)->()")(t, x)

    def control(self, t: Float[Array, "*#n"] | float, x: Positions) -> Positions:
        r"""$\varepsilon \nabla \log \varphi_t(x)$."""

        def at(t, x):
            reference = self.reference
            u = reference.to_unit(t, x)
            gradient = self.potential.at(reference.clock(t)).gradient(u) / reference.scale(t)
            return reference.epsilon * gradient

        return jnp.vectorize(at, signature="(),(d)->(d)")(t, x)

    def log_prob(self, x1: Positions, x0: Positions) -> Float[Array, "*n"]:
        """The log-density of `x1` at time 1, given `x0` at time 0."""
        reference, potential = self.reference, self.potential
        u0, u1 = reference.to_unit(0, x0), reference.to_unit(1, x1)
        moved = 0.5 * jnp.sum((u1 - u0) ** 2 + jnp.log(2 * jnp.pi), axis=-1)
        jacobian = jnp.sum(jnp.broadcast_to(jnp.log(reference.scale(1)), (self.dim,)))
        begin, end = potential.at(reference.clock(0)), potential.at(reference.clock(1))
        log_value = jnp.vectorize(lambda c, u: c.log_value(u), signature="(d)->()", excluded={0})
        return log_value(end, u1) - log_value(begin, u0) - moved - jacobian

    @eqx.filter_jit
    def conditional_moments(
        self, x0: Positions
    ) -> tuple[Float[Array, "*n d"], Float[Array, "*n d d"]]:
        """The mean and the covariance of the end, given `x0`."""
        potential, reference = self.potential, self.reference
        begin, scale = potential.at(reference.clock(0)), reference.scale(1)
        covariances = eqx.filter_vmap(lambda s: s.matrix(), axis_size=len(potential.r))(
            potential.covariance
        ).astype(potential.r.dtype)

        def at(x0):
            u = reference.to_unit(0, x0)
            share = jax.nn.softmax(begin.logits(u))
            means = potential.r + covariances @ u
            mean = share @ means
            spread = means - mean
            covariance = jnp.tensordot(share, covariances, 1) + (share * spread.T) @ spread
            scales = jnp.broadcast_to(scale, mean.shape)
            return reference.from_unit(1, mean), scales[:, None] * covariance * scales

        *shape, d = x0.shape
        block = max(1, BLOCK // (d * (len(potential.r) + d)))
        means, spreads = jax.lax.map(at, x0.reshape(-1, d), batch_size=block)
        return means.reshape(x0.shape), spreads.reshape(*shape, d, d)

    @eqx.filter_jit
    def sample(self, key: Key[Array, ""], x0: Positions) -> Positions:
        """Draws of the end, one for each `x0`."""
        *shape, d = x0.shape
        u = self.reference.to_unit(0, x0).reshape(-1, d)
        n, per_point = len(u), _size(self.potential) // len(self.potential.r)
        block = max(1, min(n, BLOCK // (per_point + len(self.potential.r))))
        count = -(-n // block)
        blocks = jnp.pad(u, ((0, count * block - n), (0, 0))).reshape(count, block, d)
        begin = self.potential.at(self.reference.clock(0))

        def of_block(key_and_points):
            return _ends(self.potential, begin, *key_and_points)

        ends = jax.lax.map(of_block, (jax.random.split(key, count), blocks)).reshape(-1, d)[:n]
        return self.reference.from_unit(1, ends).reshape(*shape, d)

    def _paths(self, key, x0, ts, steps, adjoint):
        begin, along = jax.random.split(key)
        end = self.reference.to_unit(1, self.sample(begin, x0))

        def move(carry, key_and_time):
            u, f = carry
            key, t = key_and_time
            after = jnp.broadcast_to(self.reference.clock(t), f.shape)
            left = jnp.where(f < 1, 1 - f, 1)
            spread = jnp.sqrt(jnp.maximum((after - f) * (1 - after) / left, 0))
            noise = jax.random.normal(key, u.shape, u.dtype)
            u = u + (after - f) / left * (end - u) + spread * noise
            return (u, after), self.reference.from_unit(t, u)

        start = (self.reference.to_unit(0, x0), jnp.zeros(self.dim, x0.dtype))
        keys = jax.random.split(along, len(ts))
        return jax.lax.scan(move, start, (keys, ts))[1]


def _size(potential: SumExpQuadratic) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(potential, eqx.is_array)))


def _ends(potential: SumExpQuadratic, begin, key, u):
    """A draw of the end in unit coordinates for each row of `u`."""
    which, noise = jax.random.split(key)
    n, d = u.shape
    noise = jax.random.normal(noise, (n, potential.covariance.noise_size(d)), u.dtype)
    if len(potential.r) == 1:
        r, covariance = potential.r[0], jax.tree.map(lambda leaf: leaf[0], potential.covariance)
        return jax.vmap(lambda u, z: r + covariance.times(u) + covariance.colour(z))(u, noise)
    logits = begin.by_rows(u)
    weights = jnp.exp(logits - jnp.max(logits, axis=0))
    # One number a point and a walk along the sums: cheaper than a Gumbel number a component.
    level = jax.random.uniform(which, (n,), u.dtype) * jnp.sum(weights, axis=0)

    def walk(carry, weight):
        total, index = carry
        total = total + weight
        return (total, index + (total <= level)), None

    begun = jnp.zeros_like(level), jnp.zeros(n, int)
    index = jnp.minimum(jax.lax.scan(walk, begun, weights)[0][1], len(weights) - 1)
    r, covariance = jax.tree.map(lambda leaf: leaf[index], (potential.r, potential.covariance))

    def of_point(r, covariance, u, z):
        return r + covariance.times(u) + covariance.colour(z)

    return eqx.filter_vmap(of_point)(r, covariance, u, noise)
