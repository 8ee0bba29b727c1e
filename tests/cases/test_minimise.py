"""Claims about cases of minimisation: what is refused, what a run leaves, how it is resumed."""

import os
import signal

import numpy as np
import pytest
from case_files import complaint, written

import cases
from cases._folder import RunFolder
from cases._minimise import plot

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

LINE = """\
kind: minimise
domain: {x: [0, 1]}
points: {x: 64}
functional: {type: ginzburg_landau, width: 0.05}
initial: sin(2*pi*x)
method: {step: 0.2, momentum: 0.9}
steps: 120
frames: 4
reference:
  type: exact
  values: {u: "sign(0.5 - x)*tanh(min(x, min(abs(x - 0.5), 1 - x))/(0.05*sqrt(2)))"}
  tolerance: 3e-3
"""
GRAPH = """\
kind: minimise
graph: {points: {type: moons, each: 60, noise: 0.08}}
functional: {type: ginzburg_landau, width: 4}
method: {step: 0.3, momentum: 0.9}
steps: 600
frames: 4
reference: {type: sides, tolerance: 1e-2}
"""
ENERGY = "reference={type: energy, value: 4*sqrt(2)/3, tolerance: 1e-3}"


@pytest.fixture(autouse=True)
def _no_report(monkeypatch):
    monkeypatch.setattr("cases._engine.report", lambda folder: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_in_haste):
    """The case run without a stop."""
    folder = tmp_path_factory.mktemp("line")
    return cases.run(written(folder, LINE), out=folder / "run")


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["initial=y"], "initial: 'y' is not known here"),
        (["reference.values.u=t"], "reference.values.u: 't' is not known here"),
        (["points={y: 8}"], "points: needs a number of points along x"),
        (["frames=7"], "frames: must divide the 120 steps"),
        (["method.momentum=1"], "method.momentum: should be less than 1"),
    ],
)
def test_a_contradiction_is_said_with_its_key_and_what_to_do(sets, said, tmp_path):
    assert said in complaint(written(tmp_path, LINE), *sets)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["graph.labels=61"], "graph.labels: 61 are more than 60"),
        (["graph.neighbours=120"], "graph.neighbours: 120 are more than 119"),
        (["initial=x"], "initial: a graph has no coordinates to start from"),
        (["reference={type: energy, value: 1, tolerance: 1}"], "reference.type: sides are"),
        (["domain={x: [0, 1]}", "points={x: 8}"], "domain: a field lies on a domain or on a graph"),
    ],
)
def test_a_graph_s_contradictions_too(sets, said, tmp_path):
    assert said in complaint(written(tmp_path, GRAPH), *sets)


def test_a_graph_is_parted_as_by_scipy_s_minimiser_on_its_own_matrices(tmp_path):
    run = cases.run(written(tmp_path, GRAPH), out=tmp_path / "run")
    assert run.status == "completed"
    assert run.summary["error.energy.relative"] < 1e-9
    assert run.summary["error.u.wrong"] == 0 < run.summary["nearest.wrong"]
    assert run.summary["momentum.steps"] < 0.5 * run.summary["gradient_flow.steps"]
    assert np.count_nonzero(run.arrays["labels"]) == 8
    names = [name for name, _ in plot.figures(RunFolder.open(run.folder))]
    assert names == ["u", "energy"]


def test_two_walls_have_modica_and_mortola_s_profile_and_energy(whole):
    said, energies = whole.summary, whole.arrays["energies"]
    assert whole.status == "completed"
    assert said["error.u.relative_l2"] < said["tolerance"]
    assert said["momentum.energy"] == energies[0, -1] == pytest.approx(4 * 2**0.5 / 3, rel=1e-3)
    assert said["residual"] < 1e-3
    # The first within a twentieth of what both can have.
    near = 1.05 * energies.min(axis=1).max()
    for name, own in zip(("momentum", "gradient_flow"), energies, strict=True):
        steps = said[f"{name}.steps"]
        assert own[steps] < near <= own[steps - 1]
    assert whole.solution["u"].shape == (64, 5)
    names = [name for name, _ in plot.figures(RunFolder.open(whole.folder))]
    assert names == ["u", "u_moving", "energy"]


def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(whole, tmp_path):
    """And by its energy alone the same run is judged otherwise."""

    def stop(progress):
        if progress.phase == "iterate" and progress.step == 60:
            os.kill(os.getpid(), signal.SIGINT)

    path = written(tmp_path, LINE)
    run = cases.run(path, out=tmp_path / "run", sets=[ENERGY], on_progress=stop)
    assert (run.status, run.summary["steps"]) == ("interrupted", 60)
    resumed = cases.resume(run.folder)
    assert resumed.status == "completed"
    np.testing.assert_array_equal(resumed.arrays["energies"], whole.arrays["energies"])
    np.testing.assert_array_equal(resumed.solution["u"], whole.solution["u"])
    assert resumed.summary["error.energy.relative"] < 1e-3


def test_what_is_not_finite_ends_as_diverged_with_advice(tmp_path):
    run = cases.run(written(tmp_path, LINE), out=tmp_path / "run", sets=["initial=1e200"])
    assert run.status == "diverged"
    assert "a smaller method.step than 0.2" in run.summary["advice"]
