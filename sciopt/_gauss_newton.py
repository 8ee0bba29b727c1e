"""Damped Gauss-Newton: Levenberg's step with the gain-ratio control of the damping.

Follows Madsen, Nielsen and Tingleff, *Methods for Non-Linear Least Squares Problems* (2004),
equations (3.13)-(3.16) and algorithm 3.16.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, Int, PyTree, Scalar

from . import damped
from ._linearised import AbstractGaussNewton, Linearised


class Levenberg(eqx.Module):
    """The damping to try next, and by how much it grows after a failure."""

    damping: Scalar
    growth: Scalar
    num_rejected: Int[Array, ""]


class GaussNewton(AbstractGaussNewton):
    r"""Levenberg-damped Gauss-Newton.

    Each step makes one Jacobian and then tries dampings $\mu$ until the sum of squares decreases,
    so a rejected trial costs a factorisation and a residual but no new Jacobian. The damping
    follows the gain ratio $\varrho$ (actual over predicted decrease): on success $\mu
    \leftarrow \mu \max(\frac13, 1 - (2\varrho - 1)^3)$, on failure $\mu \leftarrow \nu\mu$ with
    $\nu$ doubling.

    It keeps nothing of the residuals between steps, so `args` (collocation points, a mini-batch)
    may change from one step to the next.

    **Arguments:**

    - `rtol`, `atol`: terminate once both the last step and the last change of $\|r\|$ are below
        `atol + rtol * size`. The defaults never stop early: training loops count steps.
    - `damping`: the initial $\mu$, in units of the squared residual per squared parameter.
    - `max_trials`: dampings to try in one step before giving the old point back.
    - `norm`: measures steps for termination, `PyTree -> Scalar`.
    - `linear_solver`: how the damped systems are solved, one of [`sciopt.damped`][].

    Supports the following `options`:

    - `jac`: `"fwd"` (the default) or `"bwd"`, as in [`optimistix.LevenbergMarquardt`][], or a
        function `(y, args) -> (residual, dense Jacobian)` that knows the structure of the
        problem, such as [`sciopt.Residuals.jacobian`][].

    !!! Example

        ```python
        >>> import jax.numpy as jnp, optimistix, sciopt
        >>> def rosenbrock(y, args):
        ...     return jnp.array([10 * (y[1] - y[0] ** 2), 1 - y[0]])
        >>> solver = sciopt.GaussNewton(rtol=1e-8, atol=1e-8)
        >>> sol = optimistix.least_squares(rosenbrock, solver, jnp.array([-1.2, 1.0]))
        >>> bool(jnp.allclose(sol.value, 1.0, atol=1e-6))
        True

        ```
    """

    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[PyTree], Scalar] = optx.max_norm
    damping: float = 1e-2
    max_trials: int = 12
    linear_solver: damped.AbstractDampedSolver = damped.Cholesky()

    def start(self, flat: Float[Array, " n"]) -> Levenberg:
        return Levenberg(
            damping=jnp.asarray(self.damping, flat.dtype),
            growth=jnp.asarray(2.0, flat.dtype),
            num_rejected=jnp.array(0),
        )

    def advance(self, problem: Linearised, memory: Levenberg):
        system = self.linear_solver.factor(problem.jacobian)
        gradient = problem.jacobian.T.mv(problem.residual)

        def trial(carry):
            _, _, _, damping, growth, tried, _ = carry
            step = system.solve(-problem.residual, damping)
            new_loss = problem.loss_at(step)
            # |r|^2 - |r + Js|^2 without cancellation: both terms are positive.
            predicted = damping * (step @ step) - step @ gradient
            gain = (problem.loss - new_loss) / predicted
            accepted = gain > 0  # False for NaN: a failed factorisation is a rejected step.
            shrink = jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
            damping = jnp.where(accepted, damping * shrink, damping * growth)
            growth = jnp.where(accepted, 2.0, 2 * growth)
            kept = jnp.where(accepted, step, 0)
            return kept, step, new_loss, damping, growth, tried + 1, accepted

        def rejected(carry):
            *_, tried, accepted = carry
            return ~accepted & (tried < self.max_trials)

        zero = jnp.zeros_like(gradient)
        start = (
            *(zero, zero, problem.loss, memory.damping, memory.growth),
            *(jnp.array(0), jnp.array(False)),
        )
        kept, step, loss, damping, growth, tried, accepted = jax.lax.while_loop(
            rejected, trial, start
        )
        memory = Levenberg(
            damping=jnp.maximum(damping, system.floor),
            growth=jnp.where(accepted, growth, 2.0),
            num_rejected=memory.num_rejected + tried - accepted,
        )
        return kept, step, jnp.where(accepted, loss, problem.loss), memory

    def statistics(self, memory: Levenberg):
        return {"num_rejected": memory.num_rejected}
