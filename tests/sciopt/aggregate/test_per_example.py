"""Claims about Gramians of per-example gradients: exact, and without the Jacobian."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from sciopt.aggregate import AbstractAggregator, Mean, iwrm, per_example_gramian
from sciopt.aggregate._products import find_products


def dense(loss, params, batch):
    """The Gramian by the Jacobian itself: one reverse pass an example, flattened."""
    diff, rest = eqx.partition(params, eqx.is_inexact_array)

    def row(example):
        return ravel_pytree(jax.grad(lambda p: loss(eqx.combine(p, rest), example))(diff))[0]

    rows = jax.vmap(row)(batch)
    return rows @ rows.T


def key(i):
    return jax.random.key(i)


def regression(n, d_in, d_out):
    return jax.random.normal(key(1), (n, d_in)), jax.random.normal(key(2), (n, d_out))


def square(net, xy):
    return jnp.mean((net(xy[0]) - xy[1]) ** 2)


class Twice(eqx.Module):
    """One layer that is applied twice, and its matrix once more transposed."""

    layer: eqx.nn.Linear

    def __call__(self, x):
        x = jnp.tanh(self.layer(jnp.tanh(self.layer(x))))
        return x @ self.layer.weight + self.layer.weight.T @ x


class Tokens(eqx.Module):
    """A layer over a sequence, a normalisation, an embedding, a gated product, a convolution."""

    embed: eqx.nn.Embedding
    layer: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    conv: eqx.nn.Conv1d
    scale: jax.Array

    def __init__(self):
        a, b, c = jax.random.split(key(7), 3)
        self.embed = eqx.nn.Embedding(11, 24, key=a)
        self.layer = eqx.nn.Linear(24, 24, key=b)
        self.norm = eqx.nn.LayerNorm(24)
        self.conv = eqx.nn.Conv1d(2, 3, 3, key=c)
        self.scale = jnp.array(0.7)

    def __call__(self, tokens):
        x = jax.vmap(self.embed)(tokens)
        x = jax.vmap(self.norm)(jax.nn.silu(jax.vmap(self.layer)(x)))
        return self.scale * self.conv(x).sum(axis=1)


def tokens_loss(net, xy):
    return jnp.sum((net(xy[0]) - xy[1]) ** 2)


def scanned(params, xy):
    def step(h, _):
        return jnp.tanh(params["w"] @ h), None

    h, _ = jax.lax.scan(step, xy[0], None, length=3)
    return jnp.sum((params["v"] @ h - xy[1]) ** 2) + jnp.sum(jnp.abs(params["v"]))


def pinn_residual(net, xy):
    """Weights appear in the value and in each of its derivatives, some of them by reverse mode."""

    def u(x):
        return net(x)[0]

    du = jax.grad(u)(xy[0])
    d2u = jax.jvp(jax.grad(u), (xy[0],), (jnp.eye(2)[0],))[1][0]
    return (du[1] + u(xy[0]) * du[0] - 0.1 * d2u) ** 2


def mlp(*sizes, activation=jax.nn.relu):
    return eqx.nn.MLP(sizes[0], sizes[-1], sizes[1], len(sizes) - 2, activation, key=key(0))


CASES = {
    "mlp": (square, mlp(8, 32, 32, 4), regression(13, 8, 4)),
    "softplus": (square, mlp(8, 32, 4, activation=jax.nn.softplus), regression(13, 8, 4)),
    "shared": (square, Twice(eqx.nn.Linear(40, 40, key=key(3))), regression(13, 40, 40)),
    "tokens": (
        tokens_loss,
        Tokens(),
        (jax.random.randint(key(4), (13, 2), 0, 11), jnp.ones((13, 3))),
    ),
    "scan": (
        scanned,
        {"w": jax.random.normal(key(5), (9, 9)), "v": jnp.ones((2, 9))},
        regression(13, 9, 2),
    ),
    "pinn": (
        pinn_residual,
        mlp(2, 64, 64, 1, activation=jnp.tanh),
        regression(13, 2, 1),
    ),
}  # fmt: skip


def assert_gramian(name, **options):
    loss, params, batch = CASES[name]
    found = jax.jit(lambda b: per_example_gramian(loss, params, b, **options))(batch)
    expected = jax.jit(lambda b: dense(loss, params, b))(batch)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * float(jnp.max(expected)))


@pytest.mark.parametrize("name", CASES)
def test_gramian_equals_the_dense_one_to_1e_12(name):
    assert_gramian(name)


@pytest.mark.parametrize("structure", [True, False], ids=["factored", "full"])
@pytest.mark.parametrize("memory", [1, 30_000])
def test_blocks_that_do_not_divide_the_batch_change_nothing(memory, structure):
    assert_gramian("mlp", memory=memory, structure=structure)


def test_products_are_found_wherever_a_matrix_is_used():
    loss, params, batch = CASES["shared"]
    leaves, tree = jax.tree.flatten(eqx.filter(params, eqx.is_inexact_array))
    static = eqx.filter(params, eqx.is_inexact_array, inverse=True)
    found = find_products(
        lambda p, xy: loss(eqx.combine(jax.tree.unflatten(tree, p), static), xy),
        leaves,
        jax.tree.map(lambda x: x[0], batch),
    )
    # Twice as W x; then x @ W and W^T x, which contract the matrix's other axis.
    assert [p.contracted for p in found.products] == [1, 1, 0, 0]
    assert {p.leaf for p in found.products} == found.pure


def test_a_matrix_used_in_another_way_too_is_differentiated_in_full():
    loss, params, batch = CASES["scan"]
    leaves = jax.tree.leaves(params)
    found = find_products(
        lambda p, xy: loss({"v": p[0], "w": p[1]}, xy),
        leaves,
        jax.tree.map(lambda x: x[0], batch),
    )
    assert found.pure == frozenset()


def temporary(fn, *args):
    analysis = jax.jit(fn).lower(*args).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


@pytest.mark.parametrize(
    ("options", "factor"),
    [({}, 8), ({"structure": False, "memory": 2**24}, 5)],
    ids=["factored", "blocks"],
)
def test_1024_examples_need_a_fraction_of_the_memory_of_their_jacobian(options, factor):
    params = mlp(64, 128, 128, 10)
    batch = regression(1024, 64, 10)
    plain = temporary(lambda b: dense(square, params, b), batch)
    ours = temporary(lambda b: per_example_gramian(square, params, b, **options), batch)
    parameters = ravel_pytree(eqx.filter(params, eqx.is_array))[0].size
    assert plain > 1024 * parameters * 8
    assert plain > factor * ours


def test_update_of_iwrm_is_the_weighted_sum_of_gradients_and_trains():
    loss, params, batch = CASES["mlp"]

    class Slowest(Mean):
        """Weights by the size of the gradient: a function of the Gramian that is not constant."""

        def weights(self, gramian, *, key=None):
            return jnp.diag(gramian) / jnp.trace(gramian)

    step = jax.jit(lambda p: iwrm(loss, Slowest())(eqx.combine(p, static), batch))
    trained, static = eqx.partition(params, eqx.is_inexact_array)
    values, update = step(trained)
    rows = jax.vmap(lambda xy: eqx.filter_grad(lambda p: loss(p, xy))(params))(batch)
    size = jnp.diag(dense(loss, params, batch))
    expected = jax.tree.map(lambda r: jnp.tensordot(size / size.sum(), r, 1), rows)
    for have, want in zip(jax.tree.leaves(update), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(have, want, rtol=0, atol=1e-13)
    np.testing.assert_allclose(values, jax.vmap(lambda xy: loss(params, xy))(batch), rtol=1e-14)

    optimizer = optax.adam(1e-2)
    state = optimizer.init(trained)
    for _ in range(30):
        _, update = step(trained)
        updates, state = optimizer.update(update, state)
        trained = optax.apply_updates(trained, updates)
    assert step(trained)[0].mean() < 0.5 * values.mean()


def test_mistakes_are_told_in_words():
    loss, params, batch = CASES["mlp"]
    with pytest.raises(ValueError, match="share a leading axis"):
        per_example_gramian(loss, params, (batch[0], batch[1][:5]))
    with pytest.raises(ValueError, match="share a leading axis"):
        per_example_gramian(loss, params, (batch[0][:0], batch[1][:0]))
    with pytest.raises(TypeError, match="must be a real scalar"):
        per_example_gramian(lambda net, xy: net(xy[0]), params, batch)
    with pytest.raises(ValueError, match="no floating-point arrays"):
        per_example_gramian(loss, {"n": 3}, batch)

    class Whole(AbstractAggregator):
        def update(self, jacobian, state, *, key=None):
            return jacobian, state

    with pytest.raises(TypeError, match="Whole needs the Jacobian itself"):
        iwrm(loss, Whole())  # pyright: ignore[reportArgumentType]
