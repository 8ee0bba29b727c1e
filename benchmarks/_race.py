"""A fit against the clock, which stands while its error is looked at."""

import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

import pde
import sciopt

LOOKS = 12


def race(
    pinn: pde.PINN,
    optimizer: sciopt.Optimizer,
    key: jax.Array,
    seconds: float,
    every: int,
    error: Callable[[PyTree], float],
) -> dict:
    """Compile, then train for `seconds`, with new points after `every` steps, or never if 0.

    **Returns:** `compile_seconds`, and `looks` at the loss and the error, evenly in time; the last
    of them where the loss stops being finite.
    """
    before = time.perf_counter()
    fit = sciopt.Fit(pinn.residuals, optimizer, pinn.sample, key)
    state = fit.init(pinn.params)
    jax.block_until_ready(fit.resample(fit.advance(state, 1)))
    compile_seconds = time.perf_counter() - before
    error(pinn.params)

    chunk, spent, step, looks = min(every, 50) if every else 10, 0.0, 0, []
    while spent < seconds:
        before = time.perf_counter()
        state = fit.advance(state, chunk)
        step += chunk
        if every and step % every == 0:
            state = fit.resample(state)
        jax.block_until_ready(state)
        spent += time.perf_counter() - before
        finite = math.isfinite(state.loss)
        if spent > seconds * (len(looks) + 1) / LOOKS or not finite:
            found = {"loss": float(state.loss), "error": float(error(state.params))}
            looks.append({"seconds": spent, "step": step, **found})
        if not finite:
            break
    return {"compile_seconds": compile_seconds, "looks": looks}


def relative_error(
    pinn: pde.PINN, points: jax.Array, values: jax.Array
) -> Callable[[PyTree], float]:
    """The relative L2 error of the only unknown at points `(n, d)`, as a function of parameters."""

    @jax.jit
    def error(params):
        found = jax.vmap(pinn.field(params))(points)[:, 0]
        return jnp.linalg.norm(found - values) / jnp.linalg.norm(values)

    return error
