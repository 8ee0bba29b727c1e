"""Claims about transport cases: what is refused, what a run leaves, and that it can be resumed."""

import os
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment

import cases
from cases._measures import atoms, schema
from cases._transport import reference
from cases._wording import verdict

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

CLOUDS = """\
kind: transport
source: {type: points, file: x.npz, weighted: true}
target: {type: points, file: y.csv}
cost: {type: squared_euclidean}
epsilon: 1e-2
solver: {type: sinkhorn_newton_sparse, threshold: 1e-12}
compare: {type: sinkhorn, threshold: 1e-11}
reference: {type: sinkhorn, tolerance: 1e-9}
"""


def write(folder: Path) -> Path:
    """A case of 12 weighted points to 15, with its files."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 1.5, 12)
    np.savez(folder / "x.npz", points=rng.normal(size=(12, 2)), weights=weights / weights.sum())
    np.savetxt(folder / "y.csv", rng.normal(size=(15, 2)), delimiter=",", header="a,b",
               comments="")  # fmt: skip
    path = folder / "clouds.yaml"
    path.write_text(CLOUDS)
    return path


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """The case, in a folder of the test's own."""
    return write(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_in_haste) -> tuple[cases.Run, set[str]]:
    """The case, run without a stop; and the phases that it told of."""
    folder = tmp_path_factory.mktemp("whole")
    phases: set[str] = set()
    run = cases.run(
        write(folder), out=folder / "run", on_progress=lambda seen: phases.add(seen.phase)
    )
    return run, phases


# --- what is refused ------------------------------------------------------------------------------


def spoil(folder: Path, what: str) -> None:
    """Write files that are wrong in one way."""
    points, good = np.zeros((3, 2)), np.full(3, 1 / 3)
    match what:
        case "pickled":
            np.savez(folder / "x.npz", points=np.array([{}, 1], object), weights=good)
        case "nan weight":
            np.savez(folder / "x.npz", points=points, weights=np.array([np.nan, 1, 1]))
        case "negative":
            np.savez(folder / "x.npz", points=points, weights=np.array([-0.5, 1, 0.5]))
        case "no mass":
            np.savez(folder / "x.npz", points=points, weights=np.zeros(3))
        case "mismatched":
            np.savez(folder / "x.npz", points=points, weights=np.ones(3))
        case "infinite":
            np.savez(folder / "x.npz", points=points + np.inf, weights=good)
        case "words":
            np.savez(folder / "x.npz", points=np.array([["a", "b"]]), weights=np.ones(1))
        case "lengths":
            np.savez(folder / "x.npz", points=points, weights=np.full(4, 1 / 4))
        case "three coordinates":
            np.savez(folder / "x.npz", points=np.zeros((3, 3)), weights=good)
        case "no array":
            np.savez(folder / "x.npz", x=points)
        case "no archive":
            (folder / "x.npz").write_bytes(b"PK\x03\x04 and then nothing")
        case "cut archive":
            (folder / "x.npz").write_bytes((folder / "x.npz").read_bytes()[:300])
        case "empty table":
            (folder / "y.csv").write_text("")
        case "table of words":
            (folder / "y.csv").write_text("x,y\n1,2\nthree,4\n")
        case "ragged table":
            (folder / "y.csv").write_text("1,2\n3\n")
        case "link":
            outside = folder.parent / "secret.npz"
            np.savez(outside, points=points, weights=good)
            (folder / "x.npz").unlink()
            (folder / "x.npz").symlink_to(outside)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("pickled", "source.file: holds pickled objects, which are never read; save plain arrays"),
        ("nan weight", "source.file: `weights` holds NaN or infinity, in 1 of 3 places"),
        ("negative", "source.file: `weights` holds negative mass (-0.5 is the least)"),
        ("no mass", "source.file: `weights` holds no mass"),
        ("mismatched", "target: has mass 1, and the source 3; set normalise: true"),
        ("infinite", "source.file: `points` holds NaN or infinity"),
        ("words", "source.file: `points` holds no real numbers"),
        ("lengths", "source.file: there are 3 points and weights of shape (4,)"),
        ("three coordinates", "source points have 3 coordinates, target points 2"),
        ("no array", "source.file: has no array `points`; it holds x"),
        ("no archive", "source.file: is no .npz archive"),
        ("cut archive", "source.file: is no .npz archive"),
        ("empty table", "target.file: is no table of numbers with commas: there is nothing"),
        ("table of words", "target.file: is no table of numbers with commas"),
        ("ragged table", "target.file: is no table of numbers with commas"),
        ("link", "source.file: lies outside the case's folder"),
    ],
)
def test_a_bad_file_is_a_clear_error_before_a_folder_is_made(what, said, tmp_path, clouds):
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in ("x.npz", "y.csv", "clouds.yaml"):
        (tmp_path / name).rename(inner / name)
    spoil(inner, what)
    with pytest.raises(cases.CaseError) as caught:
        cases.run(inner / "clouds.yaml", out=tmp_path / "run")
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["source.file=../x.npz"], "source.file: lies outside the case's folder"),
        (["source.file=/etc/hostname"], "source.file: lies outside the case's folder"),
        (["source.file=y.csv", "source.weighted=false", "target.file=z.csv"], "no such file"),
        (["target={type: image, file: x.npz}"], "target.file: must end in .png"),
        (["source={type: image, fil: a.png}"], "did you mean 'file'?"),
        (["epsilon=null", "compare="], "epsilon: is required by sinkhorn_newton_sparse"),
        (["epsilon=-1"], "epsilon: should be greater than 0"),
        (["cost={type: lp}"], "'lp' needs 'p'"),
        (["cost={type: l2}"], "cost: expected one of squared_euclidean"),
        (["cost={type: l1, batch_size: 4, scale: median}"], "the median needs all costs at once"),
        (["cost={type: l1, batch_size: 4}"], "compare: Sinkhorn has no online mode here"),
        (["cost={type: file, file: x.npz}"], "cost.file: has no array `cost`"),
        (["source={type: atoms, points: 3}"], "cost.type: needs positions, and atoms have none"),
        (["solver={type: proximal}"], "epsilon: proximal has none; leave it out"),
        (["compare="], "reference.type: needs `compare`"),
        (["source={type: generator, name: ring, dimensions: 3}"], "ring lies in the plane"),
        (["source={type: histogram, values: [0.5, 0.5]}"], "1 coordinates, target points 2"),
        (["source={type: histogram}"], "give either 'file' or 'values'"),
        (["reference={type: entropic, tolerance: 1}"], "is the optimum of mirror_sinkhorn"),
    ],
)
def test_a_contradiction_is_said_with_its_key(sets, said, clouds):
    with pytest.raises(cases.CaseError) as caught:
        cases.load(clouds, sets)
    assert said in str(caught.value)


def test_too_many_atoms_are_refused_with_the_online_mode_named(clouds):
    many = [
        "source={type: generator, name: uniform, points: 1000000}",
        "target={type: generator, name: ring, points: 1000000}", "compare=", "reference=",
    ]  # fmt: skip
    with pytest.raises(cases.CaseError, match=r"about 8e\+04 GB.*compute the cost online"):
        cases.load(clouds, many, memory_limit=10**10)
    online = [*many, "cost={type: squared_euclidean, batch_size: 32}"]
    cases.load(clouds, online, memory_limit=10**10)


def test_an_archive_that_unpacks_without_end_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(atoms, "MAX_BYTES", 10_000)
    np.savez_compressed(tmp_path / "x.npz", points=np.zeros((10_000, 2)))
    assert (tmp_path / "x.npz").stat().st_size < 2000
    with pytest.raises(ValueError, match=r"holds 0\.16 MB"):
        atoms.read(schema.Points(type="points", file=tmp_path / "x.npz"))
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("points.npy", b"\x93NUMPY\x01\x00 no header")
    with pytest.raises(ValueError, match=r"."):
        atoms.read(schema.Points(type="points", file=tmp_path / "y.npz"))


def test_a_picture_s_size_is_known_before_it_is_unpacked(tmp_path, monkeypatch):
    Image.new("L", (300, 200), 200).save(tmp_path / "a.png")
    spec = schema.Image(type="image", file=tmp_path / "a.png")
    assert len(atoms.read(spec).weights) == 60_000
    monkeypatch.setattr(atoms, "MAX_PIXELS", 59_999)
    with pytest.raises(ValueError, match="has 300 x 200 pixels"):
        atoms.read(spec)
    Image.new("RGB", (2, 2)).save(tmp_path / "b.png", format="JPEG")
    with pytest.raises(ValueError, match="is no PNG that can be read"):
        atoms.read(schema.Image(type="image", file=tmp_path / "b.png"))
    Image.new("L", (2, 2), 0).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match="has no bright pixel"):
        atoms.read(schema.Image(type="image", file=tmp_path / "c.png"))


# --- measures and references ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_image_is_a_measure_with_its_first_row_on_top(dtype, tmp_path):
    levels = np.array([[0, 200], [50, 0], [0, 0]], dtype) * (257 if dtype == np.uint16 else 1)
    Image.fromarray(levels).save(tmp_path / "a.png")
    read = atoms.read(schema.Image(type="image", file=tmp_path / "a.png"))
    assert read.points.tolist() == [[1, 2], [0, 1]]
    np.testing.assert_allclose(read.weights, [0.8, 0.2], rtol=1e-6)
    assert read.grid == (3, 2)


def test_the_laws_are_centred_scaled_and_of_the_number_asked_for():
    for name in ("gaussian", "mixture", "moons", "ring", "spiral", "uniform"):
        spec = schema.Generator(
            type="generator", name=name, points=400, seed=1, centre=(10.0, 0.0), scale=2.0
        )
        points = atoms.read(spec).points
        assert points.shape == (400, 2)
        assert abs(points.mean(0)[0] - 10) < 1.5, name
        np.testing.assert_array_equal(points, atoms.read(spec).points)


def test_highs_agrees_with_assignment_and_with_sorting():
    rng = np.random.default_rng(0)
    cost, uniform = rng.uniform(size=(12, 12)), np.full(12, 1 / 12)
    exact = cost[linear_sum_assignment(cost)].mean()
    assert reference.assignment(cost, uniform, uniform) == pytest.approx(exact, rel=1e-14)
    assert reference.highs(cost, uniform, uniform) == pytest.approx(exact, rel=1e-10)
    assert reference.highs(-1e-9 * cost, 3 * uniform, 3 * uniform) < 0


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_agrees_with_sinkhorn_and_leaves_plan_map_history_and_report(whole):
    run, phases = whole
    said, arrays, label = run.summary, run.arrays, "squared_euclidean"
    assert run.status == "completed"
    assert said[f"error.{label}.relative"] <= 1e-9
    plan, a = arrays[f"{label}.plan"], arrays["source.weights"]
    assert np.abs(plan.sum(1) - a).sum() < 1e-11
    np.testing.assert_allclose(plan.sum(0), 1 / 15, atol=1e-12)
    forward = plan @ arrays["target.points"] / a[:, None]
    np.testing.assert_allclose(arrays[f"{label}.forward"], forward, atol=1e-9)
    assert said[f"{label}.excess"] > 0  # over HiGHS' optimum: the bias of epsilon
    assert said[f"{label}.excess"] < 0.1
    rows = {name for row in run.history for name in row["residual"]}
    assert rows == {label, f"{label} by Sinkhorn"}
    assert {"solve", "iterate", "report"} <= phases
    page = (run.folder / "report.html").read_text()
    for part in (f"Iterations for the cost {label}", "Newton step", "within the tolerance",
                 "versions.ott-jax"):  # fmt: skip
        assert part in page, part
    assert page.count("data:image/png") == 2
    # It stands alone: the files came along, and it may be run again from where it lies.
    assert cases.load(run.folder / "case.yaml").shape() == (12, 15)
    assert cases.resume(run.folder).summary == said
    assert cases.compare([run.folder, run.folder]).plot is not None


def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(clouds, whole, tmp_path):
    def stop(progress):
        if progress.phase == "solve":
            os.kill(os.getpid(), signal.SIGINT)

    run = cases.run(clouds, out=tmp_path / "run", on_progress=stop)
    assert run.status == "interrupted"
    assert [p.name for p in (run.folder / "checkpoints").iterdir()] == ["squared_euclidean.npz"]
    assert not (run.folder / "solution.npz").exists()
    assert "interrupted" in (run.folder / "report.html").read_text()
    resumed = cases.resume(run.folder)
    assert resumed.status == "completed"
    exact = whole[0].arrays
    assert resumed.arrays.keys() == exact.keys()
    for name, array in exact.items():
        np.testing.assert_array_equal(resumed.arrays[name], array, err_msg=name)


def test_two_costs_on_a_line_reach_the_optimum_of_sorting(tmp_path):
    path = tmp_path / "line.yaml"
    path.write_text(
        "kind: transport\n"
        "source: {type: histogram, values: [1, 2, 0, 4, 2, 1, 3, 2], normalise: true}\n"
        "target: {type: histogram, values: [3, 1, 1, 1, 5, 0, 0, 1], support: [0, 2],"
        " normalise: true}\n"
        "cost: [{type: l1}, {type: lp, p: 3, scale: mean}]\n"
        "solver: {type: proximal}\nreference: {type: optimum, tolerance: 1e-8}\n"
    )
    run = cases.run(path, out=tmp_path / "run")
    assert run.status == "completed"
    for label in ("l1", "lp"):
        assert run.summary[f"{label}.optimum_by"] == "sorting"
        assert run.summary[f"error.{label}.relative"] <= 1e-8
    names = sorted(p.name for p in (run.folder / "plots").iterdir())
    assert names == ["convergence-l1.png", "convergence-lp.png", "plan-l1.png", "plan-lp.png"]
    assert run.arrays["l1.plan"].shape == (7, 6)  # atoms without mass are left out


def test_a_promise_not_kept_and_a_solver_cut_short_are_said(clouds, tmp_path):
    run = cases.run(
        clouds, out=tmp_path / "run",
        sets=["epsilon=0.1", "compare=", "reference={type: optimum, tolerance: 1e-3}",
              "solver={type: sinkhorn, max_iterations: 10, threshold: 1e-14}"],
    )  # fmt: skip
    judged = verdict(run.summary)
    assert judged is not None
    assert not judged.good
    assert "above the tolerance 1.0e-03" in judged.text
    assert run.status == "stopped"
    assert "raise solver.max_iterations" in run.summary["advice"]


def test_online_costs_give_the_plan_that_the_matrix_gives(clouds, whole, tmp_path):
    online = "cost={type: squared_euclidean, batch_size: 4}"
    run = cases.run(clouds, out=tmp_path / "run", sets=["compare=", "reference=", online])
    for name in ("squared_euclidean.plan", "squared_euclidean.forward"):
        np.testing.assert_allclose(run.arrays[name], whole[0].arrays[name], atol=1e-9)


def test_mirror_sinkhorn_with_an_entropy_nears_newton_s_optimum(tmp_path):
    path = tmp_path / "mirror.yaml"
    path.write_text(
        "kind: transport\nseed: 1\n"
        "source: {type: atoms, points: 6}\ntarget: {type: atoms, points: 6}\n"
        "cost: {type: random}\n"
        "solver: {type: mirror_sinkhorn, steps: 40, looks: 3, noise: 0.1,"
        " objective: {entropy: 0.5}}\n"
        "reference: {type: entropic, tolerance: 0.2}\n"
    )
    run = cases.run(path, out=tmp_path / "run")
    first, last = run.history[0]["error"]["random"], run.history[-1]["error"]["random"]
    assert run.summary["random.objective"] >= run.summary["random.optimum"]
    assert last < 0.2 * first
    assert run.summary["error.random.relative"] == pytest.approx(last)
    judged = verdict(run.summary)
    assert judged is not None
    assert judged.good
