"""Fit a light bridge to samples of both ends."""

import equinox as eqx
import optimistix as optx
from jaxtyping import Array, Float

import sciopt

from ._light import LightSB, objective
from ._potential import SumExpQuadratic


def fit(
    bridge: LightSB,
    x0: Float[Array, "n d"],
    x1: Float[Array, "m d"],
    solver: optx.AbstractMinimiser | None = None,
    *,
    max_steps: int = 500,
) -> optx.Solution:
    r"""Minimise [`LightSB.objective`][transport.bridge.LightSB.objective] over the potential.

    All samples take part in every step: the objective is smooth, and a quasi-Newton method needs
    some hundreds of steps where the paper takes ten thousand of Adam on batches of 128. For
    batches, give the gradient of `objective` to any optax transformation.

    **Arguments:**

    - `bridge`: where to begin, as from `LightSB.from_samples`.
    - `x0`, `x1`: samples of the start and of the end, not paired; their numbers may differ.
    - `solver`: a minimiser of Optimistix; by default [`sciopt.SSBFGS`][] with a memory of 20 steps.
    - `max_steps`: of the solver; reaching them is reported in `result`, and no error.

    **Returns:** Optimistix's solution, whose `value` is the fitted bridge.

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
    if solver is None:
        solver = sciopt.SSBFGS(rtol=1e-8, atol=1e-8, history_length=20)
    u0, u1 = bridge.reference.to_unit(0, x0), bridge.reference.to_unit(1, x1)
    solution = _minimise(bridge.potential, u0, u1, solver, max_steps)
    fitted = LightSB(bridge.reference, solution.value)
    return eqx.tree_at(lambda s: s.value, solution, fitted)


@eqx.filter_jit
def _minimise(potential: SumExpQuadratic, u0, u1, solver, max_steps: int) -> optx.Solution:
    # Compiled as a whole, so that a second fit of the same shapes compiles nothing.
    return optx.minimise(
        lambda potential, samples: objective(potential, *samples),
        solver, potential, args=(u0, u1), max_steps=max_steps, throw=False,
    )  # fmt: skip
