"""Steps of one length by a solver of diffrax's, in a scan, with what went wrong and when."""

import abc
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, ArrayLike, Float, Int, PyTree, Scalar

Y = TypeVar("Y")


class Equation(Protocol):
    """What is marched."""

    @property
    def term(self) -> diffrax.AbstractTerm:
        """For the solver."""
        ...

    def courant(self, t: Scalar, y: Any, dt: Scalar, /) -> Scalar:
        """How many cells something moves in a step."""
        ...


class AbstractEqualSteps(diffrax.AbstractSolver):
    """A solver that is made for steps of one length."""

    dt: eqx.AbstractVar[float | Scalar]

    @abc.abstractmethod
    def advance(self, terms: diffrax.AbstractTerm, t: Any, v: Any, args: Any) -> Any:
        """The state `dt` after `t`."""


class MarchState(eqx.Module, Generic[Y]):
    """Where a simulation is.

    - `y`: the last that was sound.
    - `step`, `t`: how many steps led there, and the time.
    - `result`: `successful`, or `nonfinite` if the step after gave what is not finite.
    - `begun`: the first time.
    """

    y: Y
    step: Int[Array, ""]
    t: Scalar
    result: optx.RESULTS
    begun: Scalar


class MarchRecord(eqx.Module):
    """What was looked at after every so many steps.

    - `t`: the time.
    - `courant`: the Courant number of the step after.
    - `saved`: what `save` gave.
    """

    t: Float[Array, " looks"]
    courant: Float[Array, " looks"]
    saved: PyTree[Array]


class March(eqx.Module, Generic[Y]):
    r"""An equation, a solver of diffrax's, and the length of its steps.

    As `diffrax.diffeqsolve` with steps of one length, but a plain `jax.lax.scan`: it may be jitted,
    differentiated in both modes and any number of times, and spread over devices. A simulation ends
    where a step gives what is not finite; its state is then the last that was sound.

    **Arguments:**

    - `equation`: has `term` and `courant`: those of [`pde.spectral`][] and
        [`pde.grid.FiniteVolume`][].
    - `solver`: [`pde.spectral.ETDRK`][], [`pde.grid.SSPRK3`][], or an explicit one of diffrax's.
    - `dt`: the step; not needed where the solver has one, as `ETDRK` has.

    **Raises:** `ValueError` where neither has a step, or theirs differ.

    !!! Example

        ```python
        >>> import jax, numpy as np
        >>> from pde import grid
        >>> burgers = grid.FiniteVolume(grid.Mesh((0, 1, 20)), grid.InviscidBurgers())
        >>> loop = grid.March(burgers, grid.SSPRK3(), dt=0.01)
        >>> start = np.sin(np.pi * np.arange(20) / 10)[None]
        >>> state, record = jax.jit(lambda: loop.run(loop.init(start), steps=40, every=10))()
        >>> record.courant.shape, bool(abs(state.y.sum()) < 1e-4)
        ((4,), True)

        ```
    """

    equation: Equation
    solver: diffrax.AbstractSolver
    dt: float | Scalar

    def __init__(
        self,
        equation: Equation,
        solver: diffrax.AbstractSolver,
        dt: float | Scalar | None = None,
    ):
        if isinstance(solver, AbstractEqualSteps):
            if dt is not None and dt is not solver.dt:
                raise ValueError("The solver is made for steps of one length: leave `dt` out.")
            dt = solver.dt
        if dt is None:
            raise ValueError("March needs the length of its steps, `dt`.")
        self.equation, self.solver, self.dt = equation, solver, dt

    def init(self, y: Y, t: ArrayLike = 0.0) -> MarchState[Y]:
        """The state at time `t`."""
        dtype = jnp.finfo(jnp.result_type(*jax.tree.leaves(y))).dtype
        begun = jnp.asarray(t, dtype)
        return MarchState(y, jnp.array(0), begun, optx.RESULTS.successful, begun)

    def run(
        self,
        state: MarchState[Y],
        steps: int,
        every: int | None = None,
        save: Callable[[MarchState[Y]], PyTree[Array]] | None = None,
        args: Any = None,
        remat: bool = False,
        throw: bool = True,
    ) -> tuple[MarchState[Y], MarchRecord]:
        """So many steps, from where a state is.

        Runs one after the other give what one run of all their steps does.

        **Arguments:**

        - `state`: from `init` or `run`.
        - `steps`: how many.
        - `every`: look after so many of them, which must divide `steps`; after the last by default.
        - `save`: what to keep of the state at each look.
        - `args`: of the equation.
        - `remat`: whether a gradient is to go through each stretch of `every` steps anew, rather
            than to keep all of them: its memory is then of `steps / every + every` states. The best
            `every` is about the root of `steps`.
        - `throw`: whether to raise where the simulation ends early.

        **Raises:** `ValueError` for an `every` that does not divide `steps`.
        """
        every = steps if every is None else every
        if steps % every:
            raise ValueError(f"Looks after every {every} of {steps} steps do not come out even.")
        dt = jnp.asarray(self.dt, state.t.dtype)
        term = self.equation.term
        carried = self.solver.init(term, state.t, state.t + dt, state.y, args)

        def advance(state: MarchState[Y], carried: Any) -> tuple[Y, Any]:
            if isinstance(self.solver, AbstractEqualSteps):
                return self.solver.advance(term, state.t, state.y, args), carried
            y, _, _, carried, _ = self.solver.step(
                term, state.t, state.t + dt, state.y, args, carried, False
            )
            return y, carried

        def step(both, _):
            state, carried = both
            y, carried = advance(state, carried)
            going = state.result == optx.RESULTS.successful
            sound = going & _finite(y)
            y = jax.tree.map(lambda new, old: jnp.where(sound, new, old), y, state.y)
            count = state.step + sound
            result = optx.RESULTS.where(sound, state.result, optx.RESULTS.nonfinite)
            state = MarchState(y, count, state.begun + count * dt, result, state.begun)
            return (state, carried), None

        def stretch(both, _):
            both, _ = jax.lax.scan(step, both, None, length=every)
            state, _ = both
            courant = self.equation.courant(state.t, state.y, dt)
            return both, MarchRecord(state.t, courant, None if save is None else save(state))

        body = jax.checkpoint(stretch) if remat else stretch
        (state, _), record = jax.lax.scan(body, (state, carried), None, length=steps // every)
        if throw:
            y = state.result.error_if(state.y, state.result != optx.RESULTS.successful)
            state = eqx.tree_at(lambda state: state.y, state, y)
        return state, record


def _finite(y: PyTree[Array]) -> Array:
    # A sum is finite only if all are, and takes one pass over complex numbers.
    return jnp.isfinite(sum(jnp.sum(jnp.abs(a.real) + jnp.abs(a.imag)) if jnp.iscomplexobj(a)
                            else jnp.sum(jnp.abs(a)) for a in jax.tree.leaves(y)))  # fmt: skip
