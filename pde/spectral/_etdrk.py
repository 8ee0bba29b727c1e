r"""Exponential time differencing with Runge and Kutta's stages, as a solver of diffrax's.

For $\dot v = Lv + N(t, v)$ with diagonal L, of which the exponential is taken exactly. Cox and
Matthews, J. Comput. Phys. 176 (2002), equations (4), (22), (23)-(25) and (26)-(29). Their
coefficients are sums of $\varphi_1(z) = (e^z - 1)/z$, $\varphi_{k+1}(z) = (\varphi_k(z) - 1/k!)/z$
at $z = hL$ and $hL/2$, whose formulas cancel where z is small: Kassam and Trefethen, SIAM J. Sci.
Comput. 26 (2005), go around that by contour integrals. Here a Taylor polynomial of $\varphi_3$ and
the recurrence upwards serve $|z| < 1$, where both are stable, and the formulas the rest.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Inexact, Scalar

from ..grid import AbstractEqualSteps

TERMS = 18  # of the polynomial: 1/20! is below float64's rounding


def phi(z: Inexact[Array | np.ndarray, "..."]) -> tuple[Inexact[Array | np.ndarray, "..."], ...]:
    r"""$\varphi_1, \varphi_2, \varphi_3$, real or complex; by NumPy, thus in float64, if `z` is.

    ```python
    >>> import numpy as np
    >>> from pde import spectral
    >>> [np.round(a * np.array([1, 1e3]), 12).tolist() for a in spectral.phi(np.array([0.0, -1e3]))]
    [[1.0, 1.0], [0.5, 0.999], [0.166666666667, 0.499001]]

    ```
    """
    xp: Any = np if isinstance(z, np.ndarray) else jnp
    small = abs(z) < 1
    inner, outer = xp.where(small, z, 0), xp.where(small, 1, z)
    near = 1 / math.factorial(TERMS + 2) + xp.zeros_like(z)
    for k in range(TERMS + 1, 2, -1):
        near = near * inner + 1 / math.factorial(k)
    near = [near]
    for k in (2, 1):
        near.append(near[-1] * inner + 1 / k)
    far = [xp.expm1(outer) / outer]
    for k in (1, 2):
        far.append((far[-1] - 1 / k) / outer)
    return tuple(xp.where(small, n, f) for n, f in zip(near[::-1], far, strict=True))


class ETDRK(AbstractEqualSteps):
    r"""Cox and Matthews' steps of order one to four, of equal length.

    It steps a term that has $N$ alone: `equation.term`. The coefficients are made once, in float64
    where the symbol is NumPy's, even if the modes are single. All steps must be `dt` long; one that
    is not is an error when it is taken, as the last may be of `diffrax.diffeqsolve`.

    **Arguments:**

    - `equation`: [`pde.spectral.Semilinear`][] or another, for its symbol.
    - `dt`: the step.
    - `order`: as many evaluations of N as that.

    **Raises:** `ValueError` for an order that there is not.

    !!! Example

        ```python
        >>> import jax, numpy as np
        >>> from pde import spectral
        >>> burgers = spectral.Burgers(spectral.Fourier((0, 2 * np.pi, 32)), 0.1)
        >>> solver = spectral.ETDRK(burgers, dt=0.01, order=2)
        >>> start = np.zeros(11, complex)
        >>> start[1] = -0.5j  # sin x
        >>> after = jax.jit(lambda v: solver.advance(burgers.term, 0.0, v, None))(start)
        >>> np.asarray(after[1:3]).round(4).tolist()
        [-0.4995j, -0.0025j]

        ```
    """

    dt: float | Scalar
    stages: int = eqx.field(static=True)
    coefficients: tuple[Inexact[Array, "..."], ...]

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., diffrax.LocalLinearInterpolation]] = (
        diffrax.LocalLinearInterpolation
    )

    def __init__(self, equation: Any, dt: float | Scalar, order: int = 4):
        if order not in (1, 2, 3, 4):
            raise ValueError(f"ETDRK has the orders 1 to 4, not {order}.")
        self.dt, self.stages = dt, order
        symbol, h = equation.symbol, dt
        if not any(isinstance(a, Tracer) for a in (symbol, dt)):
            symbol, h = np.asarray(symbol), float(dt)
        xp: Any = np if isinstance(symbol, np.ndarray) and isinstance(h, float) else jnp
        z = h * symbol
        whole, half = xp.exp(z), xp.exp(z / 2)
        p1, p2, p3 = phi(z)
        if order == 1:
            made = (whole, h * p1)
        elif order == 2:
            made = (whole, h * p1, h * p2)
        else:
            weights = (p1 - 3 * p2 + 4 * p3, 4 * p2 - 8 * p3, 4 * p3 - p2)
            made = (whole, half, h / 2 * phi(z / 2)[0], *(h * w for w in weights))
            if order == 3:
                made += (h * p1,)
        self.coefficients = tuple(jnp.asarray(a) for a in made)

    def order(self, terms) -> int:
        return self.stages

    def init(self, terms, t0, t1, y0, args) -> None:
        return None

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        y0 = eqx.error_if(y0, _differs(t1 - t0, self.dt, t1), "ETDRK: all steps must be `dt` long.")
        y1 = self.advance(terms, t0, y0, args)
        return y1, None, {"y0": y0, "y1": y1}, None, diffrax.RESULTS.successful

    def advance(
        self, terms: diffrax.AbstractTerm, t: Any, v: Complex[Array, "..."], args: Any
    ) -> Complex[Array, "..."]:
        """The modes `dt` after `t`."""

        def nonlinear(t, v):
            return terms.vf(t, v, args)

        real = v.real.dtype
        coefficients = [
            a.astype(v.dtype if jnp.iscomplexobj(a) else real) for a in self.coefficients
        ]
        dt = jnp.asarray(self.dt, real)
        n_v = nonlinear(t, v)
        if self.stages == 1:
            whole, first = coefficients
            return whole * v + first * n_v
        if self.stages == 2:
            whole, first, second = coefficients
            a = whole * v + first * n_v
            return a + second * (nonlinear(t + dt, a) - n_v)
        whole, half, q, f1, f2, f3, *rest = coefficients
        a = half * v + q * n_v
        n_a = nonlinear(t + dt / 2, a)
        if self.stages == 3:
            b = whole * v + rest[0] * (2 * n_a - n_v)
            return whole * v + f1 * n_v + f2 * n_a + f3 * nonlinear(t + dt, b)
        n_b = nonlinear(t + dt / 2, half * v + q * n_a)
        c = half * a + q * (2 * n_b - n_v)
        return whole * v + f1 * n_v + f2 / 2 * (n_a + n_b) + f3 * nonlinear(t + dt, c)


def _differs(step: Any, dt: Any, t: Any) -> Any:
    """Whether a step is another than `dt`, by more than what a sum of times is rounded by."""
    eps = jnp.finfo(jnp.result_type(float)).eps
    return jnp.abs(step - dt) > 1e-6 * jnp.abs(dt) + 8 * eps * jnp.abs(t)
