"""Bandits that choose one of a few values of a parameter, round after round, from what each cost.

Khodak, Chow, Balcan and Talwalkar, Learning to Relax (2024, arXiv:2310.02246); Zimmert
and Seldin, Tsallis-INF (2021); Auer, Cesa-Bianchi and Fischer (2002) for UCB1 and epsilon-greedy;
Auer, Cesa-Bianchi, Freund and Schapire (2002) for EXP3; Agrawal and Goyal (2013) for Thompson's.
"""

import abc
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree, Scalar

State = TypeVar("State")

# Rounds that a running mean remembers.
RECENT = 10


class AbstractTuner(eqx.Module, Generic[State]):
    """Chooses one of `arms` values each round, and learns from the cost of the one it chose.

    Costs are finite and at least one, as counts of iterations are; what is learnt from is what they
    have above one, in units of what has been seen of it. A tuner is immutable: all that changes is
    in `state`, of fixed shapes, so that rounds can be a `jax.lax.scan`. A context is a number known
    before the choice; tuners without contexts ignore it.
    """

    arms: eqx.AbstractVar[int]

    @abc.abstractmethod
    def init(self) -> State:
        """Before the first round."""

    @abc.abstractmethod
    def choose(self, state: State, context: ArrayLike, key: Array) -> Int[Array, ""]:
        """The arm of this round."""

    @abc.abstractmethod
    def update(self, state: State, choice: ArrayLike, context: ArrayLike, cost: ArrayLike) -> State:
        """After a round in which arm `choice` cost `cost`."""


def draw(key: Array, probabilities: Float[Array, " arms"]) -> Int[Array, ""]:
    """An arm by its probability."""
    return jax.random.categorical(key, jnp.log(probabilities))


def untouched(arms: int) -> Float[Array, " arms"]:
    """Zero for each arm, in JAX's default precision."""
    if arms < 1:
        raise ValueError(f"{arms} arms; a tuner needs one at least.")
    return jnp.zeros(arms)


class Weighted(eqx.Module):
    """Unbiased estimates of what every arm has cost above one, by the probability of a choice."""

    sums: Float[Array, " arms"]
    total: Scalar
    recent: Scalar
    """What about the last ten rounds have cost above one, in the mean."""
    rounds: Scalar
    probabilities: Float[Array, " arms"]


class AbstractExponential(AbstractTuner[Weighted]):
    """Follow the regularised leader on importance-weighted costs over their mean."""

    @abc.abstractmethod
    def leader(self, gaps: Float[Array, " arms"], rounds: Scalar) -> Float[Array, " arms"]:
        """The distribution for a round, of the arms' sums above the least of them."""

    @abc.abstractmethod
    def baseline(self, probabilities: Float[Array, " arms"], rounds: Scalar) -> Float[Array, "..."]:
        """The share of what recent rounds cost that is expected: only the rest is weighted."""

    def init(self) -> Weighted:
        zero = untouched(self.arms)
        return Weighted(zero, zero[0], zero[0], zero[0], zero + 1 / self.arms)

    def choose(self, state: Weighted, context: ArrayLike, key: Array) -> Int[Array, ""]:
        return draw(key, state.probabilities)

    def update(
        self, state: Weighted, choice: ArrayLike, context: ArrayLike, cost: ArrayLike
    ) -> Weighted:
        excess = jnp.asarray(cost, state.total.dtype) - 1
        total, rounds = state.total + excess, state.rounds + 1
        thought = state.recent * self.baseline(state.probabilities, rounds)
        thought = jnp.broadcast_to(thought, state.sums.shape)
        surprise = (excess - thought[choice]) / state.probabilities[choice]
        sums = (state.sums + thought).at[choice].add(surprise)
        scale = jnp.where(total > 0, total / rounds, 1)
        recent = state.recent + (excess - state.recent) * jnp.maximum(1 / rounds, 1 / RECENT)
        probabilities = self.leader((sums - sums.min()) / scale, rounds + 1)
        return Weighted(sums, total, recent, rounds, probabilities)


class TsallisINF(AbstractExponential):
    r"""Tsallis-INF, of optimal regret against both an adversary and a stationary law.

    $p_i = 4 (\eta (k_i / s - x))^{-2}$ with $\eta = 2 / \sqrt t$, $k_i$ the importance-weighted sum
    of costs above one, $s$ their mean, and $x$ such that the sum is one, by Newton's method. That
    starts from where the leading arm has probability one: there it is right of the root and
    converges always. (In the code of Learning to Relax $x$ starts at $-1$, which is the same
    in the first round.) The state's `probabilities` are those of the coming round.

    **Arguments:**

    - `arms`: how many.
    - `reduced_variance`: weigh what a cost has above the mean of about the last ten rounds, and add
        that for every arm, where $p_i \ge \eta^2$: Zimmert and Seldin's estimator, with what was
        seen lately for half of the costs' range, since systems that follow each other are alike.
        Without it, costs are weighed as they are.

    !!! Example

        ```python
        >>> import jax
        >>> from sciopt import relax
        >>> tuner = relax.TsallisINF(arms=2)
        >>> state, update = tuner.init(), jax.jit(tuner.update)
        >>> for key in jax.random.split(jax.random.key(0), 100):
        ...     choice = tuner.choose(state, 0.0, key)
        ...     state = update(state, choice, 0.0, [40, 20][int(choice)])
        >>> bool(state.probabilities[1] > 0.9)
        True

        ```
    """

    arms: int
    reduced_variance: bool = True

    def baseline(self, probabilities, rounds):
        return jnp.where(self.reduced_variance & (probabilities >= 4 / rounds), 1, 0)

    def leader(self, gaps, rounds):
        eta = 2 / jnp.sqrt(rounds)

        def probabilities(x):
            return 4 / (eta * (gaps - x)) ** 2

        def newton(_, x):
            p = probabilities(x)
            return x - (p.sum() - 1) / (eta * (p**1.5).sum())

        return probabilities(jax.lax.fori_loop(0, 20, newton, -2 / eta))


class EXP3(AbstractExponential):
    r"""Exponential weights, $p_i \propto \exp(-\eta k_i / s)$ with $\eta = \sqrt{\log d / (d t)}$.

    $k_i$ and $s$ are those of [`sciopt.relax.TsallisINF`][], and $d$ is the number of arms.

    !!! Example

        ```python
        >>> from sciopt import relax
        >>> relax.EXP3(arms=4).init().probabilities.tolist()
        [0.25, 0.25, 0.25, 0.25]

        ```
    """

    arms: int

    def baseline(self, probabilities, rounds):
        return jnp.zeros(())

    def leader(self, gaps, rounds):
        return jax.nn.softmax(-jnp.sqrt(jnp.log(self.arms) / (self.arms * rounds)) * gaps)


class Seen(eqx.Module):
    """How often an arm was chosen, what it cost above one in all, and the most a round did."""

    pulls: Float[Array, " arms"]
    sums: Float[Array, " arms"]
    worst: Scalar


class AbstractStationary(AbstractTuner[Seen]):
    """Trusts that an arm's mean cost so far is its mean cost. Rewards are $1 - $ cost / worst."""

    def init(self) -> Seen:
        zero = untouched(self.arms)
        return Seen(zero, zero, zero[0])

    def update(self, state: Seen, choice: ArrayLike, context: ArrayLike, cost: ArrayLike) -> Seen:
        excess = jnp.asarray(cost, state.worst.dtype) - 1
        return Seen(
            state.pulls.at[choice].add(1),
            state.sums.at[choice].add(excess),
            jnp.maximum(state.worst, excess),
        )

    def rewards(self, state: Seen) -> Float[Array, " arms"]:
        """Their sums."""
        return state.pulls - state.sums / jnp.where(state.worst > 0, state.worst, 1)


class UCB1(AbstractStationary):
    r"""The greatest upper confidence bound, mean reward $+ \sqrt{2 \log t / n_i}$; each arm first.

    !!! Example

        ```python
        >>> import jax
        >>> from sciopt import relax
        >>> tuner = relax.UCB1(arms=2)
        >>> state = tuner.update(tuner.init(), 0, 0.0, cost=30)
        >>> int(tuner.choose(state, 0.0, jax.random.key(0)))
        1

        ```
    """

    arms: int

    def choose(self, state, context, key):
        pulls = jnp.maximum(state.pulls, 1)
        rounds = jnp.maximum(state.pulls.sum(), 1)
        bound = self.rewards(state) / pulls + jnp.sqrt(2 * jnp.log(rounds) / pulls)
        return jnp.argmax(jnp.where(state.pulls > 0, bound, jnp.inf))


class Thompson(AbstractStationary):
    r"""Thompson's sampling: the greatest of draws from $N(\sum r / (n_i + 1), 1 / (n_i + 1))$.

    !!! Example

        ```python
        >>> import jax
        >>> from sciopt import relax
        >>> tuner = relax.Thompson(arms=3)
        >>> int(tuner.choose(tuner.init(), 0.0, jax.random.key(0))) in (0, 1, 2)
        True

        ```
    """

    arms: int

    def choose(self, state, context, key):
        noise = jax.random.normal(key, state.pulls.shape, state.pulls.dtype)
        weight = state.pulls + 1
        return jnp.argmax(self.rewards(state) / weight + noise / jnp.sqrt(weight))


class EpsilonGreedy(AbstractStationary):
    r"""The arm that was best so far, but any with probability $\min(1, c d / t)$.

    **Arguments:**

    - `arms`: $d$.
    - `exploration`: $c$. The regret grows with $\log t$ if it is large enough for the gap between
        the best arms.

    !!! Example

        ```python
        >>> import jax
        >>> from sciopt import relax
        >>> tuner = relax.EpsilonGreedy(arms=2, exploration=0.0)
        >>> state = tuner.update(tuner.init(), 0, 0.0, cost=30)
        >>> state = tuner.update(state, 1, 0.0, cost=20)
        >>> int(tuner.choose(state, 0.0, jax.random.key(0)))
        1

        ```
    """

    arms: int
    exploration: float = 5.0

    def choose(self, state, context, key):
        when, which = jax.random.split(key)
        means = jnp.where(state.pulls > 0, state.sums / jnp.maximum(state.pulls, 1), 0)
        epsilon = self.exploration * self.arms / (state.pulls.sum() + 1)
        explore = jax.random.uniform(when, (), state.pulls.dtype) < epsilon
        return jnp.where(explore, jax.random.randint(which, (), 0, self.arms), jnp.argmin(means))


class Constant(AbstractTuner[None]):
    """Always the same arm, to compare with.

    !!! Example

        ```python
        >>> import jax
        >>> from sciopt import relax
        >>> tuner = relax.Constant(3)
        >>> int(tuner.choose(tuner.init(), 0.0, jax.random.key(0)))
        3

        ```
    """

    choice: int
    arms: int = eqx.field(init=False)
    """As many as there have to be."""

    def __post_init__(self):
        self.arms = self.choice + 1

    def init(self) -> None:
        return None

    def choose(self, state, context, key):
        return jnp.asarray(self.choice)

    def update(self, state, choice, context, cost) -> None:
        return None


class Binned(AbstractTuner[PyTree[Any]]):
    """A tuner of its own in each of equal bins of the context; beyond the ends, the end's.

    Over [`sciopt.relax.TsallisINF`][] it is Tsallis-INF-CB of Learning to Relax.

    **Arguments:**

    - `tuner`: that which each bin has.
    - `bins`: how many.
    - `lower`, `upper`: the range of the contexts. Raises `ValueError` where it is empty.

    !!! Example

        ```python
        >>> from sciopt import relax
        >>> tuner = relax.Binned(relax.TsallisINF(arms=2), bins=4, lower=0.0, upper=1.0)
        >>> state = tuner.update(tuner.init(), 0, 0.3, cost=20)
        >>> state.rounds.tolist()
        [0.0, 1.0, 0.0, 0.0]

        ```
    """

    tuner: AbstractTuner[Any]
    bins: int
    lower: float
    upper: float
    arms: int = eqx.field(init=False)

    def __post_init__(self):
        self.arms = self.tuner.arms

    def __check_init__(self):
        if self.bins < 1 or not self.lower < self.upper:
            raise ValueError(f"{self.bins} bins of [{self.lower}, {self.upper}].")

    def bin(self, context: ArrayLike) -> Int[Array, ""]:
        """That which has the context."""
        position = (jnp.asarray(context) - self.lower) / (self.upper - self.lower)
        return jnp.clip(jnp.floor(position * self.bins), 0, self.bins - 1).astype(int)

    def init(self):
        return jax.tree.map(lambda x: jnp.stack([x] * self.bins), self.tuner.init())

    def choose(self, state, context, key):
        here = self.bin(context)
        return self.tuner.choose(jax.tree.map(lambda x: x[here], state), context, key)

    def update(self, state, choice, context, cost):
        here = self.bin(context)
        own = jax.tree.map(lambda x: x[here], state)
        own = self.tuner.update(own, choice, context, cost)
        return jax.tree.map(lambda x, new: x.at[here].set(new), state, own)


def hindsight_best(costs: Float[Array, "rounds arms"]) -> Int[Array, ""]:
    """The one arm that would have cost least in all, from which regret is counted.

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from sciopt import relax
        >>> costs = jnp.array([[30.0, 20.0], [20.0, 25.0], [30.0, 20.0]])
        >>> best = relax.hindsight_best(costs)
        >>> choices = jnp.array([0, 0, 1])
        >>> int(best), float(costs[jnp.arange(3), choices].sum() - costs[:, best].sum())
        (1, 5.0)

        ```
    """
    return jnp.argmin(costs.sum(axis=0))
