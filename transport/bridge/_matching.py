r"""Bridge matching: a drift is regressed on the reference's paths between paired ends.

Shi, De Bortoli, Campbell and Doucet, *Diffusion Schrödinger Bridge Matching* (NeurIPS 2023), and
Gushchin, Kholkin, Burnaev and Korotin, *Light and Optimal Schrödinger Bridge Matching* (ICML 2024),
written for any linear reference, in whose unit coordinates a path between $u_0$ and $u_1$ is at
clock $f$ normal about $(1 - f) u_0 + f u_1$ with variance $f (1 - f)$, and leads on by
$(u_1 - u) / (1 - f)$.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Scalar

from ._reference import Reference

Batch = Float[Array, "n d"]
# Called as `coupling(key, x0, x1)`: an end for each start.
Coupling = Callable[[Key[Array, ""], Batch, Batch], Batch]


def matching_loss(
    control: Callable, reference: Reference, key: Key[Array, ""], x0: Batch, x1: Batch
) -> Scalar:
    r"""$\mathbb{E} \int \tfrac12 |c|^2_{\varepsilon^{-1}} - c \cdot \varepsilon^{-1} \hat c\,dt$.

    $\hat c$ is the control of the path pinned at the pair's ends. This is the papers' half mean
    square of $c - \hat c$ without $\hat c^2$, whose integral over time diverges. Nor is there a
    need to keep away from the end: $\hat c$ has a noise of $\sqrt{f / (1 - f)}$ there, but points
    come in pairs of opposite noise, of which a smooth control sees the difference only.

    **Arguments:**

    - `control`: $c(t, x)$, what a process adds to the drift of the reference.
    - `reference`: a linear one.
    - `key`: of one time and one noise for each pair. Times are spread evenly.
    - `x0`, `x1`: paired.
    """
    offset, along = jax.random.split(key)
    n = len(x0)
    u0, u1 = reference.to_unit(0, x0), reference.to_unit(1, x1)
    t = jnp.mod(jax.random.uniform(offset, dtype=u0.dtype) + jnp.arange(n, dtype=u0.dtype) / n, 1)
    f = jnp.broadcast_to(reference.clock(t[:, None]), u0.shape)
    left = jnp.maximum(1 - f, jnp.finfo(f.dtype).eps)
    noise = jax.random.normal(along, u0.shape, u0.dtype)
    noise = jnp.stack([noise, -noise])
    u = (1 - f) * u0 + f * u1 + jnp.sqrt(f * left) * noise
    onward = (u1 - u0 - jnp.sqrt(f / left) * noise) / reference.scale(t[:, None])
    c = control(t, reference.from_unit(t[:, None], u))
    return jnp.mean(jnp.sum(0.5 * c**2 / reference.epsilon - c * onward, axis=-1))
