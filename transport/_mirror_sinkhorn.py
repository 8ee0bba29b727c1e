r"""Mirror Sinkhorn: one mirror step, one scaling, for any convex objective of the plan.

Follows Ballu and Berthet, *Mirror Sinkhorn: Fast Online Optimization on Transport Polytopes*
(2023), algorithm 1, in the log domain.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import entr, logsumexp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ._rounding import round_to_polytope

Plan = Float[Array, "n m"]


class MirrorSinkhornOutput(eqx.Module):
    r"""What Mirror Sinkhorn found.

    **Attributes:**

    - `matrix`: the average rounded to the polytope: its marginals are exact up to rounding.
    - `average`: $\sum_t \eta_t \gamma_t / \sum_t \eta_t$, the paper's iterate.
    - `marginal_error`: $\|\bar\gamma 1 - a\|_1 + \|\bar\gamma^\top 1 - b\|_1$ of the average.
    """

    matrix: Plan
    average: Plan
    marginal_error: Scalar


class MirrorSinkhorn(eqx.Module):
    r"""Minimises a convex `objective(plan)` over couplings of `a` and `b`, in a single loop.

    From $\gamma_1 = a b^\top$, each step multiplies by $\exp(-\eta_t \nabla F(\gamma_t))$ and then
    scales the rows (odd $t$) or the columns (even $t$) to their marginal: two projections in the
    Kullback-Leibler divergence onto sets that both contain the polytope, so that the regret bound
    of mirror descent holds against every coupling. With $\|\nabla F\|_\infty \le B$ and
    $\delta = \min(H(a), H(b)) \ge \mathrm{KL}(\gamma^\star | a b^\top)$, steps $\eta_t =
    \sqrt{\delta / t} / B$ give $F(\bar\gamma_T) - F(\gamma^\star) = O(B \sqrt{\delta} \log T /
    \sqrt{T})$ for the average weighted by the steps. No inner Sinkhorn is run.

    **Arguments:**

    - `num_steps`: the number of steps $T$; a step costs one gradient and one scaling.
    - `gradient_bound`: $B$. `None` takes half the range of the first gradient, which is exact for
        linear objectives: a constant added to a gradient moves no scaled plan.
    - `rate`: `"decreasing"`, $\eta_t \propto 1/\sqrt t$, which needs no horizon; or `"constant"`,
        $\eta_t \propto 1/\sqrt T$, without the logarithm.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, transport
        >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> half = jnp.array([0.5, 0.5])
        >>> out = transport.MirrorSinkhorn(500)(lambda plan: jnp.sum(cost * plan), half, half)
        >>> bool(jnp.sum(cost * out.matrix) < 0.1)
        True

        ```
    """

    num_steps: int = eqx.field(default=1000, static=True)
    gradient_bound: float | None = eqx.field(default=None, static=True)
    rate: str = eqx.field(default="decreasing", static=True)

    def __check_init__(self):
        if self.num_steps < 1:
            raise ValueError(f"`num_steps` must be at least 1; got {self.num_steps}.")
        if self.rate not in ("decreasing", "constant"):
            raise ValueError(f"`rate` must be 'decreasing' or 'constant'; got {self.rate!r}.")

    def __call__(
        self,
        objective: Callable[..., Scalar],
        a: Float[Array, " n"],
        b: Float[Array, " m"],
        *,
        key: PRNGKeyArray | None = None,
        args: Any = None,
    ) -> MirrorSinkhornOutput:
        """Minimises `objective`.

        **Arguments:**

        - `objective`: `plan -> scalar`, convex; differentiated by `jax.grad`. With a `key` it is
            called as `objective(plan, key)` with a fresh key each step, and the gradients need
            only be unbiased: noisy costs, a stream of samples. With `args` these come last.
        - `a`, `b`: the marginals, of equal mass; atoms may have none.
        - `key`: makes the objective stochastic.
        - `args`: anything the objective needs that should not be compiled in.

        **Raises:**

        A runtime error if the marginals' masses differ.
        """
        return _minimise(self, objective, a, b, key, args)


@eqx.filter_jit
def _minimise(solver: MirrorSinkhorn, objective, a, b, key, args) -> MirrorSinkhornOutput:
    mass = jnp.sum(a)
    slack = jnp.sqrt(jnp.finfo(a.dtype).eps) * mass
    a = eqx.error_if(a, ~(jnp.abs(mass - jnp.sum(b)) <= slack), "The marginals' masses differ.")
    log_a, log_b = jnp.log(a), jnp.log(b)

    def gradient(plan, t):
        rest = () if args is None else (args,)
        if key is not None:
            rest = (jax.random.fold_in(key, t), *rest)
        return jax.grad(objective)(plan, *rest)

    first = jnp.outer(a, b) / mass
    if solver.gradient_bound is None:
        slope = gradient(first, 0)
        bound = (jnp.max(slope) - jnp.min(slope)) / 2
        bound = jnp.where(bound > 0, bound, 1)
    else:
        bound = jnp.asarray(solver.gradient_bound, a.dtype)
    # A single atom leaves one coupling and no entropy; any step will do.
    entropy = jnp.minimum(jnp.sum(entr(a / mass)), jnp.sum(entr(b / mass)))
    entropy = jnp.maximum(entropy, jnp.finfo(a.dtype).eps)

    def step(t, carry):
        log_plan, total, weight = carry
        plan = jnp.exp(log_plan)
        clock = t + 1 if solver.rate == "decreasing" else solver.num_steps
        eta = jnp.sqrt(entropy / clock) / bound
        total, weight = total + eta * plan, weight + eta
        log_plan = log_plan - eta * gradient(plan, t)

        def rows():
            return log_plan + _shift(log_a, logsumexp(log_plan, axis=1))[:, None]

        def columns():
            return log_plan + _shift(log_b, logsumexp(log_plan, axis=0))

        return lax.cond(t % 2 == 0, rows, columns), total, weight

    start = (jnp.log(first), jnp.zeros_like(first), jnp.zeros((), a.dtype))
    _, total, weight = lax.fori_loop(0, solver.num_steps, step, start)
    average = total / weight
    error = jnp.sum(jnp.abs(jnp.sum(average, 1) - a)) + jnp.sum(jnp.abs(jnp.sum(average, 0) - b))
    return MirrorSinkhornOutput(round_to_polytope(average, a, b), average, error)


def _shift(log_target, log_sum):
    """What scaling adds to the logarithms; nothing where an atom has no mass."""
    return jnp.where(jnp.isfinite(log_target), log_target - log_sum, 0)
