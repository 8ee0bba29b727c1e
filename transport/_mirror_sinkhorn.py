r"""Mirror Sinkhorn: one mirror step, one scaling, for any convex objective of the plan.

Follows Ballu and Berthet, *Mirror Sinkhorn: Fast Online Optimization on Transport Polytopes*
(2023), algorithm 1, in the log domain. Two things are added. Potentials are extrapolated: Chizat,
*Annealed Sinkhorn for Optimal Transport* (2024), shows that without that the single scaling of a
linear objective's step leaves an error of the step's size, and that no schedule then beats
$1/\sqrt t$. And steps are set by the variance of the gradient under the plan, as in second-order
bounds of exponential weights (Cesa-Bianchi, Mansour and Stoltz, *Improved Second-Order Bounds for
Prediction with Expert Advice*, 2007).
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
    - `average`: $\sum_t \eta_t \gamma_t / \sum_t \eta_t$ over the steps after the burn-in.
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
    \sqrt{T})$ for the average weighted by the steps. No inner Sinkhorn is run. That much is
    `MirrorSinkhorn(rate="decreasing", extrapolate=False, burn_in=0)`.

    The plan is $\exp(u_t \oplus v_t - G_t)$ with $G_t = \sum_s \eta_s \nabla F(\gamma_s)$. A sum
    $f \oplus g$ taken off the gradient changes no coupling's regret, and $u_t$, $v_t$ will have to
    grow as $G_t$ does: `extrapolate` takes off $(u_t \oplus v_t) / \sum_s \eta_s$ before the step,
    so that the scaling corrects what is left. What remains of the gradient is then small where
    there is mass, and `rate="adaptive"`, $\eta_t = \tfrac12 \sqrt{\delta / \sum_{s \le t}
    \mathrm{Var}_{\gamma_s}(\nabla F - f_s \oplus g_s)}$, makes steps as long as it allows: noise
    shortens them, a linear objective without noise is solved at a rate nearer $1/t$.

    **Arguments:**

    - `num_steps`: the number of steps $T$; a step costs one gradient and one scaling.
    - `rate`: `"adaptive"`; `"decreasing"`, $\eta_t \propto 1/\sqrt t$; or `"constant"`, $\eta_t
        \propto 1/\sqrt T$, without the logarithm. Only the last needs the horizon.
    - `gradient_bound`: $B$, for the rates that are not adaptive. `None` takes half the range of
        the first gradient, which is exact for linear objectives: a constant added to a gradient
        moves no scaled plan.
    - `extrapolate`: whether the gradient is reduced by the potentials so far.
    - `burn_in`: the fraction of the steps that the average leaves out, in [0, 1).

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, transport
        >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> half = jnp.array([0.5, 0.5])
        >>> out = transport.MirrorSinkhorn(100)(lambda plan: jnp.sum(cost * plan), half, half)
        >>> bool(jnp.sum(cost * out.matrix) < 0.01)
        True

        ```
    """

    num_steps: int = eqx.field(default=1000, static=True)
    rate: str = eqx.field(default="adaptive", static=True)
    gradient_bound: float | None = eqx.field(default=None, static=True)
    extrapolate: bool = eqx.field(default=True, static=True)
    burn_in: float = eqx.field(default=0.5, static=True)

    def __check_init__(self):
        if self.num_steps < 1:
            raise ValueError(f"`num_steps` must be at least 1; got {self.num_steps}.")
        if self.rate not in ("adaptive", "decreasing", "constant"):
            raise ValueError(
                f"`rate` must be 'adaptive', 'decreasing' or 'constant'; got {self.rate!r}."
            )
        if not 0 <= self.burn_in < 1:
            raise ValueError(f"`burn_in` is a fraction of the steps; got {self.burn_in}.")

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
    alive = (a > 0)[:, None] & (b > 0)

    def gradient(plan, t):
        rest = () if args is None else (args,)
        if key is not None:
            rest = (jax.random.fold_in(key, t), *rest)
        return jax.grad(objective)(plan, *rest)

    # A single atom leaves one coupling and no entropy; any step will do.
    entropy = jnp.minimum(jnp.sum(entr(a / mass)), jnp.sum(entr(b / mass)))
    entropy = jnp.maximum(entropy, jnp.finfo(a.dtype).eps)
    bound = _bound(solver, gradient, jnp.outer(a, b) / mass)

    def step(t, carry):
        u, v, gradients, beta, variance, total, weight = carry
        plan = jnp.exp(u[:, None] + v - gradients)
        slope = jnp.where(alive, gradient(plan, t), 0)
        f = _over(jnp.where(a > 0, u - log_a, 0), beta)
        g = _over(jnp.where(b > 0, v - log_b, 0), beta)
        reduced = slope - f[:, None] - g if solver.extrapolate else slope
        variance = variance + _variance(plan, reduced)
        if solver.rate == "adaptive":
            eta = jnp.where(variance > 0, 0.5 * jnp.sqrt(_over(entropy, variance)), 1)
        else:
            clock = t + 1 if solver.rate == "decreasing" else solver.num_steps
            eta = jnp.sqrt(entropy / clock) / bound
        late = jnp.where(t >= int(solver.burn_in * solver.num_steps), eta, 0)
        total, weight = total + late * plan, weight + late

        gradients, beta = gradients + eta * slope, beta + eta
        if solver.extrapolate:
            u, v = u + eta * f, v + eta * g

        def rows():
            return log_a - _finite(logsumexp(v - gradients, axis=1)), v

        def columns():
            return u, log_b - _finite(logsumexp(u[:, None] - gradients, axis=0))

        u, v = lax.cond(t % 2 == 0, rows, columns)
        return u, v, gradients, beta, variance, total, weight

    nothing = jnp.zeros((a.size, b.size), a.dtype)
    zero = jnp.zeros((), a.dtype)
    start = (log_a - jnp.log(mass), log_b, nothing, zero, zero, nothing, zero)
    *_, total, weight = lax.fori_loop(0, solver.num_steps, step, start)
    average = total / weight
    error = jnp.sum(jnp.abs(jnp.sum(average, 1) - a)) + jnp.sum(jnp.abs(jnp.sum(average, 0) - b))
    return MirrorSinkhornOutput(round_to_polytope(average, a, b), average, error)


def _bound(solver: MirrorSinkhorn, gradient: Callable, plan: Plan) -> Scalar:
    if solver.gradient_bound is not None or solver.rate == "adaptive":
        return jnp.asarray(solver.gradient_bound or 1.0, plan.dtype)
    slope = gradient(plan, 0)
    bound = (jnp.max(slope) - jnp.min(slope)) / 2
    return jnp.where(bound > 0, bound, 1)


def _variance(plan: Plan, values: Plan) -> Scalar:
    """That of `values` under the plan as a probability."""
    mass = jnp.sum(plan)
    mean = jnp.sum(plan * values) / mass
    return jnp.sum(plan * (values - mean) ** 2) / mass


def _over(numerator, denominator: Scalar):
    """The quotient, and nothing over zero."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 0)


def _finite(log_sum):
    """A row or column of zeros is scaled to zero whatever the factor."""
    return jnp.where(jnp.isfinite(log_sum), log_sum, 0)
