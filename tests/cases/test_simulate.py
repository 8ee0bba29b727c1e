"""Claims about simulations: what is refused, what a run leaves, and that it can be resumed."""

import os
import signal

import numpy as np
import pytest
from case_files import complaint, written

import cases
from cases._simulate import plot
from cases._wording import verdict

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

LINE = """\
kind: simulate
parameters: {a: 1}
equation: {type: burgers, viscosity: 0.1}
domain: {x: [-1, 1]}
points: {x: 64}
initial: {u: -a*sin(pi*x)}
time: {step: 0.01, steps: 40, frames: 8}
reference: {type: cole_hopf, tolerance: 1e-6}
"""

PLANE = """\
kind: simulate
equation: {type: vorticity, viscosity: 0.1, force: 0.1*cos(2*y)}
domain: {x: [0, 2*pi], y: [0, 2*pi]}
points: {x: 16, y: 16}
initial: {vorticity: sin(x)*cos(2*y) + cos(x)}
order: 2
time: {step: 0.025, steps: 24, frames: 3}
reference: {type: refined, tolerance: 1e-3}
"""

WATER = """\
kind: simulate
equation: {type: shallow_water, gravity: 1, ends: wall}
domain: {x: [0, 1]}
points: {x: 32}
initial: {h: 1 + 0.1*cos(pi*x)}
time: {step: 0.01, steps: 10, frames: 2}
reference: {type: refined, tolerance: 1e-2}
"""


@pytest.fixture(autouse=True)
def _no_report(monkeypatch):
    monkeypatch.setattr("cases._engine.report", lambda folder: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_in_haste):
    """Burgers' equation run without a stop."""
    folder = tmp_path_factory.mktemp("line")
    return cases.run(written(folder, LINE), out=folder / "run")


@pytest.mark.parametrize(
    ("case", "sets", "said"),
    [
        (LINE, ["initial.u=t"], "initial.u: 't' is not known here"),
        (LINE, ["initial={v: 1}"], "initial.v: the fields are u"),
        (LINE, ["points={y: 8}"], "points.y: there is no such coordinate"),
        (LINE, ["time.frames=7"], "time.frames: must divide the 40 steps"),
        (LINE, ["domain={x: [1, 0]}"], "domain.x: the interval [1.0, 0.0] is empty"),
        (LINE, ["equation={type: korteweg_de_vries}"], "is of Burgers' equation alone"),
        (LINE, ["equation={type: vorticity, viscosity: 1}"], "vorticity is for 2 coordinates"),
        (LINE, ["equation.viscosity=0"], "equation.viscosity: should be greater than 0"),
        (PLANE, ["equation.force=z"], "equation.force: 'z' is not known here"),
        (PLANE, ["parameters={x: 1}"], "parameters.x: is taken"),
        (WATER, ["initial={hv: 1}"], "the fields are h, hu"),
    ],
)
def test_a_contradiction_is_said_with_its_key_and_what_to_do(case, sets, said, tmp_path):
    assert said in complaint(written(tmp_path, case), *sets)


def test_a_run_is_judged_over_all_frames(whole):
    assert whole.status == "completed"
    judged = verdict(whole.summary)
    assert judged is not None
    assert judged.good, judged.text
    with whole.solution as solution:
        assert solution["u"].shape == (64, 9)
        np.testing.assert_allclose(solution["t"], np.linspace(0, 0.4, 9))
        assert 0 < np.abs(solution["u_error"]).max() < 1e-6
    assert [row["step"] for row in whole.history] == list(range(5, 41, 5))
    assert whole.summary["courant"] == pytest.approx(0.01 / (2 / 64), rel=1e-3)


def test_an_interrupted_run_goes_on_and_gives_the_same_numbers(whole, tmp_path):
    def stop(progress):
        if progress.phase == "iterate" and progress.step == 15:
            os.kill(os.getpid(), signal.SIGINT)

    run = cases.run(written(tmp_path, LINE), out=tmp_path / "run", on_progress=stop)
    assert (run.status, run.summary["steps"]) == ("interrupted", 15)
    resumed = cases.resume(tmp_path / "run")
    assert resumed.status == "completed"
    assert [row["step"] for row in resumed.history] == [row["step"] for row in whole.history]
    with resumed.solution as found, whole.solution as solution:
        np.testing.assert_array_equal(found["u"], solution["u"])


def test_a_finer_run_judges_a_flow_and_pictures_are_drawn(tmp_path):
    run = cases.run(written(tmp_path, PLANE), out=tmp_path / "run")
    assert 0 < run.summary["error.vorticity.relative_l2"] < 1e-3
    assert run.summary["energy.first"] > run.summary["energy.last"]
    from cases._folder import RunFolder

    names = [name for name, _ in plot.figures(RunFolder.open(run.folder))]
    assert names == ["vorticity", "vorticity_moving", "balance"]
    (table,) = plot.tables(RunFolder.open(run.folder))
    assert [row[0] for row in table.rows] == ["energy", "enstrophy"]


def test_means_of_cells_are_compared_with_means_of_halves(tmp_path):
    run = cases.run(written(tmp_path, WATER), out=tmp_path / "run")
    assert 0 < run.summary["error.h.relative_l2"] < 1e-3
    assert run.summary["mass.last"] == pytest.approx(run.summary["mass.first"], rel=1e-14)


def test_a_blow_up_says_its_step_and_courant_number(tmp_path):
    sets = ["time={step: 1, steps: 40, frames: 4}", "equation.viscosity=1e-4"]
    run = cases.run(written(tmp_path, LINE), sets=sets, out=tmp_path / "run")
    assert run.status == "diverged"
    steps = run.summary["steps"]
    assert 0 < steps < 40
    assert f"Step {steps + 1}, of Courant number" in run.summary["advice"]
    assert np.isfinite(run.solution["u"]).all()
