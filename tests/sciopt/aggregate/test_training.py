"""Claims about training on several objectives: Jacobian, optax adaptor, devices, the loop."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from sciopt.aggregate import (
    AbstractAggregator,
    Mean,
    combine,
    jacobian_descent,
    multi_task_jacobian,
    value_and_jacobian,
)


class Rotating(AbstractAggregator):
    """A stand-in with all that an aggregator may have: one number an objective, and a draw."""

    def init(self, jacobian):
        leaf = jax.tree.leaves(jacobian)[0]
        return jnp.zeros(leaf.shape[0], leaf.dtype)

    def update(self, jacobian, state, *, key=None):
        assert key is not None
        weights = jax.random.uniform(key, state.shape, state.dtype)
        state = 0.9 * state + 0.1 * weights
        return combine(state, jacobian), state


# --- the Jacobian ---------------------------------------------------------------------------------


def losses(p, x):
    h = jnp.tanh(p["w"] @ x)
    return {"b": (h**2).sum(), "a": jnp.sin(p["v"]).sum(), "c": h.sum() * p["v"][0]}


def params():
    return {"w": jax.random.normal(jax.random.key(0), (4, 3)), "v": jnp.arange(2.0)}


def test_rows_are_the_gradients_in_the_order_of_sorted_names():
    p, x = params(), jnp.array([0.3, -0.5, 1.0])
    value, jacobian = jax.jit(value_and_jacobian(losses))(p, x)
    assert value == losses(p, x)
    for i, name in enumerate(sorted(value)):
        gradient = jax.grad(lambda p, name=name: losses(p, x)[name])(p)
        row = jax.tree.map(lambda leaf, i=i: leaf[i], jacobian)
        np.testing.assert_allclose(ravel_pytree(row)[0], ravel_pytree(gradient)[0], atol=1e-15)


def test_a_vector_of_objectives_gives_what_jacrev_gives():
    p = params()

    def fn(p):
        return jnp.tanh(p["w"]) @ jnp.ones(3)

    _, jacobian = value_and_jacobian(fn)(p)
    expected = jax.jacrev(fn)(p)
    np.testing.assert_allclose(jacobian["w"], expected["w"], atol=1e-15)
    np.testing.assert_array_equal(jacobian["v"], 0)


def test_aux_passes_and_what_is_no_float_is_left_alone():
    model = eqx.nn.MLP(2, 2, 3, 1, key=jax.random.key(0))
    (value, aux), jacobian = value_and_jacobian(lambda m, x: (tuple(m(x)), "beside"), has_aux=True)(
        model, jnp.ones(2)
    )
    assert aux == "beside"
    assert len(value) == 2
    assert jacobian.layers[0].weight.shape == (2, 3, 2)
    assert jacobian.activation is None


def test_what_is_no_objective_is_refused():
    with pytest.raises(TypeError, match="real and floating; got int"):
        value_and_jacobian(lambda p: jnp.array([1, 2]))(jnp.ones(2))
    with pytest.raises(TypeError, match="no objectives"):
        value_and_jacobian(lambda p: {})(jnp.ones(2))


def test_objectives_that_share_nothing_cost_what_their_sum_costs():
    """Eight networks' losses: a batched reverse pass would take eight times the arithmetic."""
    weights = [jnp.full((32, 32), 0.1)] * 2

    def blocks(w):
        return {str(i): jnp.sum(jnp.tanh((i + x) @ w[0]) @ w[1]) for i in range(8)}

    x = jnp.linspace(0, 1, 64 * 32).reshape(64, 32)

    def flops(fn):
        analysis: Any = jax.jit(fn).lower(weights).compile().cost_analysis()
        return analysis["flops"]

    together = flops(jax.value_and_grad(lambda w: sum(blocks(w).values())))
    assert flops(value_and_jacobian(blocks)) < 1.1 * together


def test_tasks_share_the_jacobian_of_the_trunk_and_keep_their_own_gradients():
    """Against the Jacobian of the whole: its columns for the trunk, its diagonal for the heads."""
    x = jnp.array([0.3, -0.5, 1.0])
    trunk = params()
    tasks = {"red": jnp.array([1.0, -2.0, 0.5, 0.1]), "blue": jnp.array([0.2, 0.3, -1.0, 2.0])}

    def features(p, x):
        return jnp.tanh(p["w"] @ x)

    heads = {
        "red": lambda h, z, x: (h @ z - 1) ** 2,
        "blue": lambda h, z, x: jnp.sin(h @ z) * x[0],
    }
    values, jacobian, gradients = jax.jit(multi_task_jacobian(features, heads))(trunk, tasks, x)

    def whole(both):
        return {n: heads[n](both[1][n], features(both[0], x), x) for n in heads}

    expected_values, (shared, own) = value_and_jacobian(whole)((trunk, tasks))
    assert values.keys() == expected_values.keys()
    np.testing.assert_allclose(jacobian["w"], shared["w"], atol=1e-15)
    for i, name in enumerate(sorted(heads)):
        np.testing.assert_allclose(gradients[name], own[name][i], atol=1e-15)
    with pytest.raises(ValueError, match="heads are blue, red; parameters are given for red"):
        multi_task_jacobian(features, heads)(trunk, {"red": tasks["red"]}, x)
    with pytest.raises(ValueError, match="at least one head"):
        multi_task_jacobian(features, {})


# --- the adaptor ----------------------------------------------------------------------------------


def test_the_mean_of_objectives_is_adam_on_their_mean():
    p, x = params(), jnp.array([0.3, -0.5, 1.0])
    ours, plain = jacobian_descent(Mean(), optax.adam(0.1)), optax.adam(0.1)
    state, plain_state, q = ours.init(p), plain.init(p), p
    for _ in range(5):
        updates, state = ours.update(value_and_jacobian(losses)(p, x)[1], state, p)
        p = optax.apply_updates(p, updates)
        grads = jax.grad(lambda q: sum(losses(q, x).values()) / 3)(q)
        updates, plain_state = plain.update(grads, plain_state, q)
        q = optax.apply_updates(q, updates)
    np.testing.assert_allclose(ravel_pytree(p)[0], ravel_pytree(q)[0], atol=1e-12)


def test_it_stands_first_in_a_chain():
    chained = optax.chain(jacobian_descent(Mean()), optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    nested = jacobian_descent(Mean(), optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)))
    jacobian = jnp.arange(6.0).reshape(2, 3)
    first, second = (o.update(jacobian, o.init(jnp.ones(3)))[0] for o in (chained, nested))
    np.testing.assert_array_equal(first, second)


def test_a_scan_takes_the_steps_of_a_loop_and_draws_anew_in_each():
    optimizer = jacobian_descent(Rotating(), optax.adam(0.1), num_objectives=3, seed=4)
    x = jnp.array([0.3, -0.5, 1.0])

    def step(carry, _) -> tuple[Any, Any]:
        p, state = carry
        updates, state = optimizer.update(value_and_jacobian(losses)(p, x)[1], state, p)
        return (optax.apply_updates(p, updates), state), state

    start = (params(), optimizer.init(params()))
    scanned, seen = jax.lax.scan(step, start, length=6)
    looped = start
    for _ in range(6):
        looped, _ = step(looped, None)
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(scanned))
    np.testing.assert_allclose(ravel_pytree(scanned)[0], ravel_pytree(looped)[0], atol=1e-13)
    running = seen.aggregator
    draws = (running[1:] - 0.9 * running[:-1]) / 0.1
    assert len(np.unique(np.round(draws, 6))) == draws.size


def test_mistakes_with_the_adaptor_are_told_in_words():
    with pytest.raises(ValueError, match=r"Rotating keeps a state .* num_objectives=m"):
        jacobian_descent(Rotating()).init(jnp.ones(3))
    told = jacobian_descent(Rotating(), num_objectives=2)
    with pytest.raises(ValueError, match="told of 2 objectives and got a Jacobian of 4"):
        told.update(jnp.ones((4, 3)), told.init(jnp.ones(3)))
    for gradient in (jnp.ones(3), jnp.ones(())):
        optimizer = jacobian_descent(Mean())
        state = optimizer.init(gradient)
        with pytest.raises(ValueError, match="value_and_jacobian makes one"):
            optimizer.update(gradient, state, gradient)


# --- devices --------------------------------------------------------------------------------------


def test_four_devices_agree_with_one_and_never_gather_a_jacobian(on_four_devices):
    """Parameters sharded: the Gramian is summed over devices. Examples sharded: their factors
    travel, which are thin. No array of the Jacobian's size is ever gathered."""
    script = """
    import re
    import jax, jax.numpy as jnp, numpy as np, optax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
    from sciopt import aggregate
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 4
    mesh = Mesh(np.array(jax.devices()), ("d",))

    class Inverse(aggregate.Mean):
        def weights(self, gramian, *, key=None):
            return jnp.linalg.solve(gramian + jnp.eye(len(gramian)), jnp.ones(len(gramian)))

    def gathered(compiled):
        # A dimension a line: the sizes of what all-gather operations give.
        found = re.findall(r"= \\(?\\w+\\[([\\d,]*)\\][^=]* all-gather", compiled.as_text())
        return [int(np.prod([int(n) for n in dims.split(",") if n])) for dims in found]

    def put(tree, spec):
        return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, spec)), tree)

    # Parameters over devices.
    w = {"in": jax.random.normal(jax.random.key(0), (256, 8)) / 3, "out": jnp.ones(256) / 16}
    x = jax.random.normal(jax.random.key(1), (32, 8))
    def losses(w):
        z = jnp.tanh(x @ w["in"].T) @ w["out"]
        return {"a": jnp.mean(z**2), "b": jnp.mean(jnp.sin(z)), "c": jnp.mean(z[:5])}
    optimizer = aggregate.jacobian_descent(Inverse(), optax.adam(1e-2))
    def step(w, state):
        _, jacobian = aggregate.value_and_jacobian(losses)(w)
        updates, state = optimizer.update(jacobian, state, w)
        return optax.apply_updates(w, updates), state
    spread = put(w, P("d"))
    compiled = jax.jit(step).lower(spread, optimizer.init(spread)).compile()
    one, four = (jax.jit(step)(v, optimizer.init(v))[0] for v in (w, spread))
    assert all(len(leaf.sharding.device_set) == 4 for leaf in jax.tree.leaves(four))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert max(gathered(compiled), default=0) < 3 * 256, gathered(compiled)
    assert "all-reduce" in compiled.as_text()

    # Examples over devices: the instance-wise update.
    def loss(w, xy):
        return (jnp.tanh(w["in"] @ xy[0]) @ w["out"] - xy[1]) ** 2
    batch = (jax.random.normal(jax.random.key(2), (64, 8)), jnp.linspace(-1, 1, 64))
    w = {"in": jax.random.normal(jax.random.key(0), (256, 8)), "out": jnp.ones(256) / 16}
    update = aggregate.iwrm(loss, Inverse())
    whole, parts = put(w, P()), put(batch, P("d"))
    compiled = jax.jit(update).lower(whole, parts).compile()
    one, four = jax.jit(update)(w, batch), jax.jit(update)(whole, parts)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    # Of the Jacobian's 64 * (256 * 8 + 256) numbers, at most the factors' 64 * 256 at once.
    assert max(gathered(compiled), default=0) <= 64 * 256 * 2, gathered(compiled)
    print("same", gathered(compiled))
    """
    done = on_four_devices(script)
    assert done.stdout.startswith("same"), done.stderr[-3000:]
