"""Claims about SOAP and FAdam: each is its paper's algorithm, written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sciopt

STEPS = 40
DATA = np.random.default_rng(1).normal(size=(8, 3))


def loss(params):
    """A two-layer network on fixed data: matrices, a vector and a scalar."""
    hidden = jnp.tanh(DATA @ params["a"] + params["b"])
    return jnp.mean((hidden @ params["c"] + params["d"] - jnp.sin(DATA)) ** 2)


def begin():
    # Square matrices, so that no factor has a null space with a basis of rounding's choice.
    rng = np.random.default_rng(0)
    shapes = {"a": (3, 3), "b": (3,), "c": (3, 3), "d": ()}
    return {name: np.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


gradient = jax.jit(jax.grad(loss))


def trained(optimizer):
    params = jax.tree.map(jnp.asarray, begin())

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), params

    (last, _), path = jax.lax.scan(step, (params, optimizer.init(params)), length=STEPS)
    return jax.tree.map(lambda a, b: np.concatenate([a, b[None]]), path, last)


def compare(path, expected):
    for t, params in enumerate(expected):
        for name, value in params.items():
            np.testing.assert_allclose(path[name][t], value, rtol=0, atol=1e-10, err_msg=f"{t}")


def soap_by_the_paper(eta, b1, b2, eps, f):
    """Vyas et al. (2024), algorithms 3 and 4; the bias corrections and the start of their code."""
    w = begin()
    yield dict(w)
    memory = {}
    for t in range(STEPS):
        g_all = {name: np.asarray(g) for name, g in gradient(w).items()}
        for name, g in g_all.items():
            if t == 0:
                left, right = np.eye(0), np.eye(0)
                ql, qr = np.eye(len(g)) if g.ndim else 1.0, 1.0
                if g.ndim == 2:
                    left, right = (1 - b2) * g @ g.T, (1 - b2) * g.T @ g
                    ql, qr = (np.linalg.eigh(p)[1][:, ::-1] for p in (left, right))
                memory[name] = [left, right, np.zeros_like(g), np.zeros_like(g), ql, qr]
                continue
            left, right, v, m, ql, qr = memory[name]
            if g.ndim == 2:
                g_prime = ql.T @ g @ qr  # line 3
                m = b1 * m + (1 - b1) * g  # 4
                m_prime = ql.T @ m @ qr  # 5
                v = b2 * v + (1 - b2) * g_prime * g_prime  # 6
                n_prime = m_prime / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)  # 7
                w[name] = w[name] - eta * ql @ n_prime @ qr.T  # 8, 9
                left = b2 * left + (1 - b2) * g @ g.T  # 10
                right = b2 * right + (1 - b2) * g.T @ g  # 11
                if t % f == 0:  # 12-14
                    ql, qr = np.linalg.qr(left @ ql)[0], np.linalg.qr(right @ qr)[0]
            else:  # Adam
                m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
                w[name] = w[name] - eta * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            memory[name] = [left, right, v, m, ql, qr]
        yield dict(w)


def fadam_by_the_paper(eta, b1, b2, eps, eps2, c, decay, rho):
    """Hwang (2024), algorithm 1."""
    theta = begin()
    yield dict(theta)
    m = {name: np.zeros_like(x) for name, x in theta.items()}
    f = {name: np.ones_like(x) for name, x in theta.items()}
    rms = lambda x: np.sqrt(np.mean(x * x))  # noqa: E731
    for t in range(1, STEPS + 1):
        for name, g in {n: np.asarray(g) for n, g in gradient(theta).items()}.items():
            beta = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
            f[name] = beta * f[name] + (1 - beta) * g**2
            eps_hat = min(eps, eps2 * rms(g))
            scale = f[name] ** rho + eps_hat ** (2 * rho)
            natural = g / scale
            natural = natural / max(1, rms(natural) / c)
            m[name] = b1 * m[name] + (1 - b1) * natural
            weights = theta[name] / scale
            weights = weights / max(1, rms(weights) / c)
            theta[name] = theta[name] - eta * (m[name] + decay * weights)
        yield dict(theta)


@pytest.mark.parametrize("every", [1, 7])
def test_soap_is_algorithm_3_of_vyas_et_al(every):
    # A rotated gradient may be rounding alone, and a small epsilon would bring that to the top.
    path = trained(sciopt.soap(0.02, 0.9, 0.97, 1e-4, precondition_frequency=every))
    compare(path, soap_by_the_paper(0.02, 0.9, 0.97, 1e-4, every))
    assert np.ptp(path["a"], axis=0).min() > 0.05  # and something moved


@pytest.mark.parametrize(("power", "decay"), [(0.5, 1e-3), (0.3, 0.1)])
def test_fadam_is_algorithm_1_of_hwang(power, decay):
    arguments = (0.02, 0.9, 0.98, 1e-6, 1e-2, 0.7, decay, power)
    path = trained(sciopt.fadam(*arguments))
    compare(path, fadam_by_the_paper(*arguments))
    assert np.ptp(path["a"], axis=0).min() > 0.05


def test_soap_sees_through_a_rotation_where_adam_does_not():
    """The path for W -> U W V is the rotated path: SOAP's basis turns with the problem."""
    rng = np.random.default_rng(1)
    u, v = (np.linalg.qr(rng.normal(size=(k, k)))[0] for k in (3, 4))
    target, start = rng.normal(size=(2, 3, 4))
    curvature = rng.uniform(0.1, 3, size=(3, 4))

    def plain(w):
        return jnp.sum(curvature * (w - target) ** 2)

    def ends(optimizer):
        @jax.jit
        def run(w, turned):
            def step(carry, _):
                w, state = carry

                def fn(w):
                    return plain(jnp.where(turned, u.T @ w @ v.T, w))

                updates, state = optimizer.update(jax.grad(fn)(w), state, w)
                return (w + updates, state), None

            return jax.lax.scan(step, (w, optimizer.init(w)), length=20)[0][0]

        return run(jnp.asarray(start), False), u.T @ run(u @ start @ v, True) @ v.T

    straight, turned = ends(sciopt.soap(0.05, eps=1e-4))
    np.testing.assert_allclose(straight, turned, atol=1e-9)
    straight, turned = ends(optax.adam(0.05))
    assert np.abs(straight - turned).max() > 1e-2


def test_a_gradient_of_zero_moves_nothing_and_is_no_nan():
    params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    zero = jax.tree.map(jnp.zeros_like, params)
    for optimizer in (sciopt.soap(0.1), sciopt.fadam(0.1, weight_decay=0.0)):
        update = jax.jit(optimizer.update)
        _, state = update(zero, optimizer.init(params), params)
        updates, _ = update(zero, state, params)
        assert all(np.all(u == 0) for u in jax.tree.leaves(updates))


def test_what_they_cannot_do_is_refused():
    with pytest.raises(ValueError, match="precondition_frequency >= 1"):
        sciopt.soap(0.1, precondition_frequency=0)
    optimizer = sciopt.fadam(0.1)
    state = optimizer.init(jnp.ones(2))
    with pytest.raises(ValueError, match="needs the params"):
        optimizer.update(jnp.ones(2), state)


@pytest.mark.parametrize("momentum", [None, 0.0, 0.7])
def test_nesterov_is_its_two_sequences(momentum):
    """By hand, in NumPy, with a preconditioner, and with the restart that a quadratic provokes."""
    scales, rate = np.array([1.0, 30.0]), 0.05
    optimizer = sciopt.nesterov(rate, lambda g: g / 2, momentum)
    x = y = np.array([1.0, -1.0])
    params = jnp.asarray(y)
    state, since, restarts = optimizer.init(params), 0, 0
    for _ in range(60):
        updates, state = optimizer.update(jnp.asarray(scales) * params, state, params)
        params = jnp.asarray(optax.apply_updates(params, updates))
        after = y - rate * scales * y / 2
        if (y - after) @ (after - x) > 0:
            since, restarts = 0, restarts + 1
        beta = since / (since + 3) if momentum is None else (momentum if since else 0.0)
        x, y, since = after, after + beta * (after - x), since + 1
        np.testing.assert_allclose(params, y, atol=1e-13)
    assert restarts > 0 or momentum == 0.0


def test_nesterov_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="momentum in"):
        sciopt.nesterov(0.1, momentum=1.0)
    optimizer = sciopt.nesterov(0.1)
    state = optimizer.init(jnp.ones(2))
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(jnp.ones(2), state)
