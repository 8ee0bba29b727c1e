r"""Pairs of laws whose bridge is known, to judge a method by.

Gushchin, Kolesov, Mokrov, Karpikova, Spiridonov, Burnaev and Korotin, *Building the Bridge of
Schrödinger: A Continuous Entropic Optimal Transport Benchmark* (NeurIPS 2023), section 3: choose
the start and a potential, and let the end be whatever the bridge of that potential leads to. With a
mixture of Gaussians for the potential, every conditional law is a mixture in closed form.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ..gaussian import square_root
from ._light import LightSB
from ._potential import Full, SumExpQuadratic


class GaussianMixture(eqx.Module):
    r"""$\sum_k w_k\, \mathcal{N}(\mu_k, \Sigma_k)$.

    **Arguments:**

    - `weights`: $w_k$, which are divided by their sum.
    - `means`: $\mu_k$, a row a component.
    - `covariances`: $\Sigma_k$, symmetric and positive semi-definite.

    **Raises:** `ValueError` for shapes that do not match.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, transport
        >>> two = transport.bridge.GaussianMixture(
        ...     jnp.array([1.0, 3.0]), jnp.array([[-2.0], [2.0]]), 0.01 * jnp.ones((2, 1, 1))
        ... )
        >>> x = two.sample(jax.random.key(0), 4000)
        >>> x.shape, bool(abs((x > 0).mean() - 0.75) < 0.03)
        ((4000, 1), True)

        ```
    """

    weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    covariances: Float[Array, "k d d"]

    def __init__(self, weights, means, covariances):
        self.means, self.covariances = jnp.asarray(means), jnp.asarray(covariances)
        weights = jnp.asarray(weights, self.means.dtype)
        k, d = self.means.shape if self.means.ndim == 2 else (-1, -1)
        if weights.shape != (k,) or self.covariances.shape != (k, d, d):
            raise ValueError(
                f"Weights of shape {weights.shape}, means of {self.means.shape} and covariances of "
                f"{self.covariances.shape} make no mixture: (k,), (k, d) and (k, d, d) do."
            )
        self.weights = weights / jnp.sum(weights)

    @eqx.filter_jit
    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n d"]:
        """Independent draws."""
        which, noise = jax.random.split(key)
        index = jax.random.choice(which, len(self.weights), (n,), p=self.weights)
        roots = jax.vmap(square_root)(self.covariances)
        z = jax.random.normal(noise, (n, self.means.shape[1]), self.means.dtype)
        if len(self.weights) == 1:
            return self.means[0] + z @ roots[0]
        # A matrix for each draw would be large: each component colours all, and one is taken.
        coloured = jax.lax.map(lambda root: z @ root, roots)
        return self.means[index] + coloured[index, jnp.arange(n)]


class MixturePair(eqx.Module):
    r"""A start, and the end to which the bridge of a known potential leads it.

    The bridge couples $x_0$ to $x_1$ with density proportional to $\sum_k w_k\,
    \mathcal{N}(x_1 \,|\, \mu_k, \Sigma_k)\, e^{-|x_0 - x_1|^2 / 2\varepsilon}$: the reference's
    law, weighed by the potential at the end. Whatever the start is, that is the Schrödinger bridge
    of Brownian motion between the start and its own end.

    **Arguments:**

    - `start`: the law of the start.
    - `potential`: $w_k$, $\mu_k$, $\Sigma_k$, the latter positive definite.
    - `epsilon`: the diffusivity of the Brownian reference, a number.

    `bridge` is the truth, a [`transport.bridge.LightSB`][].

    !!! Example

        ```python
        >>> import jax, transport
        >>> pair = transport.bridge.MixturePair.random(jax.random.key(0), dim=2, epsilon=0.1)
        >>> pair.sample_start(jax.random.key(1), 9).shape, pair.bridge.potential.r.shape
        ((9, 2), (5, 2))

        ```
    """

    start: GaussianMixture
    bridge: LightSB

    def __init__(self, start: GaussianMixture, potential: GaussianMixture, epsilon: float):
        self.start = start
        self.bridge = LightSB(epsilon, _light(potential, epsilon))

    @classmethod
    def random(
        cls,
        key: Key[Array, ""],
        dim: int,
        epsilon: float,
        *,
        components: int = 5,
        radius: float = 5.0,
        variances: tuple[float, float] = (0.5, 1.5),
        start: GaussianMixture | None = None,
    ) -> "MixturePair":
        """A pair of the benchmark's kind; its own parameters are a download, these are drawn.

        **Arguments:**

        - `key`: of the draw.
        - `dim`: the number of coordinates.
        - `epsilon`: as above.
        - `components`: of the potential, all of one weight.
        - `radius`: of the sphere from which the components' means are drawn.
        - `variances`: between which the components' variances are drawn, along random axes.
        - `start`: standard normal, if not given.
        """
        potential = _drawn(key, dim, components, radius, variances)
        if start is None:
            start = GaussianMixture(jnp.ones(1), jnp.zeros((1, dim)), jnp.eye(dim)[None])
        return cls(start, potential, epsilon)

    def sample_start(self, key: Key[Array, ""], n: int) -> Float[Array, "n d"]:
        """Draws of the start."""
        return self.start.sample(key, n)

    def sample_end(self, key: Key[Array, ""], n: int) -> Float[Array, "n d"]:
        """Draws of the end, from starts of their own: nothing is paired."""
        starts, ends = jax.random.split(key)
        return self.bridge.sample(ends, self.start.sample(starts, n))


@eqx.filter_jit
def _drawn(key, dim, components, radius, variances) -> GaussianMixture:
    one, two, three = jax.random.split(key, 3)
    mu = jax.random.normal(one, (components, dim))
    mu = radius * mu / jnp.linalg.norm(mu, axis=1, keepdims=True)
    axes = jnp.linalg.qr(jax.random.normal(two, (components, dim, dim)))[0]
    low, high = variances
    variance = jax.random.uniform(three, (components, dim), minval=low, maxval=high)
    sigma = (axes * variance[:, None, :]) @ jnp.swapaxes(axes, 1, 2)
    return GaussianMixture(jnp.ones(components), mu, sigma)


@eqx.filter_jit
def _light(potential: GaussianMixture, epsilon: float) -> SumExpQuadratic:
    r"""The potential in a light bridge's form.

    In unit coordinates $S = \Sigma (\Sigma + \varepsilon)^{-1}$ and $r = (I - S)\, \mu /
    \sqrt\varepsilon$; a component of it has the weight $w\, \mathcal{N}(0 \,|\, \mu, \Sigma +
    \varepsilon)$.
    """
    variance, axes = jnp.linalg.eigh(potential.covariances)
    whole = variance + epsilon
    root = axes * jnp.sqrt(variance / whole)[:, None, :]
    in_axes = jnp.einsum("kij,ki->kj", axes, potential.means)
    r = jnp.einsum("kij,kj->ki", axes, epsilon / whole * in_axes) / jnp.sqrt(epsilon)
    log_alpha = -0.5 * jnp.sum(in_axes**2 / whole + jnp.log(whole), axis=1)
    return SumExpQuadratic(log_alpha + jnp.log(potential.weights), r, Full(root))
