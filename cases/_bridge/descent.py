"""A light bridge's fit in pieces, so that it can be looked at, saved and resumed on the way.

The steps are those of `transport.bridge.fit`, which makes them all in one program.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, Int, PyTree, Scalar

import sciopt
from transport.bridge import LightSB, Reference, SumExpQuadratic

NOTHING = frozenset()


class DescentState(eqx.Module):
    """All that the fit carries from one step to the next; saving it is saving the fit.

    - `potential`: of the bridge.
    - `inner`: the minimiser's own state.
    - `step`: how many steps have been taken.
    - `converged`: whether the minimiser would go no further.
    """

    potential: SumExpQuadratic
    inner: PyTree
    step: Int[Array, ""]
    converged: Array

    @property
    def objective(self) -> Scalar:
        """At the last step; zero before the first."""
        return self.inner.at.value

    @property
    def slope(self) -> Scalar:
        """The root mean square of the objective's gradient there."""
        return jnp.sqrt(jnp.mean(self.inner.at.grad**2))


class Descent(eqx.Module):
    """`solver` on the objective of light bridges between `x0` and `x1`."""

    reference: Reference
    solver: sciopt.SSBFGS
    x0: Float[Array, "n d"]
    x1: Float[Array, "m d"]

    def bridge(self, potential: SumExpQuadratic) -> LightSB:
        """The bridge of a potential."""
        return LightSB(self.reference, potential)

    def _objective(self, potential: SumExpQuadratic, args) -> tuple[Scalar, Scalar]:
        value = self.bridge(potential).objective(*args)
        return value, value

    @eqx.filter_jit
    def init(self, potential: SumExpQuadratic) -> DescentState:
        """The state before the first step."""
        args = (self.x0, self.x1)
        value, aux = jax.eval_shape(self._objective, potential, args)
        inner = self.solver.init(self._objective, potential, args, {}, value, aux, NOTHING)
        return DescentState(potential, inner, jnp.array(0), jnp.array(False))

    @eqx.filter_jit
    def advance(self, state: DescentState, stop: Int[Array, ""]) -> DescentState:
        """Go on until step `stop`, or until there is nowhere to go."""
        dynamic, static = eqx.partition(state, eqx.is_array)
        args = (self.x0, self.x1)

        def going(dynamic):
            return (dynamic.step < stop) & ~dynamic.converged

        def body(dynamic):
            state = eqx.combine(dynamic, static)
            potential, inner, _ = self.solver.step(
                self._objective, state.potential, args, {}, state.inner, NOTHING
            )
            done, result = self.solver.terminate(
                self._objective, potential, args, {}, inner, NOTHING
            )
            ended = done | (result != optx.RESULTS.successful)
            return eqx.filter(DescentState(potential, inner, state.step + 1, ended), eqx.is_array)

        return eqx.combine(jax.lax.while_loop(going, body, dynamic), static)
