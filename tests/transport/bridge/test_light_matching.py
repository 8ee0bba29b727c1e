"""LightSB-M: matching estimates the closed-form objective, and finds its optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest

from transport.bridge import (
    Diagonal,
    DiscreteBridge,
    GaussianBridge,
    LightSB,
    Reference,
    SumExpQuadratic,
    fit,
)
from transport.bridge._descent import descend

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

REFERENCES = {
    "brownian": Reference(0.8),
    # Each coordinate on a clock of its own.
    "ornstein_uhlenbeck": Reference(jnp.array([0.5, 2.0]), jnp.array([1.0, -0.5]), 0.3),
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("pairing", ["independent", "opposite"])
def test_matching_estimates_the_objective_whatever_the_pairing(name, pairing):
    r, logs = jax.random.normal(jax.random.key(2), (2, 3, 2))
    potential = SumExpQuadratic(logs[:, 0], r, Diagonal(0.5 * logs - 0.5))
    bridge = LightSB(REFERENCES[name], potential)
    x0, x1 = jax.random.normal(jax.random.key(0), (2, 64, 2))
    x1 = x1 + 1
    if pairing == "opposite":
        x0, x1 = x0[jnp.argsort(x0[:, 0])], x1[jnp.argsort(-x1[:, 0])]
    keys = jax.random.split(jax.random.key(1), 2000)
    draws = jax.jit(jax.vmap(lambda key: bridge.matching_objective(key, x0, x1)))(keys)
    error = float(jnp.std(draws)) / len(draws) ** 0.5
    assert error < 0.02
    np.testing.assert_allclose(jnp.mean(draws), bridge.objective(x0, x1), atol=4 * error)


REFERENCE = Reference(1.0, 0.5)
COUPLINGS = {
    "independent": None,
    "minibatch plan": lambda key, x0, x1: DiscreteBridge(REFERENCE, x0, x1).sample(key, x0),
}


@pytest.mark.parametrize("name", COUPLINGS)
def test_matching_finds_the_closed_form_from_any_coupling(name):
    one, variance = jnp.array([1.0, -1.0]), jnp.array([1.0, 0.4])
    true = GaussianBridge(-one, jnp.eye(2), one, jnp.diag(variance), REFERENCE)
    start, end, key = jax.random.split(jax.random.key(0), 3)
    x0 = true.sample_start(start, 20_000)
    x1 = one + jnp.sqrt(variance) * jax.random.normal(end, (20_000, 2))
    begin = LightSB.from_samples(start, REFERENCE, x1, 1, variance=1.0)
    steps = 400
    adam = optax.adam(optax.cosine_decay_schedule(0.05, steps))
    solution = fit(
        begin, x0, x1, adam, key=key, batch_size=64, max_steps=steps,
        loss="matching_objective", coupling=COUPLINGS[name],
    )  # fmt: skip
    assert solution.result == optx.RESULTS.successful
    points = x0[:100]
    means, covariances = solution.value.conditional_moments(points)
    wanted, covariance = true.conditional(points)
    spread = jnp.sqrt(jnp.mean((wanted - one) ** 2))
    far = jnp.sqrt(jnp.mean((begin.conditional_moments(points)[0] - wanted) ** 2)) / spread
    assert far > 0.5
    assert jnp.sqrt(jnp.mean((means - wanted) ** 2)) / spread < 0.06
    np.testing.assert_allclose(covariances[0], covariance, atol=0.04)


def test_batches_need_a_key_and_steps_that_are_not_finite_are_not_taken():
    x0, x1 = jax.random.normal(jax.random.key(0), (2, 50, 2))
    begin = LightSB.from_samples(jax.random.key(1), 1.0, x1, 2)
    with pytest.raises(ValueError, match="drawn with a `key`"):
        fit(begin, x0, x1, optax.adam(1e-2))
    with pytest.raises(ValueError, match="a transformation of optax"):
        fit(begin, x0, x1, loss="matching_objective")
    broken = fit(begin, x0.at[7].set(jnp.nan), x1, optax.adam(1e-2), key=jax.random.key(2),
                 batch_size=5, max_steps=40)  # fmt: skip
    assert broken.result == optx.RESULTS.nonfinite
    assert 0 < int(jnp.sum(jnp.isfinite(broken.aux))) < 40
    assert bool(jnp.all(jnp.isfinite(broken.value.potential.r)))
    assert bool(jnp.any(broken.value.potential.r != begin.potential.r))


def test_the_average_that_is_returned_forgets_faster_at_first():
    """On a slope of 1 with steps of 1 the parameter counts down; the averages by hand."""
    solution = descend(lambda p, _: p, jnp.zeros(()), optax.sgd(1.0), jax.random.key(0), 20, 0.5)
    mean = 0.0
    for step in range(20):
        mean += (1 - min(0.5, (1 + step) / (10 + step))) * (-(step + 1) - mean)
    np.testing.assert_allclose(solution.value, mean, rtol=1e-12)
    np.testing.assert_allclose(solution.aux, -np.arange(20))
