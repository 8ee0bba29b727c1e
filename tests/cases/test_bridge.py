"""Claims about cases of bridges: what is refused, what a run leaves, and that it can be resumed."""

import itertools
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from case_files import complaint
from PIL import Image

import cases
from cases._bridge import populations
from cases._bridge.judge import wasserstein
from cases._bridge.plot import figures
from cases._bridge.schema import Cells
from cases._folder import RunFolder
from cases._measures import atoms
from cases._measures.schema import Generator
from cases._wording import verdict
from transport.bridge import GaussianBridge

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

PAIR = """\
kind: bridge
source: {type: gaussian, mean: [0, 0], points: 300}
target: {type: potential, components: 2, points: 300}
epsilon: 1/2
method: {type: light, components: 3, steps: 8, looks: 3}
reference: {type: exact, tolerance: 50, starts: 30}
draw: {each: 2, particles: 200, frames: 3}
"""


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A case whose bridge is known, in a folder of the test's own."""
    path = tmp_path / "pair.yaml"
    path.write_text(PAIR)
    return path


CELLS = "{time: 0.5, population: {type: cells, time: 0.5, points: 60, seed: 2}}"
# The shipped case in the plane, and less of it; it still keeps its promise.
MIXTURE = [
    "source.mean=[0, 0]", "source.points=1500", "target.points=1500", "method.components=5",
    "method.steps=40", "method.tolerance=0", "method.looks=3", "reference.starts=100",
    "draw.particles=200", "draw.frames=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_in_haste) -> tuple[cases.Run, set[str]]:
    """The case `bridge_mixture`, run without a stop; and the phases that it told of."""
    out, phases = tmp_path_factory.mktemp("whole") / "run", set()
    run = cases.run(
        "bridge_mixture", sets=MIXTURE, out=out, on_progress=lambda seen: phases.add(seen.phase)
    )
    return run, phases


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["source.covariance=[[1, 2], [2, 1]]"], "covariance has a negative eigenvalue, -1"),
        (["source.covariance=[[1, 0.5], [0.2, 1]]"], "source: covariance is not symmetric"),
        (["source.covariance=[[1]]"], "covariance needs 2 rows of 2 numbers"),
        (["source={type: gaussian, mean: [0, 0], points: 2, matched: true}"], "more than 2 points"),
        (["source.type=potential"], "source: expected one of gaussian, cells, points, generator"),
        (["target={type: generator, name: swiss_rol}"], "did you mean 'swiss_roll'?"),
        (["target={type: generator, name: ring}"], "reference.type: the true bridge between these"),
        (["target.variances=[2, 1]"], "variances must be ascending"),
        (["target={type: gaussian, mean: [0]}"], "target: points have 1 coordinates, and those of"),
        (["rate=1"], "rate: a potential's bridge is that of Brownian motion; leave it out"),
        (["epsilon=0"], "epsilon: should be greater than 0"),
        (["epsilon=[1, 1]"], "epsilon: a potential's bridge has one for all dimensions; take a"),
        (["centre=[1, 1, 1]"], "centre: has 3 numbers, and the source 2 coordinates"),
        (["method.components=301"], "components: there are more components than the 300 points"),
        (["method.rank=2"], "method.rank: a diagonal covariance has none; take covariance: low_"),
        (["method.type=ligth"], "did you mean 'light'?"),
        ([f"between=[{CELLS}]", "reference="], "between: light has no bridge of several laws in a"),
        ([f"between=[{CELLS}]", "method={type: discrete}"], "the true bridge of several laws is"),
        ([f"between=[{CELLS}, {CELLS}]", "method={type: discrete}"], "0.5 does not come after 0.5"),
        (["method={type: discrete, tau_b: 0.5}"], "tau_b: ends whose weights may change are not"),
        (
            [f"between=[{CELLS}]", "reference=", "method={type: discrete, tau_a: 0.5}"],
            "method.tau_a: mass that changes between several laws has no chain; leave tau_a out",
        ),
        (["method={type: dsbm, average: 1}"], "method.average: should be less than 1"),
        (["draw.starts=[[0, 0, 0]]"], "draw.starts: a start has 3 coordinates, and the source 2"),
        (["source={type: points, file: x.npz}"], "source.file: there is no such file"),
        (
            ["reference={type: snapshot, time: 2, tolerance: 1, population: {type: cells}}"],
            "reference.time: should be less than or equal to 1",
        ),
    ],
)  # fmt: skip
def test_a_contradiction_is_said_with_its_key_and_a_remedy(sets, said, pair):
    assert said in complaint(pair, *sets)


# fmt: off
def test_files_are_checked_before_a_folder_is_made(pair, tmp_path):
    np.savez(tmp_path / "x.npz", points=np.zeros((4, 3)), weights=np.ones(4))
    np.savetxt(tmp_path / "y.csv", np.zeros((2, 2)), delimiter=",")
    np.savetxt(tmp_path / "z.csv", np.zeros((9, 2)), delimiter=",")
    for sets, said in (
        (["source={type: points, file: x.npz}", "target={type: points, file: z.csv}"],
         "target: points have 2 coordinates, and those of the source 3"),
        (["source={type: points, file: x.npz, weighted: true}"], "take method: {type: discrete}"),
        (["target={type: points, file: y.csv}", "reference="], "has 2 points; 3 are needed"),
    ):
        with pytest.raises(cases.CaseError) as caught:
            cases.run(pair, sets=["reference=", *sets], out=tmp_path / "run")
        assert said in str(caught.value)
    assert not (tmp_path / "run").exists()
# fmt: on


def test_a_case_too_large_for_memory_is_refused(pair):
    with pytest.raises(cases.CaseError, match=r"method: the run would need.*fewer points"):
        cases.load(pair, ["method={type: discrete}", "target.points=1000000"], memory_limit=10**9)


# --- populations ----------------------------------------------------------------------------------


def test_matched_draws_have_the_law_s_moments(pair):
    case = cases.load(pair, [
        "source={type: gaussian, mean: [1, 2], covariance: [[2, 1], [1, 3]], points: 50,"
        " matched: true}", "target={type: cells, time: 1}", "reference=",
    ])  # fmt: skip
    points = populations.shown(case, None)[0].points
    np.testing.assert_allclose(points.mean(0), [1, 2], atol=1e-12)
    np.testing.assert_allclose(np.cov(points.T, ddof=0), [[2, 1], [1, 3]], atol=1e-12)


def test_fresh_draws_are_others_of_the_same_law():
    for name in ("mixture", "swiss_roll"):
        spec = Generator(type="generator", name=name, points=500, seed=3)
        shown, fresh = atoms.generate(spec), populations.fresh(spec, (0, 1), 500)
        assert not np.isin(fresh, shown).any()
        assert wasserstein(shown, fresh) < 0.3, name
        other = atoms.generate(spec.model_copy(update={"seed": 4}))
        assert (wasserstein(shown, other) > 0.3) == (name == "mixture")


def test_cells_split_late_into_two_unequal_fates():
    young, old = (
        populations.cells(Cells(type="cells", time=t, points=4000, seed=1)) for t in (0.2, 1)
    )
    assert young[:, 0].mean() == pytest.approx(0.6, abs=0.05)
    assert old[:, 0].mean() == pytest.approx(3, abs=0.05)
    undecided = [(abs(cells[:, 1]) < 0.4).mean() for cells in (young, old)]
    assert undecided[0] > 0.85
    assert undecided[1] < 0.1
    assert 0.55 < (old[:, 1] > 0).mean() < 0.8
    again = populations.cells(Cells(type="cells", time=1, points=4000, seed=1))
    np.testing.assert_array_equal(again, old)


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_leaves_arrays_pictures_an_animation_and_a_verdict(whole):
    run, phases = whole
    said, arrays = run.summary, run.arrays
    assert run.status == "completed"
    assert 0 < said["error.plan.cbw2_uvp"] <= said["tolerance"] == 1
    assert 0 < said["path_divergence_standard_error"] < said["path_divergence"]
    steps = [row["step"] for row in run.history]
    assert steps == [1, 6, 40]
    errors = [row["error"]["plan"] for row in run.history]
    assert errors[-1] == pytest.approx(said["error.plan.cbw2_uvp"])
    assert errors[-1] < errors[0]
    assert arrays["paths"].shape == (101, 12, 2)
    assert arrays["density"].shape == (3, 112, 112)
    area = np.prod([np.diff(arrays[f"density.{axis}"])[0] for axis in "xy"])
    np.testing.assert_allclose(arrays["density"].sum((1, 2)) * area, 1, atol=0.03)
    names = {path.name for path in (run.folder / "plots").iterdir()}
    pictures = {"samples.png", "trajectories.png", "drift.png", "convergence.png"}
    assert names == {*pictures, "evolution.gif"}
    with Image.open(run.folder / "plots" / "evolution.gif") as animation:
        assert getattr(animation, "n_frames", 0) == 3
    page = (run.folder / "report.html").read_text()
    for part in ("data:image/gif;base64,", "within the tolerance", "The bridge on the way"):
        assert part in page, part
    assert {"compile", "train", "evaluate", "report"} <= phases
    assert cases.resume(run.folder).summary == said


def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("cases._engine.report", lambda folder: None)

    def stop(progress):
        if progress.phase == "train" and progress.step == 20:  # between two looks
            os.kill(os.getpid(), signal.SIGINT)

    run = cases.run("bridge_mixture", sets=MIXTURE, out=tmp_path / "run", on_progress=stop)
    assert run.status == "interrupted"
    assert run.summary["steps"] == 20
    assert not (run.folder / "solution.npz").exists()
    resumed = cases.resume(run.folder)
    assert resumed.status == "completed"
    assert [row["step"] for row in resumed.history] == [1, 6, 40]
    for name, array in whole[0].arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], array, err_msg=name)


def test_points_of_files_meet_a_snapshot_on_a_line(tmp_path, pair):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", points=rng.normal(size=40), weights=rng.uniform(1, 2, 40))
    np.savetxt(tmp_path / "y.csv", rng.normal(3, 1, 50))
    np.savetxt(tmp_path / "z.csv", rng.normal(1.5, 1, 60))
    run = cases.run(
        pair, out=tmp_path / "run",
        sets=["source={type: points, file: x.npz, weighted: true}",
              "target={type: points, file: y.csv}", "method={type: discrete}",
              "reference={type: snapshot, time: 0.5, tolerance: 1,"
              " population: {type: points, file: z.csv}}"],
    )  # fmt: skip
    assert run.status == "completed"
    assert run.summary["residual"] <= 1e-9
    judged = verdict(run.summary)
    assert judged is not None
    assert judged.good
    assert run.summary["error.snapshot.w2"] < run.summary["snapshot.w2_from_source"]
    # Every end is one of the points, and the run's folder has all that it was made from.
    assert abs(run.arrays["ends"] - run.arrays["target"].T).min(axis=1).max() < 1e-9
    assert {"source.npz", "target.csv", "reference-population.csv"} <= {
        path.name for path in run.folder.iterdir()
    }
    assert (run.folder / "plots" / "trajectories.png").stat().st_size > 10_000


def test_a_chain_goes_through_the_laws_between(tmp_path, pair):
    run = cases.run(
        pair, out=tmp_path / "run",
        sets=["source={type: cells, time: 0, points: 50}", "epsilon=0.16",
              "target={type: cells, time: 1, points: 70, seed: 1}", f"between=[{CELLS}]",
              "method={type: discrete}", "reference={type: snapshot, time: 0.75, tolerance: 1,"
              " population: {type: cells, time: 0.75, points: 100, seed: 3}}"],
    )  # fmt: skip
    assert run.status == "completed"
    assert run.summary["residual"] <= 1e-9
    middle, shown = run.arrays["paths"][50], run.arrays["between.0.5"]
    assert shown.shape == (60, 2)
    assert wasserstein(np.repeat(middle[:1], 60, 0), shown) > 0.1
    distance = np.linalg.norm(middle[:, None] - shown, axis=-1).min(axis=1)
    assert distance.max() < 1e-9
    said = run.summary
    assert said["error.snapshot.w2"] < min(said["snapshot.w2_from_source"], 1)
    assert (run.folder / "plots" / "trajectories.png").stat().st_size > 10_000


def test_unbalanced_ends_are_those_of_the_closed_form(tmp_path, monkeypatch):
    monkeypatch.setattr("cases._engine.report", lambda folder: None)
    sets = ["source.points=200", "target.points=200", "draw.particles=1000", "draw.frames=3"]
    run = cases.run("bridge_unbalanced", sets=sets, out=tmp_path / "run")
    # Where it ships there are more points, and fewer per cent.
    assert 0.1 < run.summary["error.plan.cbw2_uvp"] < 5
    assert run.summary["mass"] == pytest.approx(run.summary["true_mass"], rel=0.2)
    truth = populations.truth(run.case)
    assert isinstance(truth, GaussianBridge)
    for name, given, mean in (
        ("starts", "source", truth.mean0), ("ends", "target", truth.mean1)
    ):  # fmt: skip
        met, shown = (np.linalg.norm(run.arrays[n].mean(0) - mean) for n in (name, given))
        assert 2 * met < shown
    drawn = [name for name, _ in itertools.islice(figures(RunFolder.open(run.folder)), 2)]
    assert drawn == ["samples", "trajectories"]


@pytest.mark.parametrize("kind", ["dsbm", "ipf"])
def test_networks_are_judged_after_each_iteration(kind, tmp_path, pair, monkeypatch):
    monkeypatch.setattr("cases._engine.report", lambda folder: None)
    sets = [f"method={{type: {kind}, width: 16, depth: 1, iterations: 2, steps: 150, rate: 0.02,"
            " batch_size: 64, paths: 300, path_steps: 10}", "epsilon=1"]  # fmt: skip
    run = cases.run(pair, out=tmp_path / "run", sets=sets)
    assert run.status == "completed"
    assert [row["step"] for row in run.history] == [0, 300, 600]
    errors = [row["error"]["plan"] for row in run.history]
    assert errors[-1] == run.summary["error.plan.cbw2_uvp"]
    # The reference alone is off by far more: nothing of the target has been seen.
    assert errors[-1] < 25 < errors[0]
    assert run.summary["path_divergence"] > 0
    if kind == "dsbm":
        # As a process that is killed in the second iteration leaves it.
        shutil.rmtree(run.folder / "checkpoints" / "600")
        summary = run.folder / "summary.json"
        summary.write_text(summary.read_text().replace("completed", "interrupted"))
        arrays = run.arrays
        resumed = cases.resume(run.folder)
        assert [row["error"]["plan"] for row in resumed.history] == errors
        np.testing.assert_array_equal(resumed.arrays["paths"], arrays["paths"])


def test_the_closed_form_takes_other_ends_to_be_gaussians(pair, tmp_path, monkeypatch):
    monkeypatch.setattr("cases._engine.report", lambda folder: None)
    found = []
    monkeypatch.setattr("cases._bridge.run.scenes", lambda *a: found.append(a[1]) or {})
    sets = [
        "target={type: cells, time: 1}", "method={type: gaussian}", "reference=", "rate=[0.5, 0]"
    ]  # fmt: skip
    run = cases.run(pair, sets=sets, out=tmp_path / "run")
    assert run.status == "completed"
    (bridge,), points = found, run.arrays["target"]
    np.testing.assert_allclose(bridge.mean1, points.mean(0), atol=1e-12)
    np.testing.assert_allclose(bridge.covariance1, np.cov(points.T, ddof=0), atol=1e-12)
    np.testing.assert_array_equal(bridge.covariance0, np.eye(2))


def test_the_assignment_is_the_distance_between_shifted_clouds():
    x = np.random.default_rng(0).normal(size=(50, 2))
    assert wasserstein(x, x[::-1] + np.array([3, 4])) == pytest.approx(5)
