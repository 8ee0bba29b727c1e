"""Claims about the tuners: their distributions, their regret, and what they save in a loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from sciopt import relax

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

MEANS = np.array([42.0, 36.0, 21.0, 30.0, 45.0])
ROUNDS = 4000


@eqx.filter_jit
@eqx.filter_vmap(in_axes=(None, 0))
def play(tuner, key):
    """The last state, and all choices, against noisy costs of fixed means."""

    def round(state, key):
        noise, choosing = jax.random.split(key)
        choice = tuner.choose(state, 0.0, choosing)
        cost = jnp.asarray(MEANS)[choice] + 10 * jax.random.uniform(noise, minval=-1)
        return tuner.update(state, choice, 0.0, cost), choice

    return jax.lax.scan(round, tuner.init(), jax.random.split(key, ROUNDS))


TUNERS = [
    relax.TsallisINF(5),
    relax.EXP3(5),
    relax.UCB1(5),
    relax.Thompson(5),
    relax.EpsilonGreedy(5),
]


@pytest.mark.parametrize("tuner", TUNERS, ids=lambda tuner: type(tuner).__name__)
def test_regret_on_stationary_costs_grows_no_faster_than_rounds_to_the_0_6(tuner):
    keys = jax.random.split(jax.random.key(1), 16)
    state, choices = play(tuner, keys)
    regret = (MEANS - MEANS.min())[choices].cumsum(axis=1).mean(axis=0)
    when = np.geomspace(ROUNDS // 40, ROUNDS, 12).astype(int)
    assert np.polyfit(np.log(when), np.log(regret[when - 1]), 1)[0] <= 0.6
    assert (play(tuner, keys)[1] == choices).all()
    assert not (choices[0] == choices[1]).all()
    if isinstance(tuner, relax.TsallisINF):
        np.testing.assert_allclose(state.probabilities.sum(axis=1), 1, rtol=1e-10)
        # Unbiased: an arm's sum over the rounds is its mean above one.
        np.testing.assert_allclose(state.sums[:, 2].mean() / ROUNDS, MEANS[2] - 1, rtol=0.02)


@pytest.mark.parametrize("rounds", [1.0, 7.0, 5000.0])
def test_the_distribution_of_tsallis_inf_is_a_root_finder_s(rounds):
    gaps = np.array([0.0, 0.3, 2.0, rounds, 30 * rounds])
    p = relax.TsallisINF(5).leader(jnp.asarray(gaps), jnp.asarray(rounds))
    eta = 2 / np.sqrt(rounds)

    def excess(x):
        return (4 / (eta * (gaps - x)) ** 2).sum() - 1

    x = brentq(excess, -2 * np.sqrt(5) / eta, -2 / eta, xtol=1e-14)
    assert abs(p.sum() - 1) < 1e-10
    np.testing.assert_allclose(p, 4 / (eta * (gaps - x)) ** 2, rtol=1e-10)


@pytest.mark.parametrize(
    "tuner", [relax.TsallisINF(5), relax.TsallisINF(5, reduced_variance=False), relax.EXP3(5)]
)
def test_estimates_are_unbiased_and_have_the_variance_that_they_should(tuner):
    p = jnp.array([0.4, 0.3, 0.2, 0.09, 0.01])
    state = eqx.tree_at(
        lambda state: (state.recent, state.rounds, state.probabilities),
        tuner.init(),
        (jnp.array(35.0), jnp.array(40.0), p),
    )
    updated = jax.vmap(tuner.update, (None, 0, None, 0))(state, jnp.arange(5), 0.0, MEANS)
    np.testing.assert_allclose(p @ updated.sums, MEANS - 1)
    # The mean of late is 35, and two arms have a probability below 4 / t.
    reduced = isinstance(tuner, relax.TsallisINF) and tuner.reduced_variance
    weighed = MEANS - 1 - np.where(reduced & (p > 0.1), 35, 0)
    variance = p @ (updated.sums - (MEANS - 1)) ** 2
    np.testing.assert_allclose(variance, (1 / p - 1) * weighed**2, atol=1e-9)


@pytest.mark.parametrize("tuner", [relax.TsallisINF(5), relax.UCB1(5)])
def test_costs_of_one_leave_the_state_finite(tuner):
    state = eqx.filter_jit(tuner.update)(tuner.init(), 1, 0.5, 1)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert 0 <= tuner.choose(state, 0.5, jax.random.key(0)) < 5


def test_each_bin_learns_its_own_best_arm():
    tuner = relax.Binned(relax.TsallisINF(2), bins=2, lower=0.0, upper=1.0)

    def round(state, inputs):
        key, context = inputs
        choice = tuner.choose(state, context, key)
        cost = jnp.where((context > 0.5) == (choice == 1), 10.0, 30.0)
        return tuner.update(state, choice, context, cost), None

    keys, contexts = jax.random.split(jax.random.key(0), 400), jnp.tile(jnp.array([0.1, 1.3]), 200)
    state, _ = jax.lax.scan(round, tuner.init(), (keys, contexts))
    assert state.probabilities[0, 0] > 0.95
    assert state.probabilities[1, 1] > 0.95
    assert state.rounds.tolist() == [200, 200]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="arms"):
        relax.TsallisINF(0).init()
    with pytest.raises(ValueError, match="bins"):
        relax.Binned(relax.TsallisINF(2), bins=2, lower=1.0, upper=0.0)
