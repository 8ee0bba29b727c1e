"""What `check` says of problems without a solution, of shapes, and of data, before any training."""

from typing import Any

import jax
import numpy as np
import pytest
from case_files import complaint, written

import cases
from cases._pinn import build

POISSON = """\
unknowns: [u]
equations: {balance: u_xx + u_yy + 1}
domain: {x: [0, 1], y: [0, 1]}
conditions:
  sides: {type: dirichlet, at: {x: [0, 1], y: [0, 1]}, values: {u: 0}}
reference: {type: exact, values: {u: x*y}}
train: {steps: 1, optimizer: {type: gauss_newton}}
"""
PLATE = """\
unknowns: [u]
equations: {balance: laplacian(u) + 1}
shape:
  type: difference
  parts:
    - {type: box, sides: {x: [0, 2], y: [0, 2]}, name: sides}
    - {type: disc, centre: {x: 1, y: 1}, radius: 0.5, name: hole}
conditions:
  rim: {type: dirichlet, at: {boundary: [sides, hole]}, values: {u: 0}, hard: true}
data:
  probes: {file: probes.csv, observe: [u], noise: 0.01}
parameters: {k: {infer: true, initial: 1, bounds: [0.5, 2]}}
train: {steps: 1, optimizer: {type: gauss_newton}}
""".replace("laplacian(u) + 1", "k*laplacian(u) + 1")
PROBES = "u,x,y\n0.1,0.25,0.25\n0.2,1.75,0.5\n"


@pytest.fixture
def poisson(tmp_path):
    return written(tmp_path, POISSON)


@pytest.fixture
def plate(tmp_path):
    (tmp_path / "probes.csv").write_text(PROBES)
    return written(tmp_path, PLATE)


def test_both_are_well_posed(poisson, plate, tmp_path):
    case = cases.load(plate)
    assert case.coordinates == {"x": (0.0, 2.0), "y": (0.0, 2.0)}
    assert case.evaluate.grid == {"x": 101, "y": 101}
    again = tmp_path / "again.yaml"
    again.write_text(cases.dump(case))
    assert cases.load(again) == case
    poisson.write_text(POISSON)
    cases.load(poisson)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("conditions={}", "conditions: there is none, and without conditions"),
        ("unknowns=[u, w]", "'w' is in no equation, and nothing but its conditions determines it"),
        (
            "conditions.slopes={type: neumann, at: {x: 0}, values: {u: 0}}",
            "conditions.slopes: too much is said along x: the equations are of order 2 in it, and "
            "the conditions say 3 things at its ends",
        ),
        ("uncertainty={type: ensemble}", "is that of inferred parameters, and there are none"),
        (
            "conditions.sides={type: robin, at: {x: 0}, values: {u: 0}, coefficient: h}",
            "conditions.sides.coefficient: 'h' is not known here",
        ),
        ("domain={}", "domain: is required; or give a shape"),
        ("parameters.k={infer: true, initial: 1}", "parameters.k: nothing determines it"),
        ("data.probes={observe: [u]}", "give either 'file' or 'generate'"),
        ("data.probes={observe: [w], generate: {points: 3}}", "there is no unknown 'w'"),
        ("conditions.sides.at={boundary: all}", "there is no such coordinate"),
    ],
)
def test_an_ill_posed_problem_is_named(poisson, override, message):
    assert message in complaint(poisson, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("conditions.rim.at={boundary: edge}", "there is all, hole, sides"),
        ("conditions.rim.at={x: 1}", "no straight part of the boundary lies on x = 1.0"),
        ("domain.x=[0, 1]", "the coordinate 'x' is given twice; the shape has it"),
        ("shape={type: disk, centre: {x: 0, y: 0}, radius: 1}", "did you mean 'disc'?"),
        ("parameters.k.bounds=[2, 3]", "initial is 1, and the bounds are 2.0, 3.0"),
        ("equations.balance=laplacian(u)", "parameters.k: is in no equation"),
        ("data.probes.noise=null", ""),
        ("train.windows=2", "train.windows: data and what is inferred from them belong to all"),
        ("parameters.k.prior={normal: [1, -1]}", "should be greater than 0"),
        ("uncertainty={type: ensemble, members: 1}", "greater than or equal to 2"),
    ],
)
def test_what_is_wrong_with_a_shape_or_an_inference_is_named(plate, override, message):
    if message:
        assert message in complaint(plate, override)
    else:
        cases.load(plate, [override])


def test_shapes_that_do_not_meet_are_named(plate):
    disc = "{type: disc, centre: {x: %d, y: 0}, radius: 1}"
    shape = f"{{type: intersection, parts: [{disc % 0}, {disc % 9}]}}"
    assert "shape: the shape is empty" in complaint(plate, f"shape={shape}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PROBES + "0,1,1\n", "1 of 3 points lie outside of the domain, the first at x = 1, y = 1"),
        (PROBES + "nan,0.25,0.25\n", "`u` holds NaN or infinity, in 1 of 3 places"),
        (PROBES.replace("u,", "w,"), "has no column `u`; its first line is w, x, y"),
        (PROBES + "many,0.25,0.25\n", "could not convert string"),
        ("u,x,y\n", "there is nothing below its first line"),
    ],
)
def test_what_is_wrong_with_data_is_named(plate, content, message):
    (plate.parent / "probes.csv").write_text(content)
    said = complaint(plate)
    assert "data.probes.file: " in said
    assert message in said


def test_data_come_from_archives_too_and_from_nowhere_outside(plate):
    np.savez(plate.parent / "probes.npz", u=[0.1], x=[0.25], y=[0.25])
    cases.load(plate, ["data.probes.file=probes.npz"])
    assert "lies outside the case's folder" in complaint(plate, "data.probes.file=../probes.csv")
    np.savez(plate.parent / "probes.npz", u=[0.1, 0.2], x=[0.25], y=[0.25])
    assert "`u` has the shape (2,), and `x` (1,)" in complaint(plate, "data.probes.file=probes.npz")


@pytest.mark.usefixtures("compiled_in_haste")
def test_a_run_on_a_shape_is_blank_outside_and_tells_what_it_inferred(plate, tmp_path, monkeypatch):
    def drawn(pinn, starts, optimizer, *, steps, key, noise):
        assert (len(starts), steps, noise) == (3, 1, {"probes": 0.01})
        weights = [jax.tree.leaves(start["network"])[0] for start in starts]
        assert not np.allclose(weights[0], weights[1])
        return {"k": np.array([1.0, 1.2, np.nan])}  # one has not stayed finite

    monkeypatch.setattr("pde.ensemble", drawn)
    small = ["network={type: mlp, width: 4, depth: 1}", "sampler={type: sobol, points: 32}"]
    small += ["evaluate.grid={x: 5, y: 5}", "uncertainty={type: ensemble, members: 3}"]
    run = cases.run(plate, sets=small, out=tmp_path / "run")
    assert run.status == "completed"
    assert 0.5 < run.summary["inferred.k.value"] < 2
    assert run.summary["inferred.k.mean"] == pytest.approx(1.1)
    assert run.summary["inferred.k.deviation"] == pytest.approx(0.2 / np.sqrt(2))
    assert "Inferred parameters" in (tmp_path / "run" / "report.html").read_text()
    from cases._solution import open_solution

    with open_solution(tmp_path / "run" / "solution.nc") as solution:
        u = solution["u"].to_numpy()
    assert np.isnan(u[2, 2])
    assert np.isfinite(np.delete(u.ravel(), 12)).all()
    np.testing.assert_allclose(u[0], 0, atol=1e-12)


def test_a_left_preconditioner_wants_a_grid_of_space_and_its_names(poisson):
    left = "left={balance: {type: inverse_laplacian, boundary: {x: neumann}, power: 0.5}}"
    assert "needs points on a grid of a box" in complaint(poisson, left)
    grid = "sampler={type: grid, points: 50}"
    residuals = build.pinn(cases.load(poisson, [left, grid]), jax.random.key(0)).residuals
    spec: Any = residuals.left["balance"]
    assert (spec.kinds, spec.cells) == (("neumann", "dirichlet"), 7)
    assert "did you mean 'balance'" in complaint(poisson, left.replace("balance", "balanc"), grid)
    assert "there is no such coordinate" in complaint(poisson, left.replace("x:", "z:"), grid)
