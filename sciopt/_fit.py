"""Drive any optimizer of the ecosystem over residual blocks: one compiled loop, explicit state.

An `optax.GradientTransformation`, an `optimistix.AbstractMinimiser` and an
`optimistix.AbstractLeastSquaresSolver` differ in what they ask of the problem (a gradient, a
scalar function, residuals with a Jacobian). `Fit` is the only place that knows the difference.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jaxtyping import Array, Int, Key, PyTree, Scalar

from ._linearised import AbstractGaussNewton, GaussNewtonState
from ._residuals import Residuals
from ._self_scaled import AbstractSelfScaled
from .aggregate._alternating import AlternatingDescent
from .aggregate._descent import JacobianDescent
from .aggregate._jacobian import value_and_jacobian, value_and_row

Single = optax.GradientTransformation | optx.AbstractMinimiser | optx.AbstractLeastSquaresSolver


class Stages(eqx.Module):
    """Optimizers that take their turns: each begins where the one before it ended.

    **Arguments:**

    - `optimizers`: any that [`sciopt.Fit`][] takes, at least two.
    - `ends`: the step after which each but the last gives way to the next, ascending.

    **Raises:** `ValueError` if there are not as many ends as changes, or they do not ascend.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, optax, sciopt
        >>> well = sciopt.Residuals({"well": lambda p, x: p**2 - x})
        >>> stages = sciopt.Stages([optax.adam(0.1), sciopt.SSBroyden()], ends=[20])
        >>> fit = sciopt.Fit(
        ...     well, stages, lambda key, p: {"well": jnp.array([2.0])}, jax.random.key(0)
        ... )
        >>> state = fit.advance(fit.init(jnp.array(3.0)), 30)
        >>> round(float(state.params), 5)
        1.41421

        ```
    """

    optimizers: tuple[Single, ...]
    ends: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, optimizers: Sequence[Single], ends: Sequence[int]):
        self.optimizers, self.ends = tuple(optimizers), tuple(ends)
        if len(self.optimizers) < 2 or len(self.ends) != len(self.optimizers) - 1:
            raise ValueError(
                f"Stages needs two optimizers or more, and an end for each but the last; got "
                f"{len(self.optimizers)} and {len(self.ends)}."
            )
        if not all(a < b for a, b in zip((0, *self.ends), self.ends, strict=False)):
            raise ValueError(f"The ends of Stages must ascend from above 0; got {self.ends}.")


Optimizer = Single | Stages


class Objective(eqx.Module):
    """A scalar to minimise that is no mean of squares, in the place of residuals.

    For first-order methods and minimisers, which ask for no more.

    **Arguments:**

    - `loss`: `(params, points) -> scalar`.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, sciopt
        >>> cosh = sciopt.Objective(lambda p, x: jnp.mean(jnp.log(jnp.cosh(p - x))))
        >>> fit = sciopt.Fit(
        ...     cosh, sciopt.SSBFGS(), lambda key, p: jnp.array([1.0, 3.0]), jax.random.key(0)
        ... )
        >>> round(float(fit.advance(fit.init(jnp.array(0.0)), 20).params), 4)
        2.0

        ```
    """

    loss: Callable[[PyTree, PyTree], Scalar]


class FitState(eqx.Module):
    """All that a fit carries from one step to the next; saving it is saving the run.

    - `params`: the pytree that is trained.
    - `points`: the points at which the residuals are measured now, by block.
    - `inner`: the optimizer's own state.
    - `step`: how many steps have been taken.
    - `loss`: the loss that the optimizer last saw, at the parameters before (first-order
        methods) or after (the others) its last step.
    """

    params: PyTree
    points: PyTree
    inner: PyTree
    step: Int[Array, ""]
    loss: Scalar


def _strong(state: FitState) -> FitState:
    # A weakly typed leaf becomes strong in the first step, and the second would compile again.
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.result_type(x)) if eqx.is_array_like(x) else x, state
    )


class Fit(eqx.Module):
    """Minimise `residuals` with `optimizer`, on points that `sample` draws.

    **Arguments:**

    - `residuals`: a [`sciopt.Residuals`][]; or a [`sciopt.Objective`][], where the optimizer is a
        transformation of optax that takes one gradient, or a minimiser.
    - `optimizer`: an optax transformation, an optimistix minimiser or least-squares solver, or
        [`sciopt.Stages`][] of them. One made by [`sciopt.aggregate.jacobian_descent`][] is given
        the Jacobian of the blocks' losses, a row a block in the order of their sorted names; one
        made by [`sciopt.aggregate.alternating_descent`][], one row of it a step.
    - `sample`: `(key, params) -> points`, the mapping from block to points. It may look at the
        current parameters, for residual-adaptive sampling.
    - `key`: every draw comes from this key and the number of the step it is made at, so a resumed
        run draws what an uninterrupted one would have drawn.
    - `redraw`: draw points before every step, in the compiled loop: mini-batches, for first-order
        methods. Otherwise they stay until `resample`.

    **Raises:** `TypeError` for an `Objective` with an optimizer that asks for residuals.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, sciopt
        >>> x = jnp.linspace(0, 1, 32)
        >>> data = jnp.stack([x, jnp.exp(-3 * x)], axis=1)
        >>> decay = sciopt.Residuals({"data": lambda k, xy: jnp.exp(-k * xy[0]) - xy[1]})
        >>> fit = sciopt.Fit(
        ...     decay, sciopt.GaussNewton(), lambda key, k: {"data": data}, jax.random.key(0)
        ... )
        >>> state = fit.advance(fit.init(jnp.array(1.0)), 10)
        >>> round(float(state.params), 4)
        3.0

        ```
    """

    residuals: Residuals | Objective
    optimizer: Optimizer
    sample: Callable[[Key[Array, ""], PyTree], PyTree]
    key: Key[Array, ""]
    redraw: bool = eqx.field(static=True, default=False)

    @property
    def _blocks(self) -> Residuals:
        if isinstance(self.residuals, Objective):
            raise TypeError(
                "Least-squares solvers and aggregation ask for residuals by block, and an "
                "Objective has one value: take a minimiser or a transformation of optax."
            )
        return self.residuals

    @eqx.filter_jit
    def init(self, params: PyTree) -> FitState:
        """The state before the first step."""
        params, step = jax.tree.map(jnp.asarray, params), jnp.array(0)
        points = self.draw(params, step)
        loss = self.residuals.loss(params, points)
        return _strong(FitState(params, points, self._init_inner(params, points), step, loss))

    def advance(self, state: FitState, steps: int | Int[Array, ""]) -> FitState:
        """Take `steps` steps in one compiled loop; fewer if the loss stops being finite.

        `steps` is traced, so every chunk length runs the same program.
        """
        return self._advance(state, jnp.asarray(steps))

    @eqx.filter_jit
    def _advance(self, state: FitState, steps: Int[Array, ""]) -> FitState:
        stop = state.step + steps
        # The optimizer's state may hold functions and structures beside its arrays.
        dynamic, static = eqx.partition(state, eqx.is_array)

        def going(dynamic):
            return (dynamic.step < stop) & jnp.isfinite(dynamic.loss)

        def body(dynamic):
            state = eqx.combine(dynamic, static)
            if self.redraw:
                points = self.draw(state.params, state.step)
                state = eqx.tree_at(lambda s: s.points, state, points)
            return eqx.filter(self._step(state), eqx.is_array)

        return _strong(eqx.combine(jax.lax.while_loop(going, body, dynamic), static))

    @eqx.filter_jit
    def resample(self, state: FitState) -> FitState:
        """Draw new points, and start afresh whatever the optimizer remembered of the old ones.

        A self-scaled method keeps its inverse Hessian, as in Urban et al. (2025).
        """
        points = self.draw(state.params, state.step)
        inner = self._renewed(state.inner, state.params, points)
        return _strong(eqx.tree_at(lambda s: (s.points, s.inner), state, (points, inner)))

    def _renewed(self, inner: PyTree, params: PyTree, points: PyTree) -> PyTree:
        """What the optimizer remembers, once points are new."""
        match self.optimizer:
            case Stages():
                pairs = zip(self._stages, inner, strict=True)
                return tuple(stage._renewed(i, params, points) for stage, i in pairs)
            case optax.GradientTransformation() | AbstractGaussNewton():
                return inner
            case AbstractSelfScaled():
                return self.optimizer.renew(inner)
        # Only its arrays are new: functions held in the state are compared by identity, and a new
        # one would compile the next step again.
        arrays = eqx.filter(self._init_inner(params, points), eqx.is_array)
        return eqx.combine(arrays, eqx.filter(inner, eqx.is_array, inverse=True))

    def draw(self, params: PyTree, step: Int[Array, ""]) -> PyTree:
        """The points drawn at a step."""
        return self.sample(jax.random.fold_in(self.key, step), params)

    def _step(self, state: FitState) -> FitState:
        params, points, inner = state.params, state.points, state.inner
        if isinstance(self.optimizer, JacobianDescent | AlternatingDescent):
            return self._aggregated_step(self.optimizer, state)
        if isinstance(self.optimizer, Stages):
            return self._staged_step(self.optimizer, state)
        if isinstance(self.optimizer, optax.GradientTransformation):

            def value_fn(p):
                return self.residuals.loss(p, points)

            loss, grad = jax.value_and_grad(value_fn)(params)
            # Line searches and Polyak steps want the value and the function; others ignore them.
            updates, inner = optax.with_extra_args_support(self.optimizer).update(
                grad, inner, params, value=loss, grad=grad, value_fn=value_fn
            )
            params = optax.apply_updates(params, updates)
        else:
            assert isinstance(
                self.optimizer, optx.AbstractMinimiser | optx.AbstractLeastSquaresSolver
            )
            params, inner, loss = self.optimizer.step(
                self._fn, params, points, self._options, inner, frozenset()
            )
            if isinstance(inner, GaussNewtonState):
                loss = inner.loss
        return FitState(params, points, inner, state.step + 1, loss)

    def _aggregated_step(
        self, optimizer: JacobianDescent | AlternatingDescent, state: FitState
    ) -> FitState:
        params, points, objectives = state.params, state.points, self._blocks.objectives
        if isinstance(optimizer, AlternatingDescent):
            value, gradients = value_and_row(objectives)(
                optimizer.turn(state.inner), params, points
            )
        else:
            losses, gradients = value_and_jacobian(objectives)(params, points)
            value = sum(losses.values(), start=jnp.zeros(()))

        def descend():
            updates, inner = optimizer.update(gradients, state.inner, params, value=value)
            return optax.apply_updates(params, updates), inner

        # An aggregator raises on gradients that are not finite; a fit ends with such a loss.
        finite = jnp.array([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradients)]).all()
        params, inner = jax.lax.cond(finite, descend, lambda: (params, state.inner))
        if isinstance(optimizer, AlternatingDescent):
            # The other objectives are as they were in their last turns.
            value = jnp.sum(optimizer.seen(inner))
        loss = jnp.where(finite, value, jnp.nan)
        return FitState(params, points, inner, state.step + 1, loss)

    def _staged_step(self, stages: Stages, state: FitState) -> FitState:
        dynamic, static = eqx.partition(state.inner, eqx.is_array)

        def of_stage(turn: int):
            fit, begin = self._stages[turn], (0, *stages.ends)[turn]

            def step(params, inner):
                # An optimizer may remember where it began, and that is here.
                own = jax.lax.cond(
                    state.step == begin,
                    lambda: eqx.filter(fit._init_inner(params, state.points), eqx.is_array),
                    lambda: inner[turn],
                )
                own = eqx.combine(own, static[turn])
                after = _strong(fit._step(eqx.tree_at(lambda s: s.inner, state, own)))
                arrays = eqx.filter(after.inner, eqx.is_array)
                return after.params, (*inner[:turn], arrays, *inner[turn + 1 :]), after.loss

            return step

        turn = jnp.sum(state.step >= jnp.array(stages.ends))
        steps = [of_stage(turn) for turn in range(len(stages.optimizers))]
        params, inner, loss = jax.lax.switch(turn, steps, state.params, dynamic)
        inner = eqx.combine(inner, static)
        return FitState(params, state.points, inner, state.step + 1, loss)

    @property
    def _stages(self) -> list["Fit"]:
        assert isinstance(self.optimizer, Stages)
        return [
            Fit(self.residuals, optimizer, self.sample, self.key)
            for optimizer in self.optimizer.optimizers
        ]

    # What optimistix asks of a function: `(value, aux)`. The loss travels as the auxiliary output.
    def _fn(self, params: PyTree, points: PyTree) -> tuple[Any, Array]:
        if isinstance(self.optimizer, optx.AbstractLeastSquaresSolver):
            scaled = self._blocks.scaled(params, points)
            return scaled, optx.two_norm(scaled) ** 2
        loss = self.residuals.loss(params, points)
        return loss, loss

    @property
    def _options(self) -> dict[str, Any]:
        if not isinstance(self.optimizer, AbstractGaussNewton):
            return {}
        free = self.optimizer.matrix_free
        return {"jac": self._blocks.operator if free else self._blocks.jacobian}

    def _init_inner(self, params, points):
        if isinstance(self.optimizer, Stages):
            return tuple(stage._init_inner(params, points) for stage in self._stages)
        if isinstance(self.optimizer, optax.GradientTransformation):
            return self.optimizer.init(params)
        value, aux = jax.eval_shape(self._fn, params, points)
        return self.optimizer.init(self._fn, params, points, self._options, value, aux, frozenset())
