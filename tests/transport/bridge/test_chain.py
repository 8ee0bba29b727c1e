"""Several snapshots, against a multi-marginal Sinkhorn on the whole tensor of three times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transport.bridge import BridgeChain, DiscreteBridge, GaussianBridge, Langevin, Reference

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

TIMES = (0.5, 1.0, 2.5)


def test_the_chain_is_the_multi_marginal_plan():
    """Sinkhorn on the tensor of three times, whose kernel is the reference's joint law."""
    x = jax.random.normal(jax.random.key(0), (3, 9, 1)) + jnp.array([0, 1.5, -0.5])[:, None, None]
    kernels = [
        np.exp(-((x[k] - x[k + 1].T) ** 2) / (2 * 0.6 * (TIMES[k + 1] - TIMES[k]))) for k in (0, 1)
    ]
    plan = kernels[0][:, :, None] * kernels[1][None]
    for sweep in range(600):
        axis = sweep % 3
        mass = plan.sum(axis=tuple({0, 1, 2} - {axis}), keepdims=True)
        plan = plan / (9 * mass)
    chain = BridgeChain.from_snapshots(DiscreteBridge, 0.6, TIMES, list(x))
    n = 20_000
    middle, end = chain.simulate(jax.random.key(1), jnp.broadcast_to(x[0, 4], (n, 1)), TIMES[1:])
    joint = plan[4] / plan[4].sum()
    found = np.zeros((9, 9))
    which = [
        np.argmin(np.abs(points - x[k][:, 0]), axis=1) for k, points in ((1, middle), (2, end))
    ]
    np.add.at(found, tuple(which), 1 / n)
    # Four and a half standard errors, for 81 cells.
    assert np.all(np.abs(found - joint) <= 4.5 * np.sqrt(joint * (1 - joint) / n) + 1e-4)


def test_paths_and_drift_meet_at_the_snapshots():
    reference = Reference(0.6, 0.4)
    means, covariances = (
        jnp.array([[0.0], [2.0], [-1.0]]),
        jnp.array([1.0, 0.3, 0.7])[:, None, None],
    )

    def of(reference, k):
        one, other = (means[k], covariances[k]), (means[k + 1], covariances[k + 1])
        return GaussianBridge(*one, *other, reference)

    first, second = of(reference.over(0.5), 0), of(reference.over(1.5), 1)
    chain = BridgeChain(TIMES, [first, second])
    x0 = jax.random.normal(jax.random.key(0), (20_000, 1))
    paths = chain.simulate(jax.random.key(1), x0, [0.5, 1.0, 1.75, 2.5])
    np.testing.assert_allclose(paths[0], x0, atol=1e-12)
    middle = second.marginal(0.5)
    for points, mean, variance in (
        (paths[1], means[1], 0.3), (paths[2], middle[0], middle[1][0, 0]), (paths[3], means[2], 0.7)
    ):  # fmt: skip
        assert abs(jnp.mean(points) - mean[0]) < 4 * jnp.sqrt(variance / 20_000)
        assert abs(jnp.var(points) / variance - 1) < 4 * jnp.sqrt(2 / 20_000)
    x = x0[:3]
    slopes = chain.drift(jnp.array([0.6, 1.0, 2.0]), x)
    np.testing.assert_allclose(slopes[0], first.drift(0.2, x[0]) / 0.5, rtol=1e-12)
    np.testing.assert_allclose(slopes[1], second.drift(0.0, x[1]) / 1.5, rtol=1e-12)
    np.testing.assert_allclose(slopes[2], second.drift(1 / 1.5, x[2]) / 1.5, rtol=1e-12)


def test_times_that_do_not_fit_are_refused():
    bridge = GaussianBridge(jnp.zeros(1), jnp.eye(1), jnp.zeros(1), jnp.eye(1))
    with pytest.raises(ValueError, match="2 times for 2 bridges"):
        BridgeChain([0, 1], [bridge, bridge])
    with pytest.raises(ValueError, match="must ascend"):
        BridgeChain([0, 0], [bridge])
    with pytest.raises(RuntimeError, match="must ascend within"):
        BridgeChain([0, 2], [bridge]).simulate(jax.random.key(0), jnp.zeros((1, 1)), [3.0])
    wells = Langevin(0.5, lambda x: jnp.sum(x**4)).over(2.0)
    np.testing.assert_allclose(wells.drift(jnp.array([1.0])), -8)
    assert float(wells.epsilon) == 1
