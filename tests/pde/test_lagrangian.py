"""Claims of Mojgani et al. (2023): what a network that follows the flow is, and that it pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pde
import sciopt

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

SPEED = 50.0
ROUND = 2 * float(np.pi)


def periodic(equation, start, **box):
    conditions = {"start": pde.Initial({"u": start}, hard=True)}
    conditions |= {f"around {name}": pde.Periodic(name, hard=True) for name in box}
    return pde.Problem(pde.Box(**box, t=(0, 1)), ["u"], {"equation": equation}, conditions)


def branches(problem, directions=1, **kwargs):
    options = {"width": 6, "depth": 2, "key": jax.random.key(4)} | kwargs
    return pde.TwoBranch.mlp(pde.Features(problem).size, 1, directions, **options)


def test_lpinn_solves_convection_at_speed_50_and_the_plain_pinn_fails():
    """The paper's figure 5: the errors' order, for three seeds, each with 30 steps."""
    problem = periodic(lambda v: v.u_t + SPEED * v.u_x, lambda v: jnp.sin(v.x), x=(0, ROUND))
    points = problem.domain.from_unit(pde.Sobol()(jax.random.key(9), 128, 2))
    velocity = {"x": lambda v: SPEED}
    optimizer = sciopt.GaussNewton(acceleration=None)

    def error(make, seed):
        key = jax.random.key(seed)
        pinn = pde.PINN(problem, make(key), points=128)
        u = pde.solve(pinn, optimizer, steps=30, key=key)
        # Where particles are is quicker to say than which of them are where.
        see = u.carried if isinstance(u, pde.Lagrangian) else lambda p: (u(p), p)
        found, where = jax.jit(jax.vmap(see))(points)
        exact = jnp.sin(where[:, 0] - SPEED * where[:, 1])
        return float(jnp.linalg.norm(found[:, 0] - exact) / jnp.linalg.norm(exact))

    def plain(key):
        return pde.MLP(3, 1, width=12, depth=2, key=key)

    def following(key):
        return pde.Lagrangian(problem, branches(problem, width=8, key=key), velocity)

    assert min(error(plain, seed) for seed in range(3)) > 0.5
    assert max(error(following, seed) for seed in range(3)) < 1e-4


def test_residuals_vanish_for_the_exact_flow_of_burgers_in_two_dimensions():
    """A state that is carried, and a shear: x = xi + t u0, u = u0(xi, eta)."""
    start = lambda v: jnp.sin(v.x) * jnp.cos(v.y)  # noqa: E731
    problem = periodic(
        lambda v: v.u_t + v.u * v.u_x + 0.3 * v.u_y, start, x=(0, ROUND), y=(0, ROUND)
    )

    class Exact(pde.Lagrangian):
        def carried(self, label):
            u = jnp.sin(label[0]) * jnp.cos(label[1])
            move = jnp.array([u * label[2], 0.3 * label[2], 0.0])
            return u[None], label + move

    velocity = {"x": lambda v: v.u, "y": lambda v: 0.3}
    field = Exact(problem, branches(problem, 2), velocity)  # pyright: ignore[reportCallIssue]
    points = problem.domain.from_unit(jax.random.uniform(jax.random.key(1), (9, 3)))
    points = points.at[:, 2].multiply(0.9)  # characteristics cross at t = 1
    for residual in jax.vmap(field.residuals)(points).values():
        np.testing.assert_allclose(residual, 0, atol=1e-12)
    # And the label of where a particle is, is its own.
    places = jax.vmap(field.position)(points)
    np.testing.assert_allclose(jax.vmap(field.label)(places), points, atol=1e-10)


def test_derivatives_along_characteristics_are_those_at_a_fixed_place():
    """Against derivatives of the field itself, through Newton's method; to the second order."""
    problem = periodic(lambda v: v.u_t + v.u * v.u_x - v.u_xx, lambda v: jnp.sin(v.x), x=(0, ROUND))
    field = pde.Lagrangian(problem, branches(problem), {"x": lambda v: v.u})
    label = jnp.array([2.0, 0.4])
    place = field.position(label)
    h = 1e-4
    at = [field(place.at[0].add(i * h))[0] for i in (-1, 0, 1)]
    values = field._values(label)
    np.testing.assert_allclose(values.u, at[1], rtol=1e-12)
    np.testing.assert_allclose(values.u_x, (at[2] - at[0]) / (2 * h), rtol=1e-6)
    np.testing.assert_allclose(values.u_xx, (at[2] - 2 * at[1] + at[0]) / h**2, rtol=1e-5)


@pytest.mark.parametrize(
    ("conditions", "velocity", "said"),
    [
        ({"start": pde.Initial({"u": 0.0}, hard=True)}, {"x": 1}, "Nothing is periodic over x"),
        ({"start": pde.Initial({"u": 0.0})}, {"x": 1}, "'start' must be a hard initial"),
        ({"wrap": pde.Periodic("x", hard=True)}, {"x": 1}, "No initial condition is on u"),
        ({}, {"y": 1}, "it names y, and the box has x, t"),
    ],
)
def test_problems_that_particles_leave_are_refused(conditions, velocity, said):
    problem = pde.Problem(
        pde.Box(x=(0, 1), t=(0, 1)), ["u"], {"transport": lambda v: v.u_t + v.u_x}, conditions
    )
    with pytest.raises(ValueError, match=said):
        pde.Lagrangian(problem, lambda x: x, {n: lambda v: 1.0 for n in velocity})
