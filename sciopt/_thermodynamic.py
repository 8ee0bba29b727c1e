r"""Thermodynamic natural gradient: the linear system of the step is left to a random process.

Follows Donatella, Duffield, Aifer, Melanson, Crooks and Coles, *Thermodynamic Natural Gradient
Descent* (2024, arXiv 2405.13817; npj Unconventional Computing 2025). There an analogue device runs
the Ornstein-Uhlenbeck process

$$dx = -(A x - b)\,dt + \sqrt{2\kappa_0}\,dW, \quad A = J^\top J + \lambda I, \quad b = J^\top r,$$

whose stationary law is $\mathcal N(A^{-1} b, \kappa_0 A^{-1})$: its mean is the natural gradient.
Here the device is simulated, or its state after the time is drawn from the law that it has.
"""

import abc
import math
from collections.abc import Callable
from typing import Literal

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import Array, Float, Int, Key, PyTree, Scalar

from ._linearised import Linearised
from ._natural_gradient import POWERS_OF_TWO, AbstractNaturalGradient
from .damped._cholesky import inner_products


class AbstractDynamics(eqx.Module):
    """How the state of the process after some time is found."""

    @property
    def matrix_free(self) -> bool:
        """Whether the Jacobian is to come as an operator whose matrix has not been made."""
        return False

    @abc.abstractmethod
    def evolve(
        self,
        jacobian: lx.AbstractLinearOperator,
        residual: Float[Array, " m"],
        start: Float[Array, " n"],
        time: float,
        damping: float,
        temperature: float,
        key: Key[Array, ""],
    ) -> Float[Array, " n"]:
        """$x$ at `time` that was `start` at time 0."""


class _Spectrum(eqx.Module):
    r"""Functions of $J^\top J$, from the eigenvalues of the smaller of $J^\top J$, $J J^\top$."""

    jacobian: Float[Array, "m n"]
    values: Float[Array, " k"]
    vectors: Float[Array, "k k"]

    def __init__(self, jacobian: Float[Array, "m n"]):
        rows, columns = jacobian.shape
        gramian = inner_products(jacobian.T if rows < columns else jacobian)
        values, self.vectors = jnp.linalg.eigh(gramian)
        self.jacobian, self.values = jacobian, jnp.maximum(values, 0)

    @property
    def wide(self) -> bool:
        return self.jacobian.shape[0] < self.jacobian.shape[1]

    def _small(self, weights: Float[Array, " k"], vector: Float[Array, " k"]) -> Array:
        return self.vectors @ (weights * (self.vectors.T @ vector))

    def times(self, f: Callable[[Array], Array], vector: Float[Array, " n"]) -> Array:
        r"""$f(J^\top J) v$."""
        if not self.wide:
            return self._small(f(self.values), vector)
        # f(0) outside the range of J^T and the divided difference within it. Where an eigenvalue
        # is lost to rounding the image of v under J is too, and what stands below the line does
        # not matter.
        outside = f(jnp.zeros_like(self.values[0]))
        floor = jnp.finfo(self.values.dtype).eps * self.values[-1]
        slope = (f(self.values) - outside) / jnp.maximum(self.values, floor)
        slope = jnp.where(self.values > 0, slope, 0)
        return outside * vector + self.jacobian.T @ self._small(slope, self.jacobian @ vector)

    def pull(self, f: Callable[[Array], Array], vector: Float[Array, " m"]) -> Array:
        r"""$f(J^\top J) J^\top v = J^\top f(J J^\top) v$."""
        if self.wide:
            return self.jacobian.T @ self._small(f(self.values), vector)
        return self._small(f(self.values), self.jacobian.T @ vector)


class ExactTransition(AbstractDynamics):
    r"""The law after the time, which is Gaussian, by the eigenvectors of the cheap side.

    $$x(t) = e^{-At} x(0) + (I - e^{-At}) A^{-1} b + \sqrt{\kappa_0 (I - e^{-2At}) A^{-1}}\, \xi,
    \quad \xi \sim \mathcal N(0, I).$$

    The time may be infinite if the damping is not 0.
    """

    def evolve(self, jacobian, residual, start, time, damping, temperature, key):
        spectrum = _Spectrum(jacobian.as_matrix())
        least = jnp.finfo(residual.dtype).tiny / jnp.finfo(residual.dtype).eps

        def rate(z: Array) -> Array:
            return jnp.maximum(z + damping, least)

        x = spectrum.pull(lambda z: -jnp.expm1(-rate(z) * time) / rate(z), residual)
        x = x + spectrum.times(lambda z: jnp.exp(-rate(z) * time), start)
        noise = jax.random.normal(key, start.shape, start.dtype)
        return x + spectrum.times(
            lambda z: jnp.sqrt(-temperature * jnp.expm1(-2 * rate(z) * time) / rate(z)), noise
        )


class SimulatedPath(AbstractDynamics):
    r"""The process step by step, with a solver of diffrax and no matrix but $J$.

    **Arguments:**

    - `step`: the length of a step in time. An explicit solver needs it below
        $2 / (\|J\|_2^2 + \lambda)$, or the state grows without bound.
    - `solver`: any that takes additive noise; the default is Euler-Maruyama.
    """

    step: float
    solver: diffrax.AbstractSolver = diffrax.Euler()

    @property
    def matrix_free(self) -> bool:
        return True

    def evolve(self, jacobian, residual, start, time, damping, temperature, key):
        if not math.isfinite(time):
            raise ValueError("SimulatedPath needs a finite time; ExactTransition takes any.")
        target = jacobian.T.mv(residual)

        def drift(t, x, args):
            return target - jacobian.T.mv(jacobian.mv(x)) - damping * x

        def diffusion(t, x, args):
            return lx.DiagonalLinearOperator(jnp.full_like(x, jnp.sqrt(2.0 * temperature)))

        levy = getattr(self.solver, "minimal_levy_area", diffrax.BrownianIncrement)
        path = diffrax.VirtualBrownianTree(
            0.0, time, self.step / 2, jax.ShapeDtypeStruct(start.shape, start.dtype), key, levy
        )
        terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))
        solution = diffrax.diffeqsolve(
            terms, self.solver, 0.0, time, self.step, start, max_steps=None, throw=False
        )
        assert solution.ys is not None
        return solution.ys[-1]


class ThermodynamicState(eqx.Module):
    """Where the process stands, and how many steps were taken, which each draw depends on."""

    solution: Float[Array, " n"]
    num_steps: Int[Array, ""]


class TNGD(AbstractNaturalGradient):
    r"""Thermodynamic natural gradient descent.

    The step is $-\eta\, x(t)$ with $x$ the Ornstein-Uhlenbeck process

    $$dx = -(A x - b)\,dt + \sqrt{2\kappa_0}\,dW, \quad A = J^\top J + \lambda I, \quad
    b = J^\top r,$$

    which has forgotten where it began, and is the natural gradient, once $t$ is long against
    $1 / \lambda$: then, without noise, this is [`sciopt.ENGD`][]. Begun at the gradient and
    stopped at once it is gradient descent. Between them the directions in which $J^\top J$ is
    strong come first. (The squared loss has output Hessian $I$, so $J^\top J$ is the paper's
    $J^\top H_L J$, the exact Fisher matrix of Gaussian noise.)

    **Arguments:**

    - `time` (by name): $t$, in units of the squared parameter per squared residual.
    - `key` (by name): the noise of a step comes from it and the step's number.
    - `rtol`, `atol`, `norm`, `damping` ($\lambda$), `step_sizes`, `norm_constraint`: as in
        [`sciopt.ENGD`][].
    - `temperature`: $\kappa_0$.
    - `delay`: $t_d$ (section 4), for which the process runs on with the system of the step before
        until that of this step is loaded. That it runs for the whole of `time` after that is our
        reading: the paper does not say, and no code of its authors was found. They find that it
        acts as a momentum. It must be 0 where each step begins at its gradient.
    - `begin`: `"last"`, where the process stood at the end of the step before (the gradient at
        first: algorithm 1), or `"gradient"`, the $b$ of this step.
    - `linear_solver`: the thermodynamic one, [`sciopt.ExactTransition`][] or
        [`sciopt.SimulatedPath`][], which makes no matrix.

    The paper measures time in the device's $\tau = RC$ (1 µs), which is 1 here. On MNIST (batches
    of 64, mean losses) it has $\eta = 0.01$, $\lambda = 0.01$, $t$ from 5 to 50, at which it is
    as good as the natural gradient, $t_d$ of 0, 0.2 and 1 with $t = 5$, $\kappa_0$ up to 0.01
    without harm, and Euler steps of 0.1; on question answering $\lambda = 1$, $t$ from 0.1 to 0.4
    and Euler steps of 0.02 (appendix E). Not taken from it: averages over several readings of a
    step, and Adam's or SGD's momentum on top of the estimate.

    **Raises:** `ValueError` for a `begin` that is neither, a delay that is negative, or that has no
    effect.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, optimistix, sciopt
        >>> def rosenbrock(y, args):
        ...     return jnp.array([10 * (y[1] - y[0] ** 2), 1 - y[0]])
        >>> solver = sciopt.TNGD(1e-8, 1e-8, time=1e3, key=jax.random.key(0))
        >>> sol = optimistix.least_squares(rosenbrock, solver, jnp.array([-1.2, 1.0]))
        >>> bool(jnp.allclose(sol.value, 1.0, atol=1e-6))
        True

        ```
    """

    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[PyTree], Scalar] = optx.max_norm
    damping: float = 1e-8
    temperature: float = 0.0
    begin: Literal["last", "gradient"] = "last"
    step_sizes: tuple[float, ...] = POWERS_OF_TWO
    norm_constraint: float = math.inf
    linear_solver: AbstractDynamics = ExactTransition()
    delay: float = 0.0
    time: float = eqx.field(kw_only=True)
    key: Key[Array, ""] = eqx.field(kw_only=True)

    def __check_init__(self):
        if self.begin not in ("last", "gradient"):
            raise ValueError(f"TNGD begins at 'last' or 'gradient'; got {self.begin!r}.")
        if self.delay < 0 or (self.delay > 0 and self.begin == "gradient"):
            raise ValueError(
                "TNGD's delay must not be negative, and needs begin='last'; got "
                f"{self.delay} and {self.begin!r}."
            )

    def start(self, flat: Float[Array, " n"]) -> ThermodynamicState:
        return ThermodynamicState(jnp.zeros_like(flat), jnp.array(0))

    def direction(self, problem: Linearised, memory: ThermodynamicState):
        def evolve(begin: Float[Array, " n"], time: float, phase: int) -> Float[Array, " n"]:
            key = jax.random.fold_in(self.key, 2 * memory.num_steps + phase)
            return self.linear_solver.evolve(
                *(problem.jacobian, problem.residual, begin),
                *(time, self.damping, self.temperature, key),
            )

        fresh = memory.num_steps == 0 if self.begin == "last" else True
        gradient = problem.jacobian.T.mv(problem.residual)
        solution = evolve(jnp.where(fresh, gradient, memory.solution), self.time, 0)
        # What the delay before the next step adds, this step's system being loaded until then.
        later = evolve(solution, self.delay, 1) if self.delay else solution
        # What broke down is no place to begin from.
        later = jnp.where(jnp.all(jnp.isfinite(later)), later, memory.solution)
        return -solution, ThermodynamicState(later, memory.num_steps + 1)

    def statistics(self, memory: ThermodynamicState):
        return {}
