"""A line search to the strong Wolfe conditions: bracketing and zoom by cubic interpolation.

Follows Nocedal and Wright, *Numerical Optimization* (2006), algorithms 3.5 and 3.6. Their two
phases are one loop here: a bracket whose far end is not known yet has it at infinity, and the rules
of the zoom then are those of the bracketing phase. So there is one place in the compiled program
where the function is evaluated.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar


class Evaluation(eqx.Module):
    """A function's value and gradient at one point, and what it returned beside the value."""

    value: Scalar
    grad: Float[Array, " n"]
    aux: PyTree


class End(eqx.Module):
    """One end of a bracket: the step size, and value and slope there."""

    size: Scalar
    value: Scalar
    slope: Scalar


class LineSearch(eqx.Module):
    """Where a search ended: `accepted` says that both strong Wolfe conditions hold there.

    Where they do not, the step size is that of the lowest point found, and zero if none was lower
    than the start.
    """

    low: End
    at_low: Evaluation
    high: End
    trial: Scalar
    num_evaluations: Int[Array, ""]
    accepted: Bool[Array, ""]


def _choose(condition: Bool[Array, ""], one, other):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def minimiser_of_the_cubic(a: End, b: End) -> Scalar:
    """The minimiser of the cubic with the values and slopes of both ends: N&W (3.59).

    NaN where that cubic has none.
    """
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.size - b.size)
    d2 = jnp.sign(b.size - a.size) * jnp.sqrt(d1**2 - a.slope * b.slope)
    return b.size - (b.size - a.size) * (b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2)


def _beyond(last: End, here: End) -> Scalar:
    # The slope still points onwards: go on by one to four times the last stride.
    stride = here.size - last.size
    cubic = minimiser_of_the_cubic(last, here)
    nearest, farthest = here.size + 1.1 * stride, here.size + 4 * stride
    # A cubic without a minimum ahead says that the function falls ever faster.
    return jnp.where(cubic > here.size, jnp.clip(cubic, nearest, farthest), farthest)


def _within(low: End, high: End, slow: Bool[Array, ""]) -> Scalar:
    cubic = minimiser_of_the_cubic(low, high)
    width = high.size - low.size
    # Near the minimum the values cancel, and the slopes still tell where the slope is zero.
    secant = low.size - low.slope * width / (high.slope - low.slope)
    fraction = (jnp.where(jnp.isfinite(cubic), cubic, secant) - low.size) / width
    fraction = jnp.where(slow | ~jnp.isfinite(fraction), 0.5, jnp.clip(fraction, 0.1, 0.9))
    # Where the function is not finite, what it said there is of no use, and the step far too long.
    return low.size + jnp.where(jnp.isfinite(high.value), fraction, 0.1) * width


def strong_wolfe(
    evaluate: Callable[[Float[Array, " n"]], Evaluation],
    point: Float[Array, " n"],
    start: Evaluation,
    direction: Float[Array, " n"],
    first: Scalar,
    *,
    c1: float,
    c2: float,
    max_evaluations: int,
) -> LineSearch:
    r"""A step size $\alpha$ with both of N&W (3.7), for $\varphi(\alpha) = f(x + \alpha p)$:

    $$\varphi(\alpha) \le \varphi(0) + c_1 \alpha \varphi'(0), \qquad
    |\varphi'(\alpha)| \le c_2 |\varphi'(0)|.$$

    **Arguments:**

    - `evaluate`: the function, with its gradient.
    - `point`, `start`: the point $x$, and the function there.
    - `direction`: the direction $p$, of descent.
    - `first`: the step size to try first.
    - `c1`, `c2`: $0 < c_1 < c_2 < 1$.
    - `max_evaluations`: after so many the best of them is taken.
    """
    slope = direction @ start.grad

    def going(search: LineSearch):
        return ~search.accepted & (search.num_evaluations < max_evaluations)

    def body(search: LineSearch) -> LineSearch:
        low, high = search.low, search.high
        at_trial = evaluate(point + search.trial * direction)
        here = End(search.trial, at_trial.value, at_trial.grad @ direction)
        # Written so that NaN is too high.
        decreased = here.value <= start.value + c1 * here.size * slope
        lower = decreased & (here.value < low.value) & jnp.isfinite(here.slope)
        accepted = lower & (jnp.abs(here.slope) <= -c2 * slope)
        turned = lower & (here.slope * (high.size - low.size) >= 0)
        new_low = _choose(lower, here, low)
        new_high = _choose(lower, _choose(turned, low, high), here)
        slow = jnp.abs(new_high.size - new_low.size) > 0.66 * jnp.abs(high.size - low.size)
        trial = jnp.where(
            jnp.isfinite(new_high.size),
            _within(new_low, new_high, slow),
            _beyond(low, here),
        )
        at_low = _choose(lower, at_trial, search.at_low)
        return LineSearch(new_low, at_low, new_high, trial, search.num_evaluations + 1, accepted)

    low = End(jnp.zeros_like(slope), start.value, slope)
    nowhere = End(*(jnp.full_like(slope, jnp.inf) for _ in range(3)))
    begin = LineSearch(low, start, nowhere, first, jnp.array(0), jnp.array(False))
    return jax.lax.while_loop(going, body, begin)
