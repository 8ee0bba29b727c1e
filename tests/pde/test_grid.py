"""Claims about equations on grids: orders, conservation, gradients, and how they end."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest

from pde import grid
from sciopt import relax

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

PI = np.pi
LU, CHOLESKY = lx.LU(), lx.Cholesky()


def order(error, n):
    """The slope of an error between n cells and twice as many; each a program of its own."""
    jitted = jax.jit(error, static_argnums=0)
    return np.log2(np.asarray(jitted(n)) / np.asarray(jitted(2 * n)))


def finish(scheme, start, until, steps, solver):
    """The fields after so many equal steps to the time `until`."""
    loop = grid.TimeLoop(scheme, until / steps, solver)
    return eqx.filter_jit(loop.run)(loop.init(start), steps)[0].fields


# --- orders of accuracy ---------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3])
def test_heat_is_of_second_order_against_separable_decay(dim):
    def error(n):
        mesh = grid.Mesh(*[(0.0, 1.0, n)] * dim)
        shape = 1.0
        for x in mesh.nodes():
            shape = shape * jnp.sin(PI * x)
        # Conduction that changes so fast that an error in its time would show: its integral by
        # t = 0.02 is 0.04.
        heat = grid.Heat(mesh, lambda t, *_: 1 + 100 * t)
        found = finish(heat, shape, 0.02, n, CHOLESKY)
        return jnp.abs(found - jnp.exp(-dim * PI**2 * 0.04) * shape).max()

    assert order(error, 4) == pytest.approx(2, abs=0.2)


def test_heat_of_coefficients_in_space_between_moving_walls_is_of_second_order():
    def exact(t, x, y):
        return jnp.cos(x + 2 * y - t)

    def source(t, x, y):  # for kappa = 2 + x y
        s, c = jnp.sin(x + 2 * y - t), jnp.cos(x + 2 * y - t)
        return s + 5 * (2 + x * y) * c + (y + 2 * x) * s

    def error(n):
        mesh = grid.Mesh((0, 1, n), (0, 2, n))
        heat = grid.Heat(mesh, lambda t, x, y: 2 + x * y, source, exact)
        found = finish(heat, exact(0.0, *mesh.nodes()), 1.0, n, CHOLESKY)
        return jnp.abs(found - exact(1.0, *mesh.nodes())).max()

    assert order(error, 6) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(("theta", "expected"), [(0.5, 2), (1.0, 1)])
def test_the_rule_in_time_has_its_order(theta, expected):
    # Quadratic in space, so that there is no other error: (x^2 + 2y) cos(1 + t).
    def exact(t, x, y):
        return (x**2 + 2 * y) * jnp.cos(1 + t)

    def source(t, x, y):
        return -(x**2 + 2 * y) * jnp.sin(1 + t) - 0.2 * jnp.cos(1 + t)

    mesh = grid.Mesh((0, 1, 4), (0, 1, 4))
    heat = grid.Heat(mesh, 0.1, source, exact, theta)

    @jax.jit
    @jax.vmap
    def error(dt):
        loop = grid.TimeLoop(heat, dt, CHOLESKY)
        state, _ = loop.run(loop.init(exact(0.0, *mesh.nodes())), steps=5)
        return jnp.abs(state.fields - exact(state.t, *mesh.nodes())).max()

    # Over so few steps the error is the sum of theirs, which are of one order more.
    coarse, fine = error(jnp.array([0.005, 0.0025]))
    assert np.log2(coarse / fine) == pytest.approx(expected + 1, abs=0.2)


@pytest.mark.parametrize(("upwind", "expected"), [(False, 2), (True, 1)])
def test_advection_diffusion_has_the_order_of_its_fluxes(upwind, expected):
    # u = 2 + cos(pi x) cos(pi y) cos t has no slope on the walls, that the flow does not cross.
    kappa = 0.05

    def exact(t, x, y):
        return 2 + jnp.cos(PI * x) * jnp.cos(PI * y) * jnp.cos(t)

    def velocity(t, x, y):
        a = (1 + t) * jnp.sin(PI * x) * jnp.cos(PI * y)
        return a, -(1 + t) * jnp.cos(PI * x) * jnp.sin(PI * y)

    def source(t, x, y):
        a, b = velocity(t, x, y)
        u_x = -PI * jnp.sin(PI * x) * jnp.cos(PI * y) * jnp.cos(t)
        u_y = -PI * jnp.cos(PI * x) * jnp.sin(PI * y) * jnp.cos(t)
        around = exact(t, x, y) - 2
        return -around * jnp.tan(t) + a * u_x + b * u_y + 2 * PI**2 * kappa * around

    def error(n):
        mesh = grid.Mesh((0, 1, n), (0, 1, n))
        scheme = grid.AdvectionDiffusion(mesh, velocity, kappa, source, upwind=upwind)
        found = finish(scheme, exact(0.0, *mesh.centres()), 0.8, n, LU)
        return jnp.abs(found - exact(0.8, *mesh.centres())).mean()

    assert order(error, 8) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize(("slip", "viscosity", "cells"), [(True, 0.02, 8), (False, 0.1, 10)])
def test_navier_stokes_is_of_second_order_against_taylor_and_green_s_vortex(slip, viscosity, cells):
    def vortex(t, x, y):
        """It decays in place, in a square of side pi; and its pressure, of mean zero."""
        decay = jnp.exp(-2 * viscosity * t)
        velocity = jnp.sin(x) * jnp.cos(y) * decay, -jnp.cos(x) * jnp.sin(y) * decay
        return *velocity, (jnp.cos(2 * x) + jnp.cos(2 * y)) * decay**2 / 4

    def errors(n):
        # Where walls hold the flow, the layer beside them must be resolved before there is an
        # order, and viscosity then asks for shorter steps.
        steps = n if slip else 2 * n
        mesh = grid.Mesh((0, PI, n), (0, PI, n))
        scheme = grid.NavierStokes(mesh, viscosity, walls=lambda *at: vortex(*at)[:2], slip=slip)
        start = scheme.flow(lambda x, y: vortex(0.0, x, y)[:2])
        flow = finish(scheme, start, 1.0, steps, lx.CG(rtol=1e-8, atol=1e-10))
        u, v = (vortex(1.0, *mesh.faces(k))[k] for k in (0, 1))
        # Pressure is that of the middle of the last step.
        p = vortex(1.0 - 0.5 / steps, *mesh.centres())[2]
        return [jnp.abs(a - b).mean() for a, b in ((flow.u, u), (flow.v, v), (flow.p, p))]

    np.testing.assert_allclose(order(errors, cells), 2, atol=0.2)


# --- conservation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.5, 1.0])
def test_advection_diffusion_keeps_its_mass_to_rounding(theta):
    mesh = grid.Mesh((0, 1, 6), (0, 2, 5), (0, 1, 4))
    moving = grid.AdvectionDiffusion(
        mesh, lambda t, x, y, z: (jnp.sin(9 * y + t), x * z, -3.0), lambda t, x, *_: 0.01 + x,
        theta=theta, upwind=theta == 1.0,
    )  # fmt: skip
    start = jnp.asarray(np.random.default_rng(0).uniform(size=mesh.cells))
    found = finish(moving, start, 1.0, 5, LU)
    assert abs(found.sum() / start.sum() - 1) < 1e-13
    assert np.abs(found - start).max() > 0.1


def test_upwind_steps_of_backward_euler_make_no_new_extrema():
    mesh = grid.Mesh((0, 1, 20))
    moving = grid.AdvectionDiffusion(mesh, lambda t, x: (x * (1 - x),), 0.0, theta=1.0, upwind=True)
    (x,) = mesh.centres()
    found = finish(moving, jnp.where(x < 0.3, 1.0, 0.0), 2.0, 10, LU)
    assert found.min() >= -1e-14


@eqx.filter_jit
def run(loop, state):
    return loop.run(state, 60, throw=False)


@pytest.fixture(scope="module")
def cavity(compiled_in_haste):
    """A lid-driven cavity: the scheme, and what a tuned run of it told."""
    mesh = grid.Mesh((0, 1, 12), (0, 1, 12))
    scheme = grid.NavierStokes(
        mesh, 0.02, walls=lambda t, x, y: (jnp.where(y > 0.99, 1.0, 0.0), 0.0)
    )
    values = jnp.array([1.0, 1.5, 1.7])
    tuned = relax.Tuned(relax.SOR(rtol=1e-10), relax.TsallisINF(3), values)
    loop = grid.TimeLoop(scheme, jnp.array(0.02), tuned)
    start = loop.init(scheme.at_rest(), jax.random.key(0))
    return loop, start, run(loop, start)


def test_a_projection_leaves_the_divergence_of_the_solver_s_tolerance(cavity):
    loop, _, (state, _) = cavity
    flow = state.fields
    assert jnp.abs(loop.scheme.divergence(flow)).max() < 1e-10 * jnp.abs(flow.u).max() * 12
    for wall in (flow.u[0], flow.u[-1], flow.v[:, 0], flow.v[:, -1]):
        assert (wall == 0).all()
    assert loop.scheme.vorticity(flow, state.t).shape == (13, 13)


def test_advection_does_no_work_on_a_flow_without_divergence():
    mesh = grid.Mesh((0, 1, 8), (0, 2, 7))
    scheme = grid.NavierStokes(mesh, 0.0, slip=True)
    stream = np.pad(np.random.default_rng(0).normal(size=(7, 6)), 1)
    (h, k) = mesh.spacing
    u, v = np.diff(stream, axis=1) / k, -np.diff(stream, axis=0) / h
    flow = grid.Flow(jnp.asarray(u), jnp.asarray(v), jnp.zeros((8, 7)))
    du, dv = jax.jit(scheme.start)(flow, 0.0, 1.0).rates
    work = np.concatenate([(u[1:-1] * du).ravel(), (v[:, 1:-1] * dv).ravel()])
    assert abs(work.sum()) < 1e-13 * np.abs(work).sum()


# Ghia, Ghia and Shin, J. Comput. Phys. 48 (1982), tables I and II at Re = 100: u over y in the
# middle of the cavity, and v over x.
GHIA_Y = [0.0547, 0.1016, 0.1719, 0.2813, 0.4531, 0.5, 0.6172, 0.7344, 0.8516, 0.9531, 0.9766]
GHIA_U = [
    -0.03717, -0.06434, -0.10150, -0.15662, -0.21090, -0.20581, -0.13641, 0.00332, 0.23151,
    0.68717, 0.84123,
]  # fmt: skip
GHIA_X = [0.0625, 0.0938, 0.1563, 0.2266, 0.5, 0.8047, 0.8594, 0.9063, 0.9453, 0.9688]
GHIA_V = [
    0.09233, 0.12317, 0.16077, 0.17507, 0.05454, -0.24533, -0.22445, -0.16914, -0.10313, -0.05906,
]  # fmt: skip


def test_the_lid_driven_cavity_is_ghia_ghia_and_shin_s():
    n = 32
    mesh = grid.Mesh((0, 1, n), (0, 1, n))
    scheme = grid.NavierStokes(
        mesh, 0.01, walls=lambda t, x, y: (jnp.where(y > 0.99, 1.0, 0.0), 0.0)
    )
    cycle = relax.Multigrid(unknowns="cells")
    solver = relax.CG(preconditioner=cycle, rtol=1e-3, atol=1e-6, max_steps=30)
    loop = grid.TimeLoop(scheme, 0.011, solver)
    flow = eqx.filter_jit(loop.run)(loop.init(scheme.at_rest()), 1500)[0].fields
    middles = np.asarray(mesh.centres()[0]).ravel()
    u = np.interp(GHIA_Y, np.r_[0, middles, 1], np.r_[0, flow.u[n // 2], 1])
    v = np.interp(GHIA_X, np.r_[0, middles, 1], np.r_[0, flow.v[:, n // 2], 0])
    assert np.abs(u - GHIA_U).max() < 0.02
    assert np.abs(v - GHIA_V).max() < 0.02


@pytest.mark.parametrize(
    "solver",
    [lx.LU(), lx.Cholesky(),
     relax.CG(preconditioner=relax.Multigrid(unknowns="cells"), rtol=1e-10)],
    ids=["lu", "cholesky", "multigrid_cg"],
)  # fmt: skip
def test_a_singular_pressure_is_solved_directly_and_by_multigrid(solver):
    scheme = grid.NavierStokes(grid.Mesh((0, 1, 16), (0, 0.5, 8)), 0.1)
    flow = scheme.flow(lambda x, y: (jnp.sin(3 * x * y), x + y))
    system = scheme.prepare(scheme.start(flow, jnp.array(0.0), jnp.array(0.1)),
                            jnp.array(0.0), jnp.array(0.1))[0]  # fmt: skip
    found = lx.linear_solve(system.operator, system.vector, solver)
    # Of the matrix as it is, by NumPy's pseudo-inverse.
    basis = jnp.eye(128).reshape(128, 16, 8)
    matrix = np.asarray(jax.vmap(system.operator.mv)(basis)).reshape(128, 128)
    exact = np.linalg.lstsq(matrix, np.ravel(system.vector), rcond=1e-10)[0]
    value = np.ravel(found.value - found.value.mean())
    # Direct solvers are given one that is not singular: constants have the diagonal's mean.
    given = system.operator.as_matrix()
    np.testing.assert_allclose(given - matrix, np.diag(matrix).mean() / 128, rtol=0, atol=1e-10)
    assert np.linalg.norm(value - exact) < 1e-8 * np.linalg.norm(exact)


# --- tuners ---------------------------------------------------------------------------------------


def test_a_tuner_s_state_is_carried_from_step_to_step(cavity):
    loop, _, (state, record) = cavity
    assert (record.cost == record.iterations).all()
    assert (record.value == loop.solver.values[record.choice]).all()
    # Gauss-Seidel is the slowest.
    assert record.choice[30:].mean() > 1
    assert record.cost[record.choice == 0].mean() > 2 * record.cost[record.choice == 2].mean()
    assert state.tuner.rounds == 60
    assert state.step == 60
    assert state.t == pytest.approx(1.2)


def test_runs_one_after_the_other_are_one_run():
    mesh = grid.Mesh((0, 1, 8))
    tuned = relax.Tuned(relax.Jacobi(), relax.TsallisINF(2), jnp.array([0.8, 1.0]))
    loop = grid.TimeLoop(grid.Heat(mesh), 0.01, tuned)
    start = loop.init(jnp.ones(7), jax.random.key(0))
    run = eqx.filter_jit(loop.run)
    state, record = run(start, 20)
    half, first = run(start, 10)
    whole, second = run(half, 10)
    np.testing.assert_array_equal(np.r_[first.choice, second.choice], record.choice)
    np.testing.assert_allclose(whole.fields, state.fields, rtol=1e-12)
    assert whole.t == state.t


def test_a_solver_of_lineax_s_own_gives_the_same_field():
    mesh = grid.Mesh((0, 1, 8), (0, 1, 8))
    x, y = mesh.nodes()
    heat, start = grid.Heat(mesh, lambda t, x, y: 1 + x * y), x * y
    exact = finish(heat, start, 0.1, 4, CHOLESKY)
    np.testing.assert_allclose(
        finish(heat, start, 0.1, 4, lx.BiCGStab(1e-9, 1e-12)), exact, atol=1e-8
    )


# --- derivatives ----------------------------------------------------------------------------------


def heat_energy(parameter):
    """Of the last field, after steps with a tuned solver."""
    mesh = grid.Mesh((0, 1, 8))
    (x,) = mesh.nodes()
    heat = grid.Heat(mesh, lambda t, x: parameter * (1 + x) + t, lambda t, x: x * parameter)
    tuned = relax.Tuned(relax.SOR(rtol=1e-13), relax.TsallisINF(2), jnp.array([1.1, 1.4]))
    loop = grid.TimeLoop(heat, 0.02 * parameter, tuned)
    state, _ = loop.run(loop.init(parameter**2 * x, jax.random.key(1)), 6)
    return (state.fields**2).sum()


def carried_off(parameter):
    mesh = grid.Mesh((0, 1, 6), (0, 1, 6))
    x, y = mesh.centres()
    moving = grid.AdvectionDiffusion(
        mesh, lambda t, x, y: (jnp.cos(parameter * t), parameter * x), 0.01 * parameter
    )
    loop = grid.TimeLoop(moving, 0.05, LU)
    state, _ = loop.run(loop.init(jnp.exp(-x - y)), 6)
    return (state.fields**2 * (x - y + 1)).sum()


def driven(parameter):
    mesh = grid.Mesh((0, 1, 6), (0, 1, 6))
    scheme = grid.NavierStokes(
        mesh, 0.02 * parameter, walls=lambda t, x, y: (parameter**2 * y * x, 0.0)
    )
    loop = grid.TimeLoop(scheme, 0.02, relax.SOR(omega=1.5, rtol=1e-13))
    flow = loop.run(loop.init(scheme.at_rest()), 8)[0].fields
    return (flow.u**2).sum() + (flow.v * flow.v).sum() + (flow.p**2).sum()


@pytest.mark.parametrize("goal", [heat_energy, carried_off, driven])
def test_gradients_flow_through_all_steps(goal):
    value_and_grad, h = jax.jit(jax.value_and_grad(goal)), 1e-4
    slope = (value_and_grad(1.3 + h)[0] - value_and_grad(1.3 - h)[0]) / (2 * h)
    assert abs(value_and_grad(1.3)[1] / slope - 1) < 1e-6


# --- how they end ---------------------------------------------------------------------------------


def test_a_flow_beyond_its_courant_number_blows_up_and_says_so(cavity):
    loop, start, _ = cavity
    fast = eqx.tree_at(lambda loop: loop.dt, loop, jnp.array(1.0))
    state, record = run(fast, start)
    ended = int(state.step)
    assert 0 < ended < 60
    assert state.result in (optx.RESULTS.nonfinite, optx.RESULTS.nonfinite_input)
    assert record.courant[0] == pytest.approx(2 * 0.02 * 2 * 144)
    assert state.t == ended
    assert jnp.isfinite(state.fields.u).all()
    assert (record.iterations[ended + 1 :] == 0).all()


def test_a_solve_that_does_not_converge_ends_the_simulation_there():
    mesh = grid.Mesh((0, 1, 8), (0, 1, 8))
    x, y = mesh.nodes()
    loop = grid.TimeLoop(grid.Heat(mesh), 0.1, relax.SOR(max_steps=3))
    state, record = loop.run(loop.init(x * y), 4, throw=False)
    assert state.result == optx.RESULTS.max_steps_reached
    assert state.step == 0
    assert state.t == 0
    np.testing.assert_array_equal(state.fields, x * y)
    assert record.iterations.tolist() == [3, 0, 0, 0]
    with pytest.raises(eqx.EquinoxRuntimeError, match="maximum number of solver steps"):
        loop.run(loop.init(x * y), 4)


def test_precision_follows_the_field():
    mesh, solver = grid.Mesh((0, 1, 4), (0, 1, 4)), relax.SOR(rtol=1e-5)
    x, y = mesh.nodes(dtype=jnp.float32)
    single = grid.TimeLoop(grid.Heat(mesh, 2.0), 0.1, solver)
    state, record = jax.eval_shape(lambda: single.run(single.init(x * y), 2))
    assert state.fields.dtype == state.t.dtype == record.courant.dtype == jnp.float32
    flow = grid.TimeLoop(grid.NavierStokes(mesh, 0.1), 0.1, solver)
    rest = grid.NavierStokes(mesh, 0.1).at_rest(jnp.float32)
    state, record = jax.eval_shape(lambda: flow.run(flow.init(rest), 2))
    assert state.fields.p.dtype == record.value.dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: grid.Mesh((0, 0, 4)), "must be finite and rise"),
        (lambda: grid.Mesh((0, 1, 1)), "two cells"),
        (lambda: grid.Mesh(), "at least one axis"),
        (lambda: grid.Heat(grid.Mesh((0, 1, 4)), theta=0.4), "theta must be"),
        (lambda: grid.NavierStokes(grid.Mesh((0, 1, 4)), 1.0), "two axes"),
        (lambda: finish(grid.Heat(grid.Mesh((0, 1, 4))), jnp.ones(4), 1.0, 1, LU), "inner nodes"),
        (
            lambda: finish(
                grid.Heat(grid.Mesh((0, 1, 4), (0, 1, 4)), lambda t, x, y: x[:, 0]),
                jnp.ones((3, 3)), 1.0, 1, LU,
            ),
            "no axes or 2",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_words(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_tuner_without_a_key_and_hindsight_without_a_tuner_are_refused():
    mesh = grid.Mesh((0, 1, 4))
    tuned = relax.Tuned(relax.SOR(), relax.Constant(0), jnp.array([1.0]))
    loop = grid.TimeLoop(grid.Heat(mesh), 0.1, tuned)
    with pytest.raises(ValueError, match="give `init` a key"):
        loop.run(loop.init(jnp.ones(3)), 1)
    loop = grid.TimeLoop(grid.Heat(mesh), 0.1, LU)
    with pytest.raises(ValueError, match="Only a tuner"):
        loop.run(loop.init(jnp.ones(3)), 1, hindsight=True)
