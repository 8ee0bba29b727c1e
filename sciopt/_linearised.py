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

Linearise = Callable[[PyTree, Any], tuple[PyTree, Float[Array, "m n"] | lx.AbstractLinearOperator]]


class Linearised(eqx.Module):
    r"""$r(p + s) \approx r + Js$ about the current parameters, all flat."""

    residual: Float[Array, " m"]
    jacobian: lx.AbstractLinearOperator
    loss: Scalar
    """$|r|^2$."""
    loss_at: Callable[[Float[Array, " n"]], Scalar]
    """$|r(p + s)|^2$ of a step $s$, not linearised."""
    curvature: Callable[[Float[Array, " n"]], Float[Array, " m"]]
    r"""$\mathrm{d}^2 r(p + t s) / \mathrm{d} t^2$ at $t = 0$, of a step $s$."""

    def in_units(self, units: Float[Array, " n"]) -> "Linearised":
        """The same by other parameters, those here times `units`; it makes the Jacobian dense."""
        return Linearised(
            self.residual,
            lx.MatrixLinearOperator(self.jacobian.as_matrix() / units),
            self.loss,
            lambda step: self.loss_at(step / units),
            lambda step: self.curvature(step / units),
        )


def linearise(fn: Callable[[PyTree, Any], PyTree], y: PyTree, args: Any, jac: Any) -> Linearised:
    """Linearise `fn(y, args) -> residuals`; `jac` is the option of that name.

    **Raises:** `ValueError` for a `jac` that is none of `"fwd"`, `"bwd"`, `"matrix_free"` and a
    function; and for a second derivative beside a Jacobian whose rows have another order.
    """
    flat, unravel = ravel_pytree(y)

    def flat_fn(p):
        return ravel_pytree(fn(unravel(p), args))[0]

    if callable(jac):
        residual, jacobian = cast(Linearise, jac)(y, args)
        residual = ravel_pytree(residual)[0]
    elif jac == "matrix_free":
        residual, jvp = jax.linearize(flat_fn, flat)
        jacobian = lx.FunctionLinearOperator(jvp, jax.eval_shape(lambda: flat))
    elif jac in ("fwd", "bwd"):
        transform = {"fwd": jax.jacfwd, "bwd": jax.jacrev}[jac]
        jacobian, residual = transform(lambda p: (flat_fn(p),) * 2, has_aux=True)(flat)
    else:
        raise ValueError(
            "The option `jac` must be 'fwd', 'bwd' or a function "
            f"(y, args) -> (residual, jacobian), or 'matrix_free'; got {jac!r}."
        )
    if not isinstance(jacobian, lx.AbstractLinearOperator):
        jacobian = lx.MatrixLinearOperator(jacobian)

    def loss_at(step):
        out = flat_fn(flat + step)
        return out @ out

    def curvature(step):
        def velocity(p):
            return jax.jvp(flat_fn, (p,), (step,))[1]

        return jax.jvp(velocity, (flat,), (step,))[1]

    return Linearised(residual, jacobian, residual @ residual, loss_at, curvature)


class GaussNewtonState(eqx.Module):
    """The loss after the last step, whether to stop and why, what the method itself remembers."""

    loss: Scalar
    terminate: Bool[Array, ""]
    result: optx.RESULTS
    memory: PyTree


class AbstractGaussNewton(optx.AbstractLeastSquaresSolver):
    """A method that makes each step from the residuals, their Jacobian and a memory.

    It keeps nothing of the residuals between steps, so `args` (collocation points, a mini-batch)
    may change from one to the next.

    The result is `optimistix.RESULTS.nonfinite`, and the loss NaN, where the residuals or the step
    from them are not finite, the parameters then staying what they were; `nonlinear_divergence`
    where no step decreases the loss, down to those that change no parameter, although the
    linearised residuals promise that they do; and `nonlinear_max_steps_reached`.
    """

    rtol: eqx.AbstractVar[float]
    atol: eqx.AbstractVar[float]
    norm: eqx.AbstractVar[Callable[[PyTree], Scalar]]
    linear_solver: eqx.AbstractVar[Any]
    """What makes a step of a Jacobian; it says whether it is to be a matrix, `matrix_free`."""

    @property
    def matrix_free(self) -> bool:
        """Whether the Jacobian is to come as an operator whose matrix has not been made."""
        return self.linear_solver.matrix_free

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

    def linearise(self, fn, y, args, options: dict[str, Any]) -> Linearised:
        """What a step is made from; `fn` is without auxiliary output."""
        jac = options.get("jac", "matrix_free" if self.matrix_free else "fwd")
        return linearise(fn, y, args, jac)

    def size(self, loss: Scalar) -> Scalar:
        """Of a loss, as `rtol` and `atol` measure it: $|r|$."""
        return jnp.sqrt(loss)

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> GaussNewtonState:
        flat, _ = ravel_pytree(y)
        loss = jnp.asarray(jnp.inf, flat.dtype)
        return GaussNewtonState(loss, jnp.array(False), optx.RESULTS.successful, self.start(flat))

    def step(self, fn, y, args, options, state: GaussNewtonState, tags):
        problem = self.linearise(lambda y, a: fn(y, a)[0], y, args, options)
        flat, unravel = ravel_pytree(y)
        kept, tried, loss, memory = self.advance(problem, state.memory)
        finite = jnp.isfinite(problem.loss) & jnp.all(jnp.isfinite(tried))
        small_step = self.norm(unravel(tried)) <= self.atol + self.rtol * self.norm(y)
        before = self.size(problem.loss)
        small_decrease = before - self.size(loss) <= self.atol + self.rtol * jnp.abs(before)
        result = optx.RESULTS.where(
            finite,
            optx.RESULTS.where(
                self._diverges(problem, flat, kept, tried),
                optx.RESULTS.nonlinear_divergence,
                optx.RESULTS.successful,
            ),
            optx.RESULTS.nonfinite,
        )
        loss = jnp.where(finite, loss, jnp.nan)
        state = GaussNewtonState(loss, small_step & small_decrease, result, memory)
        return unravel(flat + jnp.where(finite, kept, 0)), state, fn(y, args)[1]

    def _diverges(self, problem: Linearised, flat, kept, tried) -> Bool[Array, ""]:
        eps = jnp.finfo(flat.dtype).eps
        hopeless = ~jnp.any(kept != 0) & jnp.all(jnp.abs(tried) <= eps * (1 + jnp.abs(flat)))

        def promises():
            # The best multiple of the step takes the cosine's square of the linearised loss away:
            # more than a little, by changing the parameters more than rounding does.
            image = problem.jacobian.mv(tried)
            along, size = image @ problem.residual, image @ image
            most = jnp.max(jnp.abs(tried) / (1 + jnp.abs(flat)), initial=0.0)
            moves = jnp.abs(along) * most > 1000 * eps * size
            return moves & (along**2 > eps**0.25 * size * (problem.residual @ problem.residual))

        return jax.lax.cond(hopeless, promises, lambda: jnp.array(False))

    def terminate(self, fn, y, args, options, state: GaussNewtonState, tags):
        return state.terminate, state.result

    def postprocess(self, fn, y, aux, args, options, state: GaussNewtonState, tags, result):
        return y, aux, self.statistics(state.memory)
