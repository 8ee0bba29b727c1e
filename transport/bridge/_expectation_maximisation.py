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

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int, Scalar

from ..gaussian import square_root
from ._gaussian import conditional_root
from ._potential import AbstractCovariance, Components, Diagonal, Full, SumExpQuadratic

# Rows whose shares are held at a time.
BLOCK = 2048
# The part of a step below which there is no way down.
LEAST_PART = 1e-3


class ExpectationMaximisation(eqx.Module):
    """Replace components by Gaussian bridges, for as long as that lowers the objective.

    A solver for [`transport.bridge.fit`][]. One component is exact after a step; of many, some tens
    of steps are far ahead of as many of any minimiser. Samples are passed in blocks, so that
    memory grows with the components and not with their product with the samples.

    **Arguments:**

    - `tolerance`: the change of the objective in a whole step, in nats, at which to stop.

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

    tolerance: float = 1e-5

    def minimise(self, potential: SumExpQuadratic, u0, u1, max_steps: int) -> optx.Solution:
        """The potential of least objective, between samples in unit coordinates."""
        least = 4 * jnp.finfo(u1.dtype).eps * jnp.maximum(jnp.max(u1**2), 1)

        def going(state: "_State"):
            return (state.step < max_steps) & (state.part >= LEAST_PART) & ~state.converged

        def body(state: "_State") -> "_State":
            tried = _moved(state, u0, least)
            start, end, value = _expected(tried, u0, u1)
            lower = value < state.value
            new = state._replace(
                potential=tried, start=start, end=end, value=value,
                part=jnp.minimum(2 * state.part, 1),
            )  # fmt: skip
            kept = state._replace(part=state.part / 2)
            close = jnp.abs(state.value - value) < self.tolerance * state.part
            after = jax.tree.map(lambda a, b: jnp.where(lower, a, b), new, kept)
            return after._replace(converged=close, step=state.step + 1)

        begin = _State(
            potential, *_expected(potential, u0, u1), jnp.ones((), u1.dtype),
            jnp.array(False), jnp.array(0),
        )  # fmt: skip
        state = jax.lax.while_loop(going, body, begin)
        return optx.Solution(
            value=state.potential, result=_result(state, len(u1), least),
            aux=state.value, stats={"num_steps": state.step, "max_steps": max_steps}, state=state,
        )  # fmt: skip


class _Part(NamedTuple):
    """What of the samples is each component's: its share, and moments of what it has.

    `spread` is the variance by coordinate, or the covariance where the components' are full.
    """

    share: Float[Array, " k"]
    mean: Float[Array, "k d"]
    spread: Float[Array, "k d"] | Float[Array, "k d d"]


class _State(NamedTuple):
    potential: SumExpQuadratic
    start: _Part
    end: _Part
    value: Scalar
    part: Scalar
    converged: Bool[Array, ""]
    step: Int[Array, ""]


def _moved(state: _State, u0, least) -> SumExpQuadratic:
    """A part of the way to the Gaussian bridges, with shares that balance there."""
    now, start, end = state.potential, state.start, state.end
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
    block = min(BLOCK, n)
    count = -(-n // block)
    blocks = jnp.pad(u, ((0, count * block - n), (0, 0))).reshape(count, block, d)
    present = (jnp.arange(count * block) < n).astype(u.dtype).reshape(count, block)
    full = isinstance(covariance, Full)

    def sums(u, present):
        logits = jax.vmap(components.logits)(u)
        log_sum = jax.nn.logsumexp(logits, axis=1)
        share = jnp.exp(logits - log_sum[:, None]) * present[:, None]
        second = jnp.einsum("nk,ni,nj->kij", share, u, u) if full else share.T @ u**2
        return jnp.sum(share, axis=0), share.T @ u, second, log_sum @ present

    def add(total, block):
        return jax.tree.map(jnp.add, total, sums(*block)), None

    zero = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(sums, blocks[0], present[0])
    )
    share, first, second, log_sum = jax.lax.scan(add, zero, (blocks, present))[0]
    weight = jnp.maximum(share, jnp.finfo(u.dtype).tiny)[:, None]
    mean = first / weight
    if full:
        spread = second / weight[..., None] - mean[:, :, None] * mean[:, None]
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


def _result(state: _State, n: int, least) -> optx.RESULTS:
    """Whether it ended well, and if not, why."""
    spread = _spread(state.potential.covariance)
    lowest = spread if spread.ndim == 2 else jnp.linalg.eigvalsh(spread)
    # Of components that hold a sample at all.
    collapsed = jnp.any((lowest < 4 * least) & (n * state.end.share > 0.5)[:, None])
    results, ended = optx.RESULTS, state.converged | (state.part < LEAST_PART)
    found = results.where(ended, results.successful, results.nonlinear_max_steps_reached)
    found = results.where(collapsed, results.nonlinear_divergence, found)
    return results.where(jnp.isfinite(state.value), found, results.nonfinite)
