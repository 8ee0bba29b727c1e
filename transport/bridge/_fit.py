"""Fit a light bridge to samples of both ends."""

from typing import Literal

import equinox as eqx
import jax
import optax
import optimistix as optx
from jaxtyping import Array, Float, Key

import sciopt

from ._descent import descend, rows
from ._expectation_maximisation import ExpectationMaximisation
from ._light import LightSB, objective
from ._matching import Coupling
from ._potential import LowRank, SumExpQuadratic


def fit(
    bridge: LightSB,
    x0: Float[Array, "n d"],
    x1: Float[Array, "m d"],
    solver: optx.AbstractMinimiser | optax.GradientTransformation | None = None,
    *,
    max_steps: int | None = None,
    key: Key[Array, ""] | None = None,
    batch_size: int = 128,
    loss: Literal["objective", "matching_objective"] = "objective",
    coupling: Coupling | None = None,
    average: float = 0.0,
) -> optx.Solution:
    r"""Minimise [`LightSB.objective`][transport.bridge.LightSB.objective] over the potential.

    By expectation-maximisation, or with a minimiser of Optimistix, all samples take part in every
    step: some tens of the former or some hundreds of a quasi-Newton method, where the paper takes
    ten thousand of Adam on batches. With a transformation of optax each step draws a batch, and all
    are one compiled loop.

    **Arguments:**

    - `bridge`: where to begin, as from `LightSB.from_samples`.
    - `x0`, `x1`: samples of the start and of the end, not paired; their numbers may differ.
    - `solver`: by default [`transport.bridge.ExpectationMaximisation`][], or where covariances are
        of low rank, [`sciopt.SSBFGS`][] with a memory of 20 steps; any minimiser of Optimistix, or
        a transformation of optax.
    - `max_steps`: of the solver, by default 500, or 10 000 for batches. Without batches, reaching
        them is reported in `result`, and no error.

    Of batches only:

    - `key`: of the draws, required.
    - `batch_size`: samples of each end in a step.
    - `loss`: which of the bridge's methods to minimise. "matching_objective" is LightSB-M.
    - `coupling`: called as `coupling(key, x0, x1)`, gives a batch of ends paired with `x0` out of
        those in `x1`. By default all are independent. Only matching depends on it, and only its
        noise does.
    - `average`: the decay of an exponential average of the parameters, which is returned; zero
        returns the last.

    **Returns:** Optimistix's solution, whose `value` is the fitted bridge. Its `result` is
    `nonlinear_divergence` where a component's variance has vanished, as it does about a single
    sample: the objective has no minimum then, and fewer components are needed. It is `nonfinite`
    where the objective, or a batch's loss or gradient, was not finite; such steps are not taken.
    `aux` is the objective, and of batches the loss of each.

    **Raises:** `ValueError` for batches without a key, and for matching without batches.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from transport.bridge import LightSB, fit
    >>> x0, x1 = jax.random.normal(jax.random.key(0), (2, 1000, 2))
    >>> bridge = LightSB.from_samples(jax.random.key(1), 1.0, x1 + 3, components=2)
    >>> fitted = fit(bridge, x0, x1 + 3).value
    >>> bool(fitted.objective(x0, x1 + 3) < bridge.objective(x0, x1 + 3))
    True

    ```
    """
    if isinstance(solver, optax.GradientTransformation):
        if key is None:
            raise ValueError("Batches are drawn with a `key`, and there is none.")
        steps = 10_000 if max_steps is None else max_steps
        draw = (batch_size, loss, coupling)
        return _on_batches(bridge, x0, x1, solver, key, steps, draw, average)
    if loss != "objective":
        raise ValueError("Matching draws times and noise: its solver is a transformation of optax.")
    if solver is None:
        low_rank = isinstance(bridge.potential.covariance, LowRank)
        quasi_newton = sciopt.SSBFGS(rtol=1e-8, atol=1e-8, history_length=20)
        solver = quasi_newton if low_rank else ExpectationMaximisation()
    u0, u1 = bridge.reference.to_unit(0, x0), bridge.reference.to_unit(1, x1)
    steps = 500 if max_steps is None else max_steps
    solution = _minimise(bridge.potential, u0, u1, solver, steps)
    fitted = LightSB(bridge.reference, solution.value)
    return eqx.tree_at(lambda s: s.value, solution, fitted)


# Compiled as a whole, so that a second fit of the same shapes compiles nothing.
@eqx.filter_jit
def _minimise(potential: SumExpQuadratic, u0, u1, solver, max_steps: int) -> optx.Solution:
    def value(potential, samples):
        found = objective(potential, *samples)
        return found, found

    return optx.minimise(
        value, solver, potential, args=(u0, u1), max_steps=max_steps, throw=False, has_aux=True
    )


@eqx.filter_jit
def _on_batches(bridge: LightSB, x0, x1, optimizer, key, steps, draw, average) -> optx.Solution:
    batch_size, loss, coupling = draw

    def batch_loss(potential, key):
        starts, ends, pairs, along = jax.random.split(key, 4)
        start, end = rows(starts, x0, batch_size), rows(ends, x1, batch_size)
        now = LightSB(bridge.reference, potential)
        if loss == "objective":
            return now.objective(start, end)
        end = end if coupling is None else coupling(pairs, start, end)
        return now.matching_objective(along, start, end)

    solution = descend(batch_loss, bridge.potential, optimizer, key, steps, average)
    fitted = LightSB(bridge.reference, solution.value)
    return eqx.tree_at(lambda s: s.value, solution, fitted)
