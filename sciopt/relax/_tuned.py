"""A linear solver whose parameter a tuner chooses, anew for each of a sequence of systems.

Khodak, Chow, Balcan and Talwalkar, Learning to Relax (2024, arXiv:2310.02246).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, Int, PyTree, Scalar

from ._tuners import AbstractTuner, Constant


class Tuned(eqx.Module):
    """Solves systems one after the other; the tuner learns from the number of steps of each.

    The solver's result is the same as with the parameter set by hand, and so are its derivatives;
    there are none through the choice. A solve that fails costs the solver's `max_steps`, so that
    giving up early is not taken for speed.

    **Arguments:**

    - `solver`: one that counts its steps and has a `max_steps`.
    - `tuner`: of as many arms as there are values.
    - `values`: of the parameter, one an arm. Raises `ValueError` where they are not as many.
    - `parameter`: where it is, a function from the solver to the leaf; `omega` unless given. A
        leaf that may be traced, such as `omega` or, of a multigrid, its smoother's.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp
        >>> from sciopt import relax
        >>> values = jnp.linspace(1.0, 1.9, 4)
        >>> tuned = relax.Tuned(relax.SOR(), relax.TsallisINF(arms=4), values)
        >>> poisson = relax.Stencil.laplacian((15, 15), spacing=1 / 16)
        >>> def step(state, key):
        ...     solution, state = tuned.solve(poisson, jnp.ones((15, 15)), state, key)
        ...     return state, solution.stats["num_steps"]
        >>> keys = jax.random.split(jax.random.key(0), 60)
        >>> state, steps = jax.lax.scan(step, tuned.init(), keys)
        >>> bool(steps[-20:].mean() < steps[:20].mean())
        True

        ```
    """

    solver: lx.AbstractLinearSolver
    tuner: AbstractTuner[Any]
    values: Float[Array, " arms"]
    parameter: Callable[[Any], Any] = lambda solver: solver.omega

    def __check_init__(self):
        arms, values = self.tuner.arms, len(self.values)
        if arms > values or (arms < values and not isinstance(self.tuner, Constant)):
            name = type(self.tuner).__name__
            raise ValueError(f"{name} has {arms} arms; `values` has {values} of the parameter.")

    def init(self) -> PyTree[Any]:
        """The tuner's state before the first system."""
        return self.tuner.init()

    def solve(
        self,
        operator: lx.AbstractLinearOperator,
        vector: PyTree[Array],
        state: PyTree[Any],
        key: Array,
        context: ArrayLike = 0.0,
        options: dict[str, Any] | None = None,
        throw: bool = True,
    ) -> tuple[lx.Solution, PyTree[Any]]:
        """One system's solution, and the tuner's state for the next.

        **Arguments:**

        - `operator`, `vector`, `options`, `throw`: as for `lineax.linear_solve`.
        - `state`: from `init` or the system before.
        - `key`: for the choice.
        - `context`: a number known before the solve, for a tuner that takes one.

        The solution's `stats` have the `choice` as well, and the `cost` that the tuner was told.
        Raises `ValueError` where the solver has no `max_steps`.
        """
        context = jax.lax.stop_gradient(context)
        choice = self.tuner.choose(state, context, key)
        value = jax.lax.stop_gradient(self.values[choice])
        solver = eqx.tree_at(self.parameter, self.solver, value)
        solution = lx.linear_solve(operator, vector, solver, options=options, throw=throw)
        cost = self._cost(solution)
        stats = solution.stats | {"choice": choice, "cost": cost}
        state = self.tuner.update(state, choice, context, cost)
        return lx.Solution(solution.value, solution.result, stats, solution.state), state

    def costs(
        self,
        operator: lx.AbstractLinearOperator,
        vector: PyTree[Array],
        options: dict[str, Any] | None = None,
    ) -> Int[Array, " arms"]:
        """What every value costs on a system, for the regret of a choice in hindsight.

        All are tried side by side, until the slowest has ended.
        """

        def cost(value: Scalar) -> Scalar:
            solver = eqx.tree_at(self.parameter, self.solver, value)
            return self._cost(
                lx.linear_solve(operator, vector, solver, options=options, throw=False)
            )

        arrays, static = eqx.partition((operator, vector), eqx.is_array)
        operator, vector = eqx.combine(jax.lax.stop_gradient(arrays), static)
        return jax.vmap(cost)(jax.lax.stop_gradient(self.values))

    def _cost(self, solution: lx.Solution) -> Int[Array, ""]:
        stats = solution.stats
        if stats.get("max_steps") is None:
            raise ValueError(f"{type(self.solver).__name__} has no `max_steps` for `Tuned`.")
        succeeded = solution.result == lx.RESULTS.successful
        return jnp.maximum(jnp.where(succeeded, stats["num_steps"], stats["max_steps"]), 1)
