r"""Expectation-maximisation for light bridges: each component becomes a Gaussian bridge.

The objective of Korotin, Gushchin and Burnaev, *Light Schrödinger Bridge* (ICLR 2024), equation
(8), has no minimum in closed form, but where its gradient is zero each component $k$ satisfies

$$ \bar w_k = \bar g_k, \qquad m^1_k = r_k + S_k m^0_k, \qquad C^1_k = S_k + S_k C^0_k S_k, $$

where $w_k$ are the components' shares of $\varphi_0$ at samples of the start, $g_k$ those of
$\varphi_1$ at samples of the end, and $m, C$ the mean and the covariance of the samples weighed by
them. So a component is the Gaussian bridge between those parts of both ends that are its own, which
has a closed form. A step puts it in the component's place, and then balances the shares. It moves
against the gradient, by a positive factor each: hence a part of a step lowers the objective where
the whole one does not. With a point for the start it is EM for a mixture's density.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, PyTree, Scalar

from ..gaussian import square_root
from ._gaussian import conditional_root
from ._potential import (
    AbstractCovariance,
    Components,
    Diagonal,
    Full,
    SumExpQuadratic,
    powers,
)

# Rows whose shares are held at a time.
BLOCK = 1024
# The part of a step below which there is no way down.
LEAST_PART = 1e-3

Samples = tuple[Float[Array, "n d"], Float[Array, "m d"]]


class _Part(NamedTuple):
    """What of the samples is each component's: its share, and moments of what it has.

    `spread` is the variance by coordinate, or the covariance where the components' are full.
    """

    share: Float[Array, " k"]
    mean: Float[Array, "k d"]
    spread: Float[Array, "k d"] | Float[Array, "k d d"]


class ExpectationMaximisationState(eqx.Module):
    """What is carried from one step to the next, beside the potential.

    - `start`, `end`: what of the samples is each component's.
    - `value`: the objective.
    - `part`: of a step, that is tried next.
    - `converged`: whether the last step changed the objective by less than the tolerance.
    """

    start: _Part
    end: _Part
    value: Scalar
    part: Scalar
    converged: Bool[Array, ""]


class ExpectationMaximisation(
    optx.AbstractMinimiser[SumExpQuadratic, Scalar, ExpectationMaximisationState]
):
    """Replace components by Gaussian bridges, for as long as that lowers the objective.

    A solver for [`transport.bridge.fit`][]. One component is exact after a step; of many, some tens
    of steps are far ahead of as many of any minimiser. Samples are passed in blocks, so that
    memory grows with the components and not with their product with the samples.

    It is a minimiser of Optimistix of one function alone, `LightSB.objective` of a potential
    between samples in unit coordinates, which are its `args`; derivatives are never asked for.

    **Arguments:**

    - `atol`, `rtol`: it stops at a whole step that changes the objective, which is in nats, by less
        than `atol + rtol * size`.
    - `norm`: asked for by Optimistix; steps are not measured.

    !!! Example

        ```python
        >>> import jax, transport
        >>> from transport.bridge import ExpectationMaximisation, LightSB, fit
        >>> x0, x1 = jax.random.normal(jax.random.key(0), (2, 500, 2))
        >>> bridge = LightSB.from_samples(jax.random.key(1), 1.0, x1 + 3, components=1)
        >>> solution = fit(bridge, x0, x1 + 3, ExpectationMaximisation(1e-6))
        >>> int(solution.stats["num_steps"])
        2

        ```
    """

    atol: float = 1e-5
    rtol: float = 0.0
    norm: Callable[[PyTree], Scalar] = optx.max_norm

    def init(self, fn, y: SumExpQuadratic, args: Samples, options, f_struct, aux_struct, tags):
        """The shares of the components, and the objective, where the fit begins."""
        start, end, value = _expected(y, *args)
        return ExpectationMaximisationState(
            start, end, value, jnp.ones((), value.dtype), jnp.array(False)
        )

    def step(
        self, fn, y: SumExpQuadratic, args: Samples, options, state: ExpectationMaximisationState,
        tags,
    ) -> tuple[SumExpQuadratic, ExpectationMaximisationState, Scalar]:  # fmt: skip
        """Try a part of the way to the Gaussian bridges, and keep what is lower."""
        u0, u1 = args
        tried = _moved(y, state, u0, _least(u1))
        start, end, value = _expected(tried, u0, u1)
        lower = value < state.value
        enough = self.atol + self.rtol * jnp.abs(value)
        close = jnp.abs(state.value - value) < enough * state.part
        longer = jnp.minimum(2 * state.part, 1)
        new = ExpectationMaximisationState(start, end, value, longer, close)
        kept = ExpectationMaximisationState(
            state.start, state.end, state.value, state.part / 2, close
        )
        y, state = jax.tree.map(lambda a, b: jnp.where(lower, a, b), (tried, new), (y, kept))
        return y, state, state.value

    def terminate(
        self, fn, y: SumExpQuadratic, args: Samples, options, state: ExpectationMaximisationState,
        tags,
    ) -> tuple[Bool[Array, ""], optx.RESULTS]:  # fmt: skip
        """Whether it would go no further; and if that is no minimum, why."""
        u1, results = args[1], optx.RESULTS
        spread = _spread(y.covariance)
        lowest = spread if spread.ndim == 2 else jnp.linalg.eigvalsh(spread)
        # Of components that hold a sample at all.
        held = (len(u1) * state.end.share > 0.5)[:, None]
        ended = state.converged | (state.part < LEAST_PART)
        collapsed = ended & jnp.any((lowest < 4 * _least(u1)) & held)
        finite = jnp.isfinite(state.value)
        found = results.where(collapsed, results.nonlinear_divergence, results.successful)
        return ended | ~finite, results.where(finite, found, results.nonfinite)

    def postprocess(
        self, fn, y, aux, args, options: dict[str, Any], state, tags, result
    ) -> tuple[SumExpQuadratic, Scalar, dict[str, Any]]:
        """Nothing."""
        return y, aux, {}


def _least(u1: Float[Array, "m d"]) -> Scalar:
    """The variance below which a component is a point, to the precision of the numbers."""
    return 4 * jnp.finfo(u1.dtype).eps * jnp.maximum(jnp.max(u1**2), 1)


def _moved(now: SumExpQuadratic, state: ExpectationMaximisationState, u0, least) -> SumExpQuadratic:
    """A part of the way to the Gaussian bridges, with shares that balance there."""
    start, end = state.start, state.end
    spread = _spread(now.covariance)
    wanted = _conditional(start.spread, end.spread, least)
    r = end.mean - _times(wanted, start.mean)
    covariance = _covariance(spread + state.part * (wanted - spread))
    moved = SumExpQuadratic(now.log_alpha, now.r + state.part * (r - now.r), covariance)
    held, _ = _parts(moved.at(jnp.zeros(())), u0, covariance)
    tiny = jnp.finfo(u0.dtype).tiny
    balance = jnp.log(jnp.maximum(end.share, tiny)) - jnp.log(jnp.maximum(held.share, tiny))
    return SumExpQuadratic(now.log_alpha + balance, moved.r, covariance)


def _expected(potential: SumExpQuadratic, u0, u1) -> tuple[_Part, _Part, Scalar]:
    """What is each component's at both ends, and the objective."""
    begin, end = potential.at(jnp.zeros(())), potential.at(jnp.ones(()))
    start, log_start = _parts(begin, u0, potential.covariance)
    stop, log_end = _parts(end, u1, potential.covariance)
    return start, stop, log_start - log_end


def _parts(
    components: Components, u: Float[Array, "n d"], covariance: AbstractCovariance
) -> tuple[_Part, Scalar]:
    """What is each component's, and the mean of the logarithm of their sum."""
    n, d = u.shape
    full = isinstance(covariance, Full)
    block = min(max(BLOCK // d, 1) if full else BLOCK, n)
    count = -(-n // block)
    blocks = jnp.pad(u, ((0, count * block - n), (0, 0))).reshape(count, block, d)
    present = (jnp.arange(count * block) < n).astype(u.dtype).reshape(count, block)
    coefficients = components.coefficients()

    def add(total, block):
        u, present = block
        # Quadratics of many points, and moments, are one matrix product each; and with a row a
        # component, what is done for each point is as wide as the block.
        found = powers(u, full)
        logits = coefficients @ found.T
        highest = jnp.max(logits, axis=0)
        share = jnp.exp(logits - highest)
        whole = jnp.sum(share, axis=0)
        log_sum = highest + jnp.log(whole)
        moments = (share * (present / whole)) @ found
        return (total[0] + moments, total[1] + log_sum @ present), None

    zero = jnp.zeros_like(coefficients), jnp.zeros((), u.dtype)
    (moments, log_sum), _ = jax.lax.scan(add, zero, (blocks, present))
    share, first, second = moments[:, 0], moments[:, 1 : d + 1], moments[:, d + 1 :]
    weight = jnp.maximum(share, jnp.finfo(u.dtype).tiny)[:, None]
    mean = first / weight
    if full:
        spread = (second / weight).reshape(-1, d, d) - mean[:, :, None] * mean[:, None]
    else:
        spread = jnp.maximum(second / weight - mean**2, 0)
    return _Part(share / n, mean, spread), log_sum / n


def _conditional(start, end, least):
    """$S$ of the Gaussian bridges between these spreads, kept above nothing."""
    if start.ndim == 2:
        return jnp.maximum(2 * end / (1 + jnp.sqrt(1 + 4 * start * end)), least)
    root = jax.vmap(conditional_root)(start, end)
    return root @ jnp.swapaxes(root, 1, 2) + least * jnp.eye(root.shape[1], dtype=root.dtype)


def _spread(covariance: AbstractCovariance):
    if isinstance(covariance, Diagonal):
        return jnp.exp(covariance.log_variance)
    if isinstance(covariance, Full):
        return covariance.root @ jnp.swapaxes(covariance.root, 1, 2)
    raise TypeError("Only diagonal and full covariances have a Gaussian bridge in closed form.")


def _covariance(spread) -> AbstractCovariance:
    return Diagonal(jnp.log(spread)) if spread.ndim == 2 else Full(jax.vmap(square_root)(spread))


def _times(spread, mean):
    return spread * mean if spread.ndim == 2 else jnp.einsum("kij,kj->ki", spread, mean)
