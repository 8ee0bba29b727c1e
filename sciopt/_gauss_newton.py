"""Damped Gauss-Newton: Levenberg's step with the gain-ratio control of the damping.

Follows Madsen, Nielsen and Tingleff, *Methods for Non-Linear Least Squares Problems* (2004),
equations (3.13)-(3.16) and algorithm 3.16. The scaling is that of Moré (1978), section 6, and the
geodesic acceleration that of Transtrum and Sethna, arXiv:1201.5885 (2012), section 3.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import Array, Float, Int, PyTree, Scalar

from . import damped
from ._linearised import AbstractGaussNewton, Linearised


class Levenberg(eqx.Module):
    """The damping to try next, and by how much it grows after a failure."""

    damping: Scalar
    growth: Scalar
    scale: Float[Array, " n"] | None
    """The largest norm so far of each of the Jacobian's columns, if the damping is scaled."""
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
    - `scaled`: damp $|Ds|^2$ in the place of $|s|^2$, where $D$ has on its diagonal the largest
        norm so far of each of the Jacobian's columns: Marquardt's damping in Moré's form, which
        does not change with the units of the parameters. It makes the Jacobian dense.
    - `acceleration`: half the geodesic acceleration $a = \operatorname{argmin}_a |Ja + r''|^2 +
        \mu |a|^2$, with $r''$ the second derivative along the step $s$, is added to the step; a
        trial with $|a| > \alpha |s|$ for this $\alpha$ is rejected. `None` leaves it out. It costs
        a second derivative along one direction, and on physics residuals it is worth several
        digits at equal time (`docs/decisions.md`).

    Supports the following `options`:

    - `jac`: `"fwd"` (the default) or `"bwd"`, as in [`optimistix.LevenbergMarquardt`][];
        `"matrix_free"` (the default where the linear solver wants no matrix); or a function
        `(y, args) -> (residual, dense Jacobian or lineax operator)` that knows the structure of
        the problem, such as [`sciopt.Residuals.jacobian`][].

    The `result` is `successful`; `nonfinite` where the residuals or their Jacobian are not
    finite; `nonlinear_divergence` where no step decreases the loss although the Jacobian promises
    that; or `nonlinear_max_steps_reached`. A singular Jacobian without damping is no failure: the
    trial is rejected, and the next has damping.

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
    scaled: bool = False
    acceleration: float | None = 0.75

    @property
    def matrix_free(self) -> bool:
        return self.linear_solver.matrix_free and not self.scaled

    def start(self, flat: Float[Array, " n"]) -> Levenberg:
        return Levenberg(
            damping=jnp.asarray(self.damping, flat.dtype),
            growth=jnp.asarray(2.0, flat.dtype),
            scale=jnp.zeros_like(flat) if self.scaled else None,
            num_rejected=jnp.array(0),
        )

    def advance(self, problem: Linearised, memory: Levenberg):
        # From here on `step` is in the scaled parameters, whose damping is |step|^2.
        jacobian, scale, unscaled = problem.jacobian, memory.scale, lambda step: step
        if scale is not None:
            matrix = jacobian.as_matrix()
            scale = jnp.maximum(scale, jnp.linalg.norm(matrix, axis=0))
            units = jnp.where(scale > 0, scale, 1)
            jacobian, unscaled = lx.MatrixLinearOperator(matrix / units), lambda step: step / units
        system = self.linear_solver.factor(jacobian)
        gradient = system.jacobian.T.mv(problem.residual)

        def trial(carry):
            _, _, _, damping, growth, tried, _ = carry
            step = system.solve(-problem.residual, damping)
            # |r|^2 - |r + Js|^2 without cancellation: both terms are positive.
            predicted = damping * (step @ step) - step @ gradient
            allowed = jnp.array(True)
            if self.acceleration is not None:
                turn = system.solve(-problem.curvature(unscaled(step)), damping)
                allowed = jnp.linalg.norm(turn) <= self.acceleration * jnp.linalg.norm(step)
                step = step + turn / 2
            step = unscaled(step)
            new_loss = problem.loss_at(step)
            gain = (problem.loss - new_loss) / predicted
            # False for NaN: a failed factorisation is a rejected step.
            accepted = allowed & (gain > 0)
            shrink = jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
            # Without damping there would be none after a failure either.
            raised = growth * jnp.maximum(damping, system.floor)
            damping = jnp.where(accepted, damping * shrink, raised)
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
        # Since |J| >= |J^T r| / |r|, steps with more damping are below any rounding.
        square = gradient @ gradient / jnp.where(problem.loss > 0, problem.loss, 1)
        ceiling = square / jnp.finfo(step.dtype).eps ** 2
        memory = Levenberg(
            damping=jnp.maximum(jnp.minimum(damping, ceiling), system.floor),
            growth=jnp.where(accepted, growth, 2.0),
            scale=scale,
            num_rejected=memory.num_rejected + tried - accepted,
        )
        return kept, step, jnp.where(accepted, loss, problem.loss), memory

    def statistics(self, memory: Levenberg):
        return {"num_rejected": memory.num_rejected}
