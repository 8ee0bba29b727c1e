"""The bridge between two sets of points: no training, a static solve in its place."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn

from .._sinkhorn_newton_sparse import SinkhornNewtonSparse
from ._bridge import AbstractPotentialBridge
from ._potential import Points, SumExpQuadratic
from ._reference import Reference, as_reference


class DiscreteBridge(AbstractPotentialBridge):
    r"""The Schrödinger bridge between two weighted sets of points.

    Paths of the bridge are the reference's, pinned at both ends, and the ends are coupled by the
    entropic plan (Léonard, *A survey of the Schrödinger problem*, 2014, proposition 2.3). The
    plan's cost is half the squared distance in the reference's unit coordinates; its second
    potential $g$ makes $\varphi_1 = \sum_j e^{g_j} \delta_{y_j}$, from which drift, weights and
    paths follow for *any* start, also outside of `x0`: Pooladian and Niles-Weed, *Plug-in
    estimation of Schrödinger bridges* (2024).

    The end has no density, so there is no `log_prob`, and the drift grows without bound as
    $t \to 1$, where it is not finite: draw with `solver=None`, which is exact, or stop before.

    **Arguments:**

    - `reference`: the reference process, a number being Brownian motion's $\varepsilon$.
    - `x0`, `x1`: the points of the start and of the end.
    - `a`, `b`: their weights, with the same sum; by default all equal.
    - `tau_a`, `tau_b`: below 1, the ends need not have these weights, which may not exceed 1: a
        divergence from them is added to the plan's from the reference between them, with the
        factor $\tau / (1 - \tau)$ (Chizat, Peyré, Schmitzer and Vialard, *Scaling algorithms for
        unbalanced optimal transport problems*, 2018). The weights that paths start and end with
        are the marginals of `plan`, whose sum may differ from that of `a` and `b`; none is lost on
        the way. [`transport.bridge.GaussianBridge.unbalanced`][] is what it tends to between
        Gaussians.
    - `solver`: what takes an ott `LinearProblem` and returns potentials `f`, `g`; by default
        [`transport.SinkhornNewtonSparse`][], or ott's `Sinkhorn` where a `tau` is below 1.
    - `batch_size`: of points whose costs are recomputed in blocks; `None` keeps all costs.

    `plan` is what the solver returned. A solve that did not converge is no error here: see
    `plan.converged`.

    **Raises:** a runtime error for unbalanced weights above 1.

    !!! Example

        ```python
        >>> import jax, transport
        >>> x0, x1 = jax.random.normal(jax.random.key(0), (2, 200, 2))
        >>> bridge = transport.bridge.DiscreteBridge(0.5, x0, x1 + 3)
        >>> middle = bridge.simulate(jax.random.key(1), x0, [0.5])[0]
        >>> bool(abs(middle.mean() - 1.5) < 0.1), bool(bridge.plan.converged)
        (True, True)

        ```
    """

    reference: Reference
    potential: SumExpQuadratic
    x0: Float[Array, "n d"]
    plan: Any

    def __init__(
        self,
        reference,
        x0: Float[Array, "n d"],
        x1: Float[Array, "m d"],
        a: Float[Array, " n"] | None = None,
        b: Float[Array, " m"] | None = None,
        *,
        tau_a: float = 1.0,
        tau_b: float = 1.0,
        solver: Callable[[LinearProblem], Any] | None = None,
        batch_size: int | None = None,
    ):
        self.reference, self.x0 = as_reference(reference), x0
        u0, u1 = self.reference.to_unit(0, x0), self.reference.to_unit(1, x1)
        balanced = tau_a == tau_b == 1
        at0, at1 = (u0, u1) if balanced else (_weighted(u0, a, 0), _weighted(u1, b, 1))
        # The squared distance with a regularisation of 2 is half of it with one of 1.
        geometry = PointCloud(at0, at1, epsilon=2.0, batch_size=batch_size)
        problem = LinearProblem(geometry, a, b, tau_a, tau_b)
        if solver is None and balanced:
            solver = SinkhornNewtonSparse()
        elif solver is None:
            threshold = float(jnp.finfo(u1.dtype).eps) ** 0.75
            solver = Sinkhorn(threshold=threshold, max_iterations=20_000)
        self.plan = solver(problem)
        log_alpha = 0.5 * (self.plan.g - jnp.sum(at1**2, axis=1))
        self.potential = SumExpQuadratic(log_alpha, u1, Points(u1.shape[1]))

    def sample_start(self, key: Key[Array, ""], n: int) -> Float[Array, "n d"]:
        """Draws of the start, by the weights of `plan`: those of `x0`, unless `tau_a` lets go."""
        weights = self.plan.marginal(1)
        return self.x0[jax.random.choice(key, len(weights), (n,), p=weights / jnp.sum(weights))]

    def log_prob(self, x1, x0):
        """Raises `TypeError`: the end is a set of points."""
        raise TypeError("The end of a bridge between points has no density.")


def _weighted(
    u: Float[Array, "n d"], weights: Float[Array, " n"] | None, side: int
) -> Float[Array, "n d+2"]:
    """The points in two dimensions more, so that the kernel between two has both their weights.

    Half the squared distance grows by minus their logarithms. A balanced plan is the same without;
    an unbalanced one would be held against points of mass 1, and grow with their number.
    """
    held = jnp.full(len(u), 1 / len(u), u.dtype) if weights is None else weights
    large = jnp.any(held > 1)
    held = eqx.error_if(held, large, "Unbalanced weights above 1: divide them by their sum.")
    far = jnp.sqrt(-2 * jnp.log(jnp.where(held > 0, held, 1))).astype(u.dtype)
    return jnp.concatenate([u, far[:, None] * jnp.eye(2, dtype=u.dtype)[side]], axis=1)
