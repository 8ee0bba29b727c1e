"""Claims about shapes: lengths, areas, normals, points, and values that are hard on a boundary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pde
from pde._vanishing import Vanishing

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

SQUARE = pde.Box(x=(-0.5, 0.5), y=(-0.5, 0.5)).called("sides")
HOLES = [pde.Ball(x=a, y=b, radius=0.1).called("holes") for a in (-0.3, 0.3) for b in (-0.3, 0.3)]
PLATE = pde.Difference([SQUARE, *HOLES])
CORNER = [(-1, -1), (0, -1), (0, 0), (1, 0), (1, 1), (-1, 1)]
LEFT, RIGHT = pde.Ball(x=-0.5, y=0, radius=1), pde.Ball(x=0.5, y=0, radius=1)
LENS = 2 * np.pi / 3 - np.sqrt(3) / 2
SHAPES = {
    "disc": (LEFT, 2 * np.pi, np.pi),
    "plate": (PLATE, 4 + 0.8 * np.pi, 1 - 0.04 * np.pi),
    "polygon": (pde.Polygon(CORNER), 8, 3),
    "clockwise": (pde.Polygon(CORNER[::-1]), 8, 3),
    # They touch along a side, of which a part is a boundary and the rest is not.
    "touching": (pde.Box(x=(-1, 0), y=(-1, 1)) | pde.Box(x=(0, 1), y=(0, 1)), 8, 3),
    "lens": (LEFT & RIGHT, 4 * np.pi / 3, LENS),
    "union": (LEFT | RIGHT, 8 * np.pi / 3, 2 * np.pi - LENS),
    "moon": (LEFT - RIGHT, 2 * np.pi, np.pi - LENS),
    # Their common part would count twice.
    "overlapping": (pde.Box(x=(0, 2), y=(0, 1)) | pde.Box(x=(1, 3), y=(0, 1)), 8, 3),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_boundary_has_its_length_and_by_the_divergence_theorem_its_normals(name):
    shape, length, area = SHAPES[name]
    region = pde.Region(shape)
    assert sum(c.length for c in region.bounding) == pytest.approx(length, rel=1e-9)
    assert region.share * np.prod(np.subtract(region.upper, region.lower)) == pytest.approx(
        area, rel=5e-3
    )
    s = (np.arange(2000) + 0.5) / 2000
    total = 0.0
    for curve in region.bounding:
        points, normals = curve.at(s)
        np.testing.assert_allclose(shape.distance(points), 0, atol=1e-12)
        assert (shape.distance(points - 1e-6 * normals) > 0).all()
        assert (shape.distance(points + 1e-6 * normals) < 0).all()
        total += curve.length * np.mean(np.sum(points * normals, -1))
    # The integral of x . n over the boundary is twice the area.
    assert total == pytest.approx(2 * area, rel=1e-6)


def test_points_are_inside_as_many_as_asked_and_spread_evenly():
    region = pde.Region(LEFT - RIGHT, t=(2, 3))
    points = jax.jit(lambda key: region.draw(pde.Sobol(), key, 1000))(jax.random.key(0))
    assert points.shape == (1000, 3)
    assert bool(region.covers(points).all())
    assert float(jnp.mean(points[:, 2])) == pytest.approx(2.5, abs=1e-2)
    # The moment of the moon is that of its disc less that of the lens.
    assert float(jnp.mean(points[:, 0])) == pytest.approx(-0.5 * np.pi / (np.pi - LENS), abs=1e-2)
    assert not bool(region.covers(points.at[:, 2].set(3.5)).any())


def test_a_window_in_time_keeps_the_shape():
    region = pde.Region(PLATE, t=(0, 1), nu=(1, 2))
    rim = {"rim": pde.Dirichlet({"boundary": "holes"}, {"u": 0.0})}
    posed = pde.Problem(region, ["u"], {"heat": lambda v: v.u_t - v.laplacian("u")}, rim)
    window = pde.in_window(posed, (0.0, 0.5)).domain
    assert isinstance(window, pde.Region)
    assert window.bounding == region.bounding
    assert window.names == ("x", "y", "t", "nu")
    assert window.upper == (0.5, 0.5, 0.5, 2.0)


def test_points_on_named_parts_are_in_proportion_to_length():
    region = pde.Region(PLATE, t=(0, 1))

    @jax.jit
    def draw(key):
        places = [("boundary", "all"), ("boundary", "holes"), ("x", 0.5)]
        return [region.draw_on([place], pde.Sobol(), key, 1024) for place in places]

    (x, normal), (holes, inward), (side, outward) = draw(jax.random.key(0))
    on_sides = jnp.max(jnp.abs(x[:, :2]), -1) > 0.5 - 1e-12
    assert float(jnp.mean(on_sides)) == pytest.approx(4 / (4 + 0.8 * np.pi), abs=2e-3)
    np.testing.assert_allclose(jnp.sum(normal**2, -1), 1, rtol=1e-12)
    centre = 0.3 * jnp.sign(holes[:, :2])
    np.testing.assert_allclose(holes[:, :2] + 0.1 * inward[:, :2], centre, atol=1e-12)
    assert set(side[:, 0].tolist()) == {0.5}
    assert outward.tolist() == [[1.0, 0.0, 0.0]] * 1024


def test_a_factor_is_smooth_where_the_shape_allows_it():
    plate, corner = pde.Region(PLATE), pde.Region(pde.Polygon(CORNER))
    assert not Vanishing(plate, plate.bounding).joined
    # Two edges meet in the re-entrant corner, and their lines enter the region.
    assert len(Vanishing(corner, corner.bounding).joined) == 2
    # One half of a side cannot have the factor of its line, which would vanish on the other half.
    touching = pde.Region(SHAPES["touching"][0])
    top = tuple(touching.curves_at("y", 1.0))
    assert len(top) == 2
    assert len(Vanishing(touching, top).factors) == 1
    assert not Vanishing(touching, top[:1]).factors
    for region in (plate, corner):
        phi = Vanishing(region, region.bounding)
        rim = np.concatenate([c.at(np.linspace(0.01, 0.99, 50))[0] for c in region.bounding])
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(phi._product(rim, np), 0, atol=1e-12)
        inside = phi._product(region.probes(), np)
        assert np.min(inside) > 0
        assert np.max(inside) == pytest.approx(1, rel=1e-12)


def test_hard_values_hold_on_every_part_and_at_the_start():
    problem = pde.Problem(
        pde.Region(PLATE, t=(0, 1)),
        ["u"],
        {"heat": lambda v: v.u_t - v.laplacian("u")},
        {
            "sides": pde.Dirichlet({"boundary": "sides"}, {"u": lambda v: 1 + v.t}, hard=True),
            "holes": pde.Dirichlet({"boundary": "holes"}, {"u": lambda v: v.x * v.t}, hard=True),
            "start": pde.Initial({"u": lambda v: jnp.cos(v.x)}, hard=True),
        },
    )
    ansatz, region = pde.Ansatz(problem, "u"), problem.domain
    assert isinstance(region, pde.Region)
    field = jax.jit(jax.vmap(lambda p: ansatz(lambda q: 5 + jnp.sin(7 * q[0]), p)))
    around = jax.jit(jax.vmap(ansatz._around))
    rim = {"sides": lambda x: 1 + x[:, 2], "holes": lambda x: x[:, 0] * x[:, 2]}
    s = np.linspace(0.01, 0.99, 16)
    for name, data in rim.items():
        places = np.concatenate([c.at(s)[0] for c in region.curves_at("boundary", name)])
        x = np.hstack([places, np.linspace(0, 1, len(places))[:, None]])
        start = x * [1, 1, 0]
        np.testing.assert_allclose(around(x), data(x), atol=1e-12)
        # The start is right first, and the parts are as they are stated from there.
        expected = data(x) + np.cos(x[:, 0]) - data(start)
        np.testing.assert_allclose(field(x), expected, atol=1e-12)
    x = np.hstack([region.probes()[:64], np.zeros((64, 1))])
    np.testing.assert_allclose(field(x), np.cos(x[:, 0]), atol=1e-12)


def test_points_on_a_ball_s_surface_are_spread_evenly_and_have_their_normals():
    ball = pde.Region(pde.Ball(x=1, y=0, z=0, radius=2).called("skin"), t=(0, 1))
    faces = [("boundary", "skin"), ("t", 0.0)]
    x, normal = ball.draw_on(faces, pde.Sobol(), jax.random.key(0), 2048)
    skin, start = np.asarray(x[:1024]), np.asarray(x[1024:])
    np.testing.assert_allclose(skin[:, :3] - [1, 0, 0], 2 * normal[:1024, :3], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, rtol=1e-12)
    # Of directions that prefer none the mean is zero, and the fourth power of each is a fifth.
    np.testing.assert_allclose(np.mean(normal[:1024, :3], axis=0), 0, atol=5e-3)
    np.testing.assert_allclose(np.mean(normal[:1024, :3] ** 4, axis=0), 1 / 5, atol=5e-3)
    assert (start[:, 3] == 0).all()
    ball.check_face("boundary", "all")
    with pytest.raises(ValueError, match="there is all, skin"):
        ball.check_face("boundary", "rind")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pde.Region(LEFT & pde.Ball(x=3, y=0, radius=1)), "shape is empty"),
        (lambda: pde.Region(LEFT & pde.Ball(x=1.2, y=1.2, radius=1)), "shape is empty"),
        (lambda: LEFT & pde.Ball(x=0, z=0, radius=1), "cannot be combined"),
        (lambda: pde.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), "must not meet"),
        (lambda: pde.Polygon([(0, 0), (1, 1)]), "three vertices"),
        (lambda: pde.Ball(x=0, radius=-1), "must be positive"),
        (lambda: pde.Region(PLATE).curves_at("boundary", "rim"), "there is all, holes, sides"),
        (lambda: pde.Region(PLATE).curves_at("x", 0.0), "No straight part"),
    ],
)
def test_a_shape_that_cannot_be_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (pde.Neumann({"boundary": "all"}, {"u": 0.0}, hard=True), "only values can be hard"),
        (pde.Periodic("x"), "has no period"),
    ],
)
def test_conditions_that_a_shape_cannot_have(condition, message):
    def pose():
        region, equations = pde.Region(LEFT), {"flow": lambda v: v.u_xx}
        return pde.Ansatz(pde.Problem(region, ["u"], equations, {"rim": condition}), "u")

    with pytest.raises(ValueError, match=message):
        pose()
