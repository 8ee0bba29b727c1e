"""ChebCB against SciPy's bounded least squares, a transcript in NumPy, and fixed arms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from sciopt import relax
from sciopt.relax._chebcb import bounded_least_squares

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

TUNER = relax.ChebCB(arms=3, lower=-1.0, upper=3.0, terms=4)


def test_bounded_least_squares_are_scipy_s():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (60, 12, 1))
    matrices, vectors = np.cos(np.arange(4) * np.arccos(x)), 3 * rng.normal(size=(60, 12))
    bounds = rng.uniform(0.1, 4, (60, 4))
    factors = np.linalg.qr(np.dstack([matrices, vectors]), mode="r")
    found, residuals = jax.jit(jax.vmap(bounded_least_squares))(factors, bounds)
    on_bounds = np.zeros(60, int)
    for i in range(60):
        expected = lsq_linear(matrices[i], vectors[i], (-bounds[i], bounds[i]), method="bvls")
        on_bounds[i] = np.abs(expected.active_mask).sum()
        np.testing.assert_allclose(found[i], expected.x, atol=1e-8)
        np.testing.assert_allclose(residuals[i], 2 * expected.cost, rtol=1e-8)
    assert set(on_bounds) >= {0, 1, 2, 3}


def costs_of(context):
    """The best arm is the first below zero and the last above two."""
    return np.array([20 + 12 * context, 30 + (context - 1) ** 2, 50 - 10 * context])


def transcript(contexts, choices, costs):
    """Probabilities of the next round as in the paper, with costs over K N, from all rounds."""
    d, m, t = 3, 4, len(costs)

    def features(context):
        return np.polynomial.chebyshev.chebvander((np.asarray(context) - 1) / 2, m - 1)

    def fit(rounds, scale, n):
        bounds, theta, left = np.array([1, *(2 / np.arange(1, m))]) / n, np.zeros((d, m)), 0.0
        for arm in range(d):
            here = np.array([i for i in range(rounds) if choices[i] == arm], dtype=int)
            if len(here):
                a, y = features(contexts[here]), (costs[here] - 1) / scale
                theta[arm] = np.linalg.lstsq(a, y, rcond=None)[0]
                if (np.abs(theta[arm]) > bounds).any():
                    theta[arm] = lsq_linear(a, y, (-bounds, bounds), method="bvls", tol=1e-15).x
                left += ((a @ theta[arm] - y) ** 2).sum()
        return theta, left

    # Their L (b - a) is K while rounds are left whose costs count as zero.
    n = 2 + 4 * (1 + np.log(m))
    scale = costs.max() * n
    missed = 0.0
    for i in range(t):
        before = costs[:i].max() * n if i else 1.0
        theta = fit(i, before, n)[0]
        predicted = features(contexts[i])[0] @ theta[choices[i]] * before / scale
        missed += (predicted - (costs[i] - 1) / scale) ** 2
    theta, left = fit(t, scale, n)
    alpha = (np.pi + 2 / np.pi * np.log(2 * m + 1)) / (2 * scale * (m + 1)) * costs.max()
    eta = 2 * t * np.sqrt(d * t / (missed - left + 2 * alpha**2 * t))
    predictions = theta @ features(contexts[t])[0]
    best = predictions.argmin()
    p = 1 / (d + eta * (predictions - predictions[best]))
    p[best] = 1 - np.delete(p, best).sum()
    return p


def test_probabilities_are_those_of_a_transcript_of_the_paper():
    rng = np.random.default_rng(1)
    contexts, choices = rng.uniform(-1, 3, 61), rng.integers(0, 3, 60)
    costs = np.array([costs_of(c)[a] for c, a in zip(contexts, choices, strict=False)])
    costs += rng.normal(size=60)
    state, update = TUNER.init(), eqx.filter_jit(TUNER.update)
    for i in range(60):
        if i in (1, 5, 20):
            found = TUNER.probabilities(state, contexts[i])
            expected = transcript(contexts[: i + 1], choices[:i], costs[:i])
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
        state = update(state, choices[i], contexts[i], costs[i])
    found = TUNER.probabilities(state, contexts[60])
    np.testing.assert_allclose(found, transcript(contexts, choices, costs), rtol=1e-7)
    assert abs(found.sum() - 1) < 1e-12


@eqx.filter_jit
def play(tuner, key):
    """Choices and the costs of all arms, of noisy costs that depend on the context."""

    def round(state, key):
        one, two, three = jax.random.split(key, 3)
        context = jax.random.uniform(one, minval=-1, maxval=3)
        costs = jnp.stack([20 + 12 * context, 30 + (context - 1) ** 2, 50 - 10 * context])
        choice = tuner.choose(state, context, two)
        noise = jax.random.normal(three)
        return tuner.update(state, choice, context, costs[choice] + noise), (choice, costs)

    return jax.lax.scan(round, tuner.init(), jax.random.split(key, 2000))[1]


def test_cheb_cb_beats_every_fixed_arm_and_repeats_itself():
    choices, costs = play(TUNER, jax.random.key(0))
    spent = costs[jnp.arange(2000), choices]
    assert spent.sum() < 0.92 * costs.sum(axis=0).min()
    assert spent[1000:].sum() < 1.02 * costs[1000:].min(axis=1).sum()
    assert (play(TUNER, jax.random.key(0))[0] == choices).all()
    assert not (play(TUNER, jax.random.key(1))[0] == choices).all()


def test_costs_of_one_and_contexts_beyond_the_ends_leave_it_finite():
    state = eqx.filter_jit(TUNER.update)(TUNER.init(), 1, 100.0, 1)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    np.testing.assert_allclose(TUNER.probabilities(state, -7.0), 1 / 3)
    with pytest.raises(ValueError, match="terms"):
        relax.ChebCB(2, lower=1.0, upper=1.0)
