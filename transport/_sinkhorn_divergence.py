r"""Sinkhorn divergences: entropic transport without its bias towards the mean.

Genevay, Peyré and Cuturi, *Learning Generative Models with Sinkhorn Divergences* (2018); Feydy,
Séjourné, Vialard, Amari, Trouvé and Peyré, *Interpolating between Optimal Transport and MMD using
Sinkhorn Divergences* (2019), equation 3.
"""

from collections.abc import Callable

from jaxtyping import Array, Float, Scalar
from ott.geometry.costs import CostFn
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem

from ._sinkhorn_newton_sparse import SinkhornNewtonSparse


def sinkhorn_divergence(
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    a: Float[Array, " n"] | None = None,
    b: Float[Array, " m"] | None = None,
    *,
    cost_fn: CostFn | None = None,
    epsilon: Scalar | float | None = None,
    solver: Callable = SinkhornNewtonSparse(),  # noqa: B008, frozen
) -> Scalar:
    r"""$S_\varepsilon(\alpha, \beta) = \mathrm{OT}_\varepsilon(\alpha, \beta) - \tfrac12
    \mathrm{OT}_\varepsilon(\alpha, \alpha) - \tfrac12 \mathrm{OT}_\varepsilon(\beta, \beta)$.

    $\mathrm{OT}_\varepsilon$ is the optimal cost with $\varepsilon\,\mathrm{KL}(P \,|\, a b^\top)$.
    For the squared Euclidean cost the divergence is not negative, zero only where the measures
    coincide, and convex in each of them (Feydy et al., theorem 1). It is differentiable once, with
    respect to points, weights and epsilon, by the envelope theorem.

    **Arguments:**

    - `x`, `y`: the points.
    - `a`, `b`: their weights, of equal mass; uniform if `None`.
    - `cost_fn`: ott's ground cost; squared Euclidean if `None`.
    - `epsilon`: the regularisation of all three terms; ott's default for `x` and `y` if `None`.
    - `solver`: called on ott's problems; its output's `reg_ot_cost` is what counts.

    **Raises:**

    What the solver raises.

    !!! Example

        ```python
        >>> import jax, transport
        >>> x = jax.random.normal(jax.random.key(0), (30, 2))
        >>> divergence = transport.sinkhorn_divergence(x, x + 2, epsilon=1e-1)
        >>> round(float(divergence), 3)  # of a translation: its squared length, exactly
        8.0

        ```
    """
    between = PointCloud(x, y, cost_fn=cost_fn, epsilon=epsilon)
    epsilon = between.epsilon

    def cost(geometry, a, b):
        return solver(LinearProblem(geometry, a, b)).reg_ot_cost

    within_x = PointCloud(x, x, cost_fn=cost_fn, epsilon=epsilon)
    within_y = PointCloud(y, y, cost_fn=cost_fn, epsilon=epsilon)
    return cost(between, a, b) - 0.5 * (cost(within_x, a, a) + cost(within_y, b, b))
