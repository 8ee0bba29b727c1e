"""Train a PINN from Python in one call: the loop that case files run, without the files."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Key

from sciopt import Fit, FitState, GaussNewton, Optimizer

from ._pinn import PINN, Field


def solve(
    pinn: PINN,
    optimizer: Optimizer | None = None,
    *,
    steps: int,
    key: Key[Array, ""],
    resample_every: int | None = None,
    callback: Callable[[FitState], None] | None = None,
) -> Field:
    """Train and give the solution back as a [`pde.Field`][].

    **Arguments:**

    - `pinn`: the least-squares problem, a [`pde.PINN`][].
    - `optimizer`: any optax transformation, optimistix minimiser or least-squares solver;
        [`sciopt.GaussNewton`][] by default.
    - `steps`: how many steps to take.
    - `key`: for the points.
    - `resample_every`: draw new points after so many steps; never, if `None`.
    - `callback`: called with the state at each of those moments and at the end.

    **Raises:** `FloatingPointError` if the loss stops being finite.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> problem = pde.Problem(
    ...     pde.Box(x=(0, 1)), ["u"], {"load": lambda v: v.u_xx + 1},
    ...     {"ends": pde.Dirichlet({"x": (0, 1)}, {"u": 0.0}, hard=True)},
    ... )
    >>> network = pde.MLP(1, 1, width=8, depth=1, key=jax.random.key(0))
    >>> u = pde.solve(pde.PINN(problem, network, points=32), steps=10, key=jax.random.key(1))
    >>> bool(abs(u(jnp.array([0.5]))[0] - 0.125) < 1e-3)
    True

    ```
    """
    fit = Fit(pinn.residuals, GaussNewton() if optimizer is None else optimizer, pinn.sample, key)
    state = fit.init(pinn.params)
    chunk = steps if resample_every is None else resample_every
    for start in range(0, steps, max(chunk, 1)):
        if start:
            state = fit.resample(state)
        state = fit.advance(state, min(chunk, steps - start))
        if not jnp.isfinite(state.loss):
            raise FloatingPointError(
                f"The loss is {state.loss} after {state.step} steps. A smaller learning rate or a "
                "larger initial damping may help."
            )
        if callback is not None:
            callback(state)
    return pinn.field(state.params)
