"""Expectation-maximisation against the gradient of what it minimises, and where it cannot end."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import sciopt
from transport.bridge import ExpectationMaximisation, LightSB, Reference, fit

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


# Made once: a fit is compiled for each tolerance.
SOLVER = ExpectationMaximisation(1e-13)


@pytest.fixture(scope="module")
def samples():
    """A Gaussian and two clusters; more points than a block holds, and no multiple of it."""
    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(2, 2100, 2))
    x1 = np.where(np.arange(2100)[:, None] < 700, [2.0, 0.0], [-1.0, 1.0]) + 0.4 * noise
    return jnp.asarray(x0), jnp.asarray(x1)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_it_ends_where_the_gradient_is_zero(kind, samples):
    x0, x1 = samples
    reference = Reference(jnp.array([0.3, 0.5]), 0.4)
    begin = LightSB.from_samples(jax.random.key(3), reference, x1, 2, covariance=kind)
    solution = fit(begin, x0, x1, SOLVER)
    assert solution.result == optx.RESULTS.successful
    slope = jax.jit(jax.grad(lambda p: LightSB(reference, p).objective(x0, x1)))
    for early, late in zip(
        jax.tree.leaves(slope(begin.potential)), jax.tree.leaves(slope(solution.value.potential)),
        strict=True,
    ):  # fmt: skip
        assert jnp.max(jnp.abs(early)) > 1e-2
        assert jnp.max(jnp.abs(late)) < 1e-5
    # The last block is a part of one.
    np.testing.assert_allclose(solution.aux, solution.value.objective(x0, x1), rtol=1e-12)


def test_it_goes_down_where_whole_steps_would_not(samples):
    """With little noise shares are steep functions of the components, and whole steps overshoot."""
    x0, x1 = samples
    bridge, values, parts = LightSB.from_samples(jax.random.key(3), 0.02, x1, 30), [], []
    units = bridge.reference.to_unit(0, x0), bridge.reference.to_unit(1, x1)
    objective = sciopt.Objective(lambda p, units: LightSB(1.0, p).objective(*units))
    steps = sciopt.Fit(objective, SOLVER, lambda *_: units, jax.random.key(0))
    state = steps.init(bridge.potential)
    for _ in range(32):
        state = steps.advance(state, 1)
        values.append(float(state.loss))
        parts.append(float(state.inner.part))
    assert values == sorted(values, reverse=True)
    assert min(parts) < 1
    # In one program the steps are the same, up to rounding that they amplify.
    whole = fit(bridge, x0, x1, SOLVER, max_steps=32)
    assert whole.result == optx.RESULTS.nonlinear_max_steps_reached
    np.testing.assert_allclose(whole.aux, values[-1], rtol=1e-8)


def test_what_has_no_minimum_is_said_to_diverge(samples):
    """As many components as samples: each shrinks to its own, and the objective has no bound."""
    x0, x1 = samples
    begin = LightSB.from_samples(jax.random.key(4), 0.3, x1[:20], 20)
    solution = fit(begin, x0, x1[:20], SOLVER)
    assert solution.result == optx.RESULTS.nonlinear_divergence
    assert bool(jnp.all(jnp.isfinite(solution.value.sample(jax.random.key(5), x0))))
    broken = fit(begin, x0.at[3].set(jnp.nan), x1[:20], SOLVER)
    assert broken.result == optx.RESULTS.nonfinite


def test_low_rank_has_no_closed_form(samples):
    x0, x1 = samples
    begin = LightSB.from_samples(jax.random.key(6), 0.3, x1, 3, covariance="low_rank")
    with pytest.raises(TypeError, match="Only diagonal and full"):
        fit(begin, x0, x1, SOLVER)
