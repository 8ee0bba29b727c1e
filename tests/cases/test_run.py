"""Claims about running, resuming and failing: what is on disk, and that numbers are the same."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import cases
import sciopt
from cases._pinn import build

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

SMALL = """\
description: A load on a string
unknowns: [u]
equations: {load: u_xx + q}
parameters: {q: 2}
domain: {x: [0, 1]}
conditions:
  ends: {type: dirichlet, at: {x: [0, 1]}, values: {u: 0}, hard: true}
reference: {type: exact, values: {u: q*x*(1 - x)/2}}
units: {x: m, u: mm}
network: {type: mlp, width: 8, depth: 1}
sampler: {type: sobol, points: 32, adapt: {type: rad, every: 6, candidates: 200}}
train:
  steps: 20
  optimizer: {type: gauss_newton}
  log_every: 5
  checkpoint_every: 4
evaluate: {grid: {x: 21}, tolerance: 1e-4}
"""


@pytest.fixture
def small(tmp_path) -> Path:
    path = tmp_path / "string.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> cases.Run:
    """The small case, run without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "string.yaml").write_text(SMALL)
    return cases.run(folder / "string.yaml", out=folder / "run")


def params(run: Path, step: int) -> list[np.ndarray]:
    import orbax.checkpoint as ocp

    leaves = ocp.StandardCheckpointer().restore(
        (run / "checkpoints" / str(step) / "default").absolute()
    )
    return [np.asarray(leaf) for leaf in leaves]


def numbers(run: Path) -> list[dict]:
    """The history without its clock."""
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same_numbers(a: Path, b: Path):
    assert numbers(a) == numbers(b)
    for left, right in zip(params(a, 20), params(b, 20), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_run_leaves_the_folder_that_the_design_says(small, tmp_path):
    seen = []
    run = cases.run(small, out=tmp_path / "run", on_progress=seen.append)
    for name in ("case.yaml", "provenance.json", "history.jsonl", "summary.json", "report.html"):
        assert (run.folder / name).is_file(), name
    assert {p.name for p in (run.folder / "checkpoints").iterdir()} == {"16", "20"}
    assert {p.name for p in (run.folder / "plots").iterdir()} >= {"convergence.png", "u.png"}
    summary = json.loads((run.folder / "summary.json").read_text())
    assert set(summary) >= {
        "status", "case", "steps", "wall_seconds", "compile_seconds", "peak_memory_bytes",
        "residual", "error.u.relative_l2", "error.u.max",
    }  # fmt: skip
    assert summary["status"] == run.status == "completed"
    assert summary["steps"] == 20
    assert summary["error.u.relative_l2"] < 1e-5
    assert 0 < summary["compile_seconds"] < summary["wall_seconds"]
    with run.solution as solution:
        x = solution["x"].values
        np.testing.assert_allclose(solution["u_reference"], x * (1 - x), atol=1e-15)
        np.testing.assert_allclose(solution["u"] - solution["u_reference"], solution["u_error"])
        assert solution["u"].attrs["units"] == "mm"
        assert solution["x"].attrs["units"] == "m"
        error = np.linalg.norm(solution["u_error"]) / np.linalg.norm(solution["u_reference"])
        np.testing.assert_allclose(error, summary["error.u.relative_l2"], rtol=1e-12)
    assert [row["step"] for row in run.history] == [5, 10, 15, 20]
    assert cases.load(run.folder / "case.yaml") == run.case
    assert seen[0].phase == "compile"
    assert {p.phase for p in seen} == {"compile", "train", "evaluate", "report"}
    assert [p.step for p in seen if p.phase == "train"] == [5, 10, 15, 20]


def test_the_reference_never_reaches_training(small, whole, tmp_path):
    wrong = cases.run(small, out=tmp_path / "b", sets=["reference={type: exact, values: {u: 7*x}}"])
    assert wrong.summary["error.u.relative_l2"] > 0.5
    for left, right in zip(params(whole.folder, 20), params(wrong.folder, 20), strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(small, whole, tmp_path):
    again = cases.run(small, out=tmp_path / "b")
    other = cases.run(small, out=tmp_path / "c", sets=["seed=1"])
    assert_same_numbers(whole.folder, again.folder)
    assert numbers(whole.folder) != numbers(other.folder)


def test_switches_of_the_caller_stay_as_they_were(small, tmp_path):
    before = jnp.zeros(()).dtype
    run = cases.run(small, out=tmp_path / "a", sets=["precision=float32", "train.steps=8"])
    assert jnp.zeros(()).dtype == before
    assert {leaf.dtype for leaf in params(run.folder, 8) if leaf.dtype.kind == "f"} == {
        np.dtype("float32")
    }


def test_other_optimizers_run_in_turn_and_resume_to_the_same_numbers(small, tmp_path):
    first = "{type: adam, learning_rate: 1e-2, schedule: cosine, steps: 5}"
    sets = [f"train.optimizer=[{first}, {{type: ssbroyden, steps: 8}}, {{type: bfgs}}]"]
    unbroken = cases.run(small, out=tmp_path / "unbroken", sets=sets)
    losses = [row["loss"] for row in unbroken.history]
    assert losses[-1] < losses[1] < 0.1 * losses[0]
    stopped = interrupt_at(10, small, tmp_path / "stopped", sets)
    assert stopped.status == "interrupted"
    assert cases.resume(stopped.folder).status == "completed"
    assert_same_numbers(unbroken.folder, stopped.folder)


def test_methods_with_a_jacobian_take_their_turns(small, tmp_path):
    """Each key of the case reaches its constructor, and a run is all their programs in one."""
    stages = [
        "{type: egn, damping: 1e-3, momentum: 0.1, steps: 4}",
        "{type: engd, rank: 6, damping: 1e-6, steps: 4}",
        "{type: spring, step_size: null, norm_constraint: null, momentum: 0.1, steps: 4}",
        "{type: tngd, time: 1e6, steps: 4}",
        "{type: lm, radius: 2, linear_solver: auto, acceleration: null, scaled: true}",
    ]
    run = cases.run(small, out=tmp_path / "a", sets=[f"train.optimizer=[{', '.join(stages)}]"])
    built: Any = build.optimizer(run.case)
    egn, engd, spring, tngd, lm = built.optimizers
    assert (egn.damping, egn.momentum) == (1e-3, 0.1)
    assert (engd.linear_solver.rank, engd.damping) == (6, 1e-6)
    assert len(spring.step_sizes) > 1
    assert spring.norm_constraint == float("inf")
    assert (tngd.time, lm.acceleration, lm.scaled) == (1e6, None, True)
    assert isinstance(lm.linear_solver, sciopt.damped.Auto)
    assert lm.damping == sciopt.TrustRegion(2.0)
    losses = [row["loss"] for row in run.history]
    assert losses[-1] < 1e-3 * losses[0]
    assert run.summary["error.u.relative_l2"] < 1e-3


def interrupt_at(step: int, case: Path, out: Path, sets=()) -> cases.Run:
    """Ctrl-C, as the terminal sends it, at a step."""

    def press(progress: cases.Progress):
        if progress.phase == "train" and progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return cases.run(case, out=out, sets=sets, on_progress=press)


@pytest.mark.parametrize("step", [5, 10])
def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(step, small, whole, tmp_path):
    stopped = interrupt_at(step, small, tmp_path / "stopped")
    assert stopped.status == "interrupted"
    assert stopped.summary["steps"] == step
    resumed = cases.resume(stopped.folder)
    assert resumed.status == "completed"
    assert_same_numbers(whole.folder, resumed.folder)
    assert resumed.summary["wall_seconds"] > resumed.history[-1]["seconds"] > 0


KILLER = """
import os, signal, sys
import jax
jax.config.update("jax_enable_x64", True)
import orbax.checkpoint as ocp
import cases

# The third checkpoint is written, but the process dies before the folder gets its final name.
saves = 0
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

original = ocp.CheckpointManager.save
def save(self, step, *args, **kwargs):
    global saves
    saves += 1
    if saves == 3:
        import pathlib
        from etils import epath
        type(epath.Path(self.directory)).rename = die
        type(epath.Path(self.directory)).replace = die
        os.rename = os.replace = die
    return original(self, step, *args, **kwargs)
ocp.CheckpointManager.save = save
cases.run(sys.argv[1], out=sys.argv[2])
"""


def test_killed_while_writing_a_checkpoint_resumes_from_the_one_before(small, whole, tmp_path):
    out = tmp_path / "killed"
    done = subprocess.run([sys.executable, "-c", KILLER, str(small), str(out)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    names = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert any(name != "0" and name != "4" for name in names)  # it died while writing
    assert not (out / "summary.json").exists()
    resumed = cases.resume(out)
    assert resumed.status == "completed"
    assert_same_numbers(whole.folder, resumed.folder)


def test_a_completed_run_is_not_run_again(whole):
    before = (whole.folder / "history.jsonl").read_text()
    assert cases.resume(whole.folder).summary == whole.summary
    assert (whole.folder / "history.jsonl").read_text() == before


@pytest.mark.parametrize(
    "sets",
    [
        ["train.optimizer={type: sgd, learning_rate: 1e9}"],  # blows up
        ["equations.load=log(u_xx - 1e9)"],  # NaN from the first evaluation
    ],
)
def test_divergence_ends_the_run_with_advice_and_a_good_checkpoint(sets, small, tmp_path):
    run = cases.run(small, out=tmp_path / "a", sets=sets)
    assert run.status == "diverged"
    assert run.summary["advice"].startswith("Try ")
    steps = [int(p.name) for p in (run.folder / "checkpoints").iterdir()]
    for leaf in params(run.folder, max(steps)):
        if leaf.dtype.kind == "f" and leaf.ndim:
            assert np.all(np.isfinite(leaf))
    assert (run.folder / "report.html").is_file()


def test_a_folder_that_is_not_empty_is_left_alone(small, tmp_path):
    run = cases.run(small, out=tmp_path / "a", sets=["train.steps=4"])
    before = (run.folder / "summary.json").read_bytes()
    with pytest.raises(cases.RunFolderError, match="exists and is not empty"):
        cases.run(small, out=run.folder)
    with pytest.raises(cases.CaseError):  # a bad case must not even begin to overwrite
        cases.run(small, out=run.folder, overwrite=True, sets=["train.steps=x"])
    assert (run.folder / "summary.json").read_bytes() == before
    assert cases.run(small, out=run.folder, overwrite=True).summary["steps"] == 20


def test_a_case_edited_between_run_and_resume_is_refused(small, tmp_path):
    stopped = interrupt_at(10, small, tmp_path / "a")
    edited = (stopped.folder / "case.yaml").read_text().replace("width: 8", "width: 9")
    (stopped.folder / "case.yaml").write_text(edited)
    with pytest.raises(cases.RunFolderError, match="does not fit this run's case"):
        cases.resume(stopped.folder)


def test_a_reference_file_travels_with_the_run(small, tmp_path):
    x = np.linspace(0, 1, 33)
    np.savez(tmp_path / "truth.npz", x=x, u=x * (1 - x))
    run = cases.run(small, out=tmp_path / "a", sets=["reference={type: file, path: truth.npz}"])
    assert run.summary["error.u.relative_l2"] < 1e-5
    (tmp_path / "truth.npz").unlink()
    moved = run.folder.rename(tmp_path / "moved")
    assert "reference: {type: file, path: reference.npz, " in (moved / "case.yaml").read_text()
    (moved / "summary.json").unlink()
    assert cases.resume(moved).summary["error.u.relative_l2"] < 1e-5


def test_nothing_compiles_after_the_first_logged_step(small, tmp_path, compilations):
    late = []

    def watch(progress):
        if progress.phase == "train":
            late.extend(event for event in compilations if progress.step > 5)
            compilations.clear()

    assert cases.run(small, out=tmp_path / "a", on_progress=watch, sets=["train.steps=40"])
    assert late == []


def test_the_second_writer_of_a_run_is_refused(small, tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from cases._folder import RunFolder
        with RunFolder.create(sys.argv[1]) as folder:
            folder.write_text("case.yaml", open(sys.argv[2]).read())
            print("locked", flush=True)
            time.sleep(30)
    """)
    out = tmp_path / "a"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(out), str(small)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        before = time.perf_counter()
        with pytest.raises(cases.RunFolderError, match="written by another process"):
            cases.resume(out)
        assert time.perf_counter() - before < 5
    finally:
        holder.kill()
        holder.wait()


def test_points_judge_the_error_and_the_grid_is_a_plane_through_the_middle(tmp_path):
    sets = ["train.steps=1", "sampler.points=16", "evaluate.points=64", "evaluate.grid={x2: 5}"]
    sets += ["train.optimizer={type: adam}", "network.depth=1"]  # quick to compile
    run = cases.run("poisson5d", out=tmp_path / "run", sets=sets)
    with run.solution as solution:
        assert dict(solution.sizes) == {"x2": 5}
        # The other four cosines are zero in the middle.
        expected = np.cos(np.pi * np.linspace(0, 1, 5))
        np.testing.assert_allclose(solution["u_reference"], expected, atol=1e-12)
        plane = np.linalg.norm(solution["u_error"]) / np.linalg.norm(expected)
    assert abs(plane / run.summary["error.u.relative_l2"] - 1) > 1e-3
