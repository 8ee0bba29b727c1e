"""Claims about phase fields: the functional, its minimisers, and what momentum is good for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pde
import sciopt

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


def descend(energy, optimizer, u, steps):
    """Where `steps` steps lead, and the energy before each of them."""

    def step(both, _):
        u, state = both
        updates, state = optimizer.update(energy.gradient(u), state, u)
        return (optax.apply_updates(u, updates), state), energy(u)

    (u, _), energies = jax.lax.scan(step, (u, optimizer.init(u)), None, length=steps)
    return jnp.asarray(u), np.asarray(energies)


def moons(seed, each=200):
    """Two half circles that reach into each other, and which one a point is of."""
    rng = np.random.default_rng(seed)
    angle = np.pi * rng.uniform(size=(2, each))
    upper = np.stack([np.cos(angle[0]), np.sin(angle[0])], 1)
    lower = np.stack([1 - np.cos(angle[1]), 0.5 - np.sin(angle[1])], 1)
    points = np.concatenate([upper, lower]) + 0.1 * rng.normal(size=(2 * each, 2))
    return points, np.repeat([1.0, -1.0], each)


@pytest.mark.parametrize("where", ["torus", "graph"])
def test_the_gradient_and_the_resolvent_are_what_they_say(where):
    rng = np.random.default_rng(0)
    if where == "torus":
        diffusion, shape = pde.Torus([2.0, 3.0], [8, 9]), (8, 9)
    else:
        weights = rng.uniform(size=(7, 7))
        diffusion, shape = pde.Graph(jnp.asarray(weights + weights.T)), (7,)
    u, g = (jnp.asarray(rng.normal(size=shape)) for _ in range(2))
    energy = pde.GinzburgLandau(diffusion, 0.3, labels=g, fidelity=jnp.abs(g))
    by_jax = jax.grad(energy)(u) / diffusion.measure
    np.testing.assert_allclose(energy.gradient(u), by_jax, atol=1e-11)
    inverse = diffusion.resolvent(1.3, 0.4, g)
    np.testing.assert_allclose(1.3 * inverse + 0.4 * diffusion.apply(inverse), g, atol=1e-12)


def test_two_interfaces_cost_what_modica_and_mortola_say():
    """On a line: two transitions tanh(x / (sqrt(2) width)) of energy 2*sqrt(2)/3 each."""
    width, n = 0.04, 256
    x = jnp.arange(n) / n
    energy = pde.GinzburgLandau(pde.Torus([1.0], [n]), width)
    optimizer = sciopt.nesterov(0.2, energy.precondition(0.2))
    u, _ = descend(energy, optimizer, jnp.where(jnp.abs(x - 0.5) < 0.25, 1.0, -1.0), 300)
    assert float(energy(u)) == pytest.approx(4 * np.sqrt(2) / 3, abs=1e-6)
    # The start changes its sign half a point before it would leave the middle half.
    profile = jnp.tanh((0.25 - 0.5 / n - jnp.abs(x - 0.5)) / (np.sqrt(2) * width))
    assert float(jnp.abs(u - profile).max()) < 1e-3


def test_without_momentum_no_step_is_so_long_that_the_energy_rises():
    energy = pde.GinzburgLandau(pde.Torus([1.0, 1.0], [24, 24]), 0.05)
    u = jax.random.uniform(jax.random.key(0), (24, 24), minval=-1.0)
    for step in (0.01, 1.0, 100.0):
        _, energies = descend(
            energy, sciopt.nesterov(step, energy.precondition(step), momentum=0.0), u, 60
        )
        assert np.all(np.diff(energies) <= 1e-12)
        assert energies[-1] < 0.5 * energies[0]


def test_a_disc_shrinks_by_its_curvature_and_faster_with_momentum():
    """Without momentum, and in short steps, the area falls by 2*pi*width in a unit of time."""
    n, width, radius = 48, 0.03, 0.3
    x = jnp.arange(n) / n - 0.5
    away = jnp.sqrt(x[:, None] ** 2 + x[None] ** 2)
    start = jnp.tanh((radius - away) / (np.sqrt(2) * width))
    energy = pde.GinzburgLandau(pde.Torus([1.0, 1.0], [n, n]), width)

    def area(u):
        return float(jnp.mean(u + 1) / 2)

    step = 2e-4
    plain = sciopt.nesterov(step, energy.precondition(step), momentum=0.0)
    half, _ = descend(energy, plain, start, 1000)
    whole, _ = descend(energy, plain, half, 1000)
    rate = (area(half) - area(whole)) / (1000 * step)
    assert rate == pytest.approx(2 * np.pi * width, rel=0.05)
    # In long steps: how many until nothing is left of it.
    step = 0.1
    spent = {}
    for name, momentum in (("plain", 0.0), ("momentum", 0.9)):
        optimizer = sciopt.nesterov(step, energy.precondition(step), momentum=momentum)
        _, energies = descend(energy, optimizer, start, 200)
        assert energies[-1] < 1e-6
        spent[name] = int(np.argmax(energies < 0.01 * energies[0]))
    assert spent["momentum"] < 0.6 * spent["plain"]


@pytest.mark.parametrize("seed", range(4))
def test_two_moons_are_parted_from_four_labels_of_each(seed):
    """Weights by Zelnik-Manor and Perona's local scales; the nearest label parts them worse."""
    points, truth = moons(seed)
    squares = np.sum((points[:, None] - points[None]) ** 2, -1)
    scale = np.sqrt(np.sort(squares, 1)[:, 10])
    weights = np.exp(-squares / (scale[:, None] * scale))
    np.fill_diagonal(weights, 0)
    given = np.arange(0, 400, 50)
    labels, fidelity = np.zeros(400), np.zeros(400)
    labels[given], fidelity[given] = truth[given], 30.0
    graph = pde.Graph(jnp.asarray(weights), modes=20)
    energy = pde.GinzburgLandau(graph, 4.0, jnp.asarray(labels), jnp.asarray(fidelity))
    optimizer = sciopt.nesterov(0.3, energy.precondition(0.3))
    u, energies = descend(energy, optimizer, graph.vectors @ (graph.vectors.T @ labels), 300)
    assert energies[-1] < energies[0]
    nearest = np.mean(truth[given][np.argmin(squares[:, given], 1)] == truth)
    right = np.mean(np.sign(u) == truth)
    assert nearest < 0.96
    assert right > 0.99


def test_a_graph_that_is_none_is_refused():
    with pytest.raises(ValueError, match="symmetric"):
        pde.Graph(jnp.array([[0.0, 1.0], [0.5, 0.0]]))
    with pytest.raises(ValueError, match="Point 1 of the graph has no neighbour"):
        pde.Graph(jnp.array([[1.0, 0.0], [0.0, 0.0]]))
