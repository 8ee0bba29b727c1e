"""Claims about self-scaled BFGS and Broyden, and the line search under them."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import more_garbow_hillstrom
import numpy as np
import optimistix as optx
import pytest
import scipy.optimize
import scipy.sparse.linalg

import sciopt
from sciopt._inverse_hessian import DenseInverse, LimitedInverse
from sciopt._wolfe import End, minimiser_of_the_cubic

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

# Moré, Garbow and Hillstrom, Testing Unconstrained Optimization Software (1981), by their numbers.
# Of four variables at most, so that one compiled program solves every one.
FOUR = (
    "rosenbrock", "freudenstein_roth", "beale", "helical_valley", "bard", "powell_singular", "wood",
    "kowalik_osborne", "brown_dennis", "brown_almost_linear",
)  # fmt: skip
PROBLEMS = [p for p in more_garbow_hillstrom.PROBLEMS if p.name in FOUR]
residuals = more_garbow_hillstrom.one_of(PROBLEMS)


def sum_of_squares(x, number):
    return jnp.sum(residuals(x, number) ** 2)


BROWN_DENNIS = [p.name for p in PROBLEMS].index("brown_dennis")
METHODS = {
    "ssbfgs": sciopt.SSBFGS(1e-10, 1e-14),
    "ssbroyden": sciopt.SSBroyden(1e-10, 1e-14),
}
STEPS = 200
# Independent of what the solver says of its own points; compiled once, for whole walks.
values_and_slopes = jax.jit(jax.vmap(jax.value_and_grad(sum_of_squares), (0, None)))


@pytest.fixture(scope="module", params=METHODS)
def walks(request):
    """For each problem, the points of all steps, their values and slopes, and how it ended."""
    solver = METHODS[request.param]
    like = jax.ShapeDtypeStruct((), jnp.float64)

    def fn(x, number):
        return sum_of_squares(x, number), ()

    @jax.jit
    def walk(start, number):
        def take(carry, _):
            x, state, going = carry
            new = solver.step(fn, x, number, {}, state, frozenset())[:2]
            x, state = jax.tree.map(lambda a, b: jnp.where(going, a, b), new, (x, state))
            stop, result = solver.terminate(fn, x, number, {}, state, frozenset())
            ok = result == optx.RESULTS.successful
            return (x, state, going & ~stop & ok), (x, going, ok, state.num_evaluations)

        state = solver.init(fn, start, number, {}, like, (), frozenset())
        return jax.lax.scan(take, (start, state, jnp.array(True)), length=STEPS)[1]

    seen = []
    for number, start in enumerate(more_garbow_hillstrom.starts(PROBLEMS)):
        name, minima = PROBLEMS[number].name, PROBLEMS[number].minima
        x, going, ok, evaluations = map(np.asarray, walk(start, number))
        x = np.vstack([start, x])
        values, slopes = map(np.asarray, values_and_slopes(x, number))
        taken = int(going.sum())
        seen.append((name, minima, x, values, slopes, taken, ok, evaluations))
    return solver, seen


def test_the_problems_of_more_garbow_and_hillstrom_reach_their_published_minima(walks):
    for name, minima, _, values, _, taken, ok, evaluations in walks[1]:
        assert taken < STEPS, name
        assert ok.all(), name
        # The minima are published to six digits.
        assert min(abs(values[-1] - m) / (m or 1) for m in minima) < 3e-6, (name, values[-1])
        assert evaluations[-1] < 250, name


def test_wolfe_conditions_hold_at_every_accepted_step(walks):
    """The strong ones, or Hager and Zhang's (4.1) where values may be rounded."""
    solver, seen = walks
    for name, _, x, values, slopes, taken, *_ in seen:
        steps = np.diff(x[: taken + 1], axis=0)
        before = np.sum(slopes[:taken] * steps, axis=1)
        after = np.sum(slopes[1 : taken + 1] * steps, axis=1)
        size = np.abs(values[:taken])
        # At the very end slopes differ by rounding alone, too.
        clear = -before > 1e-12 * size
        assert clear.sum() > 10, name
        assert np.all((np.abs(after) <= -solver.c2 * before * (1 + 1e-9))[clear]), name
        rise = np.diff(values[: taken + 1])
        assert np.all(rise <= solver.rounding * size), name
        assert np.all((rise <= solver.c1 * before)[-before > 1e-3 * size]), name


@pytest.mark.parametrize("method", [sciopt.SSBFGS, sciopt.SSBroyden])
def test_slopes_lead_on_where_values_are_rounded(method):
    """By values, gradients of a parabola above 1 and of Brown and Dennis' problem, whose least
    value is 85822, stand still orders above where slopes take them."""
    solvers = [method(rounding=0.0), method()]

    def fn(x, which):
        parabola = 1 + 1e-3 * jnp.array([1.0, 10.0, 100.0, 1000.0]) @ (x - 1) ** 2
        return jnp.where(which == 0, parabola, sum_of_squares(x, BROWN_DENNIS)), ()

    def walk(start, which, rounding):
        solver = eqx.tree_at(lambda s: s.rounding, solvers[0], rounding)

        def take(carry, _):
            x, state = solver.step(fn, carry[0], which, {}, carry[1], frozenset())[:2]
            return (x, state), None

        like = jax.ShapeDtypeStruct((), start.dtype)
        state = solver.init(fn, start, which, {}, like, (), frozenset())
        x, _ = jax.lax.scan(take, (start, state), length=80)[0]
        first, last = jax.vmap(jax.grad(lambda x: fn(x, which)[0]))(jnp.stack([start, x]))
        return jnp.linalg.norm(last) / jnp.linalg.norm(first)

    starts = jnp.stack([jnp.zeros(4), more_garbow_hillstrom.starts(PROBLEMS)[BROWN_DENNIS]])
    roundings = jnp.array([s.rounding for s in solvers])
    walks = jax.vmap(jax.vmap(walk, (0, 0, None)), (None, None, 0))
    by_values, by_slopes = jax.jit(walks)(starts, jnp.arange(2), roundings)
    assert np.all(by_slopes < 1e-16), by_slopes
    assert np.all(by_values > 1e3 * by_slopes), (by_values, by_slopes)


def pair(seed, n=6):
    """A positive definite B, a step and a change of gradient with positive curvature."""
    rng = np.random.default_rng(seed)
    half, other = rng.normal(size=(2, n, n))
    step = rng.normal(size=n)
    return half @ half.T + np.eye(n), step, (other @ other.T + np.eye(n)) @ step


def update(solver, b_matrix, step, change):
    h_matrix = np.linalg.inv(b_matrix)
    h_matrix = (h_matrix + h_matrix.T) / 2
    b = (step @ b_matrix @ step) / (change @ step)

    def weigh(h):
        tau, theta, sigma = solver.weigh(jnp.asarray(b), h, step.size)
        return tau, (1 - theta) / sigma

    return np.asarray(DenseInverse(jnp.asarray(h_matrix)).updated(step, change, weigh).matrix)


def textbook(b_matrix, step, change, tau, theta):
    """Broyden's family as Nocedal and Wright (6.32) has it, for B, with tau B for B."""
    sbs = step @ b_matrix @ step
    w = np.sqrt(sbs) * (change / (change @ step) - b_matrix @ step / sbs)
    family = b_matrix - np.outer(b_matrix @ step, b_matrix @ step) / sbs + theta * np.outer(w, w)
    return tau * family + np.outer(change, change) / (change @ step)


def published_scaling(b_matrix, step, change):
    """tau and theta of Urban, Stefanou and Pons (2025), equations (15)-(23), line by line."""
    n, ys = len(step), change @ step
    b, h = step @ b_matrix @ step / ys, change @ np.linalg.solve(b_matrix, change) / ys
    a = b * h - 1
    c = (a / (1 + a)) ** 0.5
    rho_minus = min(1, h * (1 - c))
    theta_minus, theta_plus = (rho_minus - 1) / a, 1 / rho_minus
    theta = max(theta_minus, min(theta_plus, (1 - b) / b))
    sigma = 1 + theta * a
    rho, root = min(1, 1 / b), sigma ** (-1 / (n - 1))
    tau = rho * min(root, 1 / theta) if theta > 0 else min(rho * root, sigma)
    return tau, theta, min(1, 1 / b), 1 / b


def test_the_update_is_the_textbook_s_on_the_hessian():
    signs = set()
    for seed, scale in enumerate([1.0, 1.0, 0.7, 0.4, 1e-2, 1.5, 30.0]):
        b_matrix, step, change = pair(seed)
        b_matrix = scale * b_matrix
        tau, theta, al_baali, oren_luenberger = published_scaling(b_matrix, step, change)
        signs.add(theta > 0)
        for solver, weights in [
            (sciopt.SSBroyden(), (tau, theta)),
            (sciopt.SSBroyden(scaling="none"), (1, theta)),
            (sciopt.SSBFGS(), (al_baali, 0)),
            (sciopt.SSBFGS(scaling="oren_luenberger"), (oren_luenberger, 0)),
            (sciopt.SSBFGS(scaling="none"), (1, 0)),
        ]:
            new = update(solver, b_matrix, step, change)
            expected = np.linalg.inv(textbook(b_matrix, step, change, *weights))
            size = np.abs(expected).max()
            np.testing.assert_allclose(new, expected, rtol=0, atol=1e-10 * size)
            np.testing.assert_allclose(new @ change, step, atol=1e-10 * np.abs(step).max())
            assert np.array_equal(new, new.T)
            assert np.linalg.eigvalsh(new)[0] > 0
    assert signs == {True, False}  # both branches of tau


def test_broyden_with_unit_weights_is_bfgs():
    """With tau = 1 and theta = 0 the update is Nocedal and Wright (6.17)."""
    b_matrix, step, change = pair(0)
    h_matrix, rho = np.linalg.inv(b_matrix), 1 / (change @ step)
    left = np.eye(6) - rho * np.outer(step, change)
    expected = left @ h_matrix @ left.T + rho * np.outer(step, step)
    new = update(sciopt.SSBFGS(scaling="none"), b_matrix, step, change)
    np.testing.assert_allclose(new, expected, atol=1e-10 * np.abs(expected).max())


def test_the_first_update_scales_the_identity_to_the_function():
    """On a quadratic of curvature 400 the first H is 1/400 across the step: N&W (6.20)."""
    solver = sciopt.SSBFGS()

    def fn(x, _):
        return 200 * jnp.sum(x**2), ()

    x, like = jnp.array([1.0, 2.0, 3.0]), jax.ShapeDtypeStruct((), jnp.float64)

    @jax.jit
    def one_step(x):
        state = solver.init(fn, x, None, {}, like, (), frozenset())
        return solver.step(fn, x, None, {}, state, frozenset())[1]

    state = one_step(x)
    np.testing.assert_allclose(state.hessian_inv.matrix, np.eye(3) / 400, atol=1e-15)


def test_the_cubic_s_minimiser_is_exact():
    # x^3 - 3x + 1 has its minimum at 1.
    ends = [End(*map(jnp.asarray, (x, x**3 - 3 * x + 1, 3 * x**2 - 3))) for x in (-0.5, 1.8)]
    np.testing.assert_allclose(minimiser_of_the_cubic(*ends), 1.0, atol=1e-15)
    np.testing.assert_allclose(minimiser_of_the_cubic(*ends[::-1]), 1.0, atol=1e-15)


def chained(x, args=None):
    """Rosenbrock's function in many variables, as `scipy.optimize.rosen`."""
    x = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(x)])
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_evaluations_are_no_more_than_those_of_scipy_s_bfgs():
    start = np.array([1.3, 0.7, 0.8, 1.9, 1.2, 0.4, 1.6])
    peer = scipy.optimize.minimize(
        scipy.optimize.rosen, start, jac=scipy.optimize.rosen_der, method="BFGS",
        options={"gtol": 1e-8},
    )  # fmt: skip
    # A pytree for the parameters, here: a matrix and a tuple.
    tree = {"b": jnp.array(start[:4]).reshape(2, 2), "c": (jnp.array(start[4:]),)}
    solver = sciopt.SSBFGS(1e-8, 1e-8, scaling="none", initial_scaling=False)
    ours = optx.minimise(chained, solver, tree)
    np.testing.assert_allclose(ours.value["b"], np.ones((2, 2)), atol=1e-7)
    assert ours.stats["num_evaluations"] <= 1.1 * peer.nfev, (ours.stats, peer.nfev)


def test_batched_restarts_are_the_single_solves():
    """Neither a start that is the minimum nor one without a value disturbs the others."""
    starts = jnp.array([[-1.2, 1.0], [2.0, 2.0], [0.0, 3.0], [1.0, 1.0], [jnp.nan, 0.0]])
    solver = sciopt.SSBroyden(1e-9, 1e-9)

    def solve(y0):
        sol = optx.minimise(chained, solver, y0, throw=False)
        ok = sol.result == optx.RESULTS.successful
        return sol.value, ok, sol.stats["num_steps"], sol.stats["num_evaluations"]

    together = jax.vmap(solve)(starts)
    np.testing.assert_allclose(together[0][:4], 1.0, atol=1e-7)
    np.testing.assert_array_equal(together[1], [True] * 4 + [False])
    for one, start in zip(zip(*together, strict=True), starts, strict=True):
        for a, b in zip(one, solve(start), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)
    assert together[2][3] == 1  # a start that is the minimum is seen to be so


CURVATURE = jnp.logspace(0, 1.5, 8)


def iterates(solver, number, start, steps):
    """The points of a walk on a quadratic (0) or on Rosenbrock's chain (1)."""

    def fn(x, number):
        value = jax.lax.switch(
            number, [lambda x: CURVATURE @ (x - 1) ** 2 / 2, lambda x: chained(x)], x
        )
        return value, ()

    @jax.jit
    def walk(start, number):
        def take(carry, _):
            x, state = solver.step(fn, carry[0], number, {}, carry[1], frozenset())[:2]
            return (x, state), x

        like = jax.ShapeDtypeStruct((), start.dtype)
        state = solver.init(fn, start, number, {}, like, (), frozenset())
        return jax.lax.scan(take, (start, state), length=steps)[1]

    return jax.vmap(walk)(start, number)


@pytest.mark.parametrize("kind", [sciopt.SSBFGS, sciopt.SSBroyden])
def test_a_limited_memory_that_forgets_nothing_is_the_dense_method(kind):
    start = jnp.stack([jnp.zeros(8), jnp.tile(jnp.array([-1.2, 1.0]), 4)])
    dense = iterates(kind(), jnp.arange(2), start, 16)
    limited = iterates(kind(history_length=16), jnp.arange(2), start, 16)
    np.testing.assert_allclose(limited, dense, rtol=0, atol=1e-8)
    short = iterates(kind(history_length=4), jnp.arange(2), start, 16)
    # The sixth step is the first to miss a pair.
    np.testing.assert_allclose(short[:, :5], dense[:, :5], rtol=0, atol=1e-8)
    assert np.all(np.abs(short[:, 5:] - dense[:, 5:]).max(axis=(1, 2)) > 1e-6)


def test_a_limited_memory_without_scaling_is_l_bfgs():
    """Nocedal and Wright, algorithm 7.4, by the products of (7.19) in full."""
    rng, n, length = np.random.default_rng(0), 6, 3
    hessian, one = pair(1)[0], jnp.ones(())
    limited, pairs = LimitedInverse.identity(jnp.zeros(n), length), []
    for _ in range(5):
        step = rng.normal(size=n)
        change = hessian @ step
        pairs.append((step, change))
        limited = limited.updated(jnp.asarray(step), jnp.asarray(change), lambda h: (one, one))
        expected = np.eye(n)
        if len(pairs) > length:
            expected *= (step @ change) / (change @ change)
        for step, change in pairs[-length:]:
            rho = 1 / (step @ change)
            left = np.eye(n) - rho * np.outer(step, change)
            expected = left @ expected @ left.T + rho * np.outer(step, step)
        got = jax.vmap(limited.mv)(jnp.eye(n))
        np.testing.assert_allclose(got, expected, atol=1e-12 * np.abs(expected).max())


def test_what_a_limited_memory_forgets_leaves_it_positive_definite():
    """As any member of Broyden's family, it still maps the newest change to the newest step."""
    limited = LimitedInverse.identity(jnp.zeros(6), 2)
    weights = jnp.array([(0.5, 0.0), (1.0, 0.3), (0.2, 1.7), (0.9, 0.5)])
    for seed, (tau, phi) in enumerate(weights):
        _, step, change = pair(seed)
        weigh = partial(lambda *given: given[:2], tau, phi)
        limited = limited.updated(jnp.asarray(step), jnp.asarray(change), weigh)
        got = np.asarray(jax.vmap(limited.mv)(jnp.eye(6)))
        np.testing.assert_allclose(got, got.T, atol=1e-12 * np.abs(got).max())
        np.testing.assert_allclose(got @ change, step, atol=1e-11 * np.abs(step).max())
        assert np.linalg.eigvalsh((got + got.T) / 2)[0] > 0


def test_a_limited_memory_solves_in_no_more_evaluations_than_scipy_s_l_bfgs():
    start = np.tile([-1.2, 1.0], 10)
    peer = scipy.optimize.minimize(
        scipy.optimize.rosen, start, jac=scipy.optimize.rosen_der, method="L-BFGS-B",
        options={"maxcor": 8, "ftol": 0, "gtol": 1e-8},
    )  # fmt: skip
    solver = sciopt.SSBFGS(1e-8, 1e-8, history_length=8)
    ours = optx.minimise(chained, solver, jnp.asarray(start))
    np.testing.assert_allclose(ours.value, 1.0, atol=1e-6)
    assert ours.stats["num_evaluations"] <= 1.1 * peer.nfev, (ours.stats, peer.nfev)


def test_a_limited_memory_s_program_holds_no_matrix():
    n, length = 100_000, 4
    solver, vector = sciopt.SSBroyden(history_length=length), jax.ShapeDtypeStruct((n,), float)
    like = jax.ShapeDtypeStruct((), float)

    def fn(x, _):
        return jnp.sum(x**4), ()

    def start(x):
        return solver.init(fn, x, None, {}, like, (), frozenset())

    def step(x, state):
        return solver.step(fn, x, None, {}, state, frozenset())[:2]

    state = jax.eval_shape(start, vector)
    memory = jax.jit(step).lower(vector, state).compile().memory_analysis()
    assert memory is not None
    # The updates before, after and in between; a matrix would be a thousand times that.
    bound = 3 * (3 * length + 20) * n * 8
    held = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    assert 3 * length * n * 8 < held < bound < n * n * 8 / 100


@pytest.mark.parametrize("kind", [sciopt.SSBFGS, sciopt.SSBroyden])
@pytest.mark.parametrize("scaling", ["none", "al_baali"])
def test_with_exact_searches_on_a_quadratic_the_iterates_are_conjugate_gradients(kind, scaling):
    """Dixon (1972): all of Broyden's family, unscaled, take the steps of BFGS, which are CG's.

    Scaling by tau keeps the directions.
    """
    expected = []
    matrix, right = np.diag(CURVATURE), np.asarray(CURVATURE)
    scipy.sparse.linalg.cg(matrix, right, rtol=1e-12, callback=lambda x: expected.append(1 * x))
    # The second evaluation of a search is at the minimiser of a cubic, and so exact.
    solver = kind(scaling=scaling, c1=1e-8, c2=1e-7)
    got = iterates(solver, jnp.zeros(1, int), jnp.zeros((1, 8)), 6)[0]
    np.testing.assert_allclose(got, expected[:6], rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("number", "result"),
    [
        (0, optx.RESULTS.nonfinite),
        (1, optx.RESULTS.nonfinite),
        (2, optx.RESULTS.nonlinear_divergence),
        (3, optx.RESULTS.nonlinear_max_steps_reached),
        (4, optx.RESULTS.successful),
    ],
)
def test_failures_have_the_documented_result(number, result):
    sol = failing(number)
    assert sol.result == result
    assert np.isfinite(sol.value).all()


@jax.jit
def _failing(number):
    @jax.custom_jvp
    def liar(x):
        return jnp.sum(x)

    liar.defjvp(lambda x, dx: (jnp.sum(x[0]), -jnp.sum(dx[0])))
    functions = [
        lambda x: jnp.nan * jnp.sum(x),
        lambda x: jnp.sum(jnp.sqrt(x - 1)),  # finite, with an infinite gradient
        liar,  # its gradient points the wrong way
        lambda x: -jnp.sum(x),  # no minimum
        lambda x: jnp.sum(jnp.where(x < 0.5, jnp.nan, (x - 0.6) ** 2)),  # a cliff beside it
    ]
    solver = sciopt.SSBroyden(1e-8, 1e-8)
    return optx.minimise(
        lambda x, n: jax.lax.switch(n, functions, x),
        solver, jnp.ones(2), number, throw=False, max_steps=40,
    )  # fmt: skip


def failing(number):
    return _failing(number)


def test_one_variable_is_enough_and_single_precision_stays_single():
    solver, start = sciopt.SSBroyden(1e-4, 1e-4), jnp.array(0, jnp.float32)
    sol = optx.minimise(lambda x, _: jnp.cosh(x - 2), solver, start)
    assert sol.value.dtype == sol.state.hessian_inv.matrix.dtype == jnp.float32
    np.testing.assert_allclose(sol.value, 2.0, atol=1e-3)


def test_new_points_keep_the_inverse_hessian():
    residuals = sciopt.Residuals({"line": lambda p, x: p[0] * x + p[1] - jnp.exp(x)})

    def sample(key, params):
        return {"line": jax.random.uniform(key, (16,))}

    fit = sciopt.Fit(residuals, sciopt.SSBroyden(), sample, jax.random.key(0))
    state = fit.advance(fit.init(jnp.zeros(2)), 4)
    new = fit.resample(state)
    np.testing.assert_array_equal(new.inner.hessian_inv.matrix, state.inner.hessian_inv.matrix)
    assert new.inner.stale
    loss = fit.residuals.loss(new.params, new.points)
    later = fit.advance(new, 1)
    assert later.loss < loss
    assert later.inner.num_evaluations >= state.inner.num_evaluations + 2


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (sciopt.SSBroyden, {"scaling": "oren_luenberger"}),
        (sciopt.SSBFGS, {"scaling": "unit"}),
        (sciopt.SSBFGS, {"history_length": 0}),
        (sciopt.SSBFGS, {"c1": 0.9, "c2": 0.1}),
    ],
)
def test_arguments_out_of_range_are_refused(kind, wrong):
    with pytest.raises(ValueError, match=f"^{kind.__name__}"):
        kind(**wrong)
