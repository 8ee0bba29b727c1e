"""Claims about periodic equations by Fourier series, and about what marches them."""

import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from pde import grid, reference, spectral

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

PI = np.pi
SQUARE = spectral.Fourier((0, 2 * PI, 16), (0, 4 * PI, 12))


def any_modes(basis, *fields):
    """Of random values, all waves alike."""
    values = np.random.default_rng(0).normal(size=(*fields, *basis.cells))
    return jax.jit(basis.modes)(values)


def finish(equation, start, until, steps, order=4):
    loop = grid.March(equation, spectral.ETDRK(equation, until / steps, order))
    return equation.fields(loop.run(loop.init(equation.start(start)), steps)[0].y)


# --- transforms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [2, 3])
def test_products_of_their_degree_leave_no_alias_in_the_waves_that_are_kept(degree):
    coarse = spectral.Fourier((0, 1, 17), (0, 1, 20), degree=degree)
    fine = spectral.Fourier((0, 1, 90), (0, 1, 90), degree=1)
    modes = any_modes(coarse)

    @jax.jit
    def both(modes):
        exact = fine.modes(fine.values(coarse.resampled(modes, fine)) ** degree)
        return coarse.modes(coarse.values(modes) ** degree), fine.resampled(exact, coarse)

    found, exact = both(modes)
    np.testing.assert_allclose(found, exact, atol=1e-15 * 400)
    assert coarse.energy(modes) == pytest.approx((coarse.values(modes) ** 2).mean() / 2)


def test_phi_is_its_integral_to_rounding():
    # phi_k(z) = int_0^1 exp((1 - s) z) s^(k - 1) ds / (k - 1)!, by Gauss and Legendre's rule.
    s, weights = np.polynomial.legendre.leggauss(60)
    s, weights = (s + 1) / 2, weights / 2
    z = np.concatenate([r * np.exp(1j * np.linspace(PI / 2, 3 * PI / 2, 7))
                        for r in (1e-9, 1e-3, 0.5, 0.999, 1.001, 3.0, 30.0)])  # fmt: skip
    for k, found in enumerate(spectral.phi(z), start=1):
        kernel = weights * s ** (k - 1) / [1, 1, 2][k - 1]
        np.testing.assert_allclose(found, np.exp(np.outer(z, 1 - s)) @ kernel, 3e-14, 4e-15)


# --- orders of accuracy ---------------------------------------------------------------------------


def soliton(x, t, c=4.0):
    return c / 2 / jnp.cosh(jnp.sqrt(c) / 2 * (x - c * t)) ** 2


def test_steps_have_their_orders_for_a_symbol_that_only_turns():
    kdv = spectral.KortewegDeVries(spectral.Fourier((-16, 16, 300)))
    (x,) = kdv.basis.points()

    @jax.jit
    def errors():
        return [
            [jnp.abs(finish(kdv, soliton(x, 0.0), 0.2, n, order) - soliton(x, 0.2)).max()
             for n in (steps, 2 * steps)]
            for order, steps in ((1, 400), (2, 100), (3, 80), (4, 40))
        ]  # fmt: skip

    coarse, fine = np.array(errors()).T
    np.testing.assert_allclose(np.log2(coarse / fine), [1, 2, 3, 4], atol=0.2)
    assert fine[3] < 1e-5


def test_burgers_is_cole_and_hopf_s_to_all_digits_but_few():
    nu = 0.05
    burgers = spectral.Burgers(spectral.Fourier((-1, 1, 256)), nu)
    (x,) = burgers.basis.points()
    found = jax.jit(lambda: finish(burgers, -jnp.sin(PI * x), 0.5, 400))()
    exact = reference.cole_hopf(np.asarray(x), np.full(256, 0.5), nu=nu)
    assert np.abs(found - exact).max() < 1e-10


def test_a_stiff_solver_of_diffrax_s_agrees_with_gray_and_scott():
    basis = spectral.Fourier((0, 0.5, 8), degree=3)
    gray = spectral.GrayScott(basis, feed=0.04, kill=0.06)
    (x,) = basis.points()
    start = jnp.stack([1 - 0.5 * jnp.sin(2 * PI * x) ** 2, 0.25 + 0.1 * jnp.cos(4 * PI * x)])

    def rate(t, values, args):
        return gray.fields(gray.whole_term.vf(t, gray.start(values), args))

    @jax.jit
    def lines():
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rate), diffrax.Kvaerno5(), 0.0, 20.0, 0.1,
            gray.fields(gray.start(start)),
            stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-11),
        )  # fmt: skip
        return jnp.asarray(solution.ys)[0]

    found = jax.jit(lambda: finish(gray, start, 20.0, 200))()
    np.testing.assert_allclose(found, lines(), atol=1e-8)
    assert np.abs(found - start).max() > 0.1


def test_gray_and_scott_react_and_spread_as_they_say():
    """At one wave of each field, against the equations written out by hand."""
    basis = spectral.Fourier((0, 2 * PI, 16), degree=3)
    gray = spectral.GrayScott(basis, feed=0.04, kill=0.06, diffusion=(0.2, 0.1))
    (x,) = basis.points()
    u, v = 0.7 + 0.2 * jnp.sin(x), 0.3 + 0.1 * jnp.cos(x)
    found = gray.fields(gray.whole_term.vf(0.0, gray.start(jnp.stack([u, v])), None))
    eaten = u * v**2
    np.testing.assert_allclose(found[0], -0.04 * jnp.sin(x) - eaten + 0.04 * (1 - u), atol=1e-14)
    np.testing.assert_allclose(found[1], -0.01 * jnp.cos(x) + eaten - 0.1 * v, atol=1e-14)


def test_diffrax_takes_the_steps_of_the_march():
    burgers = spectral.Burgers(spectral.Fourier((0, 2 * PI, 16)), 0.1)
    solver = spectral.ETDRK(burgers, 0.1)
    start = burgers.start(jnp.sin(burgers.basis.points()[0]))
    loop = grid.March(burgers, solver)
    ours = jax.jit(lambda: loop.run(loop.init(start), 5)[0].y)()

    @eqx.filter_jit
    def theirs(until):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that complex numbers are a work in progress
            solution = diffrax.diffeqsolve(burgers.term, solver, 0.0, until, 0.1, start)
            return jnp.asarray(solution.ys)[0]

    np.testing.assert_allclose(theirs(jnp.array(0.5)), ours, atol=1e-14)
    with pytest.raises(eqx.EquinoxRuntimeError, match="must be `dt` long"):
        theirs(jnp.array(0.55))


def test_allen_and_cahn_s_field_is_the_reference_s():
    # Twice as fine where the reference, on cosines and by NumPy, has its own kink at the ends.
    basis = spectral.Fourier((-1, 1, 512), degree=3)
    equation = spectral.AllenCahn(basis, 0.01, rate=5.0)
    (x,) = basis.points()
    found = jax.jit(lambda: finish(equation, x**2 * jnp.cos(PI * x), 1.0, 500))()
    exact = reference.allen_cahn(np.asarray(x), np.array([1.0]), diffusion=0.01, modes=256)[:, 0]
    assert np.abs(found - exact).max() < 2e-5


# --- what is kept ---------------------------------------------------------------------------------


def test_vorticity_is_carried_by_the_flow_and_neither_energy_nor_enstrophy_is_made():
    flow, modes = spectral.Vorticity(SQUARE, 0.0), any_modes(SQUARE).at[0, 0].set(0)
    fine = spectral.Fourier((0, 2 * PI, 40), (0, 4 * PI, 40))

    @jax.jit
    def everything(modes):
        rate = flow.nonlinear(0.0, modes)
        at = fine.values(SQUARE.resampled(jnp.stack([
            *flow.velocity(modes), SQUARE.derivative(modes, 0), SQUARE.derivative(modes, 1)
        ]), fine))  # fmt: skip
        carried = fine.resampled(fine.modes(-at[0] * at[2] - at[1] * at[3]), SQUARE)
        work = [jax.jvp(f, (modes,), (rate,)) for f in (flow.energy, flow.enstrophy)]
        return rate, carried, work

    rate, carried, work = everything(modes)
    np.testing.assert_allclose(rate, carried, atol=1e-14)
    assert np.abs(rate).max() > 0.01
    for amount, change in work:
        assert abs(change) < 1e-14 * amount


def test_flow_in_space_turns_its_vorticity_and_makes_no_energy():
    basis = spectral.Fourier((0, 2 * PI, 10), (0, 2 * PI, 9), (0, PI, 8))
    flow = spectral.IncompressibleFlow(basis, 0.0)

    @jax.jit
    def everything(modes):
        modes = flow.projected(modes)
        rate = flow.nonlinear(0.0, modes)
        u, omega = basis.values(modes), basis.values(flow.vorticity(modes))
        turned = flow.projected(basis.modes(jnp.cross(u, omega, axis=0)))  # Lamb's form
        divergence = sum(basis.derivative(rate[k], k) for k in range(3))
        return rate, turned, divergence, jax.jvp(flow.energy, (modes,), (rate,))

    rate, turned, divergence, (energy, work) = everything(any_modes(basis, 3))
    np.testing.assert_allclose(rate, turned, atol=1e-14)
    assert np.abs(rate).max() > 0.01
    assert np.abs(divergence).max() < 1e-14
    assert abs(work) < 1e-14 * energy


def test_solitons_keep_their_mass_exactly_and_their_square_but_for_the_steps():
    kdv = spectral.KortewegDeVries(spectral.Fourier((-10, 10, 64)))
    loop = grid.March(kdv, spectral.ETDRK(kdv, 1e-3))

    @jax.jit
    def everything(modes):
        work = jax.jvp(kdv.basis.energy, (modes,), (kdv.nonlinear(0.0, modes),))
        return *work, loop.run(loop.init(modes / 10), 20, throw=False)[0].y

    modes = any_modes(kdv.basis)
    energy, work, after = everything(modes)
    assert abs(work) < 1e-13 * energy
    assert after[0] == modes[0] / 10


def test_waves_turn_by_the_exact_angle_in_any_step():
    wave = spectral.Wave(spectral.Fourier((0, 2 * PI, 12), (0, 2 * PI, 12), degree=1), 2.0)
    x, y = wave.basis.points()
    shape, c = jnp.cos(x + 2 * y), 2 * np.sqrt(5)
    start = jnp.stack([shape + 1, 0 * shape + 0.5])
    u, rate = jax.jit(lambda: finish(wave, start, 3.0, 2, order=1))()
    np.testing.assert_allclose(u, shape * np.cos(3 * c) + 2.5, atol=1e-13)
    np.testing.assert_allclose(rate, -c * shape * np.sin(3 * c) + 0.5, atol=1e-12)


# --- derivatives ----------------------------------------------------------------------------------


def test_gradients_flow_through_steps_stored_or_taken_anew():
    def goal(parameter, remat=False):
        flow = spectral.Vorticity(SQUARE, 0.05 * parameter, 0.1, force=parameter * pushed)
        loop = grid.March(flow, spectral.ETDRK(flow, 0.02 * parameter, 2))
        state, _ = loop.run(loop.init(parameter * start), 12, every=4, remat=remat)
        return flow.enstrophy(state.y) + jnp.sum(state.y.real[1:3, 1:3])

    start, pushed = (
        any_modes(SQUARE).at[0, 0].set(0),
        1j * jnp.zeros(SQUARE.shape).at[2, 1].set(1.0),
    )
    value_and_grad, h = jax.jit(jax.value_and_grad(goal)), 1e-4
    slope = (value_and_grad(1.1 + h)[0] - value_and_grad(1.1 - h)[0]) / (2 * h)
    gradient = value_and_grad(1.1)[1]
    assert abs(gradient / slope - 1) < 1e-6
    again = jax.jit(jax.grad(lambda parameter: goal(parameter, remat=True)))(1.1)
    assert abs(again / gradient - 1) < 1e-12


def test_steps_taken_anew_need_the_memory_of_a_hundredth():
    burgers = spectral.Burgers(spectral.Fourier((0, 2 * PI, 128)), 0.1)
    loop = grid.March(burgers, spectral.ETDRK(burgers, 1e-3))

    def needs(remat):
        def goal(start):
            state, _ = loop.run(loop.init(start), 10_000, every=100, remat=remat)
            return burgers.basis.energy(state.y)

        start = jax.ShapeDtypeStruct(burgers.basis.shape, complex)
        analysis = jax.jit(jax.grad(goal)).lower(start).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    state = 16 * burgers.basis.shape[0]
    assert needs(True) < 3000 * state < 10_000 * state < needs(False)


# --- how they end ---------------------------------------------------------------------------------


def test_a_blow_up_is_told_with_its_step_and_courant_number():
    burgers = spectral.Burgers(spectral.Fourier((0, 2 * PI, 24)), 0.0)
    loop = grid.March(burgers, spectral.ETDRK(burgers, 1.0, 2))
    start = burgers.start(jnp.sin(burgers.basis.points()[0]))
    run = eqx.filter_jit(loop.run)
    state, record = run(loop.init(start), 60, every=1, throw=False)
    ended = int(state.step)
    assert 0 < ended < 59
    assert state.result == optx.RESULTS.nonfinite
    assert jnp.isfinite(state.y).all()
    assert state.t == ended == record.t[-1]
    assert record.courant[0] > 3
    assert (np.diff(record.courant[:ended]) > 0).all()
    with pytest.raises(eqx.EquinoxRuntimeError):
        run(loop.init(start), 60)


def test_runs_one_after_the_other_are_one_run():
    burgers = spectral.Burgers(spectral.Fourier((0, 2 * PI, 24)), 0.1)
    loop = grid.March(burgers, spectral.ETDRK(burgers, 0.1, 1))
    run = eqx.filter_jit(loop.run)
    start = loop.init(burgers.start(jnp.sin(burgers.basis.points()[0])))
    half, first = run(start, 4, 2)
    whole, second = run(half, 4, 2)
    once, record = run(start, 8, 2)
    np.testing.assert_array_equal(whole.y, once.y)
    np.testing.assert_array_equal(np.r_[first.t, second.t], record.t)


def test_precision_follows_the_field_and_coefficients_are_made_in_double():
    flames = spectral.KuramotoSivashinsky(spectral.Fourier((0, 32 * PI, 64)))
    loop = grid.March(flames, spectral.ETDRK(flames, 0.1))
    x = flames.basis.points(jnp.float32)[0]
    single = flames.start(jnp.cos(x / 16) * (1 + jnp.sin(x / 16)))
    assert single.dtype == jnp.complex64
    run = jax.jit(lambda start: loop.run(loop.init(start), 20)[0])
    found, exact = run(single), run(single.astype(complex))
    assert found.y.dtype == jnp.complex64
    assert found.t.dtype == jnp.float32
    assert np.abs(found.y - exact.y).max() < 3e-6


# --- finite volumes -------------------------------------------------------------------------------


def test_finite_volumes_are_of_second_order_until_there_is_a_front():
    def mean_error(n):
        mesh = grid.Mesh((0, 2 * PI, n))
        law = grid.FiniteVolume(mesh, grid.InviscidBurgers(), limiter="none")
        loop = grid.March(law, grid.SSPRK3(), dt=0.4 / n)
        (x,) = mesh.centres()
        mean = 1 + 0.5 * jnp.sin(x) * jnp.sinc(1 / n)  # of a cell
        found = loop.run(loop.init(mean[None]), n)[0].y[0]
        # Backwards along characteristics: u = 1 + sin(x - u t) / 2, averaged by Simpson's rule.
        t, exact = 0.4, 0.0
        for offset, weight in ((-0.5, 1 / 6), (0, 2 / 3), (0.5, 1 / 6)):
            at, u = x + offset * mesh.spacing[0], 1.0
            for _ in range(30):
                u = 1 + 0.5 * jnp.sin(at - u * t)
            exact += weight * u
        return jnp.abs(found - exact).mean()

    coarse, fine = (jax.jit(mean_error, static_argnums=0)(n) for n in (32, 64))
    assert np.log2(coarse / fine) == pytest.approx(2, abs=0.2)


def test_steps_of_shu_and_osher_are_of_third_order():
    rate = diffrax.ODETerm(lambda t, y, args: -y * jnp.cos(t))

    def error(n):
        y, solver = 1.0, grid.SSPRK3()
        for k in range(n):
            y = solver.step(rate, k / n, (k + 1) / n, y, None, None, False)[0]
        return abs(y - np.exp(-np.sin(1.0)))

    assert np.log2(error(10) / error(20)) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("ends", ["periodic", "wall"])
def test_water_is_kept_to_rounding_and_its_momentum_where_there_are_no_walls(ends):
    mesh = grid.Mesh((0, 1, 10), (0, 2, 12))
    law = grid.FiniteVolume(mesh, grid.ShallowWater(1.0), ends, "minmod")
    x, y = mesh.centres()
    depth = jnp.where((x - 0.5) ** 2 + (y - 1) ** 2 < 0.1, 2.0, 1.0)
    start = jnp.stack([depth, 0.3 * depth, 0 * depth])
    loop = grid.March(law, grid.SSPRK3(), 0.01)
    state, record = jax.jit(lambda: loop.run(loop.init(start), 40))()
    change = (state.y - start).sum(axis=(1, 2)) / depth.sum()
    assert abs(change[0]) < 1e-14
    assert (abs(change[1:]) < 1e-14).all() == (ends == "periodic")
    assert np.abs(state.y[0] - depth).max() > 0.1
    assert 0.1 < record.courant[-1] < 0.5


def test_limited_slopes_make_no_new_extrema():
    mesh = grid.Mesh((0, 1, 40))
    law = grid.FiniteVolume(mesh, grid.InviscidBurgers())
    start = jnp.where(mesh.centres()[0] < 0.5, 1.0, -0.5)[None]
    loop = grid.March(law, grid.SSPRK3(), 0.01)
    state, _ = jax.jit(lambda: loop.run(loop.init(start), 60))()
    assert state.y.max() <= 1 + 1e-14
    assert state.y.min() >= -0.5 - 1e-14


# --- devices --------------------------------------------------------------------------------------

SPREAD = r"""
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from pde import grid, spectral

devices = Mesh(np.array(jax.devices()), ("d",))
assert devices.size == 4

def compare(what, one, many, *start, axis):
    spec = P(*[None] * axis, "d")
    start = np.random.default_rng(0).normal(size=start)
    spread = jax.device_put(start, NamedSharding(devices, spec))
    program = jax.jit(many).lower(spread).compile()
    found = program(spread)
    assert not found.sharding.is_fully_replicated, found.sharding
    np.testing.assert_allclose(found, jax.jit(one)(start), rtol=0, atol=1e-12)
    text = program.as_text()
    assert "all-gather" not in text, what
    print("same", what, "all-to-all" in text, "collective-permute" in text)

def marched(axes, make):
    runs = []
    for shared in (None, devices):
        equation = make(spectral.Fourier(*axes, devices=shared))
        loop = grid.March(equation, spectral.ETDRK(equation, 0.01, 1))
        runs.append(lambda y, e=equation, loop=loop: e.fields(
            loop.run(loop.init(e.start(y)), 2, throw=False)[0].y))
    return runs

space = marched([(0, 6, 8), (0, 6, 10), (0, 6, 12)],
                lambda basis: spectral.IncompressibleFlow(basis, 0.1))
compare("space", *space, 3, 8, 10, 12, axis=1)

water = grid.FiniteVolume(grid.Mesh((0, 1, 16), (0, 1, 6)), grid.ShallowWater(1.0))
loop = grid.March(water, grid.SSPRK3(), 0.001)
def cells(y):
    y = jnp.stack([2 + 0.1 * y[0], y[1], y[2]])
    return loop.run(loop.init(y), 2, throw=False)[0].y
compare("cells", cells, cells, 3, 16, 6, axis=1)
"""


def test_four_devices_find_what_one_finds_and_gather_nothing(on_four_devices):
    done = on_four_devices(SPREAD)
    assert done.stdout.splitlines() == [
        "same space True False", "same cells False True",
    ], done.stdout + done.stderr[-3000:]  # fmt: skip


# --- words ----------------------------------------------------------------------------------------

LINE = spectral.Fourier((0, 1, 16))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: spectral.Fourier((0, 1, 2)), "keep no wave"),
        (lambda: spectral.Fourier((0, 1, 16), degree=0), "keep no wave"),
        (lambda: spectral.Burgers(SQUARE, 0.1), "for 1 coordinates, not 2"),
        (lambda: spectral.AllenCahn(LINE, 0.1), "needs degree=3"),
        (lambda: spectral.ETDRK(spectral.Burgers(LINE, 0.1), 0.1, 5), "orders 1 to 4"),
        (
            lambda: grid.March(
                spectral.Burgers(LINE, 0.1), spectral.ETDRK(spectral.Burgers(LINE, 0.1), 0.1), 0.2
            ),
            "leave `dt` out",
        ),
        (lambda: grid.March(spectral.Burgers(LINE, 0.1), grid.SSPRK3()), "length of its steps"),
        (
            lambda: (
                loop := grid.March(
                    spectral.Burgers(LINE, 0.1), spectral.ETDRK(spectral.Burgers(LINE, 0.1), 0.1)
                )
            ).run(loop.init(jnp.zeros(6) + 0j), 5, every=2),
            "do not come out even",
        ),
        (
            lambda: grid.FiniteVolume(grid.Mesh((0, 1, 8)), grid.InviscidBurgers(), "closed"),
            "not 'closed'",
        ),
        (
            lambda: grid.FiniteVolume(grid.Mesh((0, 1, 8)), grid.InviscidBurgers(), "open", "mc"),
            "not 'mc'",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_words(make, said):
    with pytest.raises(ValueError, match=said):
        make()
