"""Claims about experts: their constraint holds, and derivatives go through their solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from pde.operators import Experts

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

N = 4


def logistic(local, common, rate):
    """u' = rate * u * (1 - u), with u = 1/2 in the middle."""
    return local["slope"] - rate * local["u"] * (1 - local["u"]), common - 0.5


def similar(x):
    """Fields that are much like the solution, so that no start is too far from it."""
    return jnp.sin(x), x**2, jnp.cos(2 * x)


def apart(x):
    """Fields that are not, so that derivatives are well conditioned."""
    return x**3, x**2, jnp.cos(4 * x)


def terms(theta, others=similar, points=24):
    """A basis that holds the solution for a rate of theta, and its slopes."""
    x = jnp.linspace(-1, 1, points)

    def basis(x):
        return jnp.stack([jax.nn.sigmoid(theta * x), *others(x)])

    both = {"u": jax.vmap(basis)(x), "slope": jax.vmap(jax.jacfwd(basis))(x)}
    return both, basis(jnp.zeros(()))[None]


@pytest.mark.parametrize("splits", [1, 3, 8])
def test_the_constraint_holds_to_1e_8_in_each_block(splits):
    both, middle = terms(3.0)
    found = Experts(logistic, [splits])(both, middle, 3.0)
    np.testing.assert_allclose(found.weights, np.tile([1.0, 0, 0, 0], (splits, 1)), atol=1e-6)
    left = found.values["slope"] - 3.0 * found.values["u"] * (1 - found.values["u"])
    assert float(jnp.abs(left).max()) < 1e-8
    assert bool((found.result == optx.RESULTS.successful).all())


def test_the_gradient_is_that_of_unrolled_steps_and_of_finite_differences():
    """Of a constraint that cannot hold, so that second derivatives of the residuals count."""

    solver = optx.GaussNewton(rtol=1e-12, atol=1e-12)

    @jax.jit
    def loss(rate, theta):
        both, middle = terms(theta, apart)
        return jnp.sum(Experts(logistic, [1], solver)(both, middle, rate).values["u"] ** 3)

    def unrolled(rate, theta):
        both, middle = terms(theta, apart)

        def residuals(w, given):
            return logistic(jax.tree.map(lambda t: t @ w, both), middle @ w, rate)

        adjoint = optx.RecursiveCheckpointAdjoint()
        w = optx.least_squares(
            residuals, solver, jnp.full(N, 1 / N), adjoint=adjoint, max_steps=64
        ).value
        return jnp.sum((both["u"] @ w) ** 3)

    at = (2.8, 3.0)
    ours = jax.grad(loss, (0, 1))(*at)
    np.testing.assert_allclose(ours, jax.jit(jax.grad(unrolled, (0, 1)))(*at), rtol=1e-6)
    step = 1e-4
    for i in range(2):
        up, down = ([v + sign * step * (i == j) for j, v in enumerate(at)] for sign in (1, -1))
        difference = (loss(*up) - loss(*down)) / (2 * step)
        np.testing.assert_allclose(ours[i], difference, rtol=1e-6)


def test_blocks_of_a_plane_are_put_back_where_they_were():
    """A basis of ones and a given field: each expert finds the mean of its own block."""
    aim = jax.random.normal(jax.random.key(0), (8, 6))
    layer = Experts(lambda local, common, args: local["one"] - local["aim"], [2, 3])
    found = layer({"one": jnp.ones((8, 6, 1))}, fields={"aim": aim})
    means = aim.reshape(2, 4, 3, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(found.weights[:, 0], means.ravel(), atol=1e-7)
    expected = jnp.repeat(jnp.repeat(means, 4, 0), 2, 1)
    np.testing.assert_allclose(found.values["one"], expected, atol=1e-7)


def test_fewer_points_find_the_same():
    both, middle = terms(3.0)
    whole = Experts(logistic, [4])(both, middle, 3.0)
    some = Experts(logistic, [4], points=5)(both, middle, 3.0, key=jax.random.key(0))
    np.testing.assert_allclose(some.values["u"], whole.values["u"], atol=1e-7)


def test_experts_on_four_devices_find_what_one_device_does(on_four_devices):
    done = on_four_devices(
        """
        import jax, jax.numpy as jnp, numpy as np, equinox as eqx
        jax.config.update("jax_enable_x64", True)
        from jax.sharding import Mesh
        from pde.operators import Experts
        x = jnp.linspace(-1, 1, 32)
        terms = {"u": jnp.stack([jnp.exp(x), jnp.sin(x), x], 1),
                 "slope": jnp.stack([jnp.exp(x), jnp.cos(x), 1 + 0 * x], 1)}
        def constraint(local, common, args):
            return local["slope"] - local["u"] ** 2, common - 0.2
        def found(devices):
            layer = Experts(constraint, [8], devices=devices)
            call = lambda terms: layer(terms, terms["u"][:1]).values["u"]
            return eqx.filter_jit(call)(terms), jax.grad(lambda t: call(t).sum())(terms)["u"]
        devices = Mesh(np.array(jax.devices()), ("experts",))
        pairs = zip(found(devices), found(None))
        print(devices.size, max(float(abs(a - b).max()) for a, b in pairs))
        """
    )
    assert done.stdout, done.stderr
    count, gap = done.stdout.split()
    assert count == "4", done.stderr
    assert float(gap) < 1e-12


def test_what_does_not_come_out_even_is_refused():
    both, middle = terms(3.0)
    with pytest.raises(ValueError, match="not cut evenly"):
        Experts(logistic, [5])(both, middle, 3.0)
    with pytest.raises(ValueError, match="need a key"):
        Experts(logistic, [2], points=4)(both, middle, 3.0)
    with pytest.raises(ValueError, match="13 points are more than the 12"):
        Experts(logistic, [2], points=13)(both, middle, 3.0, key=jax.random.key(0))


def test_an_expert_that_does_not_converge_says_so():
    both, middle = terms(3.0)
    found = Experts(logistic, [2], max_steps=1)(both, middle, 3.0)
    assert not bool((found.result == optx.RESULTS.successful).any())
