r"""How far a bridge is from the true one.

$\mathrm{BW}_2^2\text{-UVP}$ and its conditional form are those of Gushchin et al., *Building the
Bridge of Schrödinger* (NeurIPS 2023), section 5, and of the code published with it:

$$ \mathrm{BW}_2^2(P, Q) = \tfrac12 |m_P - m_Q|^2 + \tfrac12 \mathrm{tr}\, (\Sigma_P + \Sigma_Q)
   - \mathrm{tr}\, (\Sigma_P^{1/2} \Sigma_Q \Sigma_P^{1/2})^{1/2}, $$

in per cent of $\tfrac12 \mathrm{Var}(P_1)$, half the total variance of the true end.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Scalar

from .. import gaussian
from ._bridge import AbstractBridge, Positions

# Means, a row a start, and covariances; or the mean and the covariance of one law.
Moments = tuple[Float[Array, "*n d"], Float[Array, "*n d d"]]


def sample_moments(draws: Float[Array, "*n draws d"]) -> Moments:
    """The mean and the (unbiased) covariance of draws, for each of `*n` laws.

    ```python
    >>> import jax.numpy as jnp, transport
    >>> mean, covariance = transport.bridge.sample_moments(jnp.array([[0.0], [2.0]]))
    >>> float(mean[0]), float(covariance[0, 0])
    (1.0, 2.0)

    ```
    """
    mean = jnp.mean(draws, axis=-2)
    off = draws - mean[..., None, :]
    return mean, jnp.swapaxes(off, -1, -2) @ off / (draws.shape[-2] - 1)


def total_moments(conditional: Moments) -> Moments:
    """The mean and the covariance of the end, from those of its law given each start.

    By the laws of total expectation and of total covariance: nothing is drawn but the starts.

    ```python
    >>> import jax.numpy as jnp, transport
    >>> conditional = jnp.array([[0.0], [2.0]]), jnp.array([[[1.0]], [[3.0]]])
    >>> mean, covariance = transport.bridge.total_moments(conditional)
    >>> float(mean[0]), float(covariance[0, 0])
    (1.0, 3.0)

    ```
    """
    means, covariances = conditional
    mean = jnp.mean(means, axis=0)
    off = means - mean
    return mean, jnp.mean(covariances, axis=0) + off.T @ off / len(means)


def bw2_uvp(found: Moments, true: Moments) -> Scalar:
    r"""$\mathrm{BW}_2^2\text{-UVP}$: how far the end's law is from the true one, in per cent.

    It sees means and covariances alone, and no coupling: a bridge with the right end has zero.

    **Arguments:** mean and covariance of the end, as found and true: from draws of it by
    [`transport.bridge.sample_moments`][], or by [`transport.bridge.total_moments`][].

    ```python
    >>> import jax.numpy as jnp, transport
    >>> true = jnp.zeros(2), jnp.eye(2)
    >>> round(float(transport.bridge.bw2_uvp((jnp.array([0.2, 0.0]), jnp.eye(2)), true)), 4)
    2.0

    ```
    """
    variance = jnp.trace(true[1])
    # Rounding may leave a distance of zero on either side of it.
    return 100 * jnp.abs(gaussian.cost(*found, *true)) / variance


def cbw2_uvp(found: Moments, true: Moments, variance: Scalar | float | None = None) -> Scalar:
    r"""$\mathrm{cBW}_2^2\text{-UVP}$: how far the coupling is from the true one, in per cent.

    $\mathrm{BW}_2^2$ between the laws of the end given a start, averaged over starts.

    **Arguments:**

    - `found`, `true`: means (n, d) and covariances (n, d, d) of the end, for the same n draws of
        the start: what `bridge.conditional_moments(x0)` returns, or
        [`transport.bridge.sample_moments`][] of draws (n, draws, d), as in the published code,
        which takes 1000 of each.
    - `variance`: the total variance of the true end; by default that over these starts.

    ```python
    >>> import jax.numpy as jnp, transport
    >>> true = jnp.array([[-1.0], [1.0]]), jnp.ones((2, 1, 1))
    >>> found = jnp.array([[-0.9], [1.0]]), jnp.ones((2, 1, 1))
    >>> round(float(transport.bridge.cbw2_uvp(found, true)), 4)
    0.25

    ```
    """
    if variance is None:
        variance = jnp.trace(total_moments(true)[1])
    # One start after the other: a batch of eigenproblems gains nothing, and takes memory.
    distances = jax.lax.map(lambda pair: gaussian.cost(*pair), (*found, *true))
    return 100 * jnp.mean(jnp.abs(distances)) / variance


@eqx.filter_jit
def path_divergence(
    key: Key[Array, ""],
    bridge: AbstractBridge,
    drift: Callable[[Scalar, Positions], Positions],
    x0: Float[Array, "n d"],
    steps: int = 100,
) -> Float[Array, " n"]:
    r"""Integrals whose mean is the divergence of a process from a bridge, as laws of paths.

    By Girsanov's theorem, for processes with the starts and the diffusivity of the bridge,

    $$ \mathrm{KL}(\text{bridge} \,\|\, \text{process}) = \frac{1}{2\varepsilon}\, \mathbb{E}
       \int_0^1 |b(t, X_t) - b'(t, X_t)|^2\, dt $$

    with $X$ from the bridge. One path is drawn for each start, without a step's error, and the
    integral is by the midpoint rule. The standard error is that of the mean of what is returned.

    Where the process is a bridge too, of the same reference, the pinned paths of both are one law,
    and the divergence is that of the ends: the mean of `bridge.log_prob(x1, x0) -
    other.log_prob(x1, x0)` over draws `x1 = bridge.sample(key, x0)`, without any integral.

    **Arguments:**

    - `key`: of the paths.
    - `bridge`: the first law; the truth, for the benchmark's KL.
    - `drift`: $b'$ of the second, such as `other.drift` or a network; points are rows.
    - `x0`: draws of the start.
    - `steps`: of the midpoint rule.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from transport.bridge import GaussianBridge, path_divergence
    >>> zero, eye = jnp.zeros(2), jnp.eye(2)
    >>> bridge = GaussianBridge(zero, eye, zero, eye, 1.0)
    >>> x0 = jax.random.normal(jax.random.key(0), (100, 2))
    >>> aside = lambda t, x: bridge.drift(t, x) + jnp.array([0.2, 0.0])
    >>> round(float(path_divergence(jax.random.key(1), bridge, aside, x0, steps=8).mean()), 6)
    0.02

    ```
    """
    ts = (jnp.arange(steps, dtype=x0.dtype) + 0.5) / steps
    paths = bridge.simulate(key, x0, ts)

    def add(total, time_and_points):
        t, x = time_and_points
        gap = bridge.drift(t, x) - drift(t, x)
        return total + jnp.sum(gap**2 / bridge.reference.epsilon, axis=-1), None

    total, _ = jax.lax.scan(add, jnp.zeros(len(x0), x0.dtype), (ts, paths))
    return total / (2 * steps)
