r"""The Chebyshev contextual bandit: each arm's cost is regressed on a context.

Khodak, Chow, Balcan and Talwalkar, Learning to Relax (2024, arXiv:2310.02246), and their code;
inverse-gap weighting after Foster and Rakhlin, Beyond UCB (2020). Theirs divides costs by $KN$, the
most that was seen times a constant of the theory. In the units of the costs that constant cancels.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Scalar

from ._tuners import AbstractTuner, draw, untouched


class Regressions(eqx.Module):
    """What all rounds left: nothing grows with their number."""

    factors: Float[Array, "arms terms+1 terms+1"]
    """Triangular, of each arm's rows of features and costs above one."""
    coefficients: Float[Array, "arms terms"]
    residuals: Float[Array, " arms"]
    """Squares of what each arm's regression leaves."""
    errors: Scalar
    """Squares of what the predictions before each round had missed."""
    most: Scalar
    """The greatest cost."""
    rounds: Scalar


class ChebCB(AbstractTuner[Regressions]):
    r"""ChebCB: regret against the best arm of each context, where costs are smooth in it.

    An arm's cost above one is a Chebyshev series in the context, of least squares among series with
    $|\theta_0| \le K$ and $|\theta_j| \le 2K / j$, where $K$ is the most that a round has cost. An
    arm whose cost is predicted to be by $g$ above the least has probability $1 / (d + \eta g)$, and
    the best one the rest; $\eta = 2t \sqrt{dt / (R + 2\alpha^2 t)}$ with $R$ the squares by which
    the predictions missed, above those of the best series in hindsight, and $\alpha = K (\pi +
    \frac2\pi \log(2m + 1)) / (2m + 2)$ a bound on what $m$ terms leave. Arms not yet tried are
    predicted to cost one, so that they are tried soon.

    **Arguments:**

    - `arms`: $d$.
    - `lower`, `upper`: the range of the contexts; beyond the ends, the end's.
    - `terms`: $m$, of a series. Raises `ValueError` where the range is empty or there is none.

    !!! Example

        ```python
        >>> import jax
        >>> from sciopt import relax
        >>> tuner = relax.ChebCB(arms=2, lower=0.0, upper=1.0, terms=3)
        >>> state, update = tuner.init(), jax.jit(tuner.update)
        >>> for context in [0.1, 0.5, 0.9, 0.3, 0.7] * 10:
        ...     state = update(state, 0, context, 10 + 20 * context)
        ...     state = update(state, 1, context, 30 - 20 * context)
        >>> tuner.predict(state, 0.2).round(6).tolist()
        [14.0, 26.0]

        ```
    """

    arms: int
    lower: float
    upper: float
    terms: int = 6

    def __check_init__(self):
        if self.terms < 1 or not self.lower < self.upper:
            raise ValueError(f"{self.terms} terms on [{self.lower}, {self.upper}].")

    def features(self, context: ArrayLike) -> Float[Array, " terms"]:
        """Chebyshev's polynomials at the context."""
        position = 2 * (jnp.asarray(context) - self.lower) / (self.upper - self.lower) - 1
        return jnp.cos(np.arange(self.terms) * jnp.arccos(jnp.clip(position, -1, 1)))

    def predict(self, state: Regressions, context: ArrayLike) -> Float[Array, " arms"]:
        """What each arm is thought to cost."""
        return 1 + state.coefficients @ self.features(context)

    def probabilities(self, state: Regressions, context: ArrayLike) -> Float[Array, " arms"]:
        """By inverse-gap weighting."""
        costs, t = self.predict(state, context), jnp.maximum(state.rounds, 1)
        truncation = np.pi + 2 / np.pi * np.log(2 * self.terms + 1)
        alpha = state.most * truncation / (2 * (self.terms + 1))
        missed = jnp.maximum(state.errors - state.residuals.sum(), 0) / t + 2 * alpha**2
        rate = 2 * state.rounds * jnp.sqrt(self.arms / jnp.where(missed > 0, missed, 1))
        best = jnp.argmin(costs)
        others = 1 / (self.arms + rate * (costs - costs[best]))
        return others.at[best].set(0).at[best].set(1 - others.at[best].set(0).sum())

    def init(self) -> Regressions:
        zero, m = untouched(self.arms), self.terms
        factors = jnp.zeros((self.arms, m + 1, m + 1), zero.dtype)
        return Regressions(factors, factors[:, 0, :m], zero, zero[0], zero[0], zero[0])

    def choose(self, state: Regressions, context: ArrayLike, key: Array) -> Int[Array, ""]:
        return draw(key, self.probabilities(state, context))

    def update(self, state, choice, context, cost) -> Regressions:
        features = self.features(context).astype(state.most.dtype)
        excess = jnp.asarray(cost, state.most.dtype) - 1
        missed = features @ state.coefficients[choice] - excess
        rows = jnp.vstack([state.factors[choice], jnp.append(features, excess)])
        factors = state.factors.at[choice].set(jnp.linalg.qr(rows, mode="r"))
        most = jnp.maximum(state.most, excess + 1)
        bounds = most * jnp.asarray([1, *(2 / np.arange(1, self.terms))], most.dtype)

        def only(_):
            own = bounded_least_squares(factors[choice], bounds)
            return jax.tree.map(
                lambda x, new: x.at[choice].set(new), (state.coefficients, state.residuals), own
            )

        def all_of_them(_):
            return jax.vmap(bounded_least_squares, (0, None))(factors, bounds)

        # The bounds hold for all arms, and grow with the most.
        coefficients, residuals = jax.lax.cond(most > state.most, all_of_them, only, None)
        errors, rounds = state.errors + missed**2, state.rounds + 1
        return Regressions(factors, coefficients, residuals, errors, most, rounds)


def bounded_least_squares(
    factor: Float[Array, "m+1 m+1"], bounds: Float[Array, " m"]
) -> tuple[Float[Array, " m"], Scalar]:
    r"""$x$ of the least $|Ax - y|^2$ with $|x_j| \le$ `bounds`, and that, of $R$ in $(A, y) = QR$.

    Stark and Parker's BVLS (1995): least squares in the coefficients that are free; one that would
    leave its bounds on the way is fixed there, and the one that pulls most from its bound is freed.
    Without a unique minimum, the one of least norm among the free.
    """
    matrix, y, m = factor[:, :-1], factor[:, -1], len(bounds)
    place = jnp.arange(m)
    scale = jnp.linalg.norm(matrix, axis=0) * jnp.linalg.norm(y)
    negligible = 100 * jnp.finfo(y.dtype).eps * scale

    def step(carry):
        x, free, _, count = carry
        fixed = jnp.where(free, 0, x)
        among = jnp.linalg.lstsq(jnp.where(free, matrix, 0), y - matrix @ fixed)[0]
        aim = jnp.where(free, among, x)
        outside = jnp.abs(aim) > bounds
        room = jnp.where(outside, (jnp.sign(aim) * bounds - x) / (aim - x), jnp.inf)
        first = jnp.argmin(room)
        blocked = jnp.any(outside)
        x = jnp.where(blocked, x + jnp.minimum(room[first], 1) * (aim - x), aim)
        x = jnp.where(blocked & (place == first), jnp.sign(aim) * bounds, x)
        pull = jnp.where(free, 0, -jnp.sign(x) * (matrix.T @ (y - matrix @ x))) - negligible
        strongest = jnp.argmax(pull)
        release = ~blocked & (pull[strongest] > 0)
        free = (free | (release & (place == strongest))) & ~(blocked & (place == first))
        return x, free, ~blocked & ~release, count + 1

    def going(carry):
        return ~carry[2] & (carry[3] < 10 * m)

    zero = jnp.zeros_like(bounds)
    start = (zero, jnp.full(m, True), jnp.array(False), jnp.array(0))
    x = jax.lax.while_loop(going, step, start)[0]
    return x, jnp.sum((matrix @ x - y) ** 2)
