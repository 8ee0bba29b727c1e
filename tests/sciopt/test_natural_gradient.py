"""Claims about natural-gradient steps, against the dense formulas in NumPy."""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest

import sciopt
from sciopt import damped

KEY = jax.random.key(0)
pytestmark = pytest.mark.usefixtures("compiled_in_haste")
SHAPES = {"tall": (20, 7), "wide": (7, 20), "deficient": (12, 9)}


def linear(shape: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    m, n = SHAPES[shape]
    jac = rng.normal(size=(m, n))
    if shape == "deficient":
        jac = rng.normal(size=(m, 3)) @ rng.normal(size=(3, n))
    return jac, rng.normal(size=m)


def affine(y, args):
    jac, b = args
    return jac @ y - b


def affine_jacobian(y, args):
    return affine(y, args), args[0]


@eqx.filter_jit
def one_step(solver, fn, y, args, jac, state):
    options = {"jac": jac}

    def with_aux(y, args):
        return fn(y, args), None

    if state is None:
        shape = jax.eval_shape(fn, y, args)
        state = solver.init(with_aux, y, args, options, shape, None, frozenset())
    return solver.step(with_aux, y, args, options, state, frozenset())[:2]


def steps(solver, fn, y, all_args, jac: Any = "fwd") -> tuple[list, Any]:
    """The parameters before and after each step, and the last state."""
    path, state = [y], None
    for args in all_args:
        y, state = one_step(solver, fn, y, args, jac, state)
        path.append(y)
    return path, state


def searching_spring(*tolerances, **options):
    """SPRING with the line search of ENGD."""
    sizes = sciopt.ENGD().step_sizes
    return sciopt.SPRING(*tolerances, step_sizes=sizes, norm_constraint=math.inf, **options)


def dense(jac, r, damping):
    return -np.linalg.solve(jac.T @ jac + damping * np.eye(jac.shape[1]), jac.T @ r)


@pytest.mark.parametrize("shape", SHAPES)
def test_engd_step_is_the_dense_formula(shape):
    jac, b = linear(shape)
    y = np.random.default_rng(1).normal(size=jac.shape[1])
    solver = sciopt.ENGD(damping=0.3, step_sizes=(0.5,))
    (_, found), state = steps(solver, affine, jnp.asarray(y), [(jac, b)], affine_jacobian)
    expected = y + 0.5 * dense(jac, jac @ y - b, 0.3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(state.loss, np.sum((jac @ expected - b) ** 2), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_spring_is_the_dense_recursion_over_changing_samples(shape):
    mu, damping, eta = 0.8, 0.2, 0.3
    problems = [linear(shape, seed) for seed in range(3)]
    y = np.random.default_rng(1).normal(size=problems[0][0].shape[1])
    solver = sciopt.SPRING(
        damping=damping, momentum=mu, step_sizes=(eta,), norm_constraint=math.inf
    )
    path, _ = steps(solver, affine, jnp.asarray(y), problems, affine_jacobian)
    phi = np.zeros_like(y)
    for k, (jac, b) in enumerate(problems, start=1):
        kernel = jac @ jac.T + damping * np.eye(len(b))
        phi = mu * phi - jac.T @ np.linalg.solve(kernel, jac @ y - b + mu * jac @ phi)
        y = y + eta * phi / np.sqrt(1 - mu ** (2 * k))
        np.testing.assert_allclose(path[k], y, rtol=0, atol=1e-12)


def curved(y, args):
    return jnp.stack([10 * (y[1] - y[0] ** 2), 1 - y[0], jnp.sin(3 * y[0]) * y[1]])


def test_spring_without_momentum_is_engd():
    y, args = jnp.array([-1.2, 1.0]), [None] * 4
    spring = steps(searching_spring(damping=1e-8, momentum=0.0), curved, y, args)[0]
    engd = steps(sciopt.ENGD(), curved, y, args)[0]
    np.testing.assert_array_equal(np.array(spring), np.array(engd))


def test_the_step_is_the_best_on_the_grid_and_no_longer_than_allowed():
    y = np.array([-0.75, 0.6])
    jac, r = jax.jacfwd(curved)(y, None), curved(y, None)
    direction = dense(np.asarray(jac), np.asarray(r), 1e-8)
    grid = [y + 2.0**-k * direction for k in range(31)]
    losses = [float(jnp.sum(curved(p, None) ** 2)) for p in grid]
    (_, found), _ = steps(sciopt.ENGD(), curved, jnp.asarray(y), [None])
    assert 0 < np.argmin(losses) < 30
    np.testing.assert_allclose(found, grid[np.argmin(losses)], rtol=0, atol=1e-10)
    short = sciopt.ENGD(step_sizes=(1.0,), norm_constraint=1e-4)
    (_, found), _ = steps(short, curved, jnp.asarray(y), [None])
    np.testing.assert_allclose(found, y + 1e-2 * direction / np.linalg.norm(direction), atol=1e-10)


def test_a_step_that_would_not_help_is_not_taken():
    # The damped momentum leads on where the second problem is already solved.
    solver, y = searching_spring(damping=1.0, momentum=0.9), jnp.zeros(2)
    first = (np.eye(2), np.ones(2))
    (_, solution), state = steps(solver, affine, y, [first])
    path, state = steps(solver, affine, y, [first, (np.eye(2), solution)])
    assert np.linalg.norm(state.memory.momentum) > 0.1
    np.testing.assert_array_equal(path[2], solution)
    assert state.loss == 0


SOLVERS = {
    "engd": sciopt.ENGD(1e-9, 1e-9),
    "spring": searching_spring(1e-9, 1e-9),
    "tngd": sciopt.TNGD(1e-9, 1e-9, time=1e3, key=KEY),
}


@pytest.mark.parametrize("name", ["gauss_newton", *SOLVERS])
def test_residuals_that_are_nan_are_told(name):
    solver = {"gauss_newton": sciopt.GaussNewton(1e-9, 1e-9), **SOLVERS}[name]
    y = jnp.array([-1.0, 1.0])
    sol = optx.least_squares(lambda y, args: jnp.log(y), solver, y, throw=False)
    assert sol.result == optx.RESULTS.nonfinite
    np.testing.assert_array_equal(sol.value, y)


def test_a_singular_system_without_damping_is_told():
    solver = sciopt.ENGD(1e-9, 1e-9, damping=0.0, linear_solver=damped.Nystrom(2, KEY))
    y = jnp.array([0.0, 1.0])
    sol = optx.least_squares(lambda y, args: y[:1] * jnp.array([1.0, 2.0]) - 1, solver, y,
                             throw=False)  # fmt: skip
    assert sol.result == optx.RESULTS.nonfinite
    np.testing.assert_array_equal(sol.value, y)


@pytest.mark.parametrize("name", SOLVERS)
def test_residuals_that_are_zero_end_at_once(name):
    y = jnp.array([1.0, 1.0])
    sol = optx.least_squares(lambda y, args: y - 1, SOLVERS[name], y)
    assert sol.stats["num_steps"] == 1
    np.testing.assert_array_equal(sol.value, y)


def test_steps_are_invariant_under_linear_reparametrisation():
    rng = np.random.default_rng(2)
    change = rng.normal(size=(2, 2)) + 2 * np.eye(2)
    solver = sciopt.ENGD(damping=0.0)
    y = np.array([-1.2, 1.0])
    path = steps(solver, curved, jnp.asarray(y), [None] * 5)[0]
    z = jnp.asarray(np.linalg.solve(change, y))
    other = steps(solver, lambda z, args: curved(change @ z, args), z, [None] * 5)[0]
    np.testing.assert_allclose(np.array(other) @ change.T, np.array(path), rtol=0, atol=1e-10)
    assert np.linalg.norm(path[5] - path[0]) > 0.1


def test_steps_are_invariant_under_reparametrisation_to_the_first_order():
    def chart(z):
        return jnp.stack([jnp.sinh(z[0]) + 0.3 * z[1], z[1] + 0.2 * z[0] ** 2])

    z = jnp.array([-0.7, 0.6])
    y, sizes = chart(z), 2.0 ** -np.arange(3, 9)

    def order(damping: float) -> float:
        """The exponent of the step size in the distance between the two charts' steps."""
        jac, r = jax.jacfwd(curved)(y, None), curved(y, None)
        own, seen = jax.jacfwd(lambda z: curved(chart(z), None))(z), r
        there = [y + h * dense(np.asarray(jac), np.asarray(r), damping) for h in sizes]
        here = [chart(z + h * dense(np.asarray(own), np.asarray(seen), damping)) for h in sizes]
        gaps = np.linalg.norm(np.array(there) - np.array(here), axis=1)
        return float(np.polyfit(np.log(sizes), np.log(gaps), 1)[0])

    # What is regressed is the solver's step, which is the dense formula's.
    solver = sciopt.ENGD(damping=0.0, step_sizes=(0.125,))
    (_, found), _ = steps(solver, lambda z, args: curved(chart(z), args), z, [None])
    jac = np.asarray(jax.jacfwd(lambda z: curved(chart(z), None))(z))
    expected = z + 0.125 * dense(jac, np.asarray(curved(y, None)), 0.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert abs(order(0.0) - 2) < 0.05
    assert abs(order(1e6) - 1) < 0.05  # A gradient step is not invariant.


def ornstein_uhlenbeck(jac, r, x, time, damping):
    """The mean of the process, by the matrix exponential."""
    values, vectors = np.linalg.eigh(jac.T @ jac + damping * np.eye(jac.shape[1]))
    target = -dense(jac, r, damping)
    return target + vectors @ (np.exp(-values * time) * (vectors.T @ (x - target)))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_process_goes_from_where_it_began_to_the_natural_gradient(shape):
    jac, r = linear(shape)
    begin, damping = np.random.default_rng(1).normal(size=jac.shape[1]), 0.1
    operator = lx.MatrixLinearOperator(jnp.asarray(jac))

    @jax.jit
    def state(time):
        return sciopt.ExactTransition().evolve(
            operator, jnp.asarray(r), jnp.asarray(begin), time, damping, 0.0, KEY
        )

    np.testing.assert_allclose(state(0.0), begin, rtol=0, atol=1e-12)
    for time in (0.01, 0.7):
        expected = ornstein_uhlenbeck(jac, r, begin, time, damping)
        np.testing.assert_allclose(state(time), expected, rtol=0, atol=1e-10)
    for time in (300.0, math.inf):
        np.testing.assert_allclose(state(time), -dense(jac, r, damping), rtol=0, atol=1e-10)


def test_tngd_is_gradient_descent_at_no_time_and_engd_after_a_long_one():
    y = jnp.array([-0.75, 0.6])
    still = sciopt.TNGD(time=0.0, key=KEY, begin="gradient", step_sizes=(0.01,))
    (_, found), _ = steps(still, curved, y, [None])
    gradient = jax.grad(lambda y: jnp.sum(curved(y, None) ** 2) / 2)(y)
    np.testing.assert_allclose(found, y - 0.01 * gradient, rtol=0, atol=1e-12)
    path = steps(sciopt.TNGD(time=1e6, key=KEY), curved, y, [None] * 4)[0]
    engd = steps(sciopt.ENGD(), curved, y, [None] * 4)[0]
    np.testing.assert_allclose(np.array(path), np.array(engd), rtol=0, atol=1e-8)


def test_tngd_begins_where_the_process_stood():
    problems = [linear("wide", seed) for seed in range(2)]
    y = np.random.default_rng(1).normal(size=20)
    solver = sciopt.TNGD(time=0.2, key=KEY, damping=0.1, step_sizes=(0.5,))
    path, _ = steps(solver, affine, jnp.asarray(y), problems, affine_jacobian)
    x = problems[0][0].T @ (problems[0][0] @ y - problems[0][1])  # the gradient, at first
    for k, (jac, b) in enumerate(problems, start=1):
        x = ornstein_uhlenbeck(jac, jac @ y - b, x, 0.2, 0.1)
        y = y - 0.5 * x
        np.testing.assert_allclose(path[k], y, rtol=0, atol=1e-10)


def test_during_the_delay_the_process_still_has_the_system_of_the_step_before():
    problems = [linear("wide", seed) for seed in range(3)]
    y = np.random.default_rng(1).normal(size=20)
    solver = sciopt.TNGD(time=0.2, delay=0.05, key=KEY, damping=0.1, step_sizes=(0.5,))
    path, _ = steps(solver, affine, jnp.asarray(y), problems, affine_jacobian)
    before, x = None, problems[0][0].T @ (problems[0][0] @ y - problems[0][1])
    for k, (jac, b) in enumerate(problems, start=1):
        r = jac @ y - b
        if before is not None:
            x = ornstein_uhlenbeck(*before, x, 0.05, 0.1)
        x = ornstein_uhlenbeck(jac, r, x, 0.2, 0.1)
        before, y = (jac, r), y - 0.5 * x
        np.testing.assert_allclose(path[k], y, rtol=0, atol=1e-10)


SAMPLES = 20_000


def assert_gaussian(samples, mean, covariance):
    """Every mean and covariance within 5 of its standard errors (a chance below 1e-5 in all)."""
    found, size = np.asarray(samples), len(samples)
    spread = np.sqrt(np.diag(covariance))
    assert np.max(np.abs(found.mean(0) - mean) / spread) < 5 / np.sqrt(size)
    errors = np.sqrt(np.outer(spread**2, spread**2) + covariance**2) / np.sqrt(size)
    assert np.max(np.abs(np.cov(found.T) - covariance) / errors) < 5


def drawn(dynamics, jac, r, time, damping, temperature, samples):
    operator = lx.MatrixLinearOperator(jnp.asarray(jac))

    @jax.jit
    @jax.vmap
    def draw(key):
        begin = jnp.ones(jac.shape[1])
        return dynamics.evolve(operator, jnp.asarray(r), begin, time, damping, temperature, key)

    return draw(jax.random.split(KEY, samples))


@pytest.mark.parametrize(("rows", "time"), [(2, 60.0), (2, 0.4), (4, 0.4)])
def test_the_process_has_its_law_at_a_time_and_in_the_end(rows, time):
    rng = np.random.default_rng(3)
    jac, r, damping, temperature = rng.normal(size=(rows, 3)), rng.normal(size=rows), 0.5, 0.2
    samples = drawn(sciopt.ExactTransition(), jac, r, time, damping, temperature, SAMPLES)
    values, vectors = np.linalg.eigh(jac.T @ jac + damping * np.eye(3))
    spread = temperature * -np.expm1(-2 * values * time) / values
    mean = ornstein_uhlenbeck(jac, r, np.ones(3), time, damping)
    assert_gaussian(samples, mean, vectors * spread @ vectors.T)


def test_euler_maruyama_has_the_law_of_its_recursion():
    rng = np.random.default_rng(3)
    jac, r, damping, temperature = rng.normal(size=(2, 3)), rng.normal(size=2), 0.5, 0.2
    h, count = 1 / 16, 16
    samples = drawn(sciopt.SimulatedPath(h), jac, r, h * count, damping, temperature, 4000)
    metric = jac.T @ jac + damping * np.eye(3)
    decay = np.eye(3) - h * metric
    mean, covariance = np.ones(3), np.zeros((3, 3))
    for _ in range(count):
        mean = decay @ mean + h * jac.T @ r
        covariance = decay @ covariance @ decay + 2 * temperature * h * np.eye(3)
    assert_gaussian(samples, mean, covariance)


def test_another_solver_of_diffrax_follows_the_process_more_closely():
    jac, b = linear("tall")
    jac = jac / 4
    expected = ornstein_uhlenbeck(jac, b, np.ones(jac.shape[1]), 1.0, 0.1)
    heun = sciopt.SimulatedPath(1 / 64, diffrax.Heun())
    found = drawn(heun, jac, b, 1.0, 0.1, 0.0, 1)[0]
    assert np.linalg.norm(found - expected) < 2e-4  # Euler's error is 5e-3.


FITTERS = {
    "engd": sciopt.ENGD(),
    "spring": searching_spring(momentum=0.5),
    "nystrom": sciopt.ENGD(linear_solver=damped.Nystrom(2, KEY)),
    "simulated": sciopt.TNGD(
        time=50.0, key=KEY, damping=1e-3, linear_solver=sciopt.SimulatedPath(0.5)
    ),
}


@pytest.mark.parametrize("name", FITTERS)
def test_a_fit_converges_and_compiles_once(name, compilations):
    x = jnp.linspace(0, 1, 32)
    points = {"data": jnp.stack([x, 2 * jnp.exp(-3 * x)], axis=1)}
    residuals = sciopt.Residuals({"data": lambda p, xy: p["a"] * jnp.exp(-p["k"] * xy[0]) - xy[1]})
    fit = sciopt.Fit(residuals, FITTERS[name], lambda key, p: points, KEY)
    state = fit.advance(fit.init({"a": jnp.array(1.0), "k": jnp.array(1.0)}), 1)
    compilations.clear()
    state = fit.advance(state, 40)
    assert compilations == []
    np.testing.assert_allclose([state.params["a"], state.params["k"]], [2, 3], atol=2e-3)


@pytest.mark.parametrize("name", SOLVERS)
def test_dtypes_are_the_parameters_own(name):
    jac, b = (x.astype(np.float32) for x in linear("wide"))
    y = jnp.zeros(jac.shape[1], jnp.float32)
    solver = eqx.tree_at(lambda s: s.damping, SOLVERS[name], 1e-2)
    (_, found), state = steps(solver, affine, y, [(jac, b)], affine_jacobian)
    assert found.dtype == state.loss.dtype == jnp.float32
    assert state.loss < 0.1 * np.sum(b**2)


def test_meaningless_arguments_are_refused():
    with pytest.raises(ValueError, match="positive step sizes"):
        sciopt.ENGD(step_sizes=())
    with pytest.raises(ValueError, match="0 <= momentum < 1"):
        sciopt.SPRING(momentum=1.0)
    with pytest.raises(ValueError, match="'last' or 'gradient'"):
        sciopt.TNGD(time=1.0, key=KEY, begin="nowhere")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="must not be negative, and needs begin='last'"):
        sciopt.TNGD(time=1.0, key=KEY, begin="gradient", delay=0.1)
    with pytest.raises(ValueError, match="finite time"):
        drawn(sciopt.SimulatedPath(0.1), np.eye(2), np.ones(2), math.inf, 0.1, 0.0, 1)
