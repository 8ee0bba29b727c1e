r"""Energy natural gradients: steps in the metric of the equation, with and without momentum.

`ENGD` follows Müller and Zeinhofer, *Achieving High Accuracy with PINNs via Energy Natural
Gradients* (ICML 2023), solved in the space of samples as in Guzmán-Cordero, Dangel, Goldshlager
and Zeinhofer, *Improving Energy Natural Gradient Descent through Woodbury, Momentum, and
Randomization* (NeurIPS 2025); `SPRING` follows Goldshlager, Abrahamsen and Lin, *A Kaczmarz-
inspired approach to accelerate the optimization of neural network wavefunctions* (J. Comput. Phys.
516, 2024) and algorithm 1 of the second.
"""

import abc
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, Int, PyTree, Scalar

from . import damped
from ._linearised import AbstractGaussNewton, Linearised

POWERS_OF_TWO = tuple(2.0**-k for k in range(31))
"""The grid of step sizes in the authors' code."""


class AbstractNaturalGradient(AbstractGaussNewton):
    """A direction from the residuals and a memory, and a step along it of one of some sizes."""

    step_sizes: eqx.AbstractVar[tuple[float, ...]]
    norm_constraint: eqx.AbstractVar[float]

    def __check_init__(self):  # Equinox runs it beside that of the class itself.
        if not self.step_sizes or min(self.step_sizes) <= 0:
            raise ValueError(
                f"{type(self).__name__} needs positive step sizes; got {self.step_sizes}."
            )

    @abc.abstractmethod
    def direction(self, problem: Linearised, memory: PyTree) -> tuple[Float[Array, " n"], PyTree]:
        """Where to go, and the memory after it."""

    def advance(self, problem: Linearised, memory: PyTree):
        direction, memory = self.direction(problem, memory)
        longest = jnp.sqrt(self.norm_constraint / (direction @ direction))
        sizes = jnp.minimum(jnp.asarray(self.step_sizes, direction.dtype), longest)

        def loss_at(size: Scalar) -> Scalar:
            return problem.loss_at(size * direction)

        if len(self.step_sizes) == 1:
            step, loss, accepted = sizes[0] * direction, loss_at(sizes[0]), jnp.array(True)
        else:
            # One after the other: residuals of many points are not to be held 31 times over.
            losses = jax.lax.map(loss_at, sizes)
            losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
            best = jnp.argmin(losses)
            step, loss = sizes[best] * direction, losses[best]
            accepted = loss < problem.loss
        kept = jnp.where(accepted, step, 0)
        return kept, step, jnp.where(accepted, loss, problem.loss), memory


class NaturalGradientState(eqx.Module):
    """How many steps were taken, which is what random solvers draw by."""

    num_steps: Int[Array, ""]


class ENGD(AbstractNaturalGradient):
    r"""Energy natural gradient descent.

    The step is $-\eta\,(G + \lambda I)^{-1} \nabla L$ for $L = \frac12 |r|^2$, where the metric
    $G$ is that of the energy: for the squared residuals of a linear equation the Gramian
    $J^\top J$ of what the equation makes of the tangent functions (Müller and Zeinhofer, equations
    (6)-(10)), and for a nonlinear one its Gauss-Newton part. It is solved on the cheap side, so
    with fewer residuals than parameters as $J^\top (J J^\top + \lambda I)^{-1} r$ (Guzmán-Cordero
    et al., section 3.1), and $\eta$ is the best of `step_sizes`.

    A metric other than that of the residuals (the $H^1$ metric of the deep Ritz energy
    $\int \frac12 |\nabla u|^2 - f u$, which is no sum of squares) is not this class's: it takes
    least squares.

    **Arguments:**

    - `rtol`, `atol`, `norm`: as in [`sciopt.GaussNewton`][].
    - `damping`: $\lambda$. The papers' best lie between 1e-12 (5-D Poisson) and 5e-3 (100-D). With
        0, a direct factorisation of a singular system breaks down.
    - `step_sizes`: those to try; if none decreases the loss there is no step. By default the
        authors' grid of powers of two from 1 to $2^{-30}$. A single size is taken unseen, which is
        the constant step.
    - `norm_constraint`: $C$; steps are shortened so that $|s|^2 \le C$.
    - `linear_solver`: one of [`sciopt.damped`][]; [`sciopt.damped.Nystrom`][] makes this the
        randomised method of Guzmán-Cordero et al., section 3.3.

    Supports the `options` of [`sciopt.GaussNewton`][]. A loss that is not finite, or a system
    that breaks down, ends with `optimistix.RESULTS.nonfinite`.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, optimistix, sciopt
        >>> def rosenbrock(y, args):
        ...     return jnp.array([10 * (y[1] - y[0] ** 2), 1 - y[0]])
        >>> solver = sciopt.ENGD(rtol=1e-8, atol=1e-8)
        >>> sol = optimistix.least_squares(rosenbrock, solver, jnp.array([-1.2, 1.0]))
        >>> bool(jnp.allclose(sol.value, 1.0, atol=1e-6))
        True

        ```
    """

    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[PyTree], Scalar] = optx.max_norm
    damping: float = 1e-8
    step_sizes: tuple[float, ...] = POWERS_OF_TWO
    norm_constraint: float = math.inf
    linear_solver: damped.AbstractDampedSolver = damped.Cholesky()

    def start(self, flat: Float[Array, " n"]) -> NaturalGradientState:
        return NaturalGradientState(jnp.array(0))

    def direction(self, problem: Linearised, memory: NaturalGradientState):
        system = self.linear_solver.at(memory.num_steps).factor(problem.jacobian)
        damping = jnp.asarray(self.damping, problem.residual.dtype)
        step = system.solve(-problem.residual, damping)
        return step, NaturalGradientState(memory.num_steps + 1)

    def statistics(self, memory: NaturalGradientState):
        return {}


class SpringState(eqx.Module):
    r"""The momentum $\phi$ and how many steps it was made in."""

    momentum: Float[Array, " n"]
    num_steps: Int[Array, ""]


class SPRING(AbstractNaturalGradient):
    r"""Energy natural gradient descent with a momentum that the new residuals correct.

    Subsampled projected-increment natural gradient descent: the new direction is the one nearest
    to the decayed old one that solves the new linearised residuals,

    $$\phi_k = \mu \phi_{k-1} - J^\top (J J^\top + \lambda I)^{-1} (r + \mu J \phi_{k-1}),$$

    so what other points taught is kept where the points of this step say nothing. The step is
    $\eta\, \phi_k / \sqrt{1 - \mu^{2k}}$; the denominator makes up for $\phi_0 = 0$ (algorithm 1 of
    Guzmán-Cordero et al., $k$ from 1). Without momentum it is [`sciopt.ENGD`][].

    The defaults are what the authors found best for 5-D Poisson with a constant step, rounded, and
    their constraint on the step's norm, which is in the parameters' own units. A line search
    (`step_sizes=sciopt.ENGD().step_sizes, norm_constraint=math.inf`) sees only this step's points,
    against which the momentum is: there their best momentum was 0.06. For wavefunctions Goldshlager
    et al. have $\mu = 0.99$, $\lambda = 10^{-3}$, $C = 10^{-3}$ and no denominator:
    `SPRING(damping=1e-3, momentum=0.99, bias_correction=False)`, with a decaying step from 0.02.

    **Arguments:** those of [`sciopt.ENGD`][], with

    - `momentum`: $\mu$, at least 0 and below 1.
    - `bias_correction`: whether to divide by $\sqrt{1 - \mu^{2k}}$.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, optimistix, sciopt
        >>> def rosenbrock(y, args):
        ...     return jnp.array([10 * (y[1] - y[0] ** 2), 1 - y[0]])
        >>> sizes = sciopt.ENGD().step_sizes
        >>> solver = sciopt.SPRING(1e-8, 1e-8, momentum=0.1, step_sizes=sizes, norm_constraint=9.0)
        >>> sol = optimistix.least_squares(rosenbrock, solver, jnp.array([-1.2, 1.0]))
        >>> bool(jnp.allclose(sol.value, 1.0, atol=1e-6))
        True

        ```
    """

    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[PyTree], Scalar] = optx.max_norm
    damping: float = 1e-9
    momentum: float = 0.83
    bias_correction: bool = True
    step_sizes: tuple[float, ...] = (0.06,)
    norm_constraint: float = 1e-3
    linear_solver: damped.AbstractDampedSolver = damped.Cholesky()

    def __check_init__(self):
        if not 0 <= self.momentum < 1:
            raise ValueError(f"SPRING needs 0 <= momentum < 1; got {self.momentum}.")

    def start(self, flat: Float[Array, " n"]) -> SpringState:
        return SpringState(jnp.zeros_like(flat), jnp.array(0))

    def direction(self, problem: Linearised, memory: SpringState):
        system = self.linear_solver.at(memory.num_steps).factor(problem.jacobian)
        damping = jnp.asarray(self.damping, problem.residual.dtype)
        old = self.momentum * memory.momentum
        momentum = old + system.solve(-problem.residual - system.jacobian.mv(old), damping)
        memory = SpringState(momentum, memory.num_steps + 1)
        if not self.bias_correction:
            return momentum, memory
        decay = jnp.asarray(self.momentum, momentum.dtype) ** (2 * memory.num_steps)
        return momentum / jnp.sqrt(1 - decay), memory

    def statistics(self, memory: SpringState):
        return {}
