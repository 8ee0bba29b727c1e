"""Claims about derivatives, hard conditions, residual blocks and points."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pde

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


def network(problem, **kwargs):
    options = {"width": 16, "depth": 2, "key": jax.random.key(1)} | kwargs
    return pde.MLP(pde.Features(problem).size, len(problem.unknowns), **options)


def nested_jvp(f, point, axes):
    if not axes:
        return f(point)
    direction = jnp.zeros_like(point).at[axes[0]].set(1)
    return nested_jvp(lambda p: jax.jvp(f, (p,), (direction,))[1], point, axes[1:])


@pytest.mark.parametrize("activation", [jnp.tanh, jnp.sin, jax.nn.gelu, jax.nn.silu])
def test_derivatives_agree_with_nested_jvp_to_1e_10(activation):
    key = jax.random.key(3)
    field = pde.MLP(3, 2, width=24, depth=3, activation=activation, key=key)
    point = jnp.array([0.3, -0.2, 0.7])
    wanted = [w for n in range(5) for w in itertools.combinations_with_replacement(range(3), n)]
    found = pde.derivatives(field, point, wanted)
    assert set(found) == set(wanted)
    for axes in wanted:
        expected = nested_jvp(field, point, axes)
        scale = max(1.0, float(jnp.max(jnp.abs(expected))))
        np.testing.assert_allclose(found[axes] / scale, expected / scale, rtol=0, atol=1e-10)


def test_derivatives_of_a_pirate_net_with_fourier_features_agree_with_nested_jvp():
    k1, k2 = jax.random.split(jax.random.key(0))
    field = pde.PirateNet(
        2, 1, width=16, depth=2, key=k1, embedding=pde.FourierEmbedding(2, 16, key=k2)
    )
    # Alphas start at zero; switch the blocks on so that depth is differentiated too.
    field = jax.tree.map(lambda x: x + 0.3 if eqx.is_array(x) and x.ndim == 0 else x, field)
    point = jnp.array([0.1, 0.4])
    for axes in [(0, 0, 0), (1,), (0, 1), (0, 0, 1, 1)]:
        found = pde.derivatives(field, point, [axes])[axes]
        np.testing.assert_allclose(found, nested_jvp(field, point, axes), rtol=1e-10)


def test_the_laplacian_of_one_pass_is_the_trace_of_the_hessian():
    """Of an ansatz with a lift, a bubble and a network under Fourier features; not by time."""
    problem = pde.Problem(
        pde.Box(x=[(0, 1)] * 4, t=(0, 1)),
        ["u"],
        {"diffusion": lambda v: v.u_t - v.laplacian("u")},
        {
            "start": pde.Initial({"u": lambda v: jnp.sum(jnp.sin(v.x))}, hard=True),
            "wall": pde.Dirichlet({"x2": 0}, {"u": lambda v: jnp.sum(jnp.sin(v.x))}, hard=True),
        },
    )
    embedding = pde.FourierEmbedding(5, 8, scale=0.3, key=jax.random.key(2))
    field = pde.Field(problem, network(problem, activation=jax.nn.gelu, embedding=embedding))
    point = jnp.array([0.3, 0.6, 0.2, 0.9, 0.5])
    found = jax.jit(lambda x: pde.laplacian(field, x, problem.domain.space))(point)
    expected = jnp.trace(jax.jit(jax.hessian(field))(point)[0, :4, :4])
    np.testing.assert_allclose(found.laplacian[0], expected, rtol=1e-12)
    np.testing.assert_allclose(found.jacobian[:, 0], jax.jacfwd(field)(point)[0, :4], atol=1e-12)
    names = ("laplacian(u)", "u_t", "u_x3", "u")
    read = jax.jit(lambda x: field.read(x, names))(point)
    np.testing.assert_allclose(read["laplacian(u)"], found.laplacian[0], rtol=1e-12)
    np.testing.assert_allclose(read["u_t"], jax.jacfwd(field)(point)[0, 4], atol=1e-12)


def test_a_laplacian_passes_constants_indices_and_branches():
    def field(x):
        largest = x[jnp.argmax(x)]
        return jnp.stack([jax.lax.cond(x[0] > 0, lambda v: v**3, jnp.sin, largest), jnp.sum(x**2)])

    found = pde.laplacian(field, jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(found.laplacian, [12.0, 4.0], rtol=1e-14)
    assert pde.laplacian(lambda x: jnp.ones(1), jnp.zeros(3)).laplacian.tolist() == [0.0]


def test_a_laplacian_takes_chains_of_pointwise_operations_as_one():
    matrix = jax.random.normal(jax.random.key(0), (3, 4))

    def field(x):
        a, b = matrix @ x, jnp.cumsum(x)[1:]
        chain = jax.nn.gelu(a) / (2 + jnp.abs(a)) - jax.nn.softplus(a) ** 3
        # Two bases, one of them read again by itself, and what is affine until the last product.
        return jnp.stack([jnp.sum(chain * b + jnp.exp(b)), jnp.sum((1 - 2 * a) * (a + 3) * a)])

    point = jnp.array([0.3, -0.6, 0.2, 0.9])
    found = jax.jit(lambda x: pde.laplacian(field, x))(point)
    hessian = jax.jit(jax.hessian(field))(point)
    np.testing.assert_allclose(found.laplacian, jnp.trace(hessian, axis1=1, axis2=2), rtol=1e-12)
    np.testing.assert_allclose(found.jacobian, jax.jacfwd(field)(point).T, rtol=1e-12)


def test_a_laplacian_through_one_hidden_layer_makes_no_jacobian_at_every_point():
    """The Jacobian of the first layer is its matrix, at all points: only its squares are needed."""
    points, d, width = 64, 50, 40
    net = pde.MLP(d, 1, width=width, depth=1, activation=jax.nn.gelu, key=jax.random.key(0))
    laplacians = jax.jit(jax.vmap(lambda x: pde.laplacian(net, x).laplacian))
    needed = laplacians.lower(jnp.zeros((points, d))).compile().memory_analysis()
    assert needed is not None
    assert needed.temp_size_in_bytes < 8 * points * d * width / 10


def test_a_vector_names_its_components_their_faces_and_their_derivatives():
    problem = pde.Problem(
        pde.Box(x=[(0, 1)] * 100),
        ["u"],
        {"load": lambda v: v.laplacian("u") + v.u_x100 + jnp.sum(v.x) + v.x7},
        {"faces": pde.Dirichlet({"x": (0, 1)}, {"u": 0.0}, points=200)},
    )
    assert problem.reads("load") == ("laplacian(u)", "u_x100")
    pinn = pde.PINN(problem, network(problem), points=4)
    drawn = pinn.sample(jax.random.key(0), pinn.params)["faces"]
    # One point on each of the two hundred faces.
    axis = np.argmax(np.abs(drawn["normal"]), 1)
    assert sorted(axis) == sorted([*range(100)] * 2)
    position, outward = (
        np.take_along_axis(np.asarray(a), axis[:, None], 1)[:, 0]
        for a in (drawn["x"], drawn["normal"])
    )
    np.testing.assert_array_equal(position, (outward + 1) / 2)


def test_hard_conditions_on_more_coordinates_than_an_ansatz_bears_are_refused():
    faces = pde.Dirichlet({"x": (0, 1)}, {"u": 0.0}, hard=True)
    load = {"load": lambda v: v.laplacian("u")}
    problem = pde.Problem(pde.Box(x=[(0, 1)] * 7), ["u"], load, {"faces": faces})
    with pytest.raises(ValueError, match="on faces of 7 coordinates"):
        pde.Field(problem, network(problem))


def box_problem(conditions, domain=None):
    domain = pde.Box(x=(-1, 2), y=(0, 3), t=(1, 2)) if domain is None else domain
    return pde.Problem(domain, ["u"], {"rest": lambda v: v.u_t}, conditions)


# One smooth field gives all the data, so that they agree where faces meet.
def truth(p):
    return jnp.sin(p[0]) * jnp.cos(2 * p[1]) * jnp.exp(p[2]) + p[0] * p[1]


def along(axis):
    return lambda p: jax.grad(truth)(p)[axis]


def read(f):
    return lambda v: f(jnp.stack([v.x, v.y, v.t]))


FACES = {
    "dirichlet_both": {"a": pde.Dirichlet({"x": (-1, 2)}, {"u": read(truth)}, hard=True)},
    "initial": {"a": pde.Initial({"u": read(truth)}, hard=True)},
    "initial_and_rate": {"a": pde.Initial({"u": read(truth)}, {"u": read(along(2))}, hard=True)},
    "neumann_both": {
        "a": pde.Neumann({"x": 2}, {"u": read(along(0))}, hard=True),
        "b": pde.Neumann({"x": -1}, {"u": read(lambda p: -along(0)(p))}, hard=True),
    },
    "mixed": {
        "a": pde.Dirichlet({"x": -1}, {"u": read(truth)}, hard=True),
        "b": pde.Neumann({"x": 2}, {"u": read(along(0))}, hard=True),
        "c": pde.Dirichlet({"y": (0, 3)}, {"u": read(truth)}, hard=True),
        "d": pde.Initial({"u": read(truth)}, {"u": read(along(2))}, hard=True),
    },
    "subtracted": {
        "a": pde.Dirichlet({"x": -1}, {"u": read(truth)}, hard="subtract"),
        "b": pde.Neumann({"x": 2}, {"u": read(along(0))}, hard=True),
        "c": pde.Dirichlet({"y": (0, 3)}, {"u": read(truth)}, hard=True),
        "d": pde.Initial({"u": read(truth)}, {"u": read(along(2))}, hard="subtract"),
    },
    "clamped": {
        "a": pde.Dirichlet({"x": (-1, 2)}, {"u": read(truth)}, hard=True),
        "b": pde.Neumann({"x": 2}, {"u": read(along(0))}, hard=True),
        "c": pde.Neumann({"x": -1}, {"u": read(lambda p: -along(0)(p))}, hard=True),
        "d": pde.Neumann({"y": 3}, {"u": read(along(1))}, hard=True),
    },
}


@pytest.mark.parametrize("name", FACES)
def test_hard_conditions_hold_whatever_the_network_is(name):
    problem = box_problem(FACES[name])
    field = pde.Field(problem, network(problem, key=jax.random.key(7)))
    box = problem.domain
    interior = box.from_unit(jax.random.uniform(jax.random.key(0), (20, 3)))
    checked = 0
    for condition in problem.conditions.values():
        faces = getattr(condition, "at", (("t", 1.0),))
        for face, at in faces:
            axis = box.axis(face)
            points = interior.at[:, axis].set(at)
            if isinstance(condition, pde.Neumann) or getattr(condition, "rates", None):
                slope = jax.vmap(lambda p, axis=axis: pde.taylor(field, p, axis, 1)[1][0])(points)
                np.testing.assert_allclose(slope, jax.vmap(along(axis))(points), atol=1e-11)
                checked += 1
            if not isinstance(condition, pde.Neumann):
                values = field.at(points)["u"]
                np.testing.assert_allclose(values, jax.vmap(truth)(points), atol=1e-11)
                checked += 1
    assert checked >= len(problem.conditions)
    # The ansatz must leave the network free inside.
    other = pde.Field(problem, network(problem, key=jax.random.key(8)))
    difference = jax.vmap(field)(interior) - jax.vmap(other)(interior)
    assert jnp.max(jnp.abs(difference)) > 1e-2


def test_a_subtracted_condition_leaves_the_network_as_it_is_but_for_its_face():
    problem = box_problem({"start": pde.Initial({"u": read(truth)}, hard="subtract")})
    net = network(problem)
    field = pde.Field(problem, net)
    here, start = jnp.array([0.3, 1.2, 1.7]), jnp.array([0.3, 1.2, 1.0])
    raw = lambda p: net(field.features(p))  # noqa: E731
    np.testing.assert_allclose(field(here), raw(here) - raw(start) + truth(start), atol=1e-14)
    with pytest.raises(ValueError, match="hard=True"):
        pde.Periodic("x", hard="subtract")


def test_a_filter_network_of_depth_one_is_a_sum_of_sinusoids_of_sums_and_differences():
    net = pde.FilterNet(2, 1, width=3, depth=1, scale=(0.5, 20.0), key=jax.random.key(0))
    (w, v), (a, b) = (f.weight for f in net.filters), (f.bias for f in net.filters)
    mix, out = net.layers
    assert a is not None
    assert b is not None
    assert mix.bias is not None
    assert out.bias is not None
    x = jnp.array([0.4, -0.7])
    first, second = w @ x + a, v @ x + b
    # sin p sin q = (cos(p - q) - cos(p + q)) / 2, and sin q alone from the bias.
    products = (jnp.cos(first - second[:, None]) - jnp.cos(first + second[:, None])) / 2
    wanted = out.weight @ (jnp.sum(mix.weight * products, 1) + mix.bias * jnp.sin(second))
    np.testing.assert_allclose(net(x), wanted + out.bias, atol=1e-14)
    wide = pde.FilterNet(2, 1, width=4000, depth=1, scale=(0.5, 20.0), key=jax.random.key(1))
    sums = wide.filters[0].weight + wide.filters[1].weight
    np.testing.assert_allclose(jnp.std(sums, 0), [0.5, 20.0], rtol=0.05)


def test_two_hard_conditions_on_one_face_are_refused():
    conditions = {
        "a": pde.Dirichlet({"x": -1}, {"u": 0.0}, hard=True),
        "b": pde.Dirichlet({"x": (-1, 2)}, {"u": 1.0}, hard=True),
    }
    problem = box_problem(conditions)
    with pytest.raises(ValueError, match="Two hard conditions prescribe u on the same face"):
        pde.Field(problem, network(problem))


def test_hard_periodic_condition_matches_all_derivatives():
    problem = box_problem({"wrap": pde.Periodic("x", hard=True, harmonics=3)})
    field = pde.Field(problem, network(problem))
    left, right = jnp.array([-1.0, 0.5, 1.5]), jnp.array([2.0, 0.5, 1.5])
    for a, b in zip(pde.taylor(field, left, 0, 4), pde.taylor(field, right, 0, 4), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("start", "what"), [("kink", "slope jumps by 4"), ("step", "value jumps")])
def test_hard_data_that_breaks_a_hard_period_is_refused(start, what):
    """x^2 cos(pi x) is the Allen-Cahn start: continuous over the period, with a kink."""
    data = {"kink": lambda v: v.x**2 * jnp.cos(jnp.pi * v.x), "step": lambda v: v.x}[start]
    conditions = {
        "start": pde.Initial({"u": data}, hard=True),
        "wrap": pde.Periodic("x", hard=True),
    }
    problem = box_problem(conditions, pde.Box(x=(-1, 1), t=(0, 1)))
    with pytest.raises(ValueError, match=what):
        pde.PINN(problem, network(problem), points=4)


def test_soft_conditions_vanish_for_the_truth_and_only_for_it():
    """Blocks are tried on a network that *is* the true field, then on one that is off by 1 + t."""

    class Truth(eqx.Module):
        shift: jax.Array

        def __call__(self, x):
            p = jnp.stack([1.5 * (x[0] + 1) - 1, 1.5 * (x[1] + 1), 0.5 * (x[2] + 1) + 1])
            return truth(p)[None] + self.shift * (1 + p[2])

    conditions = {
        "value": pde.Dirichlet({"x": (-1, 2)}, {"u": read(truth)}, points=64),
        "flux": pde.Neumann({"y": 3}, {"u": read(along(1))}, points=64),
        "film": pde.Robin(
            {"y": 0},
            {"u": lambda v: v.x * read(truth)(v) - read(along(1))(v)},
            coefficient=lambda v: v.x,
            points=64,
        ),
        "start": pde.Initial({"u": read(truth)}, {"u": read(along(2))}, points=64),
    }
    problem = box_problem(conditions)
    net = Truth(jnp.zeros(()))
    pinn = pde.PINN(problem, net, points=16)
    points = pinn.sample(jax.random.key(1), pinn.params)
    at_truth = pinn.residuals(pinn.params, points)
    for name in conditions:
        np.testing.assert_allclose(at_truth[name], 0, atol=1e-12)
    assert points["value"]["x"].shape == (64, 3)
    assert set(np.unique(points["value"]["x"][:, 0])) == {-1.0, 2.0}
    off = jax.tree.map(lambda p: p + 1.0, pinn.params)
    rms = pinn.residuals.rms(off, points)
    np.testing.assert_allclose(rms["start"], np.sqrt((2.0**2 + 1.0**2) / 2), rtol=1e-12)
    np.testing.assert_allclose(rms["flux"], 0, atol=1e-12)  # 1 + t has no slope along y
    at = points["film"]["x"]
    film = pinn.residuals(off, points)["film"][:, 0]
    np.testing.assert_allclose(film, at[:, 0] * (1 + at[:, 2]), atol=1e-12)


def test_soft_periodic_block_compares_value_and_slope_across_the_box():
    problem = box_problem({"wrap": pde.Periodic("x", derivatives=1, points=8)})

    class Ramp(eqx.Module):
        shift: jax.Array

        def __call__(self, x):
            return (self.shift + 1.5 * x[0] ** 2 + 2.0 * x[0])[None]

    pinn = pde.PINN(problem, Ramp(jnp.zeros(())), points=4)
    residual = pinn.residuals(pinn.params, pinn.sample(jax.random.key(0), pinn.params))["wrap"]
    # In x the features run over [-1, 1] at slope 2/3: jumps are -4 and -(1.5 * 4) * 2/3.
    np.testing.assert_allclose(residual[:, 0], -4.0, rtol=1e-12)
    np.testing.assert_allclose(residual[:, 1], -4.0, rtol=1e-12)


def test_equation_residual_is_the_expression_of_the_field():
    problem = pde.Problem(
        pde.Box(x=(-1, 1), t=(0, 1)),
        ["u", "v"],
        {"one": lambda v: v.u_t + v.u * v.u_x - v.nu * v.u_xx, "two": lambda v: v.v_xt + v.x},
        {},
        {"nu": 0.3},
    )
    net = network(problem)
    pinn = pde.PINN(problem, net, points=8)
    points = pinn.sample(jax.random.key(0), pinn.params)
    field = pinn.field(pinn.params)
    found = pinn.residuals(pinn.params, points)
    for i, p in enumerate(points["equations"]["x"]):
        d = {axes: nested_jvp(field, p, axes) for axes in [(), (0,), (1,), (0, 0), (0, 1)]}
        one = d[(1,)][0] + d[()][0] * d[(0,)][0] - 0.3 * d[(0, 0)][0]
        np.testing.assert_allclose(found["one"][i], one, rtol=1e-11)
        np.testing.assert_allclose(found["two"][i], d[(0, 1)][1] + p[0], rtol=1e-11)


def test_a_typo_in_an_equation_is_named():
    with pytest.raises(ValueError, match="'w_x'"):
        pde.Problem(pde.Box(x=(0, 1)), ["u"], {"a": lambda v: v.w_x}, {})


def test_a_condition_off_the_faces_is_refused_with_the_faces():
    with pytest.raises(ValueError, match=r"no face of the box: its faces are at 0\.0 and 1\.0"):
        pde.Problem(
            pde.Box(x=(0, 1)), ["u"], {"a": lambda v: v.u_x},
            {"b": pde.Dirichlet({"x": 0.5}, {"u": 0})},
        )  # fmt: skip


def test_sobol_points_integrate_better_than_uniform_ones():
    def error(sampler, seed):
        x = sampler(jax.random.key(seed), 1024, 2)
        return float(jnp.mean(jnp.prod(jnp.sin(jnp.pi * x), axis=1)) - (2 / jnp.pi) ** 2)

    sobol = np.sqrt(np.mean([error(pde.Sobol(), s) ** 2 for s in range(10)]))
    uniform = np.sqrt(np.mean([error(pde.Uniform(), s) ** 2 for s in range(10)]))
    assert sobol < 2e-4 < 3e-3 < uniform


def test_a_digital_shift_keeps_sobol_points_a_net():
    """(0, m, 2)-net: every elementary interval of volume 2**-m holds exactly one point."""
    x = np.asarray(pde.Sobol()(jax.random.key(5), 256, 2))
    for a in range(9):
        cells = np.floor(x[:, 0] * 2**a) * 2 ** (8 - a) + np.floor(x[:, 1] * 2 ** (8 - a))
        assert len(np.unique(cells)) == 256


def test_rad_draws_where_residuals_are_large_and_unbiased_weights_undo_the_density():
    draw, *keys = jax.random.split(jax.random.key(0), 51)
    x = pde.Uniform()(draw, 40_000, 2)
    size = jnp.exp(-(((x[:, 0] - 0.7) / 0.05) ** 2))
    choose = jax.vmap(lambda key: pde.RAD(unbiased=True).choose(key, x, size, 2000))
    index, weight = choose(jnp.stack(keys))
    # Density: half of it uniform, half in a Gaussian with 84 % of its mass within one width.
    near = jnp.mean(jnp.abs(x[index, 0] - 0.7) < 0.05)
    assert 0.4 < near < 0.55
    assert len(np.unique(index[0])) == 2000
    # Horvitz and Thompson: the weighted mean is unbiased for the mean over all candidates.
    # One draw scatters by 0.0015; it would by 0.024 if candidates were kept independently.
    wave = x[:, 0] ** 2 + jnp.sin(6 * x[:, 1])
    found = jnp.mean(weight * wave[index], axis=1)
    np.testing.assert_allclose(jnp.mean(found), jnp.mean(wave), atol=8e-4)
    assert jnp.std(found) < 3e-3
    assert jnp.all(pde.RAD().choose(keys[0], x, size, 10)[1] == 1)


def test_rad_keeps_a_candidate_once_however_large_its_residual():
    x = pde.Uniform()(jax.random.key(0), 100, 3)
    size = jnp.zeros(100).at[:4].set(jnp.array([1e6, 1e3, 1e3, 1.0]))
    index, weight = pde.RAD(offset=1e-3, unbiased=True).choose(jax.random.key(1), x, size, 20)
    assert len(np.unique(index)) == 20
    assert set(range(3)) <= set(index.tolist())
    # What is kept for certain stands for itself alone: 20 of 100 points, each a fifth.
    np.testing.assert_allclose(weight[jnp.isin(index, jnp.arange(3))], 0.2, rtol=1e-12)
    np.testing.assert_allclose(jnp.sum(weight), 20, rtol=0.2)


def test_frozen_fourier_features_are_not_trained():
    key = jax.random.key(0)
    net = pde.MLP(2, 1, width=8, depth=1, key=key, embedding=pde.FourierEmbedding(2, 6, key=key))
    params, _ = pde.partition(net)
    sizes = sorted(leaf.size for leaf in jax.tree.leaves(params))
    assert sizes == [1, 8, 8, 48]


def products_with(side: int, function, *args) -> int:
    """How many matrix products of a trace give a vector of this length."""
    found = 0

    def walk(jaxpr):
        nonlocal found
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                found += eqn.outvars[0].aval.shape[-1:] == (side,)
            for inner in jax.tree.leaves(eqn.params, is_leaf=lambda p: hasattr(p, "eqns")):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    walk(getattr(inner, "jaxpr", inner))

    walk(jax.make_jaxpr(function)(*args).jaxpr)
    return found


def test_the_network_is_evaluated_once_for_all_unknowns_and_equations():
    def cost(unknowns, equations, conditions):
        problem = pde.Problem(pde.Box(x=(0, 1), y=(0, 1)), unknowns, equations, conditions)
        net = pde.MLP(2, len(unknowns), width=9, depth=2, key=jax.random.key(0))
        pinn = pde.PINN(problem, net, points=4)
        points = pinn.sample(jax.random.key(0), pinn.params)
        block = pinn.residuals.blocks["equations"]
        at = jax.tree.map(lambda x: x[0], points["equations"])
        gradient = jax.grad(pinn.residuals.loss)
        return products_with(9, block, pinn.params, at), products_with(
            9, gradient, pinn.params, points
        )

    wall = {"wall": pde.Dirichlet({"x": 0}, {"u": 0.0}, hard=True)}
    one = cost(["u"], {"a": lambda v: v.u_xx * v.u_y + v.u}, wall)
    three = cost(
        ["u", "v", "p"],
        {
            "a": lambda v: v.u_xx * v.u_y + v.p,
            "b": lambda v: v.v_xx * v.v_y,
            "c": lambda v: v.p_y,
        },
        wall,
    )
    assert min(one) > 0
    assert three == one


def test_names_that_would_be_confused_are_refused():
    box, equation = pde.Box(x=(0, 1)), {"a": lambda v: v.u}
    with pytest.raises(ValueError, match="'equations' means all equations"):
        pde.Problem(box, ["u"], equation, {"equations": pde.Dirichlet({"x": 0}, {"u": 0.0})})
    with pytest.raises(ValueError, match="equations that do not exist: b"):
        pde.Problem(box, ["u"], equation, {}, weights={"b": 1.0})


def test_further_features_reach_the_network_and_must_respect_a_hard_period():
    problem = box_problem({"wrap": pde.Periodic("x", hard=True)})
    seen = pde.Features(problem, {"bump": lambda v: jnp.exp(jnp.cos(2 * jnp.pi * v.x / 3)) * v.t})
    assert seen.size == pde.Features(problem).size + 1
    point = jnp.array([0.5, 0.5, 1.5])
    np.testing.assert_allclose(seen(point)[-1], 1.5 * np.exp(0.5), rtol=1e-12)
    net = pde.MLP(seen.size, 1, width=4, depth=1, key=jax.random.key(0))
    pinn = pde.PINN(problem, net, points=4, features=seen)
    assert pinn.field(pinn.params)(point).shape == (1,)
    jump = pde.Features(problem, {"slope": lambda v: v.x})
    with pytest.raises(ValueError, match="feature 'slope', whose value jumps by 3"):
        pde.PINN(problem, net, points=4, features=jump)


def test_derivatives_of_the_third_order_pass_through_hard_conditions():
    """Taylor mode has rules for fewer operations than other kinds of differentiation."""
    problem = pde.Problem(
        pde.Box(x=(-1, 1), t=(0, 1)),
        ["u"],
        {"dispersion": lambda v: v.u_t + v.u_xxx},
        {"start": pde.Initial({"u": lambda v: v.x**3}, hard=True)},
    )
    field = pde.Field(problem, network(problem))
    start = field.read(jnp.array([0.3, 0.0]), ("u_xxx",))
    np.testing.assert_allclose(start["u_xxx"], 6.0, rtol=1e-12)
    point = jnp.array([0.3, 0.7])
    found = field.read(point, ("u_xxx",))["u_xxx"]
    np.testing.assert_allclose(found, nested_jvp(field, point, (0, 0, 0))[0], rtol=1e-10)
