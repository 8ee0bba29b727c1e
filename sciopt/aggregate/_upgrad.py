"""UPGrad: every gradient projected onto the dual cone, then combined.

Quinton and Rey, *Jacobian Descent for Multi-Objective Optimization* (2024); the projection
of equation (3), through the Gramian by proposition 1.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._aggregator import AbstractWeighting
from ._dualproj import dual_cone_program
from ._quadratic_program import nonnegative_minimiser, nonnegative_minimisers

# Entries of the matrices that are factorised at a time: 128 MB in float64.
CHUNK = 2**24
# Objectives from which on the programs are solved together and not one by one.
SHARED_FROM = 32


class UPGrad(AbstractWeighting):
    r"""The combination of the projections of all gradients onto their dual cone.

    $\mathcal A(J) = \sum_i p_i\, \pi_J(g_i)$, where $\pi_J$ projects onto $\{x : J x \ge 0\}$
    (equation 3; $p_i = 1/m$). By proposition 1 the projection of $J^\top u$ is $J^\top v$ with $v =
    \arg\min_{v \ge u} v^\top G v$: one quadratic program an objective, all with the same Gramian
    $G$, normalised and regularised as in [`sciopt.aggregate.DualProj`][].

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | yes | yes | yes |

    Both hold up to `reg_eps`, which is relative to the squared Frobenius norm of $J$.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import UPGrad
    >>> u = UPGrad(reg_eps=0.0)(jnp.array([[1.0, 0.0], [-1.0, 1.0]]))
    >>> [round(float(v), 12) for v in u]
    [0.25, 0.75]

    ```
    """

    preference: Float[Array, " m"] | None = None
    norm_eps: float = 1e-4
    reg_eps: float = 1e-4

    def weights(self, gramian, *, key=None):
        m = gramian.shape[0]
        p, matrix, steps = dual_cone_program(self, gramian)
        # Column i of the corrections is what the projection of gradient i adds to its own weight.
        linear = -matrix * p
        if steps == 0 and m > SHARED_FROM:
            return p + jnp.sum(nonnegative_minimisers(matrix, linear), axis=1)
        solve = functools.partial(nonnegative_minimiser, proximal_steps=steps)
        size = max(1, min(m, CHUNK // m**2))
        corrections = jax.lax.map(lambda q: solve(matrix, q), linear.T, batch_size=size)
        return p + jnp.sum(corrections, axis=0)
