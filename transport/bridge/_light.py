r"""Light Schrödinger bridges: mixtures fitted to samples of both ends, without simulation.

Korotin, Gushchin and Burnaev, *Light Schrödinger Bridge* (ICLR 2024). Written for any reference
that is linear, in whose unit coordinates it is Brownian motion with $\varepsilon = 1$.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Scalar

from ._bridge import AbstractPotentialBridge
from ._matching import matching_loss
from ._potential import AbstractCovariance, Diagonal, Full, LowRank, SumExpQuadratic
from ._reference import Reference, as_reference

Kind = Literal["diagonal", "full", "low_rank"]


class LightSB(AbstractPotentialBridge):
    r"""The bridge whose adjusted Schrödinger potential is a mixture of Gaussians.

    Given a start $x_0$ the end is a mixture of Gaussians, too, with weights, means and
    covariances in closed form; so are the drift and the density at any time. With enough components
    every bridge is approximated (the paper's theorem 3.4).

    Make one with `LightSB.from_samples`, and fit it with [`transport.bridge.fit`][].

    **Arguments:**

    - `reference`: the reference process, a number being Brownian motion's $\varepsilon$.
    - `potential`: $\alpha_k$, $r_k$, $S_k$ in the reference's unit coordinates.

    !!! Example

        ```python
        >>> import jax, transport
        >>> from transport.bridge import LightSB, fit
        >>> x0, x1 = jax.random.normal(jax.random.key(0), (2, 500, 2))
        >>> bridge = LightSB.from_samples(jax.random.key(1), 1.0, x1 + 3, components=4)
        >>> bridge = fit(bridge, x0, x1 + 3).value
        >>> paths = bridge.simulate(jax.random.key(2), x0, [0.0, 0.5, 1.0])
        >>> paths.shape, [bool(abs(x.mean() - m) < 0.1) for x, m in zip(paths, (0, 1.5, 3))]
        ((3, 500, 2), [True, True, True])

        ```
    """

    reference: Reference
    potential: SumExpQuadratic

    def __init__(self, reference, potential: SumExpQuadratic):
        self.reference, self.potential = as_reference(reference), potential

    @classmethod
    def from_samples(
        cls,
        key: Key[Array, ""],
        reference,
        x1: Float[Array, "n d"],
        components: int = 50,
        *,
        covariance: Kind = "diagonal",
        rank: int = 1,
        centres: Literal["k-means", "random"] = "k-means",
        variance: float | None = None,
    ) -> "LightSB":
        r"""A bridge to begin fitting from: components at, or between, samples of the end.

        **Arguments:**

        - `key`: of the choice of samples.
        - `reference`: the reference process, a number being Brownian motion's $\varepsilon$.
        - `x1`: samples of the end.
        - `components`: how many, $K$.
        - `covariance`: of the components, "diagonal", "full" or "low_rank" (diagonal plus `rank`).
        - `centres`: $r_k$ are the means that k-means finds in `x1` (by 20 of Lloyd's iterations
            from k-means++), or samples of it, as in the paper.
        - `variance`: $S_k$ are this times $\varepsilon$ (unit coordinates: times the identity). By
            default, what the centres leave of the samples' variance, by coordinate.

        **Raises:** `ValueError` where there are fewer samples than components.
        """
        n, d = x1.shape
        if not 1 <= components <= n:
            raise ValueError(f"{components} components need as many samples; there are {n}.")
        reference = as_reference(reference)
        u = reference.to_unit(1, x1)
        chosen, spread = jax.random.split(key)
        if centres == "k-means":
            r, left = _k_means(chosen, u, components)
        else:
            r = u[jax.random.choice(chosen, n, (components,), replace=False)]
            left = _assigned(u, r)[1]
        tiny = jnp.finfo(u.dtype).eps
        if variance is not None:
            left = jnp.full(d, variance, u.dtype)
        left = jnp.maximum(left, tiny * jnp.maximum(jnp.max(u**2), 1))
        made = _covariance(spread, covariance, jnp.broadcast_to(left, (components, d)), rank)
        log_alpha = jnp.full(components, -jnp.log(components), u.dtype)
        return cls(reference, SumExpQuadratic(log_alpha, r, made))

    def objective(self, x0: Float[Array, "n d"], x1: Float[Array, "m d"]) -> Scalar:
        r"""$\mathbb{E} \log c(x_0) - \mathbb{E} \log v(x_1)$, the paper's equation (8).

        Up to a constant it is the divergence of the true bridge from this one. Here it is
        $\mathbb{E} \log \varphi_0(x_0) - \mathbb{E} \log \varphi_1(x_1)$, which differs by a
        constant.
        """
        u0, u1 = self.reference.to_unit(0, x0), self.reference.to_unit(1, x1)
        return objective(self.potential, u0, u1)

    def matching_objective(
        self, key: Key[Array, ""], x0: Float[Array, "n d"], x1: Float[Array, "n d"]
    ) -> Scalar:
        r"""The loss of optimal bridge matching, LightSB-M (Gushchin et al., ICML 2024).

        The drift is regressed on the reference's paths between pairs, at a random time of each.
        Whatever the pairing, its expectation over the key is `objective`: by Itô's formula for
        $\log \varphi$ along the paths. So it has the same minimum, and more noise.

        **Arguments:**

        - `key`: of the times and the noise.
        - `x0`, `x1`: samples of both ends, paired in any way.
        """
        return matching_loss(self.control, self.reference, key, x0, x1)


def objective(potential: SumExpQuadratic, u0, u1) -> Scalar:
    """The objective in unit coordinates."""
    begin, end = potential.at(jnp.zeros(())), potential.at(jnp.ones(()))
    return jnp.mean(jax.vmap(begin.log_value)(u0)) - jnp.mean(jax.vmap(end.log_value)(u1))


def _covariance(key, kind: Kind, variances: Float[Array, "k d"], rank: int) -> AbstractCovariance:
    match kind:
        case "diagonal":
            return Diagonal(jnp.log(variances))
        case "full":
            return Full(jax.vmap(jnp.diag)(jnp.sqrt(variances)))
        case "low_rank":
            # A factor of zero has a gradient of zero; a tenth of the variance is given away.
            noise = jax.random.normal(key, (*variances.shape, rank), variances.dtype)
            factor = jnp.sqrt(0.1 / rank * variances)[..., None] * noise
            return LowRank(jnp.log(0.9 * variances), factor)
        case _:
            raise ValueError(f"No covariance {kind!r}: 'diagonal', 'full' or 'low_rank'.")


def _assigned(u, r):
    """The nearest centre of each point, and the mean square that is left, by coordinate."""
    nearest = jnp.argmin(jnp.sum(r**2, axis=1) - 2 * u @ r.T, axis=1)
    return nearest, jnp.mean((u - r[nearest]) ** 2, axis=0)


@eqx.filter_jit
def _k_means(key, u, components: int, iterations: int = 20, most: int = 20_000):
    """Lloyd's iterations from k-means++ (Arthur and Vassilvitskii 2007), on `most` of the points.

    **Returns:** the centres, and the mean square left, by coordinate.
    """
    u = u[:most]
    first, rest = jax.random.split(key)

    def add(carry, key_and_index):
        r, square = carry
        key, k = key_and_index
        new = u[jax.random.categorical(key, jnp.log(square))]
        square = jnp.minimum(square, jnp.sum((u - new) ** 2, axis=1))
        return (r.at[k].set(new), square), None

    new = u[jax.random.randint(first, (), 0, len(u))]
    r = jnp.zeros((components, u.shape[1]), u.dtype).at[0].set(new)
    steps = (jax.random.split(rest, components - 1), jnp.arange(1, components))
    (r, _), _ = jax.lax.scan(add, (r, jnp.sum((u - new) ** 2, axis=1)), steps)

    def improve(_, r):
        belongs = jax.nn.one_hot(_assigned(u, r)[0], components, dtype=u.dtype)
        count = jnp.sum(belongs, axis=0)[:, None]
        return jnp.where(count > 0, belongs.T @ u / jnp.maximum(count, 1), r)

    r = jax.lax.fori_loop(0, iterations, improve, r)
    return r, _assigned(u, r)[1]
