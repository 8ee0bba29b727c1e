"""Paths of a diffusion by the solvers of diffrax."""

from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Key


def diffuse(
    drift: Callable,
    epsilon: Float[Array, "*#d"],
    key: Key[Array, ""],
    x0: Float[Array, "*n d"],
    ts: Float[Array, " times"],
    solver: diffrax.AbstractSolver,
    steps: int,
    adjoint: diffrax.AbstractAdjoint | None,
) -> Float[Array, "times *n d"]:
    r"""Solutions of $dX = b(t, X)\,dt + \sqrt{\varepsilon}\,dW$ on [0, 1] at the times `ts`.

    Without an `adjoint` each step draws its noise. With one, noise is a function of time that can
    be asked again, as an adjoint that recomputes steps must.
    """
    root = jnp.sqrt(jnp.broadcast_to(epsilon, x0.shape).astype(x0.dtype))
    shape = jax.ShapeDtypeStruct(x0.shape, x0.dtype)
    begin, end = jnp.zeros((), x0.dtype), jnp.ones((), x0.dtype)
    if adjoint is None:
        noise, adjoint = diffrax.UnsafeBrownianPath(shape, key), diffrax.DirectAdjoint()
    else:
        noise = diffrax.VirtualBrownianTree(begin, end, 0.5 / steps, shape, key)
    terms = diffrax.MultiTerm(
        diffrax.ODETerm(lambda t, x, _: drift(jnp.asarray(t), x)),
        diffrax.ControlTerm(lambda t, x, _: lx.DiagonalLinearOperator(root), noise),
    )
    solution = diffrax.diffeqsolve(
        terms, solver, begin, end, 1 / steps, x0,
        saveat=diffrax.SaveAt(ts=ts), max_steps=steps + 1, adjoint=adjoint,
    )  # fmt: skip
    assert solution.ys is not None
    return solution.ys
