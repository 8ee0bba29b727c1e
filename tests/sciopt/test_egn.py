"""Claims about Exact Gauss-Newton, the losses it knows, and the least-squares test problems."""

import itertools
from decimal import Decimal, getcontext

import equinox as eqx
import jax
import jax.numpy as jnp
import more_garbow_hillstrom
import numpy as np
import optax
import optimistix as optx
import pytest
from jax.flatten_util import ravel_pytree

import sciopt
from sciopt import losses

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


def walk(solver, fn, y, steps=1, args=None, **options):
    """The points and states of some steps, the start first."""

    def pair(y, args):
        return fn(y, args), None

    state = solver.init(pair, y, args, options, None, None, frozenset())
    step = eqx.filter_jit(lambda y, s: solver.step(pair, y, args, options, s, frozenset())[:2])
    seen = [(y, state)]
    for _ in range(steps):
        seen.append(step(*seen[-1]))
    return seen


def first_step(solver, fn, y, args=None, **options):
    (start, _), (end, _) = walk(solver, fn, y, 1, args, **options)
    return np.asarray(end - start)


def plain(**options):
    """The direction itself: no line search, and the damping as given."""
    return sciopt.EGN(line_search=False, adaptive_damping=False, **options)


def model(batch, classes, n, seed=0):
    """Outputs that are no linear function of n parameters, and a start."""
    rng = np.random.default_rng(seed)
    weights = jnp.asarray(rng.normal(size=(batch, classes, n)) / np.sqrt(n))

    def fn(p, args):
        return jnp.sin(weights @ p) + weights @ p

    return fn, jnp.asarray(rng.normal(size=n))


BATCH, CLASSES = 5, 3
RNG = np.random.default_rng(1)
LABELS = jnp.asarray(RNG.integers(0, CLASSES, size=BATCH))
REALS = jnp.asarray(2 * RNG.normal(size=(BATCH, CLASSES)))
COUNTS = jnp.asarray(RNG.poisson(1.5, size=(BATCH, CLASSES)), float)
CHANCES = jax.nn.softmax(REALS)
LOSSES = {
    "squares": (losses.Squares(), REALS),
    "softmax": (losses.SoftmaxCrossEntropy(), LABELS),
    "softmax of chances": (losses.SoftmaxCrossEntropy(), CHANCES),
    "logistic": (losses.Logistic(), CHANCES),
    "poisson": (losses.Poisson(), COUNTS),
    "huber": (losses.Huber(0.7), REALS),
    "optax": (optax.softmax_cross_entropy_with_integer_labels, LABELS),
}


@pytest.mark.parametrize("n", [7, 40])
@pytest.mark.parametrize("name", LOSSES)
def test_the_step_is_the_textbook_s_on_both_sides(name, n):
    """-(J' Q J + b lambda I)^-1 J' r, dense, with Q and r of the loss by JAX."""
    loss, targets = LOSSES[name]
    fn, y = model(BATCH, CLASSES, n)

    def total(z):
        return jnp.sum(jax.vmap(loss)(z.reshape(BATCH, CLASSES), targets))

    @jax.jit
    def derivatives(y):
        z = fn(y, None).ravel()
        jac = jax.jacfwd(lambda p: fn(p, None).ravel())(y)
        return jac, jax.hessian(total)(z), jax.grad(total)(z)

    jac, q, r = map(np.asarray, derivatives(y))
    expected = np.linalg.solve(jac.T @ q @ jac + BATCH * 1e-2 * np.eye(n), -jac.T @ r)
    solver = plain(loss=loss, damping=1e-2)
    found = first_step(solver, fn, y, (None, targets))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [3, 12])
def test_squares_of_optimistix_and_rank_deficiency(n):
    rng = np.random.default_rng(0)
    jac, r = rng.normal(size=(6, n)), rng.normal(size=6)
    jac[3:], r[3:] = jac[:3], r[:3]
    jac[:, 1] = jac[:, 0]
    expected = np.linalg.solve(jac.T @ jac + 0.1 * np.eye(n), -jac.T @ r)

    def fn(p, args):
        return {"a": jac[:2] @ p + r[:2], "b": jac[2:] @ p + r[2:]}

    y = jnp.zeros(n)
    np.testing.assert_allclose(first_step(plain(damping=0.1), fn, y), expected, atol=1e-10)
    gauss_newton = sciopt.GaussNewton(damping=0.1)
    np.testing.assert_allclose(first_step(gauss_newton, fn, y), expected, atol=1e-10)


def test_a_zero_residual_stays_where_it_is():
    zero = sciopt.EGN()
    assert not first_step(zero, lambda p, _: p**2, jnp.zeros(3)).any()
    sol = optx.least_squares(lambda p, _: p - 1, sciopt.EGN(1e-8, 1e-8), jnp.ones(3))
    assert sol.stats["num_steps"] == 1
    np.testing.assert_array_equal(sol.value, 1)


def test_on_a_linear_softmax_model_the_step_is_newton_s():
    rng = np.random.default_rng(0)
    x, labels = jnp.asarray(rng.normal(size=(20, 4))), jnp.asarray(rng.integers(0, 3, size=20))
    p = jnp.asarray(rng.normal(size=12))

    def mean_loss(p):
        z = x @ p.reshape(4, 3)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(z, labels))

    hessian, gradient = jax.jit(lambda p: (jax.hessian(mean_loss)(p), jax.grad(mean_loss)(p)))(p)
    newton = np.linalg.solve(hessian + 1e-3 * np.eye(12), -gradient)
    logits = sciopt.Outputs(lambda p, x: x @ p.reshape(4, 3))
    solver = plain(loss=losses.SoftmaxCrossEntropy(), damping=1e-3)
    found = first_step(solver, logits, p, (x, labels), jac=logits.jacobian)
    np.testing.assert_allclose(found, newton, rtol=0, atol=1e-10)


def test_outputs_have_the_jacobian_of_the_batch():
    logits = sciopt.Outputs(lambda p, x: jnp.outer(jnp.sin(p["a"] * x), p["b"]))
    params = {"b": jnp.array([1.0, 2.0]), "a": jnp.array(0.3)}
    batch = jnp.linspace(0, 1, 8).reshape(4, 2), None
    flat, unravel = ravel_pytree(params)
    out, jac = jax.jit(logits.jacobian)(params, batch)
    np.testing.assert_allclose(out, logits(params, batch), atol=1e-15)
    expected = jax.jit(jax.jacfwd(lambda p: logits(unravel(p), batch).ravel()))(flat)
    np.testing.assert_allclose(jac, expected, atol=1e-15)


def exact_step(jac, logits, labels, damping):
    """The published (Q J J' + b lambda I)^-1 r, to sixty digits."""
    getcontext().prec = 60
    (batch, classes), n = logits.shape, jac.shape[1]
    size = batch * classes
    jac = [[Decimal(float(v)) for v in row] for row in jac]
    kernel = [[sum(map(Decimal.__mul__, a, b)) for b in jac] for a in jac]
    left = [[Decimal(0)] * size for _ in range(size)]
    right = [Decimal(0)] * size
    for i in range(batch):
        powers = [Decimal(float(v)).exp() for v in logits[i]]
        p = [v / sum(powers) for v in powers]
        for c in range(classes):
            row = i * classes + c
            right[row] = p[c] - (c == labels[i])
            for d in range(classes):
                q = p[c] * ((c == d) - p[d])
                for j in range(size):
                    left[row][j] += q * kernel[i * classes + d][j]
            left[row][row] += Decimal(batch) * Decimal(damping)
    for i in range(size):  # the diagonal dominates enough at sixty digits
        for k in range(i + 1, size):
            ratio = left[k][i] / left[i][i]
            left[k] = [a - ratio * b for a, b in zip(left[k], left[i], strict=True)]
            right[k] -= ratio * right[i]
    x = [Decimal(0)] * size
    for i in reversed(range(size)):
        x[i] = (right[i] - sum(left[i][j] * x[j] for j in range(i + 1, size))) / left[i][i]
    return np.array([-float(sum(jac[i][j] * x[i] for i in range(size))) for j in range(n)])


@pytest.mark.parametrize("sharp", [0.0, 30.0, 60.0])
@pytest.mark.parametrize("n", [5, 30])
def test_nearly_one_hot_outputs_and_little_damping_keep_their_digits(sharp, n):
    """As published, and by LU, 1 - p cancels: at 30 four digits are right, at 60 none."""
    rng = np.random.default_rng(0)
    jac = rng.normal(size=(9, n)) / np.sqrt(n)
    logits, labels = rng.normal(size=(3, 3)), np.array([0, 1, 2])
    logits[labels, labels] += sharp

    def fn(p, args):
        return logits + (jac @ p).reshape(3, 3)

    for damping in (1e-3, 1e-8):
        solver = plain(loss=losses.SoftmaxCrossEntropy(), damping=damping)
        found = first_step(solver, fn, jnp.zeros(n), (None, jnp.asarray(labels)))
        expected = exact_step(jac, logits, labels, damping)
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < (1e-12 if damping == 1e-3 else 1e-9), (damping, error)


def test_saturated_on_the_wrong_class_the_step_is_finite_and_right():
    """Q is nothing, and r is not: the step is -r / (b lambda) through J."""
    jac = np.random.default_rng(0).normal(size=(2, 4))
    for kind, rtol in ((jnp.float64, 1e-12), (jnp.float32, 1e-5)):

        def fn(p, args, kind=kind):
            return jnp.array([[0.0, 5000.0]], kind) + jnp.asarray(jac, kind) @ p

        for loss in (losses.SoftmaxCrossEntropy(), LOSSES["optax"][0]):
            solver = plain(loss=loss, damping=1e-2)
            found = first_step(solver, fn, jnp.zeros(4, kind), (None, jnp.array([0])))
            assert found.dtype == kind
            np.testing.assert_allclose(found, jac.T @ [1, -1] / 1e-2, rtol=rtol)


def test_the_exact_fisher_is_the_expectation_over_the_model_s_own_labels():
    """And the empirical one the outer products of gradients at the data's: both by hand."""
    fn, y = model(BATCH, CLASSES, 6)

    @jax.jit
    @jax.jacfwd
    def slopes(p, labels):
        z = fn(p, None)
        return optax.softmax_cross_entropy_with_integer_labels(z, labels)

    chances = jax.nn.softmax(fn(y, None))
    exact, empirical = np.zeros((6, 6)), np.zeros((6, 6))
    for label in range(CLASSES):
        gradients = np.asarray(slopes(y, jnp.full(BATCH, label)))
        exact += np.einsum("b,bi,bj->ij", chances[:, label], gradients, gradients) / BATCH
    gradients = np.asarray(slopes(y, LABELS))
    empirical = gradients.T @ gradients / BATCH
    for name, fisher in {"exact": exact, "empirical": empirical}.items():
        expected = np.linalg.solve(fisher + 0.05 * np.eye(6), -gradients.mean(axis=0))
        solver = plain(loss=losses.SoftmaxCrossEntropy(), damping=0.05, fisher=name)
        found = first_step(solver, fn, y, (None, LABELS))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    # Of residuals, each is an example.
    r, jac = jnp.sin(y), jnp.diag(jnp.cos(y))
    outer = (r[:, None] * jac).T @ (r[:, None] * jac)
    expected = np.linalg.solve(outer + 0.05 * np.eye(6), -jac.T @ r)
    found = first_step(plain(damping=0.05, fisher="empirical"), lambda p, _: jnp.sin(p), y)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("wide", [False, True])
def test_convergence_is_quadratic_where_the_residual_vanishes(wide):
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(2, 4) if wide else (6, 2)))
    right = jnp.asarray(0.2 * rng.normal(size=weights.shape[1]))

    def fn(p, args):
        return jnp.exp(weights @ p) - jnp.exp(weights @ right)

    seen = walk(plain(damping=0.0), fn, right + 0.3, 8)
    sizes = np.array([np.linalg.norm(fn(y, None)) for y, _ in seen])
    sizes = np.log(sizes[(sizes < 0.3) & (sizes > 1e-13)])
    assert len(sizes) >= 3
    order = np.polyfit(sizes[:-1], sizes[1:], 1)[0]
    assert 1.8 < order < 2.2, order


def cubic(p, args):
    return jnp.stack([p[0] ** 3 - p[1], 3 * (p[0] + p[1]), jnp.sin(3 * p[1]), p[0] - 1])


at = jax.jit(lambda p: (cubic(p, None), jax.jacfwd(cubic)(p, None)))


def value(p):
    return np.sum(np.asarray(at(p)[0]) ** 2) / 2


def direction(p, damping):
    r, jac = map(np.asarray, at(p))
    return np.linalg.solve(jac.T @ jac + damping * np.eye(2), -jac.T @ r), jac.T @ r, jac.T @ jac


@pytest.mark.parametrize("reset", ["increase", "conservative", "goldstein"])
def test_line_search_damping_and_momentum_are_as_published(reset):
    """Replayed with NumPy, a few steps from a start at which full steps are too long."""
    solver = sciopt.EGN(
        damping=0.3, momentum=0.3, reset=reset, sufficient_decrease=0.4, damping_increase=1.7,
        damping_decrease=0.6, max_trials=40,
    )  # fmt: skip
    c, largest = 0.4, 1.0
    seen = walk(solver, cubic, jnp.array([2.5, 3.0]), 6)
    alpha, lam, velocity, rejected, changes = largest, 0.3, np.zeros(2), 0, set()
    for number, ((p, _), (after, state)) in enumerate(itertools.pairwise(seen)):
        p = np.asarray(p)
        step, gradient, hessian = direction(p, lam)
        velocity = 0.3 * velocity + 0.7 * step
        step = velocity / (1 - 0.3 ** (number + 1))
        slope = gradient @ step
        if reset == "increase":
            alpha = min(1.5 * alpha, largest)
        while True:
            change = value(p + alpha * step) - value(p)
            if change > c * alpha * slope:
                alpha *= 0.8
            elif reset == "goldstein" and alpha < largest and change < 0.6 * alpha * slope:
                alpha = min(1.5 * alpha, largest)
            else:
                break
            rejected += 1
        move = alpha * step
        gain = (value(p + move) - value(p)) / (gradient @ move + move @ hessian @ move / 2)
        factor = 1.7 if gain < 0.25 else 0.6 if gain > 0.75 else 1.0
        lam *= factor
        changes.add(factor)
        np.testing.assert_allclose(after, p + move, atol=1e-12)
        np.testing.assert_allclose(state.memory.step_size, alpha, rtol=1e-14)
        np.testing.assert_allclose(state.memory.damping, lam, rtol=1e-14)
        assert state.memory.num_rejected == rejected
        np.testing.assert_allclose(state.loss, 2 * value(after), rtol=1e-12)
    assert rejected > 0
    assert len(changes) > 1


def test_without_momentum_or_line_search_the_step_has_the_given_size():
    p = jnp.array([0.5, 0.2])
    found = first_step(plain(damping=0.3, step_size=0.25), cubic, p)
    np.testing.assert_allclose(found, 0.25 * direction(p, 0.3)[0], atol=1e-13)


PROBLEMS = more_garbow_hillstrom.PROBLEMS
SOLVERS = {
    "gauss_newton": sciopt.GaussNewton(1e-10, 1e-14),
    "gauss_newton, trust region": sciopt.GaussNewton(1e-10, 1e-14, damping=sciopt.TrustRegion()),
    "egn": sciopt.EGN(1e-10, 1e-14),
    "egn, quicker damping": sciopt.EGN(
        1e-10, 1e-14, damping=1e-2, damping_increase=2.0, damping_decrease=1 / 3
    ),
}
# Singular at their minima, where steps shrink by halves or slower until rounding.
SLOW = ("powell_singular", "powell_badly_scaled")


@pytest.mark.parametrize("name", SOLVERS)
def test_the_problems_of_more_garbow_and_hillstrom_reach_their_published_minima(name):
    residuals = more_garbow_hillstrom.one_of(PROBLEMS)

    @jax.jit
    def solve(start, number):
        sol = optx.least_squares(
            residuals, SOLVERS[name], start, number, max_steps=2000, throw=False
        )
        ok = sol.result == optx.RESULTS.successful
        return jnp.sum(residuals(sol.value, number) ** 2), ok

    for number, start in enumerate(more_garbow_hillstrom.starts(PROBLEMS)):
        problem = PROBLEMS[number]
        found, ok = solve(start, number)
        # The minima are published to six digits.
        errors = [abs(found - m) / m / 3e-6 if m else found / 1e-12 for m in problem.minima]
        assert min(errors) < 1, (problem.name, found)
        assert ok or problem.name in SLOW, problem.name


def test_derivatives_of_a_minimum_are_those_of_its_own_loss():
    """By `LossAdjoint` against central differences; Optimistix's default is that of squares."""
    rng = np.random.default_rng(0)
    x, noise = jnp.asarray(rng.normal(size=(20, 3))), jnp.asarray(rng.normal(size=20))
    solver = sciopt.EGN(1e-11, 1e-11, loss=losses.Logistic(), damping=1e-3)

    def solve(shift, adjoint):
        args = x, jax.nn.sigmoid(noise + shift)
        fn, y = (lambda p, args: args[0] @ p), jnp.zeros(3)
        return optx.least_squares(fn, solver, y, args, adjoint=adjoint).value

    ours = jax.jit(lambda shift: solve(shift, sciopt.LossAdjoint()))
    differences = (ours(0.3 + 1e-4) - ours(0.3 - 1e-4)) / 2e-4
    np.testing.assert_allclose(jax.jacrev(ours)(0.3), differences, rtol=0, atol=1e-7)
    theirs = jax.jacrev(lambda shift: solve(shift, optx.ImplicitAdjoint()))(0.3)
    assert np.max(np.abs(theirs - differences)) > 1e-2


FAILURES = {
    "nan at the start": (lambda x: jnp.nan * x, sciopt.EGN(), optx.RESULTS.nonfinite),
    "an infinite slope": (lambda x: jnp.sqrt(x - 1), sciopt.EGN(), optx.RESULTS.nonfinite),
    "the same of a kin": (lambda x: jnp.sqrt(x - 1), sciopt.GaussNewton(), optx.RESULTS.nonfinite),
    "divergence": (
        lambda x: jnp.exp(1 + x**2), plain(step_size=1e3, damping=1e-9), optx.RESULTS.nonfinite,
    ),
    "a singular system, not damped": (
        lambda x: jnp.stack([x[0] + x[1] - 3] * 3),
        plain(damping=0.0, linear_solver=sciopt.damped.Nystrom(2, jax.random.key(0))),
        optx.RESULTS.nonfinite,
    ),
    "no minimum": (jnp.exp, sciopt.EGN(), optx.RESULTS.nonlinear_max_steps_reached),
    "a cliff beside it": (
        lambda x: jnp.where(x < 0.5, jnp.nan, x - 0.6), sciopt.EGN(1e-8, 1e-8),
        optx.RESULTS.successful,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_failures_have_the_documented_result(name):
    fn, solver, result = FAILURES[name]
    sol = optx.least_squares(lambda x, _: fn(x), solver, jnp.ones(2), throw=False, max_steps=800)
    assert sol.result == result
    assert np.isfinite(sol.value).all()
    # By which a fit knows that it is to stop.
    assert np.isnan(sol.state.loss) == (result == optx.RESULTS.nonfinite)


def test_a_batch_with_a_nan_in_it_leaves_parameters_and_momentum_alone():
    solver = sciopt.EGN(loss=losses.Squares(), momentum=0.9)
    line = sciopt.Outputs(lambda p, x: p[0] * x + p[1])
    x = jnp.linspace(0, 1, 6)

    def fn(p, batch):
        return line(p, batch), None

    @jax.jit
    def step(y, state, batch):
        return solver.step(fn, y, batch, {"jac": line.jacobian}, state, frozenset())[:2]

    y = jnp.array([3.0, 1.0])
    state = solver.init(fn, y, None, {}, None, None, frozenset())
    y, state = step(y, state, (x, 2 * x))
    same, after = step(y, state, (x, (2 * x).at[2].set(jnp.nan)))
    np.testing.assert_array_equal(y, same)
    assert after.result == optx.RESULTS.nonfinite
    assert np.isnan(after.loss)
    np.testing.assert_array_equal(state.memory.velocity, after.memory.velocity)
    _, later = step(same, after, (x, 2 * x))
    assert later.result == optx.RESULTS.successful
    assert later.loss < state.loss


def test_single_precision_stays_single():
    fn, y = model(BATCH, CLASSES, 4)
    y, targets = y.astype(jnp.float32), COUNTS.astype(jnp.float32)
    solver = sciopt.EGN(loss=losses.Poisson(), momentum=0.5)
    single = walk(solver, lambda p, a: fn(p, a).astype(jnp.float32), y, 2, (None, targets))
    for _, state in single:
        leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
        assert {x.dtype for x in leaves} == {jnp.dtype(jnp.float32)}
    assert single[-1][0].dtype == jnp.float32


@pytest.mark.parametrize(
    "wrong",
    [
        {"fisher": "observed"},
        {"reset": "never"},
        {"momentum": 1.0},
        {"sufficient_decrease": 0.7},
        {"damping": -1.0},
        {"decrease": 1.2},
    ],
)
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"^EGN's {next(iter(wrong))}"):
        sciopt.EGN(**wrong)


def test_outputs_that_are_no_array_are_refused():
    solver = sciopt.EGN(loss=losses.Squares())
    with pytest.raises(ValueError, match="leading axis over examples"):
        first_step(solver, lambda p, _: {"a": p}, jnp.ones(2), (None, jnp.ones(2)))
