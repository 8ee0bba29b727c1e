"""Steps of a scheme, one after the other, whose linear systems take any solver of Lineax's."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import Array, ArrayLike, Float, Int, PyTree, Scalar

from sciopt.relax import Tuned

from ._scheme import AbstractScheme

Fields = TypeVar("Fields")


class State(eqx.Module, Generic[Fields]):
    """Where a simulation is.

    - `fields`: the last that were sound.
    - `step`, `t`: how many steps led there, and the time.
    - `result`: `successful`, or what ended the simulation in the step after.
    - `carried`, `tuner`, `key`, `begun`: for the next step.
    """

    fields: Fields
    step: Int[Array, ""]
    t: Scalar
    result: optx.RESULTS
    carried: PyTree[Any]
    tuner: PyTree[Any]
    key: Array | None
    begun: Scalar


class Record(eqx.Module):
    """What each step told; an array of `steps` entries each.

    - `iterations`: of its linear solve, zero where the solver counts none.
    - `choice`, `value`, `cost`: of the tuner: which arm, what it stands for, and what it was told
      that it cost; -1, NaN and the iterations where there is no tuner.
    - `courant`: the scheme's Courant number.
    - `context`: what the tuner saw.
    - `costs`: what every arm would have cost (steps, arms), or None.
    - `result`: of the linear solve and the step.
    - `saved`: what `save` gave.

    Steps after a simulation has ended have no iterations and no cost.
    """

    iterations: Int[Array, " steps"]
    choice: Int[Array, " steps"]
    value: Float[Array, " steps"]
    cost: Int[Array, " steps"]
    courant: Float[Array, " steps"]
    context: Float[Array, " steps"]
    costs: Int[Array, "steps arms"] | None
    result: optx.RESULTS
    saved: PyTree[Array]


class TimeLoop(eqx.Module, Generic[Fields]):
    r"""A scheme, the length of its steps, and the solver of their linear systems.

    Steps are a `jax.lax.scan`: jittable, and differentiable by fields, coefficients and `dt`, each
    solve implicitly, so that what its iterations did is not stored. Each solve starts from the
    scheme's guess, the last field.

    A simulation ends where a linear solve does not succeed, with Lineax's result, or where a field
    is no longer finite, with `nonfinite`: what `state` then holds is the last step that was sound.

    **Arguments:**

    - `scheme`: [`pde.grid.Heat`][], [`pde.grid.AdvectionDiffusion`][], [`pde.grid.NavierStokes`][].
    - `dt`: the step.
    - `solver`: one of Lineax's, hence of `sciopt.relax`; or [`sciopt.relax.Tuned`][], whose tuner
        learns from each step for the next and is given the system's `context`.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp
        >>> from pde import grid
        >>> from sciopt import relax
        >>> mesh = grid.Mesh((0, 1, 24))
        >>> (x,) = mesh.nodes()
        >>> heat = grid.Heat(mesh, lambda t, x: 1 + jnp.sin(6 * t) ** 2)
        >>> values = jnp.linspace(1.0, 1.9, 4)
        >>> tuned = relax.Tuned(relax.SOR(), relax.TsallisINF(arms=4), values)
        >>> loop = grid.TimeLoop(heat, dt=0.01, solver=tuned)
        >>> state = loop.init(jnp.sin(jnp.pi * x), jax.random.key(0))
        >>> state, record = loop.run(state, steps=40)
        >>> bool(record.cost[20:].sum() < record.cost[:20].sum())
        True

        ```
    """

    scheme: AbstractScheme[Fields]
    dt: float | Scalar
    solver: lx.AbstractLinearSolver | Tuned

    def init(self, fields: Fields, key: Array | None = None, t: ArrayLike = 0.0) -> State[Fields]:
        """The state at time `t`. A tuner needs a `key`; without one, `run` raises `ValueError`."""
        dtype = jnp.result_type(*jax.tree.leaves(fields))
        begun, dt = jnp.asarray(t, dtype), jnp.asarray(self.dt, dtype)
        carried = self.scheme.start(fields, begun, dt)
        tuner = self.solver.init() if isinstance(self.solver, Tuned) else None
        step, result = jnp.array(0), optx.RESULTS.successful
        return State(fields, step, begun, result, carried, tuner, key, begun)

    def run(
        self,
        state: State[Fields],
        steps: int,
        save: Callable[[State[Fields]], PyTree[Array]] | None = None,
        hindsight: bool = False,
        throw: bool = True,
    ) -> tuple[State[Fields], Record]:
        """So many steps, from where a state is.

        Runs one after the other give what one run of all their steps does.

        **Arguments:**

        - `state`: from `init` or `run`.
        - `steps`: how many.
        - `save`: what to keep of the state after each step.
        - `hindsight`: whether to count what every arm of a tuner would have cost, on the systems
            that its own choices led to, for the regret; it takes as long as all of them together.
        - `throw`: whether to raise where the simulation ends early, as Lineax does.
        """
        tuned = isinstance(self.solver, Tuned)
        if tuned and state.key is None:
            raise ValueError("A tuner draws its choices: give `init` a key.")
        if hindsight and not tuned:
            raise ValueError("Only a tuner has arms to look at in hindsight.")

        def advance(state: State[Fields]) -> tuple[State[Fields], Record]:
            return self._step(state, hindsight)

        def stay(state: State[Fields]) -> tuple[State[Fields], Record]:
            _, told = jax.eval_shape(advance, state)
            told = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), told)
            return state, eqx.tree_at(lambda told: told.result, told, state.result)

        def step(state, _):
            going = state.result == optx.RESULTS.successful
            state, told = jax.lax.cond(going, advance, stay, state)
            kept = None if save is None else save(state)
            return state, eqx.tree_at(lambda r: r.saved, told, kept, is_leaf=lambda x: x is None)

        state, record = jax.lax.scan(step, state, None, length=steps)
        if throw:
            fields = state.result.error_if(state.fields, state.result != optx.RESULTS.successful)
            state = eqx.tree_at(lambda state: state.fields, state, fields)
        return state, record

    def _step(self, state: State[Fields], hindsight: bool) -> tuple[State[Fields], Record]:
        dtype = state.t.dtype
        t, dt = state.t, jnp.asarray(self.dt, dtype)
        system, pending = self.scheme.prepare(state.carried, t, dt)
        options = {"y0": jax.lax.stop_gradient(system.guess)}
        arguments, tuner = (system.operator, system.vector), state.tuner
        choice, value, cost, costs = jnp.array(-1), jnp.array(jnp.nan, dtype), None, None
        if isinstance(self.solver, Tuned):
            assert state.key is not None
            key = jax.random.fold_in(state.key, state.step)
            solution, tuner = self.solver.solve(
                *arguments, state.tuner, key, system.context, options, throw=False
            )
            choice, cost = solution.stats["choice"], solution.stats["cost"]
            value = self.solver.values[choice].astype(dtype)
            if hindsight:
                costs = self.solver.costs(*arguments, options)
        else:
            solution = lx.linear_solve(*arguments, self.solver, options=options, throw=False)
        iterations = jnp.asarray(solution.stats.get("num_steps", 0))
        carried = self.scheme.complete(pending, solution.value, dt)
        fields = self.scheme.fields(carried)
        result = optx.RESULTS.promote(solution.result)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(fields)]))
        solved = result == optx.RESULTS.successful
        result = optx.RESULTS.where(solved & ~finite, optx.RESULTS.nonfinite, result)
        sound = solved & finite

        def keep(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda new, old: jnp.where(sound, new, old), new, old)

        steps = state.step + sound
        after = State(
            keep(fields, state.fields), steps, state.begun + steps * dt, result,
            keep(carried, state.carried), tuner, state.key, state.begun,
        )  # fmt: skip
        told = Record(
            iterations, choice, value, iterations if cost is None else cost,
            self.scheme.courant(state.carried, t, dt), system.context, costs, result, None,
        )  # fmt: skip
        return after, told
