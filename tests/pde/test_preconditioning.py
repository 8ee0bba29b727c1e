"""Claims of De Ryck et al. (ICLR 2024), and that Lanczos is no worse than a dense decomposition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pde
from pde import preconditioning
from pde.preconditioning import ALL

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

PI = float(np.pi)


def poisson(modes, weight=1.0):
    """u'' = f on [-pi, pi] with u = 0 at the ends, by Fourier series."""
    problem = pde.Problem(
        pde.Box(x=(-PI, PI)),
        ["u"],
        {"load": lambda v: v.u_xx + jnp.sin(v.x)},
        {"ends": pde.Dirichlet({"x": (-PI, PI)}, {"u": 0.0}, weight=weight, points=2)},
    )
    return problem, pde.FourierSeries(1, 1, modes=modes), 4 * modes


def advection(speed, modes=2):
    """u_t + c u_x = 0 on a square that waves of whole speeds fit, from sin x."""
    problem = pde.Problem(
        pde.Box(x=(0, 2 * PI), t=(0, 2 * PI)),
        ["u"],
        {"transport": lambda v: v.u_t + speed * v.u_x},
        {"start": pde.Initial({"u": lambda v: jnp.sin(v.x)}, weight=1.0, points=16)},
    )
    times = speed * modes  # as fast as the fastest wave
    series = pde.FourierSeries(2, 1, modes=(modes, times))
    return problem, series, 1 << int(np.ceil(np.log2((2 * times + 2) ** 2)))


def posed(problem, series, points):
    pinn = pde.PINN(problem, series, points=points, sampler=pde.Grid())
    return pinn, pinn.sample(jax.random.key(0), pinn.params)


def rescaled(problem, series, points):
    return posed(
        problem, series.rescaled(preconditioning.diagonal(*posed(problem, series, points))), points
    )


def spectrum(pinn, drawn, **kwargs):
    return preconditioning.spectrum(pinn.residuals, pinn.params, drawn, **kwargs)


def conditions(*problem):
    """Before and after the series is rescaled."""
    return [spectrum(*made(*problem))[ALL].condition for made in (posed, rescaled)]


def test_poisson_grows_with_the_fourth_power_of_the_modes_and_rescaled_does_not():
    modes = (8, 32)
    plain, scaled = np.array([conditions(*poisson(k)) for k in modes]).T
    assert np.all(plain >= np.array(modes) ** 4)
    np.testing.assert_allclose(plain[1] / plain[0], 4**4, rtol=0.15)
    # The rank-one part that the ends add has the norm 2 zeta(4), however many modes there are.
    size = 2 + 2 * np.pi**4 / 90
    limit = (size + np.sqrt(size**2 - 4)) ** 2 / 4
    np.testing.assert_allclose(scaled, limit, rtol=1e-3)


def test_the_operators_own_part_is_the_identity_once_rescaled():
    before, after = (spectrum(*made(*poisson(6)))["load"] for made in (posed, rescaled))
    np.testing.assert_allclose(before.eigenvalues[::2][:6], [k**4 for k in range(6, 0, -1)])
    np.testing.assert_allclose(after.eigenvalues, [1.0] * 12 + [0.0], atol=1e-12)


def test_the_condition_number_falls_to_one_as_the_boundary_weighs_less():
    """Theorem 3.1: 1 + O(1/gamma), where the weight is proportional to 1 / gamma^2."""
    gaps = np.array([conditions(*poisson(8, weight))[1] - 1 for weight in (1e-4, 1e-6, 1e-8)])
    np.testing.assert_allclose(gaps[:-1] / gaps[1:], 10, rtol=0.1)


def test_advection_grows_with_the_square_of_the_speed_and_rescaled_does_not():
    plain, scaled = np.array([conditions(*advection(speed)) for speed in (2, 4)]).T
    np.testing.assert_allclose(plain[1:] / plain[:-1], 4, rtol=0.25)
    assert np.all(scaled < 31)
    assert np.all(scaled[1:] / scaled[:-1] < 1.1)


def test_lanczos_agrees_with_the_dense_spectrum_of_a_network_to_1e_6():
    problem = pde.Problem(
        pde.Box(x=(0, 1), t=(0, 1)), ["u"], {"advection": lambda v: v.u_t + 5 * v.u_x}, {}
    )
    network = pde.MLP(2, 1, width=6, depth=1, activation=jnp.sin, key=jax.random.key(2))
    made = posed(problem, network, 9)
    whole, found = spectrum(*made)[ALL], spectrum(*made, method="lanczos")[ALL]
    assert found.complete
    assert found.rank == whole.rank
    largest, smallest = whole.eigenvalues[0], whole.eigenvalues[whole.rank - 1]
    np.testing.assert_allclose(found.eigenvalues[0], largest, rtol=1e-10)
    # Known to rounding of the square root of the largest.
    rounding = 1e3 * float(jnp.finfo(float).eps) * whole.condition**0.5
    assert rounding < 1e-6
    np.testing.assert_allclose(found.eigenvalues[whole.rank - 1], smallest, rtol=1e-6)


def test_few_steps_of_lanczos_have_both_ends_of_a_spectrum_that_is_preconditioned():
    made = rescaled(*poisson(8))
    dense, few = spectrum(*made), spectrum(*made, method="lanczos", steps=6)
    # The block of the ends has but two rows.
    assert not few[ALL].complete
    assert few["ends"].complete
    np.testing.assert_allclose(few[ALL].eigenvalues[0], dense[ALL].eigenvalues[0], rtol=1e-6)
    np.testing.assert_allclose(few[ALL].eigenvalues[-1], dense[ALL].eigenvalues[-1], rtol=1e-6)


def error_of_gradient_descent(pinn, drawn, steps=40):
    """The largest, with the best constant step size, from coefficients of one."""
    values = spectrum(pinn, drawn)[ALL].eigenvalues
    gradient = jax.jit(jax.grad(pinn.residuals.loss))
    params = jax.tree.map(lambda p: p + 1.0, pinn.params)
    for _ in range(steps):
        by = gradient(params, drawn)
        params = jax.tree.map(lambda p, g: p - g / (values[0] + values[-1]), params, by)
    x = jnp.linspace(-PI, PI, 33)
    return float(jnp.max(jnp.abs(pinn.field(params).on_grid({"x": x})["u"] - jnp.sin(x))))


def test_gradient_descent_converges_as_the_condition_number_says():
    problem = poisson(4, 0.01)
    assert error_of_gradient_descent(*posed(*problem)) > 0.5
    assert error_of_gradient_descent(*rescaled(*problem)) < 1e-8
    assert spectrum(*rescaled(*problem))[ALL].learned(5) == 9
    assert spectrum(*posed(*problem))[ALL].learned(5) == 4  # of k = 4 and 3


def test_a_network_cannot_be_rescaled():
    problem, _, points = poisson(2)
    network = pde.MLP(1, 1, width=4, depth=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="FourierSeries"):
        preconditioning.diagonal(*posed(problem, network, points))


KINDS = ("dirichlet", "neumann", "periodic")


@pytest.mark.parametrize("kind", KINDS)
def test_an_inverse_laplacian_undoes_the_laplacian_of_what_satisfies_the_boundary(kind):
    box = pde.Box(x=(-1, 2), y=(0, 2))
    grid = box.draw(pde.Grid(), jax.random.key(0), 64)
    across = {"dirichlet": jnp.sin, "neumann": jnp.cos}
    waves, power = across.get(kind, lambda z: jnp.cos(2 * z + 1)), {"periodic": 4}.get(kind, 1)
    # 2 pi / 3 makes a period of three, pi / 2 half a one of two.
    u = waves(2 * PI / 3 * (grid[:, 0] + 1)) * jnp.sin(3 * PI / 2 * grid[:, 1])
    load = (power * (2 * PI / 3) ** 2 + (3 * PI / 2) ** 2) * u
    solve = preconditioning.InverseLaplacian(box, 64, {"x": kind})
    np.testing.assert_allclose(solve(load), u, atol=1e-13)
    np.testing.assert_allclose(solve(jnp.stack([load, 2 * load], -1))[:, 1], 2 * u, atol=1e-13)


def test_the_inverse_laplacian_makes_a_condition_number_that_no_mode_adds_to():
    """-u'' + (2 + cos x) u on a period: with terms beside the principal part."""
    problem = pde.Problem(
        pde.Box(x=(-PI, PI)), ["u"],
        {"load": lambda v: -v.u_xx + (2 + jnp.cos(v.x)) * v.u}, {},
    )  # fmt: skip
    plain, preconditioned = [], []
    for modes in (8, 16, 32):
        series, points = pde.FourierSeries(1, 1, modes=modes), 4 * modes
        left = {"load": preconditioning.InverseLaplacian(problem.domain, points, {"x": "periodic"})}
        pinn, drawn = posed(problem, series, points)
        plain.append(spectrum(pinn, drawn)[ALL].condition)
        pinn = pde.PINN(problem, series, points=points, sampler=pde.Grid(), left=left)
        matrix = np.asarray(pinn.residuals.jacobian(pinn.params, drawn)[1])
        values = np.linalg.eigvalsh(matrix.T @ matrix)
        preconditioned.append(values[-1] / values[0])
        np.testing.assert_allclose(
            spectrum(pinn, drawn)[ALL].condition, preconditioned[-1], rtol=1e-8
        )
    assert np.all(np.array(plain) > np.array([8, 16, 32]) ** 4 / 8)
    np.testing.assert_allclose(preconditioned, preconditioned[0], rtol=0.05)
    assert max(preconditioned) < 12


def test_residuals_off_the_grid_are_refused():
    with pytest.raises(ValueError, match="8 residuals are not on a grid of 3 x 3"):
        preconditioning.InverseLaplacian(pde.Box(x=(0, 1), y=(0, 1)), 9)(jnp.ones(8))
