"""Damped Gauss-Newton: Levenberg's step, whose damping follows a rule, with acceleration.

Follows Madsen, Nielsen and Tingleff, *Methods for Non-Linear Least Squares Problems* (2004),
equations (3.13)-(3.16). The scaling is that of Moré (1978), section 6, and the geodesic
acceleration that of Transtrum and Sethna, arXiv:1201.5885 (2012), section 3.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar

from . import damped
from ._damping import AbstractDamping, DampedModel, GainRatio, Outcome
from ._linearised import AbstractGaussNewton, Linearised


class Memory(eqx.Module):
    """What the damping remembers, the scale, and a count."""

    damping: PyTree
    scale: Float[Array, " n"] | None
    """The largest norm so far of each of the Jacobian's columns, if the damping is scaled."""
    num_rejected: Int[Array, ""]


class Trial(eqx.Module):
    """A step, the loss after it, and whether it is taken."""

    step: Float[Array, " n"]
    loss: Scalar
    accepted: Bool[Array, ""]


def _rule(damping: float | AbstractDamping) -> AbstractDamping:
    return damping if isinstance(damping, AbstractDamping) else GainRatio(damping)


class GaussNewton(AbstractGaussNewton):
    r"""Levenberg-damped Gauss-Newton.

    Each step makes one Jacobian and then tries dampings $\mu$ until the sum of squares decreases,
    so a rejected trial costs a factorisation and a residual but no new Jacobian.

    It keeps nothing of the residuals between steps, so `args` (collocation points, a mini-batch)
    may change from one step to the next.

    **Arguments:**

    - `rtol`, `atol`: terminate once both the last step and the last change of $\|r\|$ are below
        `atol + rtol * size`. The defaults never stop early: training loops count steps.
    - `damping`: how it is chosen: [`sciopt.GainRatio`][], for which a number stands that is the
        initial $\mu$, or [`sciopt.TrustRegion`][].
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
    damping: AbstractDamping = eqx.field(converter=_rule, default=GainRatio())
    max_trials: int = 12
    linear_solver: damped.AbstractDampedSolver = damped.Cholesky()
    scaled: bool = False
    acceleration: float | None = 0.75

    @property
    def matrix_free(self) -> bool:
        return super().matrix_free and not self.scaled

    def start(self, flat: Float[Array, " n"]) -> Memory:
        scale = jnp.zeros_like(flat) if self.scaled else None
        return Memory(self.damping.start(flat.dtype), scale, jnp.array(0))

    def advance(self, problem: Linearised, memory: Memory):
        scale, units = memory.scale, jnp.ones((), problem.residual.dtype)
        if scale is not None:
            scale = jnp.maximum(scale, jnp.linalg.norm(problem.jacobian.as_matrix(), axis=0))
            units = jnp.where(scale > 0, scale, 1)
            problem = problem.in_units(units)
        system = self.linear_solver.factor(problem.jacobian)
        gradient = system.jacobian.T.mv(problem.residual)
        model = DampedModel(system, problem.residual, gradient)

        def attempt(carry):
            _, damping, trials = carry
            mu, damping = self.damping.propose(model, damping)
            solve = system.with_damping(mu)
            step = solve(-problem.residual)
            predicted = model.decrease(step, mu)
            trial = self._judged(problem, *self._accelerated(problem, solve, step))
            gain = (problem.loss - trial.loss) / predicted
            outcome = Outcome(step, gain, trial.accepted, trials + 1)
            return trial, self.damping.learn(model, damping, outcome), trials + 1

        def rejected(carry):
            trial, _, trials = carry
            return ~trial.accepted & (trials < self.max_trials)

        none = Trial(jnp.zeros_like(gradient), problem.loss, jnp.array(False))
        trial, damping, trials = jax.lax.while_loop(
            rejected, attempt, (none, memory.damping, jnp.array(0))
        )
        memory = Memory(damping, scale, memory.num_rejected + trials - trial.accepted)
        step = trial.step / units
        loss = jnp.where(trial.accepted, trial.loss, problem.loss)
        return jnp.where(trial.accepted, step, 0), step, loss, memory

    def _accelerated(
        self, problem: Linearised, solve: Callable[[Array], Array], step: Array
    ) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
        """The step with half of its acceleration, and whether that is small enough."""
        if self.acceleration is None:
            return step, jnp.array(True)
        turn = solve(-problem.curvature(step))
        small = jnp.linalg.norm(turn) <= self.acceleration * jnp.linalg.norm(step)
        return step + turn / 2, small

    def _judged(self, problem: Linearised, step: Array, allowed: Bool[Array, ""]) -> Trial:
        """Whether a step decreases the loss; not where a failed factorisation makes it NaN."""
        loss = problem.loss_at(step)
        return Trial(step, loss, allowed & (loss < problem.loss))

    def statistics(self, memory: Memory):
        return {"num_rejected": memory.num_rejected}
