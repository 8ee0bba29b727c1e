"""What a case says of a parameter with a range, and what `check` says where it cannot have one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case_files import complaint, written

import cases
import pde
from cases._folder import RunFolder
from cases._kinds import plot
from cases._pinn import build
from cases._solution import write_solution

FAMILY = """\
equation: heat
parameters: {alpha: {range: [0.1, 0.4]}}
domain: {x: [0, 1], t: [0, 1]}
conditions:
  start: {type: initial, values: {u: sin(pi*x)}, hard: true}
  ends: {type: dirichlet, at: {x: [0, 1]}, values: {u: 0}, hard: true}
reference: {type: exact, values: {u: exp(-alpha*pi^2*t)*sin(pi*x)}}
train: {steps: 1, optimizer: {type: gauss_newton}}
evaluate: {grid: {x: 9, t: 5, alpha: 3}}
"""


@pytest.fixture
def family(tmp_path):
    return written(tmp_path, FAMILY)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("parameters.alpha={range: [0.4, 0.1]}", "the range 0.4 to 0.1 is empty"),
        (
            "parameters.alpha={range: [0, 1], infer: true, initial: 1}",
            "is inferred or has a range: give 'infer' or 'range'",
        ),
        ("parameters.beta={range: [0, 1]}", "parameters.beta: is in no equation and no condition"),
        ("domain.alpha=[0, 1]", "'alpha' is a coordinate, too"),
        ("conditions.ends.at={alpha: 0.1}", "is a parameter, and has no boundary"),
        ("conditions.ends={type: periodic, over: alpha}", "there is no such coordinate"),
        ("equations={diffusion: u_t - alpha*u_xx + u_alpha}", "which is a parameter"),
        ("network={type: fourier}", "a solution is not over a parameter"),
        ("reference={type: cole_hopf}", "cole_hopf is the solution of 'equation: burgers'"),
    ],
)
def test_what_is_wrong_with_a_range_is_named(family, override, message):
    whole = ["equation=null", "unknowns=[u]"] if override.startswith("equations") else []
    assert message in complaint(family, *whole, override)


def test_a_parameter_is_the_last_coordinate_and_no_part_of_space(family):
    case = cases.load(family)
    box = build.domain(case)
    assert (box.names, box.varied, box.space) == (("x", "t", "alpha"), ("alpha",), (0,))
    with pytest.raises(ValueError, match="has no boundary"):
        box.side("alpha", 0.1)
    with pytest.raises(ValueError, match="over a parameter of the family"):
        pde.Problem(box, ["u"], {"still": lambda v: v.u_t}, {"wrap": pde.Periodic("alpha")})
    assert cases.load(family, ["evaluate.grid=null"]).evaluate.grid["alpha"] == 9
    again = pde.in_window(build.problem(case), (0.0, 0.5)).domain
    assert again.varied == ("alpha",)
    # Of a linear function of the parameter there is no Laplacian, nor of its square.
    problem = pde.Problem(
        pde.Box(x=(0, 1), alpha=pde.Range(0, 1)), ["u"],
        {"load": lambda v: v.laplacian("u") - 2 * v.alpha}, {},
    )  # fmt: skip
    field = pde.Field(
        problem, lambda f: jnp.array([(f[0] + 1) ** 2 / 4 * (f[1] + 1) / 2 + f[1] ** 2])
    )
    residual = jax.jit(lambda x: field.residuals(x)["load"])(jnp.array([0.3, 0.7]))
    assert float(residual) == pytest.approx(0, abs=1e-12)


def test_a_computed_reference_is_that_of_each_value(tmp_path):
    case = cases.load("burgers_family")
    reference = build.reference(case)
    assert reference is not None
    axes = {"x": np.array([-0.3, 0.3]), "t": np.array([0.5]), "nu": np.array([0.02, 0.1])}
    u = reference(axes)["u"]
    for place, nu in enumerate(axes["nu"]):
        alone = pde.reference.cole_hopf(axes["x"], 0.5, nu=nu)
        np.testing.assert_allclose(u[:, 0, place], alone, rtol=1e-13)


def test_the_report_of_a_family_has_the_error_of_each_value(family, tmp_path):
    axes = {"x": np.linspace(0, 1, 9), "t": np.linspace(0, 1, 5), "alpha": np.array([0.1, 0.4])}
    exact = 1 + np.zeros((9, 5, 2))
    found = exact + np.array([1e-3, 2e-2])
    with RunFolder.create(tmp_path / "run") as run:
        run.write_text("case.yaml", family.read_text())
        write_solution(run.solution, axes, {"u": found}, {"u": exact})
    (table,) = plot("pinn").tables(run)
    assert table.head == ("alpha", "u")
    assert table.rows == [("0.1", "1.0e-03"), ("0.4", "2.0e-02")]
