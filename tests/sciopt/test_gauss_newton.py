"""Claims about the damped Gauss-Newton step and the loop that drives any optimizer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import optimistix as optx
import pytest
from jax.flatten_util import ravel_pytree
from more_garbow_hillstrom import PROBLEMS

import sciopt
from sciopt._damping import DampedModel, Region
from sciopt._linearised import linearise
from sciopt.damped._cholesky import CholeskySystem

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


def rosenbrock(y, args):
    return {"a": 10 * (y["p"][1] - y["p"][0] ** 2), "b": jnp.stack([1 - y["p"][0]])}


@pytest.mark.parametrize("jac", ["fwd", "bwd"])
def test_drops_into_optimistix_least_squares(jac):
    solver = sciopt.GaussNewton(rtol=1e-10, atol=1e-10)
    y0 = {"p": jnp.array([-1.2, 1.0])}
    sol = optx.least_squares(rosenbrock, solver, y0, options={"jac": jac})
    np.testing.assert_allclose(sol.value["p"], 1.0, atol=1e-9)
    assert sol.stats["num_steps"] < 60


def test_agrees_with_optimistix_levenberg_marquardt_on_a_curve_fit():
    x = jnp.linspace(0, 2, 50)
    data = 2.5 * jnp.exp(-1.3 * x) + 0.1 * jnp.sin(40 * x)

    def residual(p, args):
        return p[0] * jnp.exp(-p[1] * x) - data

    ours = optx.least_squares(residual, sciopt.GaussNewton(1e-12, 1e-12), jnp.ones(2)).value
    peer = optx.least_squares(residual, optx.LevenbergMarquardt(1e-12, 1e-12), jnp.ones(2)).value
    np.testing.assert_allclose(ours, peer, atol=1e-8)


def test_an_unknown_jac_option_is_refused():
    with pytest.raises(ValueError, match="'fwd', 'bwd' or a function"):
        optx.least_squares(
            rosenbrock, sciopt.GaussNewton(), {"p": jnp.zeros(2)}, options={"jac": "sideways"}
        )


def textbook_step(jac, r, damping):
    return -np.linalg.solve(jac.T @ jac + np.diag(damping), jac.T @ r)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
@pytest.mark.parametrize("deficient", [False, True])
def test_a_step_is_the_textbook_s(shape, deficient):
    """One accepted step of a linear problem, plain and with Marquardt's scaling."""
    rng = np.random.default_rng(0)
    jac, r, y = rng.normal(size=shape), rng.normal(size=shape[0]), rng.normal(size=shape[1])
    if deficient:
        jac[:, 1] = jac[:, 0]
        jac[2] = jac[3]

    def residual(y, args):
        return args[0] @ y - args[1]

    for solver, weights in (
        (sciopt.GaussNewton(damping=0.3), np.ones(shape[1])),
        (sciopt.GaussNewton(damping=0.3, scaled=True), np.sum(jac**2, axis=0)),
    ):
        found = optx.least_squares(
            residual, solver, jnp.asarray(y), (jac, r), max_steps=1, throw=False
        )
        expected = textbook_step(jac, jac @ y - r, 0.3 * weights)
        np.testing.assert_allclose(found.value - y, expected, rtol=0, atol=1e-10)
        assert found.result == optx.RESULTS.nonlinear_max_steps_reached


FULL = sciopt.damped.NystromPreconditioner(rank=12)
CG = sciopt.damped.CG(rtol=1e-14, preconditioner=FULL)
NYSTROM = sciopt.damped.Nystrom(12, jax.random.key(0), memory=2**20)
SOFTMAX = sciopt.losses.SoftmaxCrossEntropy()
FREE = {
    "gauss_newton": (lambda solver: sciopt.GaussNewton(damping=0.1, linear_solver=solver), 20, CG),
    "engd": (lambda solver: sciopt.ENGD(damping=0.1, linear_solver=solver), 20, NYSTROM),
    "spring": (
        lambda solver: sciopt.SPRING(damping=0.1, momentum=0.5, linear_solver=solver), 5, CG
    ),
    "egn, softmax": (
        lambda solver: sciopt.EGN(damping=0.1, loss=SOFTMAX, linear_solver=solver), 5, CG
    ),
    "egn, empirical": (
        lambda solver: sciopt.EGN(damping=0.1, fisher="empirical", linear_solver=solver), 20, CG
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FREE)
def test_no_method_makes_a_matrix_for_a_solver_that_wants_none(name, monkeypatch):
    """Two steps, so that momentum counts, against those by Cholesky, to 1e-10."""
    method, columns, free = FREE[name]
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(12, columns)))
    labels, y = jnp.array([0, 1, 2, 0]), jnp.full(columns, 0.3)

    def fn(y, args):
        return (jnp.sin(weights @ y) + weights @ y).reshape(4, 3)

    def two_steps(solver):
        args = None, labels
        return optx.least_squares(fn, method(solver), y, args, max_steps=2, throw=False).value

    expected = two_steps(sciopt.damped.Cholesky())
    assert np.linalg.norm(expected - y) > 1e-2

    def refuse(operator):
        raise AssertionError("a matrix was made")

    monkeypatch.setattr(lx.FunctionLinearOperator, "as_matrix", refuse)
    np.testing.assert_allclose(two_steps(free), expected, rtol=0, atol=1e-10)
    with pytest.raises(AssertionError, match="a matrix was made"):
        two_steps(sciopt.damped.Auto())


def test_a_trust_region_s_step_has_its_radius_or_is_gauss_newton_s():
    rng = np.random.default_rng(0)
    solvers = [sciopt.damped.Cholesky(), sciopt.damped.CG(rtol=1e-14)]
    for shape in [(12, 5), (5, 12)]:
        jac, r = rng.normal(size=shape), rng.normal(size=shape[0])
        newton = -np.linalg.pinv(jac) @ r

        @eqx.filter_jit
        def propose(solver, radius, damping, jac, r):
            system = solver.factor(lx.MatrixLinearOperator(jac))
            model = DampedModel(system, r, jac.T @ r)
            rule = sciopt.TrustRegion(rtol=1e-10)
            mu, _ = rule.propose(model, Region(radius, damping))
            return system.solve(-r, mu), mu

        for solver in solvers:
            for share, damping in ((0.9, 0.0), (1e-3, 0.0), (0.3, 1e4), (1e-6, 1e-9), (2.0, 1.0)):
                radius = share * np.linalg.norm(newton)
                step, mu = propose(solver, *map(jnp.asarray, (radius, damping, jac, r)))
                if share > 1:
                    np.testing.assert_allclose(step, newton, rtol=0, atol=1e-10)
                    continue
                np.testing.assert_allclose(np.linalg.norm(step), radius, rtol=1e-8)
                expected = textbook_step(jac, r, float(mu) * np.ones(shape[1]))
                np.testing.assert_allclose(step, expected, rtol=0, atol=float(1e-8 * radius))


def test_a_trust_region_follows_what_steps_have_brought():
    """A straight line: the second radius is twice the first; a cliff: a quarter of it."""

    def radius(fn, y0, steps, **options):
        rule = sciopt.TrustRegion(radius=0.5, rtol=1e-10)
        solver = sciopt.GaussNewton(damping=rule, acceleration=None, **options)
        found = optx.least_squares(fn, solver, jnp.array([y0]), max_steps=steps, throw=False)
        return float(found.value[0]), float(found.state.memory.damping.radius)

    for steps, (y, size) in ((1, (9.5, 1.0)), (2, (8.5, 2.0)), (3, (6.5, 4.0))):
        found = radius(lambda y, args: y, 10.0, steps)
        np.testing.assert_allclose(found, (y, size), rtol=0, atol=1e-8)
    found = radius(lambda y, args: jnp.where(y < 9.9, jnp.nan, y), 10.0, 1, max_trials=1)
    np.testing.assert_allclose(found, (10.0, 0.125))


def test_the_acceleration_has_the_factorisation_of_its_step(monkeypatch):
    made, factor = [], CholeskySystem._factor

    def counted(system, damping):
        made.append(damping)
        return factor(system, damping)

    monkeypatch.setattr(CholeskySystem, "_factor", counted)
    counts = []
    for acceleration in (None, 0.75):
        solver, made[:] = sciopt.GaussNewton(acceleration=acceleration), []
        jax.eval_shape(lambda y, s=solver: s.advance(linearised(y), s.start(y))[0], jnp.ones(3))
        counts.append(len(made))
    assert counts[0] == counts[1] > 0


def linearised(y):
    return linearise(lambda y, args: jnp.sin(y) ** 2, y, None, "fwd")


def test_scaled_damping_does_not_see_the_units_of_the_parameters():
    def residual(y, units):
        return rosenbrock({"p": y * units}, None)

    def steps(solver, units):
        y0 = jnp.array([-1.2, 1.0]) / units
        found = optx.least_squares(residual, solver, y0, units, max_steps=7, throw=False)
        return found.value * units

    units = jnp.array([1e3, 1e-2])
    scaled = sciopt.GaussNewton(scaled=True)
    np.testing.assert_allclose(steps(scaled, units), steps(scaled, 1.0), rtol=1e-9)
    plain = sciopt.GaussNewton()
    assert not np.allclose(steps(plain, units), steps(plain, 1.0), rtol=1e-2)


def test_geodesic_acceleration_is_that_of_transtrum_and_sethna():
    """One step against their formulas, and none where the acceleration is too large."""

    def canyon(y, args):
        return jnp.stack([y[0], 100 * (y[1] - y[0] ** 2)])

    y0, damping = jnp.array([3.0, 5.0]), 10.0
    jac, r = np.asarray(jax.jacfwd(canyon)(y0, None)), np.asarray(canyon(y0, None))
    velocity = textbook_step(jac, r, damping * np.ones(2))
    turn = textbook_step(jac, np.array([0.0, -200 * velocity[0] ** 2]), damping * np.ones(2))

    def run(solver, steps):
        return optx.least_squares(canyon, solver, y0, max_steps=steps, throw=False)

    ratio = float(np.linalg.norm(turn) / np.linalg.norm(velocity))
    for acceleration, step in ((1.01 * ratio, velocity + turn / 2), (0.99 * ratio, 0 * velocity)):
        solver = sciopt.GaussNewton(damping=damping, acceleration=acceleration, max_trials=1)
        np.testing.assert_allclose(run(solver, 1).value - y0, step, rtol=0, atol=1e-10)


def test_geodesic_acceleration_halves_the_steps_along_a_narrow_canyon():
    def canyon(y, args):
        return jnp.stack([1000 * (y[1] - y[0] ** 2), 1 - y[0]])

    counts = []
    for acceleration in (None, 0.75):
        solver = sciopt.GaussNewton(1e-8, 1e-8, acceleration=acceleration)
        found = optx.least_squares(canyon, solver, jnp.array([-1.2, 1.0]))
        np.testing.assert_allclose(found.value, 1, atol=1e-7)
        counts.append(int(found.stats["num_steps"]))
    assert 2 * counts[1] < counts[0], counts  # 43 and 17


def results(residual, y0, **fields):
    solver = sciopt.GaussNewton(1e-10, 1e-10, **fields)
    return optx.least_squares(residual, solver, y0, throw=False)


LINEAR_SOLVERS = {
    "cholesky": sciopt.damped.Cholesky(), "qr": sciopt.damped.QR(), "svd": sciopt.damped.SVD(),
    "cg": sciopt.damped.CG(), "lsmr": sciopt.damped.Stacked(preconditioner=None),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR_SOLVERS)
def test_a_singular_jacobian_without_damping_is_no_failure(name):
    found = results(
        lambda y, args: jnp.stack([y[0] + y[1] - 1, 2 * (y[0] + y[1]) - 2]),
        jnp.array([3.0, 4.0]), damping=0.0, linear_solver=LINEAR_SOLVERS[name],
    )  # fmt: skip
    assert found.result == optx.RESULTS.successful
    np.testing.assert_allclose(jnp.sum(found.value), 1, atol=1e-8)


def test_what_is_not_finite_is_said_and_changes_nothing():
    def undefined(y, args):
        return jnp.log(y - 5)

    def steep(y, args):  # finite, with an infinite derivative
        return jnp.sqrt(jnp.abs(y)) + 1

    for residual, y0 in ((undefined, jnp.ones(2)), (steep, jnp.zeros(2))):
        found = results(residual, y0)
        assert found.result == optx.RESULTS.nonfinite
        np.testing.assert_array_equal(found.value, y0)
        assert found.stats["num_steps"] <= 2


def test_a_jacobian_that_points_uphill_is_divergence():
    def wrong(y, args):
        return y - 1, -jnp.eye(2)

    solver = sciopt.GaussNewton(1e-10, 1e-10)
    y0 = jnp.array([3.0, 4.0])
    found = optx.least_squares(
        lambda y, args: y - 1, solver, y0, options={"jac": wrong}, throw=False
    )
    assert found.result == optx.RESULTS.nonlinear_divergence
    np.testing.assert_array_equal(found.value, y0)


def test_residuals_of_rounding_are_no_divergence():
    """Where no step helps because nothing is left to gain: Broyden's tridiagonal, by its end."""
    problem = next(p for p in PROBLEMS if p.name == "broyden_tridiagonal")
    solver = sciopt.GaussNewton(
        1e-11, 1e-11, damping=sciopt.TrustRegion(), acceleration=None,
        linear_solver=sciopt.damped.QR(),
    )  # fmt: skip
    found = optx.least_squares(
        lambda y, args: problem.residual(y), solver, jnp.array(problem.start, float), throw=False
    )
    assert found.result == optx.RESULTS.successful
    assert found.stats["num_rejected"] == solver.max_trials
    assert jnp.sum(problem.residual(found.value) ** 2) < 1e-28


def test_zero_and_empty_residuals_are_solved():
    for residual in (lambda y, args: y - 1, lambda y, args: {"a": y[:0], "b": y[:0]}):
        found = results(residual, jnp.ones(3))
        assert found.result == optx.RESULTS.successful
        assert found.value.tolist() == [1, 1, 1]


def test_at_a_minimum_steps_go_on_and_stay():
    """Without tolerances: rejected trials neither overflow the damping nor end the run."""
    x = jnp.linspace(0, 2, 9)
    found = optx.least_squares(
        lambda p, args: p[0] * jnp.exp(-p[1] * x) - jnp.cos(x), sciopt.GaussNewton(),
        jnp.ones(2), max_steps=60, throw=False,
    )  # fmt: skip
    assert found.result == optx.RESULTS.nonlinear_max_steps_reached
    assert jnp.isfinite(found.state.memory.damping)


def test_an_empty_block_adds_nothing():
    full = sciopt.Residuals({"a": lambda p, x: p * x, "b": lambda p, x: p - x})
    points = {"a": jnp.arange(3.0), "b": jnp.zeros(0)}
    only = sciopt.Residuals({"a": full.blocks["a"]})
    np.testing.assert_array_equal(
        full.loss(jnp.array(2.0), points), only.loss(jnp.array(2.0), points)
    )
    assert full.jacobian(jnp.array(2.0), points)[1].shape == (3, 1)
    fit = sciopt.Fit(full, sciopt.GaussNewton(), lambda key, p: points, jax.random.key(0))
    state = fit.advance(fit.init(jnp.array(2.0)), 20)
    assert state.step == 20
    np.testing.assert_allclose(state.params, 0, atol=1e-8)


def exponential():
    x = jnp.linspace(0, 1, 32)
    data = jnp.stack([x, 2 * jnp.exp(-3 * x)], axis=1)
    residuals = sciopt.Residuals({"data": lambda p, xy: p["a"] * jnp.exp(-p["k"] * xy[0]) - xy[1]})
    return residuals, {"data": data}


def test_jacobian_rows_are_those_of_the_stacked_residuals():
    points = {"b": jnp.linspace(0, 1, 5)[:, None], "a": jnp.linspace(1, 2, 3)[:, None]}
    residuals = sciopt.Residuals(
        {
            "b": lambda p, x: jnp.stack([p["u"] @ jnp.sin(x), p["v"] ** 2 * x[0]]),
            "a": lambda p, x: p["v"] * x[0] ** 3,
        },
        {"a": 4.0},
    )
    params = {"v": jnp.array(0.7), "u": jnp.array([0.3])}
    scaled, jac = residuals.jacobian(params, points)
    flat, unravel = ravel_pytree(params)

    def stacked(p):
        return ravel_pytree(residuals.scaled(unravel(p), points))[0]

    np.testing.assert_allclose(jac, jax.jacfwd(stacked)(flat), atol=1e-14)
    np.testing.assert_allclose(ravel_pytree(scaled)[0], stacked(flat), atol=1e-15)
    by_hand = jnp.mean(jnp.sum(residuals(params, points)["b"] ** 2, axis=1))
    by_hand += 4 * jnp.mean(residuals(params, points)["a"] ** 2)
    np.testing.assert_allclose(residuals.loss(params, points), by_hand, rtol=1e-14)


OPTIMIZERS = {
    "gauss_newton": (sciopt.GaussNewton(), 30),
    "gauss_newton_without_a_matrix": (
        sciopt.GaussNewton(linear_solver=sciopt.damped.Auto(memory=64)),
        30,
    ),
    "egn": (sciopt.EGN(damping=1e-3, momentum=0.1), 40),
    "bfgs": (optx.BFGS(0.0, 0.0), 60),
    "optimistix_lm": (optx.LevenbergMarquardt(0.0, 0.0), 40),
    "ssbroyden": (sciopt.SSBroyden(), 40),
    "adam": (optax.adam(0.05), 1500),
    "optax_lbfgs": (optax.lbfgs(), 60),
    "stages": (sciopt.Stages([optax.adam(0.05), optx.BFGS(0.0, 0.0)], [10]), 70),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_of_the_ecosystem_fits(name):
    residuals, points = exponential()
    optimizer, steps = OPTIMIZERS[name]
    fit = sciopt.Fit(residuals, optimizer, lambda key, params: points, jax.random.key(0))
    state = fit.init({"a": jnp.array(1.0), "k": jnp.array(1.0)})
    state = fit.resample(fit.advance(state, steps // 2))
    state = fit.advance(state, steps - steps // 2)
    assert state.step == steps
    np.testing.assert_allclose([state.params["a"], state.params["k"]], [2, 3], atol=2e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_compiles_after_the_first_step(name, compilations):
    residuals, points = exponential()
    fit = sciopt.Fit(residuals, OPTIMIZERS[name][0], lambda key, p: points, jax.random.key(0))
    state = fit.init({"a": 1.0, "k": jnp.array(1.0)})
    state = fit.resample(fit.advance(state, 1))
    assert compilations
    compilations.clear()
    for steps in (2, 5, 1):
        state = fit.advance(state, steps)
        state = fit.resample(state)
    assert compilations == []
    assert state.step == 9


def test_a_fit_stops_where_the_loss_stops_being_finite():
    residuals = sciopt.Residuals({"b": lambda p, x: (jnp.log(p) + 5) * x})
    fit = sciopt.Fit(
        residuals, optax.sgd(2.0), lambda key, p: {"b": jnp.ones(4)}, jax.random.key(0)
    )
    state = fit.advance(fit.init(jnp.array(0.5)), 1000)
    assert state.step < 10
    assert not jnp.isfinite(state.loss)


def test_a_scalar_objective_has_no_residuals_to_linearise():
    cosh = sciopt.Objective(lambda p, x: jnp.mean(jnp.cosh(p - x)))
    fit = sciopt.Fit(cosh, sciopt.GaussNewton(), lambda key, p: jnp.ones(3), jax.random.key(0))
    with pytest.raises(TypeError, match="an Objective has one value"):
        fit.init(jnp.array(0.0))
