"""A line search to the strong Wolfe conditions, and to approximate ones where values are rounded.

Follows Nocedal and Wright, *Numerical Optimization* (2006), algorithms 3.5 and 3.6. Their two
phases are one loop here: a bracket whose far end is not known yet has it at infinity, and the rules
of the zoom then are those of the bracketing phase. So there is one place in the compiled program
where the function is evaluated.

Values tell a minimiser only to the root of their error, and slopes tell it to the error itself.
Where values are not to be relied on, the search goes by slopes, to the approximate Wolfe conditions
of Hager and Zhang, *A new conjugate gradient method with guaranteed descent and an efficient line
search* (SIAM J. Optim. 16, 2005), section 4.
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
    """Where a search ended: `accepted` says that its conditions hold there.

    Where they do not, the step size is that of the lowest point found, and zero if none was lower
    than the start; by slopes, that of the last point no higher than the error allows.
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


def _minimiser(a: End, b: End, by_slopes: Bool[Array, ""]) -> Scalar:
    secant = a.size - a.slope * (b.size - a.size) / (b.slope - a.slope)
    cubic = minimiser_of_the_cubic(a, b)
    return jnp.where(by_slopes | ~jnp.isfinite(cubic), secant, cubic)


def _beyond(last: End, here: End, by_slopes: Bool[Array, ""]) -> Scalar:
    # The slope still points onwards: go on by one to four times the last stride.
    stride = here.size - last.size
    ahead = _minimiser(last, here, by_slopes)
    nearest, farthest = here.size + 1.1 * stride, here.size + 4 * stride
    # Where no minimum is ahead, the function falls ever faster.
    return jnp.where(ahead > here.size, jnp.clip(ahead, nearest, farthest), farthest)


def _within(low: End, high: End, slow: Bool[Array, ""], by_slopes: Bool[Array, ""]) -> Scalar:
    width = high.size - low.size
    fraction = (_minimiser(low, high, by_slopes) - low.size) / width
    fraction = jnp.where(slow | ~jnp.isfinite(fraction), 0.5, jnp.clip(fraction, 0.1, 0.9))
    # Where the function is not finite, what it said there is of no use, and the step far too long.
    return low.size + jnp.where(jnp.isfinite(high.value), fraction, 0.1) * width


def wolfe(
    evaluate: Callable[[Float[Array, " n"]], Evaluation],
    point: Float[Array, " n"],
    start: Evaluation,
    direction: Float[Array, " n"],
    first: Scalar,
    *,
    c1: float,
    c2: float,
    error: Scalar,
    max_evaluations: int,
) -> LineSearch:
    r"""A step size $\alpha$ with both of N&W (3.7), for $\varphi(\alpha) = f(x + \alpha p)$:

    $$\varphi(\alpha) \le \varphi(0) + c_1 \alpha \varphi'(0), \qquad
    |\varphi'(\alpha)| \le c_2 |\varphi'(0)|.$$

    With an `error` $\epsilon$ of the values, the first may be what it is for the parabola through
    $\varphi(0)$ with the two slopes, Hager and Zhang's (4.1) and T2:

    $$\varphi'(\alpha) \le (2 c_1 - 1) \varphi'(0), \qquad
    \varphi(\alpha) \le \varphi(0) + \epsilon.$$

    **Arguments:**

    - `evaluate`: the function, with its gradient.
    - `point`, `start`: the point $x$, and the function there.
    - `direction`: the direction $p$, of descent.
    - `first`: the step size to try first.
    - `c1`, `c2`: $0 < c_1 < c_2 < 1$.
    - `error`: of the values, absolute; zero where they are to be relied on.
    - `max_evaluations`: after so many the best of them is taken.
    """
    slope, by_slopes = direction @ start.grad, error > 0

    def going(search: LineSearch):
        return ~search.accepted & (search.num_evaluations < max_evaluations)

    def body(search: LineSearch) -> LineSearch:
        low, high = search.low, search.high
        at_trial = evaluate(point + search.trial * direction)
        here = End(search.trial, at_trial.value, at_trial.grad @ direction)
        # Written so that NaN is too high.
        decreased = here.value <= start.value + c1 * here.size * slope
        level = by_slopes & (here.value <= start.value + error)
        lower = (level | decreased & (here.value < low.value)) & jnp.isfinite(here.slope)
        sufficient = decreased | (here.slope <= (2 * c1 - 1) * slope)
        accepted = lower & sufficient & (jnp.abs(here.slope) <= -c2 * slope)
        turned = lower & (here.slope * (high.size - low.size) >= 0)
        new_low = _choose(lower, here, low)
        new_high = _choose(lower, _choose(turned, low, high), here)
        slow = jnp.abs(new_high.size - new_low.size) > 0.66 * jnp.abs(high.size - low.size)
        trial = jnp.where(
            jnp.isfinite(new_high.size),
            _within(new_low, new_high, slow, by_slopes),
            _beyond(low, here, by_slopes),
        )
        at_low = _choose(lower, at_trial, search.at_low)
        return LineSearch(new_low, at_low, new_high, trial, search.num_evaluations + 1, accepted)

    low = End(jnp.zeros_like(slope), start.value, slope)
    nowhere = End(*(jnp.full_like(slope, jnp.inf) for _ in range(3)))
    begin = LineSearch(low, start, nowhere, first, jnp.array(0), jnp.array(False))
    return jax.lax.while_loop(going, body, begin)
