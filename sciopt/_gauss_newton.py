"""Damped Gauss-Newton: Levenberg's step with the gain-ratio control of the damping.

Follows Madsen, Nielsen and Tingleff, *Methods for Non-Linear Least Squares Problems* (2004),
equations (3.13)-(3.16) and algorithm 3.16.
"""

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar

Linearise = Callable[[PyTree, Any], tuple[PyTree, Float[Array, "m n"]]]


def dense_jacobian(fn: Callable[[PyTree, Any], Any], y: PyTree, args: Any, mode: str):
    """Residuals and dense Jacobian of a function that nothing is known about."""
    flat, unravel = ravel_pytree(y)

    def flat_fn(p):
        residual = fn(unravel(p), args)
        return ravel_pytree(residual)[0], residual

    transform = {"fwd": jax.jacfwd, "bwd": jax.jacrev}[mode]
    jac, residual = transform(flat_fn, has_aux=True)(flat)
    return residual, jac


def inner_products(columns: Float[Array, "m n"]) -> Float[Array, "n n"]:
    """$A^\\top A$ by halves: the lower left block is the upper right one, which saves a quarter."""
    half = columns.shape[1] // 2
    left, right = columns[:, :half], columns[:, half:]
    cross = left.T @ right
    return jnp.block([[left.T @ left, cross], [cross.T, right.T @ right]])


class DampedSystem(eqx.Module):
    r"""$(J^\top J + \mu I) s = -J^\top r$, held on its cheap side.

    With $m$ residuals and $n$ parameters, $J^\top (J J^\top + \mu I)^{-1} = (J^\top J + \mu
    I)^{-1} J^\top$, so the system to factorise is $\min(m, n)$ square. The Gramian is formed once
    a Jacobian and refactorised for each damping that is tried.
    """

    jac: Float[Array, "m n"]
    gramian: Float[Array, "k k"]
    residual: Float[Array, " m"]
    gradient: Float[Array, " n"]

    def __init__(self, jac: Float[Array, "m n"], residual: Float[Array, " m"]):
        rows, columns = jac.shape
        self.jac = jac
        self.gramian = inner_products(jac.T if rows < columns else jac)
        self.residual = residual
        self.gradient = jac.T @ residual

    def step(self, damping: Scalar) -> tuple[Float[Array, " n"], Scalar]:
        r"""The step $s$ and the decrease of $\|r\|^2$ that the linear model predicts for it.

        The prediction $\|r\|^2 - \|r + Js\|^2 = \mu \|s\|^2 - s^\top J^\top r$ has no
        cancellation: both terms are positive. A gramian that is not numerically positive definite
        gives NaN, which the caller treats as a step that failed.
        """
        rows, columns = self.jac.shape
        k = self.gramian.shape[0]
        factor = jax.scipy.linalg.cho_factor(self.gramian + damping * jnp.eye(k), lower=True)
        if rows < columns:
            step = -self.jac.T @ jax.scipy.linalg.cho_solve(factor, self.residual)
        else:
            step = -jax.scipy.linalg.cho_solve(factor, self.gradient)
        return step, damping * (step @ step) - step @ self.gradient


class GaussNewtonState(eqx.Module):
    damping: Scalar
    growth: Scalar
    loss: Scalar
    terminate: Bool[Array, ""]
    num_rejected: Int[Array, ""]


class GaussNewton(optx.AbstractLeastSquaresSolver):
    r"""Levenberg-damped Gauss-Newton with a dense Jacobian, on the cheap side of the system.

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

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> GaussNewtonState:
        dtype = ravel_pytree(y)[0].dtype
        return GaussNewtonState(
            damping=jnp.asarray(self.damping, dtype),
            growth=jnp.asarray(2.0, dtype),
            loss=jnp.asarray(jnp.inf, dtype),
            terminate=jnp.array(False),
            num_rejected=jnp.array(0),
        )

    def step(self, fn, y, args, options, state: GaussNewtonState, tags):
        jac: Any = options.get("jac", "fwd")
        if callable(jac):
            residual, matrix = cast(Linearise, jac)(y, args)
        elif jac in ("fwd", "bwd"):
            residual, matrix = dense_jacobian(lambda y, a: fn(y, a)[0], y, args, jac)
        else:
            raise ValueError(
                "GaussNewton's option `jac` must be 'fwd', 'bwd' or a function "
                f"(y, args) -> (residual, jacobian); got {jac!r}."
            )
        flat, unravel = ravel_pytree(y)
        r = ravel_pytree(residual)[0]
        system = DampedSystem(matrix, r)
        loss = r @ r

        def squared(p):
            out = ravel_pytree(fn(unravel(p), args)[0])[0]
            return out @ out

        def trial(carry):
            _, _, _, damping, growth, tried, _ = carry
            step, predicted = system.step(damping)
            new_loss = squared(flat + step)
            gain = (loss - new_loss) / predicted
            accepted = gain > 0  # False for NaN: a failed factorisation is a rejected step.
            shrink = jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
            damping = jnp.where(accepted, damping * shrink, damping * growth)
            growth = jnp.where(accepted, 2.0, 2 * growth)
            kept = jnp.where(accepted, step, 0)
            return kept, step, new_loss, damping, growth, tried + 1, accepted

        def rejected(carry):
            *_, tried, accepted = carry
            return ~accepted & (tried < self.max_trials)

        zero = jnp.zeros_like(flat)
        start = (zero, zero, loss, state.damping, state.growth, jnp.array(0), jnp.array(False))
        kept, step, new_loss, damping, growth, tried, accepted = jax.lax.while_loop(
            rejected, trial, start
        )
        # Below this the damping is lost in the rounding of the Gramian's diagonal.
        floor = jnp.finfo(flat.dtype).eps * jnp.max(jnp.diag(system.gramian))
        new_loss = jnp.where(accepted, new_loss, loss)
        small_step = self.norm(unravel(step)) <= self.atol + self.rtol * self.norm(y)
        decrease = jnp.sqrt(loss) - jnp.sqrt(new_loss)
        small_decrease = decrease <= self.atol + self.rtol * jnp.sqrt(loss)
        state = GaussNewtonState(
            damping=jnp.maximum(damping, floor),
            growth=jnp.where(accepted, growth, 2.0),
            loss=new_loss,
            terminate=small_step & small_decrease,
            num_rejected=state.num_rejected + tried - accepted,
        )
        return unravel(flat + kept), state, fn(y, args)[1]

    def terminate(self, fn, y, args, options, state: GaussNewtonState, tags):
        return state.terminate, optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, aux, {"num_rejected": state.num_rejected}
