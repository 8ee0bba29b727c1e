r"""How far a Gauss-Newton step goes: damping by the gain ratio, or a trust region.

`GainRatio` is Nielsen's rule, Madsen, Nielsen and Tingleff, *Methods for Non-Linear Least Squares
Problems* (2004), algorithm 3.16. `TrustRegion` follows Moré, *The Levenberg-Marquardt Algorithm:
Implementation and Theory* (1978), sections 4 and 5, with the Newton iteration of Nocedal and
Wright, *Numerical Optimization* (2006), algorithm 4.3.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar

from . import damped


class DampedModel(eqx.Module):
    r"""$|r + Js|^2 + \mu |s|^2$ for any $\mu$, with $g = J^\top r$."""

    system: damped.AbstractDampedSystem
    residual: Float[Array, " m"]
    gradient: Float[Array, " n"]

    def decrease(self, step: Float[Array, " n"], damping: Scalar) -> Scalar:
        """$|r|^2 - |r + Js|^2$ of its minimiser $s$, as a sum of two positive terms."""
        return damping * (step @ step) - step @ self.gradient

    @property
    def floor(self) -> Scalar:
        """The least damping that rounding does not hide."""
        return self.system.floor

    @property
    def ceiling(self) -> Scalar:
        """Since $|J| \\ge |g| / |r|$, steps with more damping are below any rounding."""
        square = self.residual @ self.residual
        norm = self.gradient @ self.gradient / jnp.where(square > 0, square, 1)
        return norm / jnp.finfo(norm.dtype).eps ** 2


class Outcome(eqx.Module):
    """Of a trial: its step without the acceleration, actual over predicted decrease, the verdict.

    The gain ratio is NaN where something was not finite. `trials` counts those of this step.
    """

    step: Float[Array, " n"]
    gain: Scalar
    accepted: Bool[Array, ""]
    trials: Int[Array, ""]


class AbstractDamping(eqx.Module):
    """Which damping a trial has, and what its outcome changes in that."""

    @abc.abstractmethod
    def start(self, dtype: jnp.dtype) -> PyTree:
        """What it remembers before the first trial."""

    @abc.abstractmethod
    def propose(self, model: DampedModel, memory: PyTree) -> tuple[Scalar, PyTree]:
        """The damping of a trial."""

    @abc.abstractmethod
    def learn(self, model: DampedModel, memory: PyTree, outcome: Outcome) -> PyTree:
        """What to remember of a trial."""


class GainRatio(AbstractDamping):
    r"""Damping that follows the gain ratio $\varrho$, actual over predicted decrease.

    On success $\mu \leftarrow \mu \max(\frac13, 1 - (2\varrho - 1)^3)$, on the $k$-th failure in
    turn $\mu \leftarrow 2^k \mu$. Each trial costs one factorisation.

    **Arguments:**

    - `damping`: the initial $\mu$, in units of the squared residual per squared parameter.

    !!! Example

        ```python
        >>> import sciopt
        >>> solver = sciopt.GaussNewton(damping=sciopt.GainRatio(1e-3))  # or damping=1e-3

        ```
    """

    damping: float = 1e-2

    def start(self, dtype: jnp.dtype) -> Scalar:
        return jnp.asarray(self.damping, dtype)

    def propose(self, model: DampedModel, memory: Scalar):
        return memory, memory

    def learn(self, model: DampedModel, memory: Scalar, outcome: Outcome) -> Scalar:
        shrink = jnp.maximum(1 / 3, 1 - (2 * outcome.gain - 1) ** 3)
        growth = 2.0 ** outcome.trials.astype(memory.dtype)
        # Without damping there would be none after a failure either.
        raised = growth * jnp.maximum(memory, model.floor)
        damping = jnp.where(outcome.accepted, memory * shrink, raised)
        return jnp.maximum(jnp.minimum(damping, model.ceiling), model.floor)


class Region(eqx.Module):
    """The radius, and the damping that gave the last step that length."""

    radius: Scalar
    damping: Scalar


class TrustRegion(AbstractDamping):
    r"""Steps no longer than $\Delta$: the damping is what makes $|s(\mu)| = \Delta$.

    It is the Gauss-Newton step (with the least damping that rounding does not hide) where that is
    no longer than $\Delta$; else $\mu$ is the root of $1/|s(\mu)| = 1/\Delta$ by Newton's method,
    which ascends to it from every $\mu$ below and has it in one or two iterations, to `rtol`. An
    iteration costs a factorisation, and none with [`sciopt.damped.SVD`][]. After a failure
    $\Delta \leftarrow |s| / 4$; after a success with a gain ratio below $\frac14$, $\Delta
    \leftarrow |s| / 2$, and above $\frac34$, or of a Gauss-Newton step, $\Delta \leftarrow 2|s|$.

    **Arguments:**

    - `radius`: the first $\Delta$, in units of the parameters, or of Moré's scaling where
        [`sciopt.GaussNewton`][] has that.
    - `rtol`: how far $|s|$ may be from $\Delta$, relative to it. The default is Moré's.
    - `max_iterations`: of Newton's method.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, optimistix, sciopt
        >>> def rosenbrock(y, args):
        ...     return jnp.array([10 * (y[1] - y[0] ** 2), 1 - y[0]])
        >>> solver = sciopt.GaussNewton(1e-8, 1e-8, damping=sciopt.TrustRegion(radius=0.5))
        >>> sol = optimistix.least_squares(rosenbrock, solver, jnp.array([-1.2, 1.0]))
        >>> bool(jnp.allclose(sol.value, 1.0, atol=1e-6))
        True

        ```
    """

    radius: float = 1.0
    rtol: float = 0.1
    max_iterations: int = 20

    def __check_init__(self):
        if self.radius <= 0 or self.rtol <= 0:
            raise ValueError(
                "TrustRegion needs a positive radius and tolerance; got "
                f"{self.radius} and {self.rtol}."
            )

    def start(self, dtype: jnp.dtype) -> Region:
        return Region(jnp.asarray(self.radius, dtype), jnp.zeros((), dtype))

    def propose(self, model: DampedModel, memory: Region):
        radius, floor = memory.radius, model.floor
        # |s| <= |g| / mu bounds the root.
        most = jnp.maximum(jnp.linalg.norm(model.gradient) / radius, floor)

        def newton(carry):
            *_, least, damping, iterations = carry
            # The step and its slope by one factorisation.
            solve = model.system.with_damping(damping)
            step = solve(-model.residual)
            through = solve(model.system.jacobian.mv(step))
            length = jnp.linalg.norm(step)
            # s^T (J^T J + mu I)^-1 s: the slope of |s|^2 is -2 times that.
            slope = (step @ step - step @ through) / damping
            following = damping + (length / radius - 1) * length**2 / slope
            # Too long, or what broke down, asks for more damping; the floor is enough for any.
            short = length < radius
            least = jnp.where(short, least, damping)
            following = jnp.where(short, jnp.maximum(following, floor), following)
            sound = (following >= least) & (following <= most)
            following = jnp.where(sound, following, jnp.sqrt(least * most))
            return damping, length, least, following, iterations + 1

        def going(carry):
            damping, length, *_, iterations = carry
            short = (length < (1 - self.rtol) * radius) & (damping > floor)
            wrong = short | ~(length <= (1 + self.rtol) * radius)
            return (iterations == 0) | (wrong & (iterations < self.max_iterations))

        first, zero = jnp.maximum(memory.damping, floor), jnp.zeros_like(radius)
        damping, *_ = jax.lax.while_loop(going, newton, (first, zero, floor, first, jnp.array(0)))
        return damping, Region(radius, damping)

    def learn(self, model: DampedModel, memory: Region, outcome: Outcome) -> Region:
        length = jnp.linalg.norm(outcome.step)
        length = jnp.where(length <= memory.radius, length, memory.radius)  # or not finite
        good = (outcome.gain > 3 / 4) | (memory.damping <= model.floor)
        kept = jnp.where(good, 2 * length, memory.radius)
        kept = jnp.where(outcome.gain < 1 / 4, length / 2, kept)
        radius = jnp.where(outcome.accepted, kept, length / 4)
        # Steps below rounding change nothing, and the radius is to grow again with other points.
        least = jnp.finfo(radius.dtype).eps * min(self.radius, 1.0)
        return Region(jnp.maximum(radius, least), memory.damping)
