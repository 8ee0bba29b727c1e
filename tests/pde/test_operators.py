"""Claims about operators: what the layers compute, on any grid, and that they can be trained."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pde
import sciopt
from pde.operators import (
    FNO,
    DeepONet,
    NeuralStagger,
    RandomField,
    SpectralConvolution,
    stagger,
    unstagger,
)


def field(*grid):
    """Two smooth periodic channels in the unit cube, on a grid."""
    ticks = [np.arange(n) / n for n in grid]
    phase = 2 * np.pi * sum((i + 1) * x for i, x in enumerate(np.meshgrid(*ticks, indexing="ij")))
    return jnp.asarray(np.stack([np.sin(phase) + 0.5, np.exp(np.cos(phase))]))


@pytest.mark.parametrize(
    ("modes", "grid"), [((4,), (9,)), ((3, 2), (6, 7)), ((2, 2, 3), (5, 4, 6))]
)
def test_a_spectral_convolution_multiplies_the_low_modes_and_drops_the_rest(modes, grid):
    """Against a sum over wave vectors and points, one at a time."""
    layer = SpectralConvolution(2, 3, modes=modes, key=jax.random.key(0))
    v = jax.random.normal(jax.random.key(1), (2, *grid))
    points = np.stack(np.meshgrid(*[np.arange(n) / n for n in grid], indexing="ij"), axis=-1)
    weight = np.asarray(layer.real) + 1j * np.asarray(layer.imaginary)
    expected = np.zeros((3, *grid))
    for k in np.ndindex(*[2 * m - 1 for m in modes[:-1]], modes[-1]):
        wave = np.array([i if i < m else i - (2 * m - 1) for i, m in zip(k, modes, strict=True)])
        phase = np.exp(2j * np.pi * points @ wave)
        coefficient = np.mean(np.asarray(v) * phase.conj(), axis=tuple(range(1, v.ndim)))
        term = np.multiply.outer(coefficient @ weight[(slice(None), slice(None), *k)], phase)
        # Half of the modes are kept, since the other half is their conjugate.
        expected += np.real(term) * (1 if wave[-1] == 0 else 2)
    np.testing.assert_allclose(layer(v), expected, atol=1e-13)


def test_an_operator_acts_alike_on_every_grid():
    """The fields have a dozen modes: a grid that resolves them gives what a finer one does."""
    fno = FNO(2, 1, modes=[4, 4], width=6, depth=1, projection=8, coordinates=False,
              key=jax.random.key(0))  # fmt: skip
    coarse, fine = fno(field(48, 48)), fno(field(96, 96))
    assert float(jnp.std(coarse)) > 0.01
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, atol=1e-12)


def test_without_coordinates_an_operator_commutes_with_translations():
    fno = FNO(2, 1, modes=[5], width=6, depth=2, coordinates=False, key=jax.random.key(0))
    v = field(32)
    np.testing.assert_allclose(fno(jnp.roll(v, 5, 1)), jnp.roll(fno(v), 5, 1), atol=1e-13)
    placed = FNO(2, 1, modes=[5], width=6, depth=2, key=jax.random.key(0))
    assert float(jnp.abs(placed(jnp.roll(v, 5, 1)) - jnp.roll(placed(v), 5, 1)).max()) > 1e-3


def test_padding_keeps_one_end_from_the_other():
    """A change at the last point reaches the first through the wrap, unless zeros lie between."""
    for padding, reached in ((0.0, True), (1.0, False)):
        fno = FNO(1, 1, modes=[30], width=1, depth=1, coordinates=False, padding=padding,
                  key=jax.random.key(0))  # fmt: skip
        # The kernel of a convolution that differentiates reaches a neighbour or so.
        layer = fno.convolutions[0]
        width = jnp.exp(-0.5 * (jnp.arange(30) / 8) ** 2)[None, None]
        fno = eqx.tree_at(
            lambda f: (f.convolutions[0].real, f.convolutions[0].imaginary),
            fno, (width, jnp.zeros_like(layer.imaginary)),
        )  # fmt: skip
        v = jnp.zeros((1, 64))
        changed = jnp.abs(fno(v.at[0, -1].set(1.0)) - fno(v))[0]
        assert (float(changed[0]) > 0.1 * float(changed[-1])) is reached


def test_an_operator_follows_its_input_s_precision():
    fno = FNO(1, 2, modes=[3], width=4, depth=2, key=jax.random.key(0))
    assert fno(jnp.ones((1, 8), jnp.float32)).dtype == jnp.float32
    assert fno(jnp.ones((1, 8), jnp.float64)).dtype == jnp.float64


def test_what_does_not_fit_is_refused():
    fno = FNO(1, 1, modes=[8], width=4, depth=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"grid of \(14,\) does not resolve"):
        fno(jnp.ones((1, 14)))
    with pytest.raises(ValueError, match="at least one mode"):
        SpectralConvolution(1, 1, modes=[0], key=jax.random.key(0))
    with pytest.raises(ValueError, match="padding"):
        FNO(1, 1, modes=[4], padding=[0.1, 0.2], key=jax.random.key(0))
    with pytest.raises(ValueError, match="needs 17 points"):
        RandomField([1.0], modes=8)(jax.random.key(0), [16])
    with pytest.raises(ValueError, match="mean_free"):
        RandomField([1.0], modes=8, shift=0)


def test_random_fields_have_the_covariance_of_their_law():
    """The covariance is a sum over modes, and 20000 draws are within five errors of it."""
    law = RandomField([2.0], modes=5, scale=3.0, shift=2.0, power=1.5)
    draws = jax.vmap(lambda key: law(key, [12]))(jax.random.split(jax.random.key(0), 20_000))
    k = np.pi * np.arange(-5, 6)
    expected = [
        np.sum(9 * (k**2 + 4) ** -1.5 / 2 * np.cos(k * distance / 6)) for distance in range(12)
    ]
    products = np.asarray(draws[:, :1] * draws)
    error = products.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(products.mean(axis=0) - expected) < 5 * error)


def test_the_same_key_is_the_same_function_on_every_grid():
    law = RandomField([1.0, 3.0], modes=4, mean_free=True, shift=0)
    coarse, fine = law(jax.random.key(1), [9, 10]), law(jax.random.key(1), [27, 20])
    np.testing.assert_allclose(fine[::3, ::2], coarse, atol=1e-13)
    np.testing.assert_allclose(coarse.mean(), 0, atol=1e-13)


def test_a_deeponet_is_a_sum_over_its_basis():
    branch = pde.MLP(7, 12, width=5, depth=1, key=jax.random.key(0))
    trunk = pde.MLP(2, 12, width=5, depth=1, key=jax.random.key(1))
    operator = eqx.tree_at(
        lambda d: d.bias, DeepONet(branch, trunk, out_size=3), jnp.array([1.0, 2.0, 3.0])
    )
    u, y = jnp.arange(7.0) / 7, jnp.array([0.3, -0.2])
    for i in range(3):
        part = slice(4 * i, 4 * i + 4)
        expected = float(branch(u)[part] @ trunk(y)[part]) + i + 1
        np.testing.assert_allclose(operator(u, y)[i], expected, rtol=1e-12)


def test_an_operator_learns_the_heat_equation_from_the_equation_s_solutions():
    """exp(0.05 d/dxx) on random fields, in mini-batches; judged on a finer grid than trained."""
    law = RandomField([2 * np.pi], modes=6, scale=1.0, shift=1.0, power=1.0)

    def solve(u):
        k = jnp.asarray(np.fft.rfftfreq(u.size, 1 / u.size))
        return jnp.fft.irfft(jnp.fft.rfft(u) * jnp.exp(-0.05 * k**2), u.size)

    def draw(key, params, count=16, points=16):
        starts = jax.vmap(lambda k: law(k, [points]))(jax.random.split(key, count))
        return {"data": jnp.stack([starts, jax.vmap(solve)(starts)], axis=1)}

    fno = FNO(1, 1, modes=[7], width=8, depth=1, projection=16, coordinates=False,
              activation=jnp.tanh, key=jax.random.key(0))  # fmt: skip
    params, static = eqx.partition(fno, eqx.is_inexact_array)

    def miss(params, pair):
        return (eqx.combine(params, static)(pair[:1]) - pair[1:])[0]

    residuals = sciopt.Residuals({"data": miss})
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, 1500))
    fit = sciopt.Fit(residuals, adam, draw, jax.random.key(1), redraw=True)
    state = fit.advance(fit.init(params), 1500)
    fresh = draw(jax.random.key(2), None, count=64, points=48)
    error = residuals(state.params, fresh)["data"]
    assert float(jnp.linalg.norm(error) / jnp.linalg.norm(fresh["data"][:, 1])) < 0.02


# --- staggered networks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "grid", "factors"),
    [((), (12,), (3,)), ((2,), (8, 6), (2, 3)), ((3, 1), (4, 2, 6), (2, 1, 3))],
)
def test_pieces_of_a_field_are_its_strides_and_make_it_again_exactly(batch, grid, factors):
    v = np.random.default_rng(0).normal(size=(*batch, *grid))
    pieces = stagger(jnp.asarray(v), factors)
    for piece, offset in zip(pieces, np.ndindex(*factors), strict=True):
        for index in np.ndindex(*piece.shape[len(batch) :]):
            fine = tuple(a * i + o for a, i, o in zip(factors, index, offset, strict=True))
            np.testing.assert_array_equal(piece[(..., *index)], v[(..., *fine)])
    np.testing.assert_array_equal(unstagger(pieces, factors), v)


def test_factors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(9,\) does not part into \(2,\)"):
        stagger(jnp.ones(9), [2])
    with pytest.raises(ValueError, match="3 pieces are not those"):
        unstagger(jnp.ones((3, 4)), [2])
    with pytest.raises(ValueError, match="from 1 up"):
        NeuralStagger(lambda key: jnp.sin, [0], 2, key=jax.random.key(0))


def test_the_defect_of_staggered_networks_vanishes_for_the_fine_solver_s_states_alone():
    """Heat with a source, whose exact coarse solutions are put in the networks' place."""
    n, times, dt, decay = 32, 3, 0.05, 0.02
    waves = 2 * np.pi * np.fft.rfftfreq(n, 1 / n)
    symbol = np.where(waves < 2 * np.pi * n / 4, -decay * waves**2, 0)  # what a piece resolves

    def exact(u, source, t, points):
        z = symbol[: points // 2 + 1] * t
        growth = np.where(z == 0, t, np.expm1(z) / np.where(symbol == 0, 1, symbol)[: len(z)])
        modes = jnp.fft.rfft(u) * np.exp(z) + jnp.fft.rfft(source) * growth
        return jnp.fft.irfft(modes, points)

    def network(known):
        ends = dt * np.arange(1, times + 1)
        states = jnp.stack([exact(known[0], known[1], t, n // 2) for t in ends])
        return (states - known[0]) * (times / np.arange(1, times + 1))[:, None]

    phase = 2 * np.pi * np.arange(n) / n
    start, source = (jnp.asarray(np.sin(phase + 1) + a * np.sin(3 * phase)) for a in (0.4, -0.7))
    solver = NeuralStagger(lambda key: network, [2], times, shared=True, key=jax.random.key(0))

    def advance(u):
        return exact(u[0], source, dt, n)[None]

    given = (start[None], source[None])
    assert float(jnp.abs(solver.defect(advance, *given)).max()) < 1e-13
    other = eqx.tree_at(lambda s: s.networks, solver, lambda known: 1.001 * network(known))
    # Each step misses by a thousandth of what changes in it, and K of them make the whole.
    wrong = solver(*given)[-1] - start
    found = other.defect(advance, *given)
    np.testing.assert_allclose(jnp.abs(found).max(), 1e-3 * jnp.abs(wrong).max(), rtol=0.5)


def test_each_piece_has_a_network_of_its_own_unless_they_share_one(compiled_in_haste):
    def network(key):
        return FNO(2, 2, modes=[2], width=3, depth=1, projection=4, coordinates=False, key=key)

    v = jax.random.normal(jax.random.key(1), (1, 12))
    given = jnp.cos(v)
    own = NeuralStagger(network, [3], 2, key=jax.random.key(0))
    changed = eqx.tree_at(
        lambda s: s.networks.project.weight, own, replace_fn=lambda w: w.at[1].add(1.0)
    )
    one = NeuralStagger(network, [3], 2, shared=True, key=jax.random.key(0))

    @jax.jit
    def found():
        alone = one.piece(stagger(v, [3])[2], 2, stagger(given, [3])[2])
        moved = one(jnp.roll(v, 1, 1), jnp.roll(given, 1, 1))
        return own(v, given), changed(v, given), one(v, given), moved, alone

    states, others, whole, moved, alone = found()
    assert states.shape == (2, 1, 12)
    differs = stagger(jnp.abs(others - states), [3]).max(axis=(1, 2, 3)) > 0
    assert differs.tolist() == [False, True, False]
    # One network for all: a start that is moved by a fine point is moved by so much later on.
    np.testing.assert_allclose(moved, jnp.roll(whole, 1, 2), atol=1e-13)
    np.testing.assert_allclose(alone, stagger(whole, [3])[2], atol=1e-13)
