r"""Exact Gauss-Newton: a generalised Gauss-Newton step whose matrix has the size of the mini-batch.

Follows Korbit, Adeoye, Bemporad and Zanon, *Exact Gauss-Newton Optimization for Training Deep
Neural Networks* (arXiv 2405.14402), and, where the paper leaves a rule or a number open, the
authors' implementation in `somax` (`somax/gn/egn.py`). The line search and its resets are those of
Vaswani et al., *Painless Stochastic Gradient* (2019); the regularisation follows Kiros, *Training
Neural Networks with Stochastic Hessian-Free Optimization* (2013).
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree, Scalar

from . import damped, losses
from ._linearised import AbstractGaussNewton, Linearised


class Quadratic(Linearised):
    r"""The model $f(p + s) \approx f + g \cdot s + \frac{1}{2b} |A s|^2$, with $g = A^\top u / b$.

    `jacobian` is $A = L^\top J$ and `residual` $u$ of the examples' losses, see `losses`.
    """

    batch: int = eqx.field(static=True)


def _of_rows(
    change: Callable[[Float[Array, " m"]], Float[Array, " k"]], jacobian: lx.AbstractLinearOperator
) -> lx.AbstractLinearOperator:
    """A linear map after the Jacobian; a matrix where that is one."""
    if isinstance(jacobian, lx.MatrixLinearOperator):
        return lx.MatrixLinearOperator(jax.vmap(change, 1, 1)(jacobian.as_matrix()))
    return lx.FunctionLinearOperator(lambda v: change(jacobian.mv(v)), jacobian.in_structure())


class Memory(eqx.Module):
    """What EGN remembers: $\\alpha$, $\\lambda$, the averaged direction (if any), and counts."""

    step_size: Scalar
    damping: Scalar
    velocity: Float[Array, " n"] | None
    num_steps: Int[Array, ""]
    num_rejected: Int[Array, ""]


class EGN(AbstractGaussNewton):
    r"""Exact Gauss-Newton, for squares and for any convex loss of a network's outputs.

    With $J$ the Jacobian of the outputs for $b$ examples, $r$ and $Q$ the gradient and
    (block-diagonal) Hessian of their losses, the direction is

    $$d = -(J^\top Q J + b \lambda I)^{-1} J^\top r = -J^\top (Q J J^\top + b \lambda I)^{-1} r,$$

    solved on its smaller side: outputs of the mini-batch, or parameters. It is found as a damped
    least-squares problem by a root of $Q$, which is symmetric (see [`sciopt.losses`][]).

    1. Momentum: $m \leftarrow \beta m + (1 - \beta) d$ and $d \leftarrow m / (1 - \beta^t)$.
    2. Line search: the step size $\alpha$ is multiplied by `decrease` until
       $f(p + \alpha d) \le f(p) + c \, \alpha \, g \cdot d$ (Armijo).
    3. Regularisation: with $\varrho$ the actual over the predicted change of $f$, $\lambda$ is
       multiplied by `damping_increase` where $\varrho < \frac14$, by `damping_decrease` where
       $\varrho > \frac34$.

    Nothing of the data is kept between steps, so that `args` may be another mini-batch in each.
    The numbers' defaults are those of the authors' code; that the line search and the adaptive
    damping are on is ours.

    **Arguments:**

    - `rtol`, `atol`: terminate once both the direction and the last change of the loss ($|r|$ for
        squares) are below `atol + rtol * size`. The defaults never stop early.
    - `norm`: measures directions for termination, `PyTree -> Scalar`.
    - `loss`: `None` for the sum of squares of residuals, as Optimistix has it ($f = \frac12
        |r|^2$, $b = 1$); else `loss(output, target)` of one example, any callable or one of
        [`sciopt.losses`][]. Then `fn(params, args)` gives an array of outputs with a leading axis
        over examples, and $f$ is the mean of their losses.
    - `targets`: the examples' targets from `args`; by default its second item, for `args =
        (inputs, targets)`.
    - `fisher`: `"exact"`: the above, which for the likelihood of an exponential family in its
        natural parameters (squares, softmax, logistic, Poisson) is the natural gradient, $J^\top
        Q J$ being Fisher's information. `"empirical"`: outer products of the examples' gradients
        in its place, of rank $b$; an entry of the residuals is an example where `loss` is `None`.
    - `step_size`: $\alpha$, and with the line search the largest and first.
    - `line_search`: off, every step has the size `step_size`, downhill or not.
    - `sufficient_decrease`: $c$, of Armijo and Goldstein.
    - `decrease`, `increase`: of $\alpha$, where refused and where it is to grow.
    - `reset`: where a search begins. `"increase"`: with $\alpha$ of the last step, grown.
        `"conservative"`: with it as it is. `"goldstein"`: likewise, and it grows while $f(p +
        \alpha d) < f(p) + (1 - c) \, \alpha \, g \cdot d$.
    - `max_trials`: of the line search; then the parameters stay, and the next begins from there.
    - `damping`: $\lambda$, and with `adaptive_damping` the first. May be 0 where the system is
        regular.
    - `adaptive_damping`, `damping_increase`, `damping_decrease`: as above.
    - `momentum`: $\beta$, in $[0, 1)$.
    - `linear_solver`: how the damped systems are solved, one of [`sciopt.damped`][].

    Supports the option `jac` as [`sciopt.GaussNewton`][] does; [`sciopt.Outputs`][] makes `fn`
    and `jac` from a network.

    **Returns**, through [`optimistix.least_squares`][], `stats` with the last `step_size` and
    `damping` and the number of refused trials, `num_rejected`. The `result` is `nonfinite` where
    the loss, the Jacobian or the factorisation is not finite, as after steps without line search
    that diverge; `nonlinear_max_steps_reached` where the loss has no minimum. Derivatives of the
    solution by Optimistix's default adjoint are those of squares: with another `loss`, give
    `adjoint=sciopt.LossAdjoint()`.

    **Raises:** `ValueError` for arguments out of their range, for outputs that are not one array.

    !!! Example

        A classifier on mini-batches:

        ```python
        >>> import equinox as eqx, jax, jax.numpy as jnp, sciopt
        >>> x = jax.random.normal(jax.random.key(0), (512, 2))
        >>> labels = (x[:, 0] * x[:, 1] > 0).astype(int)
        >>> net = eqx.nn.MLP(2, 2, 16, 2, jax.nn.tanh, key=jax.random.key(1))
        >>> params, static = eqx.partition(net, eqx.is_inexact_array)
        >>> logits = sciopt.Outputs(lambda p, x: eqx.combine(p, static)(x))
        >>> def fn(params, batch):
        ...     return logits(params, batch), None  # Optimistix' pair of output and auxiliary
        >>> solver = sciopt.EGN(loss=sciopt.losses.SoftmaxCrossEntropy(), damping=0.1)
        >>> options = {"jac": logits.jacobian}
        >>> state = solver.init(fn, params, None, options, None, None, frozenset())
        >>> @eqx.filter_jit
        ... def step(params, state, batch):
        ...     return solver.step(fn, params, batch, options, state, frozenset())
        >>> for i in range(40):
        ...     batch = jax.tree.map(lambda a: a[i % 8 :: 8], (x, labels))
        ...     params, state, _ = step(params, state, batch)
        >>> guess = jnp.argmax(logits(params, (x, labels)), axis=1)
        >>> bool(jnp.mean(guess == labels) > 0.95)
        True

        ```
    """

    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[PyTree], Scalar] = optx.max_norm
    loss: Callable[[Any, Any], Scalar] | None = None
    targets: Callable[[Any], PyTree] = lambda args: args[1]
    fisher: Literal["exact", "empirical"] = "exact"
    step_size: float = 1.0
    line_search: bool = True
    sufficient_decrease: float = 0.1
    decrease: float = 0.8
    increase: float = 1.5
    reset: Literal["increase", "conservative", "goldstein"] = "increase"
    max_trials: int = 15
    damping: float = 1.0
    adaptive_damping: bool = True
    damping_increase: float = 1.01
    damping_decrease: float = 0.99
    momentum: float = 0.0
    linear_solver: damped.AbstractDampedSolver = damped.Cholesky()

    def __check_init__(self):
        for name, names in (
            ("fisher", ("exact", "empirical")),
            ("reset", ("increase", "conservative", "goldstein")),
        ):
            if (value := getattr(self, name)) not in names:
                known = ", ".join(map(repr, names))
                raise ValueError(f"EGN's {name} must be one of {known}; got {value!r}.")
        ranges = {
            "sufficient_decrease": 0 < self.sufficient_decrease < 0.5,
            "momentum": 0 <= self.momentum < 1,
            "decrease": 0 < self.decrease < 1,
            "increase": self.increase >= 1,
            "damping": self.damping >= 0,
            "step_size": self.step_size > 0,
            "max_trials": self.max_trials > 0,
        }
        for name, right in ranges.items():
            if not right:
                raise ValueError(f"EGN's {name} is out of its range: {getattr(self, name)}.")

    def linearise(self, fn, y, args, options: dict[str, Any]) -> Quadratic:
        """The model of a step, from outputs and the roots of their losses' Hessians."""
        found = super().linearise(fn, y, args, options)
        if self.loss is None:
            return self._squares(found)
        outputs = jax.eval_shape(fn, y, args)
        if not hasattr(outputs, "shape") or not outputs.shape:
            raise ValueError(
                "With a loss, EGN needs fn(params, args) to give one array of outputs with a "
                f"leading axis over examples; got {outputs}."
            )
        loss = self.loss
        loss = loss if isinstance(loss, losses.AbstractLoss) else losses.Differentiated(loss)
        targets, batch = self.targets(args), outputs.shape[0]
        roots, residual = jax.vmap(loss.root)(found.residual.reshape(outputs.shape), targets)
        if self.fisher == "empirical":
            roots = jnp.einsum("bck,bk->bc", roots, residual)[..., None]
            residual = jnp.ones((batch, 1), roots.dtype)
        flat, unravel = ravel_pytree(y)

        def loss_at(step):
            return self.objective(fn(unravel(flat + step), args), args)

        now = self.objective(found.residual.reshape(outputs.shape), args)

        def of_outputs(change):
            change = change.reshape(roots.shape[:2])
            return jnp.einsum("bck,bc->bk", roots, change).ravel()

        jacobian = _of_rows(of_outputs, found.jacobian)
        return Quadratic(residual.ravel(), jacobian, now, loss_at, found.curvature, batch)

    def _squares(self, found: Linearised) -> Quadratic:
        residual, jacobian = found.residual, found.jacobian
        if self.fisher == "empirical":
            jacobian = _of_rows(lambda change: found.residual * change, jacobian)
            residual = jnp.ones_like(residual)
        return Quadratic(residual, jacobian, found.loss, found.loss_at, found.curvature, 1)

    def objective(self, outputs: PyTree, args: Any) -> Scalar:
        """$f$ of the outputs of `fn(params, args)`."""
        if self.loss is None:
            residual = ravel_pytree(outputs)[0]
            return residual @ residual / 2
        return jnp.mean(jax.vmap(self.loss)(outputs, self.targets(args)))

    def size(self, loss: Scalar) -> Scalar:
        """$|r|$ of squares, and another loss itself."""
        return super().size(loss) if self.loss is None else loss

    def start(self, flat: Float[Array, " n"]) -> Memory:
        return Memory(
            step_size=jnp.asarray(self.step_size, flat.dtype),
            damping=jnp.asarray(self.damping, flat.dtype),
            velocity=jnp.zeros_like(flat) if self.momentum else None,
            num_steps=jnp.array(0),
            num_rejected=jnp.array(0),
        )

    def advance(self, problem: Linearised, memory: Memory):
        assert isinstance(problem, Quadratic)
        # In the paper's f, which is half of Optimistix' sum of squares.
        half = 0.5 if self.loss is None else 1.0
        system = self.linear_solver.at(memory.num_steps).factor(problem.jacobian)
        gradient = system.jacobian.T.mv(problem.residual) / problem.batch
        direction = system.solve(-problem.residual, problem.batch * memory.damping)
        num_steps, velocity = memory.num_steps + 1, None
        if memory.velocity is not None:
            velocity = self.momentum * memory.velocity + (1 - self.momentum) * direction
            direction = velocity / (1 - self.momentum**num_steps)
        slope = gradient @ direction

        step_size, taken, loss, trials, accepted = self._search(
            problem, memory.step_size, direction, slope / half
        )
        step = taken * direction
        image = system.jacobian.mv(step)
        predicted = gradient @ step + image @ image / (2 * problem.batch)
        gain = half * (loss - problem.loss) / predicted
        damping = memory.damping
        if self.adaptive_damping:
            # NaN is poor; no change where none was predicted, as at a minimum, says nothing.
            poor = ~(gain >= 1 / 4) & (predicted != 0)
            damping = damping * jnp.where(poor, self.damping_increase, 1)
            damping = damping * jnp.where(gain > 3 / 4, self.damping_decrease, 1)
            damping = jnp.maximum(damping, system.floor / problem.batch)

        new = Memory(
            step_size, damping, velocity, num_steps, memory.num_rejected + trials - accepted
        )
        # A mini-batch with a NaN in it leaves no trace but in the damping, and that may also be
        # what a factorisation lacked.
        finite = jnp.all(jnp.isfinite(direction))
        more = self.damping_increase if self.adaptive_damping else 1.0
        memory = eqx.tree_at(lambda m: m.damping, memory, memory.damping * more)
        memory = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, memory)
        kept = jnp.where(accepted, step, 0)
        return kept, direction, jnp.where(accepted, loss, problem.loss), memory

    def _search(self, problem: Linearised, last: Scalar, direction: Array, slope: Scalar):
        """The step size to begin the next search from, the one taken, the loss there, trials."""
        c, loss = self.sufficient_decrease, problem.loss
        if not self.line_search:
            new_loss = problem.loss_at(last * direction)
            return last, last, new_loss, jnp.array(1), jnp.array(True)
        first = last * (self.increase if self.reset == "increase" else 1.0)
        # Where all that is left is rounding, a step is as good as none.
        slack = jnp.finfo(loss.dtype).eps * jnp.abs(loss)

        def trial(carry):
            size, *_, trials, _, _ = carry
            new_loss = problem.loss_at(size * direction)
            enough = new_loss <= loss + c * size * slope + slack  # False for NaN.
            short = jnp.array(False)
            if self.reset == "goldstein":
                short = enough & (new_loss < loss + (1 - c) * size * slope)
                short = short & (size < self.step_size)
            grown = jnp.minimum(size * self.increase, self.step_size)
            following = jnp.where(short, grown, jnp.where(enough, size, size * self.decrease))
            return following, size, new_loss, trials + 1, enough, ~enough | short

        def going(carry):
            *_, trials, _, again = carry
            return again & (trials < self.max_trials)

        first = jnp.minimum(first, self.step_size).astype(direction.dtype)
        start = (first, first, loss, jnp.array(0), jnp.array(False), jnp.array(True))
        return jax.lax.while_loop(going, trial, start)[:-1]

    def statistics(self, memory: Memory):
        return {
            "num_rejected": memory.num_rejected,
            "step_size": memory.step_size,
            "damping": memory.damping,
        }


def _gradient(optimum: PyTree, _, inputs: tuple) -> PyTree:
    fn, solver, _, args, *_ = inputs
    return jax.grad(lambda y: solver.objective(fn(y, args)[0], args))(optimum)


class LossAdjoint(optx.ImplicitAdjoint):
    r"""Derivatives of what [`sciopt.EGN`][] finds, for any loss, by the implicit function theorem.

    At a minimum $\nabla f = 0$, so $\mathrm{d}p = -(\nabla^2 f)^{-1} \, \mathrm{d} \nabla f$.
    [`optimistix.ImplicitAdjoint`][], the default of `optimistix.least_squares`, takes $f$ to be the
    sum of squares of the outputs whatever the solver minimises, and does not ask it, so that no
    solver can refuse.

    **Arguments:**

    - `linear_solver`: of the system with the Hessian, any of lineax.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, optimistix, sciopt
        >>> def rate(counts):  # the mean of counts is their maximum-likelihood rate
        ...     fn = lambda p, args: p * jnp.ones(3)
        ...     solver = sciopt.EGN(1e-9, 1e-9, loss=sciopt.losses.Poisson(), damping=0.0)
        ...     adjoint = sciopt.LossAdjoint()
        ...     args = None, counts
        ...     return jnp.exp(
        ...         optimistix.least_squares(fn, solver, 0.0, args, adjoint=adjoint).value
        ...     )
        >>> jax.grad(rate)(jnp.array([1.0, 2.0, 6.0])).round(5).tolist()
        [0.33333, 0.33333, 0.33333]

        ```
    """

    def apply(self, primal_fn, rewrite_fn, inputs, tags):
        return super().apply(primal_fn, _gradient, inputs, tags)
