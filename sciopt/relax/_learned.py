r"""Learned acceleration: losses whose minimiser needs few steps, for any optax transform.

Arisaka and Li, Principled Acceleration of Iterative Numerical Methods Using Machine Learning (2023,
arXiv:2206.08594); for black-box gradients Arisaka and Li, Accelerating Legacy Numerical Solvers by
Non-intrusive Gradient-based Meta-solving (2024), and their code. A meta-solver is any function of
an instance's features that makes a solver, a starting point, or both.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, PyTree, Scalar

from ._iteration import AbstractIteration, inner

Params = TypeVar("Params")


def relative_residuals(
    solver: AbstractIteration,
    operator: lx.AbstractLinearOperator,
    vector: PyTree[Array],
    steps: int,
    y0: PyTree[Array] | None = None,
) -> Float[Array, " steps+1"]:
    r"""$|b - Ax_k| / |b|$ for $k$ from zero to `steps`, with derivatives in everything.

    `lineax.linear_solve` has the derivatives of the solution, which does not depend on how it was
    found; here they are those of the iteration, in the solver's parameters and in where it starts,
    by either mode; $b$ must not be zero. Where the residual has come below the solver's `rtol` the
    iteration rests, and the last one is repeated. In reverse mode memory grows with `steps`.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp
        >>> from sciopt import relax
        >>> poisson = relax.Stencil.laplacian((7,), spacing=1 / 8)
        >>> def last(omega):
        ...     solver = relax.SOR(omega=omega)
        ...     return relax.relative_residuals(solver, poisson, jnp.ones(7), 10)[-1]
        >>> bool(jax.grad(last)(1.2) < 0)  # more relaxation would help
        True

        ```
    """
    state = solver.init(operator, {}).system
    splitting = solver.splitting(state)
    b = splitting.pack(vector)
    x = jax.tree.map(jnp.zeros_like, b) if y0 is None else splitting.pack(y0)
    norm = jnp.sqrt(inner(b, b))

    def relative(r):
        # The root has no derivative at zero.
        square = inner(r, r)
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0) / norm

    def step(carry, _):
        def advance(carry):
            # From a residual of zero it divides by it; `vmap` makes this branch a selection, and
            # JAX keeps derivatives out of the side that is not taken.
            x, r, more = solver.advance(state, b, *carry[:3])
            return x, r, more, relative(r)

        carry = jax.lax.cond(carry[3] > solver.rtol, advance, lambda carry: carry, carry)
        return carry, carry[3]

    r = splitting.residual(x, b)
    start = (x, r, solver.begin(state, r), relative(r))
    residuals = jax.lax.scan(step, start, length=steps)[1]
    return jnp.concatenate([start[3][None], residuals])


def steps_to_tolerance(
    residuals: Float[Array, "*batch steps+1"], tolerance: ArrayLike
) -> Float[Array, "*batch"]:
    """How many steps it took: the loss that is meant, and has no derivative.

    All of them where the tolerance was not reached.

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from sciopt import relax
        >>> float(relax.steps_to_tolerance(jnp.array([1.0, 0.1, 0.01, 0.001]), 0.02))
        2.0

        ```
    """
    return jnp.sum((residuals > tolerance)[..., :-1].astype(residuals.dtype), axis=-1)


def surrogate_steps(
    residuals: Float[Array, "*batch steps+1"], tolerance: ArrayLike, sharpness: float = 1.0
) -> Float[Array, "*batch"]:
    r"""A differentiable surrogate of the number of steps, the solver-dependent loss of the paper.

    $\sum_k \sigma\big(a \log(r_k / \varepsilon)\big)$ over the steps that begin above the tolerance
    $\varepsilon$; $a$ is the `sharpness`. The paper's sigmoid is of $r_k - \varepsilon$, which for
    residuals that fall by many decades is deaf to all but the first. As $a \to \infty$ it is
    [`sciopt.relax.steps_to_tolerance`][].

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from sciopt import relax
        >>> residuals = jnp.array([1.0, 0.1, 0.01, 0.001])
        >>> round(float(relax.surrogate_steps(residuals, 0.02, sharpness=100.0)), 6)
        2.0

        ```
    """
    before = residuals[..., :-1]
    # Reached: no part of the loss, and a residual of zero would have no logarithm.
    above = before > tolerance
    logs = jnp.log(jnp.where(above, before, tolerance) / tolerance)
    return jnp.sum(jnp.where(above, jax.nn.sigmoid(sharpness * logs), 0), axis=-1)


def fixed_steps_loss(
    residuals: Float[Array, "*batch steps+1"], steps: int
) -> Float[Array, "*batch"]:
    r"""$r_m^2$, what is left after a fixed number $m$ of steps: classical meta-learning's loss.

    Its minimiser may need arbitrarily many more steps to a tolerance than the best, since what
    counts after $m$ steps are the instances that are still far away, and how they then behave: see
    [learned acceleration](relaxation.md#learned-acceleration).

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from sciopt import relax
        >>> float(relax.fixed_steps_loss(jnp.array([1.0, 0.5, 0.25]), 1))
        0.25

        ```
    """
    return residuals[..., steps] ** 2


def black_box_gradient(
    fn: Callable[[Params], Scalar],
    params: Params,
    key: Array,
    scale: float = 0.1,
    samples: int = 8,
    surrogate: Callable[[Params], Scalar] | None = None,
) -> tuple[Scalar, Params]:
    r"""An estimate of $\nabla f$ from values alone, such as counts of steps have, with $f$ itself.

    The mean over Gaussian directions $v$ of $\frac{f(\theta + sv) - f(\theta - sv)}{2s} v$,
    unbiased for the gradient of $f$ smoothed by a Gaussian of width $s$ (`scale`). A differentiable
    `surrogate` $\hat f$ is a control variate, as in non-intrusive meta-solving: the estimate is
    that of $f - \hat f$ plus the exact $\nabla\hat f$, with as little noise as the two differ.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp
        >>> from sciopt import relax
        >>> steps = lambda omega: jnp.ceil(100 * (omega - 1.7) ** 2)
        >>> smooth = lambda omega: 100 * (omega - 1.7) ** 2
        >>> key = jax.random.key(0)
        >>> _, gradient = relax.black_box_gradient(steps, 1.5, key, surrogate=smooth)
        >>> bool(abs(gradient + 40) < 5)
        True

        ```
    """
    # Not `equinox.is_inexact_array_like`, which fails on a tracer of JAX 0.10.
    is_number = lambda x: eqx.is_inexact_array(x) or isinstance(x, float)  # noqa: E731
    moving, still = eqx.partition(params, is_number)
    moving = jax.tree.map(jnp.asarray, moving)
    flat, unravel = jax.flatten_util.ravel_pytree(moving)

    def along(f: Callable[[Any], Scalar], v: Array) -> Array:
        ahead, behind = (f(eqx.combine(unravel(flat + s * v), still)) for s in (scale, -scale))
        return (ahead - behind) / (2 * scale) * v

    def difference(params):
        return fn(params) - (0 if surrogate is None else surrogate(params))

    directions = jax.random.normal(key, (samples, *flat.shape), flat.dtype)
    estimate = jax.lax.map(lambda v: along(difference, v), directions).mean(axis=0)
    gradient = unravel(estimate)
    if surrogate is not None:
        exact = eqx.filter_grad(lambda moving: surrogate(eqx.combine(moving, still)))(moving)
        gradient = jax.tree.map(jnp.add, gradient, exact)
    return fn(params), gradient
