r"""Factors that vanish on part of a region's boundary, and data that are joined between parts.

Sukumar and Srivastava (2022). Curves $i$ with approximate distances $\varphi_i$ are joined by
R-equivalence (equation 20), $\varphi = (\sum_i 1/\varphi_i)^{-1}$, which has slope one on each, and
data $g_k$ of several conditions by transfinite interpolation (equation 24),
$g = \sum_k w_k g_k$ with $w_k \propto 1/\varphi_k$.

These are not smooth where curves meet. So where the whole region lies on one side of a curve's line
or circle, and all of the boundary on it is meant, the function of that line takes the place of the
distance and is a factor: of a square with four holes the product of eight polynomials and rational
functions, analytic wherever the solution is.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._curve import Curve, trimmed
from ._region import Region

_PROBES = 257


class Vanishing(eqx.Module):
    """Vanishes on some curves of a region's boundary; positive and of size one within.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> from pde._vanishing import Vanishing
    >>> disc = pde.Region(pde.Ball(x=0, y=0, radius=2))
    >>> phi = Vanishing(disc, disc.bounding)
    >>> phi(jnp.array([2.0, 0.0])).tolist(), phi(jnp.array([0.0, 1.0])).tolist()
    (0.0, 0.75)

    ```
    """

    factors: tuple[Curve, ...] = eqx.field(static=True)
    """Whose line or circle bounds the whole region."""
    joined: tuple[Curve, ...] = eqx.field(static=True)
    """The others."""
    scale: float = eqx.field(static=True)

    def __init__(self, region: Region, curves: tuple[Curve, ...]):
        slack = 1e-9 * float(np.max(np.subtract(region.shape.upper, region.shape.lower)))
        steps = np.linspace(0, 1, _PROBES)
        rim = np.concatenate([c.at(steps)[0] for c in region.bounding])
        factors: list[Curve] = []
        joined = []
        for curve in curves:
            if any(curve.same_line(f, slack) for f in factors):
                continue
            on_it = [c for c in region.bounding if curve.same_line(c, slack)]
            if set(on_it) <= set(curves) and np.min(curve.function(rim)) >= -slack:
                factors.append(curve)
            else:
                joined.append(curve)
        self.factors, self.joined, self.scale = tuple(factors), tuple(joined), 1.0
        self.scale = float(1 / np.max(self._product(region.probes(), np)))

    def __call__(self, point: Float[Array, " d"]) -> Float[Array, ""]:
        return self._product(point[:2], jnp)

    def _product(self, points, xp):
        product = xp.full(points.shape[:-1], self.scale, dtype=points.dtype)
        for curve in self.factors:
            product = product * curve.function(points)
        if self.joined:
            distances = [trimmed(c, points) for c in self.joined]
            product = product / sum(1 / d for d in distances)
        return product


def weights(factors: list[Vanishing], point: Float[Array, " d"]) -> list[Array]:
    """Of each condition's data: one where its factor vanishes, and zero where another's does."""
    tiny = jnp.finfo(point.dtype).tiny ** 0.5
    values = [f(point) for f in factors]
    # The product of all but one; where two vanish together, both count alike.
    others = []
    for k in range(len(values)):
        rest = jnp.ones((), point.dtype)
        for j, value in enumerate(values):
            rest = rest * value if j != k else rest
        others.append(rest + tiny)
    total = sum(others)
    return [rest / total for rest in others]
