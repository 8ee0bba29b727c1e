"""What all steps of Gauss-Newton's kind share: linearise, step, notice the end."""

import abc
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree, Scalar

Linearise = Callable[[PyTree, Any], tuple[PyTree, Float[Array, "m n"]]]


class Linearised(eqx.Module):
    r"""$r(p + s) \approx r + Js$ about the current parameters, all flat."""

    residual: Float[Array, " m"]
    jacobian: lx.AbstractLinearOperator
    loss: Scalar
    """$|r|^2$."""
    loss_at: Callable[[Float[Array, " n"]], Scalar]
    """$|r(p + s)|^2$ of a step $s$, not linearised."""


def linearise(fn: Callable[[PyTree, Any], PyTree], y: PyTree, args: Any, jac: Any) -> Linearised:
    """Linearise `fn(y, args) -> residuals`; `jac` is the option of that name."""
    flat, unravel = ravel_pytree(y)

    def flat_fn(p):
        return ravel_pytree(fn(unravel(p), args))[0]

    if callable(jac):
        residual, matrix = cast(Linearise, jac)(y, args)
        residual = ravel_pytree(residual)[0]
    elif jac in ("fwd", "bwd"):
        transform = {"fwd": jax.jacfwd, "bwd": jax.jacrev}[jac]
        matrix, residual = transform(lambda p: (flat_fn(p),) * 2, has_aux=True)(flat)
    else:
        raise ValueError(
            "The option `jac` must be 'fwd', 'bwd' or a function "
            f"(y, args) -> (residual, jacobian); got {jac!r}."
        )

    def loss_at(step):
        out = flat_fn(flat + step)
        return out @ out

    return Linearised(residual, lx.MatrixLinearOperator(matrix), residual @ residual, loss_at)


class GaussNewtonState(eqx.Module):
    """The loss after the last step, whether to stop, and what the method itself remembers."""

    loss: Scalar
    terminate: Bool[Array, ""]
    memory: PyTree


class AbstractGaussNewton(optx.AbstractLeastSquaresSolver):
    """A method that makes each step from the residuals, their Jacobian and a memory.

    It keeps nothing of the residuals between steps, so `args` (collocation points, a mini-batch)
    may change from one to the next. A loss that is not finite ends it, with the result
    `optimistix.RESULTS.nonlinear_divergence`.
    """

    rtol: eqx.AbstractVar[float]
    atol: eqx.AbstractVar[float]
    norm: eqx.AbstractVar[Callable[[PyTree], Scalar]]

    @abc.abstractmethod
    def start(self, flat: Float[Array, " n"]) -> PyTree:
        """The memory before the first step."""

    @abc.abstractmethod
    def advance(
        self, problem: Linearised, memory: PyTree
    ) -> tuple[Float[Array, " n"], Float[Array, " n"], Scalar, PyTree]:
        """The step to take, the one last tried (the same, or refused), the loss, the memory."""

    @abc.abstractmethod
    def statistics(self, memory: PyTree) -> dict[str, Any]:
        """What `optimistix.Solution.stats` says beside the number of steps."""

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> GaussNewtonState:
        flat, _ = ravel_pytree(y)
        loss = jnp.asarray(jnp.inf, flat.dtype)
        return GaussNewtonState(loss, jnp.array(False), self.start(flat))

    def step(self, fn, y, args, options, state: GaussNewtonState, tags):
        problem = linearise(lambda y, a: fn(y, a)[0], y, args, options.get("jac", "fwd"))
        flat, unravel = ravel_pytree(y)
        kept, tried, loss, memory = self.advance(problem, state.memory)
        loss = jnp.where(jnp.isfinite(loss), loss, jnp.nan)  # Infinite is for before any step.
        small_step = self.norm(unravel(tried)) <= self.atol + self.rtol * self.norm(y)
        decrease = jnp.sqrt(problem.loss) - jnp.sqrt(loss)
        small_decrease = decrease <= self.atol + self.rtol * jnp.sqrt(problem.loss)
        state = GaussNewtonState(loss, small_step & small_decrease, memory)
        return unravel(flat + kept), state, fn(y, args)[1]

    def terminate(self, fn, y, args, options, state: GaussNewtonState, tags):
        diverged = jnp.isnan(state.loss)
        result = optx.RESULTS.where(
            diverged, optx.RESULTS.nonlinear_divergence, optx.RESULTS.successful
        )
        return state.terminate | diverged, result

    def postprocess(self, fn, y, aux, args, options, state: GaussNewtonState, tags, result):
        return y, aux, self.statistics(state.memory)
