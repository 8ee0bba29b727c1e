"""Claims about parameters that are inferred: their bounds, their values, and how sure they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pde
import sciopt
from pde._inferred import laplace, raw_columns

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

NOISE = 1e-3


@pytest.mark.parametrize(
    "parameter",
    [pde.Inferred(0.1, lower=0.0), pde.Inferred(2.0, 1.0, 5.0), pde.Inferred(-3.0, upper=1.0)],
)
def test_a_bounded_parameter_starts_where_it_shall_and_never_leaves(parameter):
    raw = jnp.linspace(-30, 30, 7)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(parameter.value)))(raw)
    assert float(values[3]) == pytest.approx(parameter.initial, rel=1e-12)
    assert ((values >= parameter.lower) & (values <= parameter.upper)).all()
    assert (jnp.sign(slopes) == jnp.sign(slopes[0])).all()


def test_laplace_is_a_block_of_the_inverse():
    jacobian = np.random.default_rng(0).normal(size=(40, 9))
    whole = 0.3 * np.linalg.inv(jacobian.T @ jacobian)
    columns = np.array([2, 7])
    found = laplace(jacobian, columns, 0.3)
    assert found is not None
    np.testing.assert_allclose(found, whole[np.ix_(columns, columns)], rtol=1e-10)
    # As many residuals as parameters, or one that the others can imitate: nothing is known.
    assert laplace(jacobian[:9], columns, 0.3) is None
    jacobian[:, 2] = jacobian[:, 3] + jacobian[:, 4]
    assert laplace(jacobian, columns, 0.3) is None


def conduction(parameter: pde.Inferred, data: pde.Data) -> pde.PINN:
    problem = pde.Problem(
        pde.Box(x=(0, 1)), ["u"], {"load": lambda v: v.k * v.u_xx + 1},
        {"ends": pde.Dirichlet({"x": (0, 1)}, {"u": 0.0}, hard=True), "sensors": data},
        parameters={"k": parameter},
    )  # fmt: skip
    network = pde.MLP(1, 1, width=6, depth=1, key=jax.random.key(0))
    return pde.PINN(problem, network, points=32)


def test_a_conductivity_and_its_deviation_are_those_of_least_squares():
    """u = x (1 - x) / 2k is linear in 1/k, so both are known in closed form."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (40, 1))
    shape = x[:, 0] * (1 - x[:, 0]) / 2
    u = shape / 2 + NOISE * rng.normal(size=40)
    pinn = conduction(pde.Inferred(1.0, lower=0.0), pde.Data(x, {"u": u}, noise=NOISE))
    fit = sciopt.Fit(pinn.residuals, sciopt.GaussNewton(), pinn.sample, jax.random.key(1))
    state = fit.advance(fit.init(pinn.params), 60)
    slope = (shape @ u) / (shape @ shape)
    k = float(pinn.inferred(state.params)["k"])
    assert k == pytest.approx(1 / slope, rel=1e-4)
    deviation = pinn.deviations(state.params, state.points)["k"]
    assert deviation == pytest.approx(NOISE / np.sqrt(shape @ shape) / slope**2, rel=1e-2)
    # The field has the parameter that was found.
    field = pinn.field(state.params)
    assert float(field.problem.at(jnp.zeros(1)).k) == k
    assert raw_columns(state.params, pinn.problem.inferred).tolist() == [
        sum(p.size for p in jax.tree.leaves(state.params["network"]))
    ]


def test_a_prior_weighs_as_much_as_the_noise_says():
    data = pde.Data([[0.5]] * 4, {"u": [0.1] * 4}, noise=0.1, weight=2.0)
    pinn = conduction(pde.Inferred(1.0, prior=(3.0, 0.5)), data)
    assert pinn.residuals.weights["prior"] == pytest.approx(2 * 0.01 / 4)
    point = {"shift": jnp.zeros(1)}
    assert np.asarray(pinn.residuals.blocks["prior"](pinn.params, point)).tolist() == [-4.0]
    with pytest.raises(ValueError, match="noise of data"):
        conduction(pde.Inferred(1.0, prior=(3.0, 0.5)), pde.Data([[0.5]], {"u": [0.1]}))


@pytest.mark.parametrize(
    ("at", "values", "message"),
    [
        ([[1.5], [0.5]], [0.0, 0.0], "1 of 2 points of 'sensors' lie outside.*x = 1.5"),
        ([[0.5, 0.5]], [0.0], "2 components"),
        ([[0.5]], [0.0, 1.0], "for 1 points"),
        ([[0.5]], [np.nan], "NaN"),
    ],
)
def test_data_that_cannot_be_are_named(at, values, message):
    with pytest.raises(ValueError, match=message):
        conduction(pde.Inferred(1.0), pde.Data(at, {"u": values}))


def test_an_ensemble_of_a_linear_gaussian_problem_has_the_posterior_s_mean_and_deviation():
    """u = q x (1 - x) / 2 is linear in q: the posterior is normal, and members are draws of it."""
    rng = np.random.default_rng(1)
    x = rng.uniform(0.1, 0.9, (12, 1))
    shape, noise = x[:, 0] * (1 - x[:, 0]) / 2, 0.02
    u = 2 * shape + noise * rng.normal(size=12)
    # The prior says as much as the data do, so that a member without its draw would show.
    prior = (1.5, float(noise / np.sqrt(shape @ shape)))
    problem = pde.Problem(
        pde.Box(x=(0, 1)), ["u"], {"load": lambda v: v.u_xx + v.q},
        {"ends": pde.Dirichlet({"x": (0, 1)}, {"u": 0.0}, hard=True),
         "sensors": pde.Data(x, {"u": u}, noise=noise, weight=1e-2)},
        parameters={"q": pde.Inferred(1.0, prior=prior)},
    )  # fmt: skip
    members = 200
    keys = jax.random.split(jax.random.key(0))
    pinns = [pde.PINN(problem, pde.MLP(1, 1, width=2, depth=1, key=k), points=6) for k in keys]
    starts = [pinn.params for pinn in pinns] * (members // 2)
    drawn = np.asarray(pde.ensemble(pinns[0], starts, steps=15, key=jax.random.key(1))["q"])
    precision = shape @ shape / noise**2 + 1 / prior[1] ** 2
    mean = (shape @ u / noise**2 + prior[0] / prior[1] ** 2) / precision
    deviation = 1 / np.sqrt(precision)
    # Three errors of a mean and of a deviation of so many draws.
    assert abs(drawn.mean() - mean) < 3 * deviation / np.sqrt(members)
    assert abs(drawn.std(ddof=1) / deviation - 1) < 3 / np.sqrt(2 * (members - 1))


def test_an_ensemble_needs_members_and_a_noise():
    pinn = conduction(pde.Inferred(1.0), pde.Data([[0.5]], {"u": [0.1]}))
    with pytest.raises(ValueError, match="at least two members"):
        pde.ensemble(pinn, [pinn.params], steps=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="noise of 'sensors' is not known"):
        pde.ensemble(pinn, [pinn.params] * 2, steps=1, key=jax.random.key(0))
