"""Networks trained by both iterations, beside the other families, where the bridge is known."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
from bridge_problems import REFERENCE, TIMES, control_error, to_two_clusters

from transport.bridge import (
    DiscreteBridge,
    GaussianBridge,
    Langevin,
    LightSB,
    NeuralBridge,
    Reference,
    fit,
    markovian_fitting,
    proportional_fitting,
)

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

N = 1000


@pytest.fixture(scope="module")
def mixture():
    """The known bridge, and unpaired samples of its ends."""
    true = to_two_clusters()
    x0, other = jax.random.normal(jax.random.key(0), (2, N, 2))
    return true, x0, true.sample(jax.random.key(1), other)


STEPS = 200
# Made once: what is compiled is kept by the optimizer's identity.
ADAM = optax.adam(optax.cosine_decay_schedule(1e-2, STEPS))


def trained(method, reference, x0, x1, iterations=1):
    bridge = NeuralBridge.from_samples(jax.random.key(2), reference, x0, x1, width=32, depth=2)
    return method(
        bridge, x0, x1, ADAM, key=jax.random.key(3), iterations=iterations, steps=STEPS,
        batch_size=128, paths=N, path_steps=25,
    )  # fmt: skip


def test_light_discrete_matching_and_proportional_fitting_agree_on_a_mixture(mixture):
    """The control's error relative to its size, root mean square over points of the true paths."""
    true, x0, x1 = mixture
    # The same reference, as its energy only.
    energy = Langevin(1.0, lambda x: 0.25 * jnp.sum(x**2))
    matched = trained(markovian_fitting, REFERENCE, x0, x1, 4)
    stepped = trained(proportional_fitting, energy, x0, x1, 4)
    light = LightSB.from_samples(jax.random.key(4), REFERENCE, x1, 4)
    bridges = {
        "light": (fit(light, x0, x1, max_steps=60).value, 0.1),
        "discrete": (DiscreteBridge(REFERENCE, x0[:300], x1[:300]), 0.2),
        "markovian": (matched.value, 0.25),
        "proportional": (stepped.value, 0.3),
    }
    assert matched.result == optx.RESULTS.successful
    assert matched.aux.shape == (4, 2, STEPS)
    points = true.simulate(jax.random.key(5), x0[:500], TIMES)
    found = {
        name: float(control_error(bridge, true, points)) for name, (bridge, _) in bridges.items()
    }
    assert all(found[name] < most for name, (_, most) in bridges.items()), found
    # The way back, which the other network goes, leads to the start.
    back = matched.value.reverse.sample(jax.random.key(6), x1, 25)
    assert jnp.max(jnp.abs(jnp.mean(back, axis=0))) < 0.15
    assert jnp.max(jnp.abs(jnp.std(back, axis=0) - 1)) < 0.15


def test_a_second_training_compiles_nothing(mixture, compilations):
    _, x0, x1 = mixture
    trained(markovian_fitting, REFERENCE, x0, x1)
    compilations.clear()
    trained(markovian_fitting, REFERENCE, x1, x0)
    assert not compilations


def test_matching_needs_a_linear_reference_and_so_do_closed_forms(mixture):
    _, x0, x1 = mixture
    wells = Langevin(1.0, lambda x: jnp.sum((x**2 - 1) ** 2))
    with pytest.raises(TypeError, match="use `proportional_fitting`"):
        trained(markovian_fitting, wells, x0, x1)
    with pytest.raises(TypeError, match="Only a `NeuralBridge`"):
        DiscreteBridge(wells, x0, x1)
    with pytest.raises(ValueError, match="one number"):
        Langevin(jnp.ones(2), lambda x: jnp.sum(x**2))


def test_a_start_that_is_not_finite_is_reported(mixture):
    _, x0, x1 = mixture
    assert trained(markovian_fitting, REFERENCE, x0.at[::2].set(jnp.nan), x1).result == (
        optx.RESULTS.nonfinite
    )


def test_paths_have_the_derivative_of_their_steps_with_a_checkpointed_adjoint():
    """The drift is affine, so that Euler's derivative is a product, whatever the noise."""
    bridge = GaussianBridge(jnp.zeros(1), jnp.eye(1), jnp.ones(1), 0.3 * jnp.eye(1), Reference(0.5))
    adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=3)

    def end(x):
        return bridge.simulate(jax.random.key(0), x, [1.0], diffrax.Euler(), 8, adjoint)[0, 0]

    t = jnp.arange(8)[:, None] / 8
    slopes = bridge.drift(t[:, 0], jnp.ones_like(t)) - bridge.drift(t[:, 0], jnp.zeros_like(t))
    np.testing.assert_allclose(
        jax.jit(jax.grad(end))(jnp.ones(1)), jnp.prod(1 + slopes / 8, axis=0), rtol=1e-10
    )
