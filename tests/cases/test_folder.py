import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cases import _folder
from cases._atomic import json_safe, replacing, write_json, write_text
from cases._folder import NotARunError, RunExistsError, RunFolder, RunLockedError
from cases._history import History
from cases._provenance import commit, provenance

ROOT = Path(__file__).resolve().parents[2]


# --- atomic writes


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    target = write_text(tmp_path / "a.txt", "old")

    def fail_halfway():
        with replacing(target) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    target = write_text(tmp_path / "a.txt", "old")
    code = f"""
        import os, signal
        from cases._atomic import replacing
        with replacing({str(target)!r}) as temporary:
            temporary.write_text("half of the n")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


def test_written_files_have_the_permissions_of_ordinary_ones(tmp_path):
    (tmp_path / "ordinary").touch()
    ours = write_text(tmp_path / "ours", "")
    assert ours.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_json_is_strict_with_null_for_what_is_not_finite(tmp_path):
    path = write_json(
        tmp_path / "a.json",
        {
            "nan": float("nan"), "inf": np.float64(-np.inf), "array": np.array([1.0, np.nan]),
            "integer": np.int64(3), "true": np.bool_(True), "path": Path("a") / "b",
        },
    )  # fmt: skip
    strict = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert strict == {
        "nan": None, "inf": None, "array": [1.0, None], "integer": 3, "true": True, "path": "a/b",
    }  # fmt: skip
    assert type(json_safe(np.float64(0.5))) is float


# --- making a folder


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunExistsError, match=r"not empty.*--overwrite") as caught:
        RunFolder.create(tmp_path)
    assert isinstance(caught.value, FileExistsError)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_an_empty_folder_is_used(tmp_path):
    with RunFolder.create(tmp_path) as run:
        assert run.path == tmp_path


def test_a_folder_where_a_process_died_before_writing_anything_is_used_again(tmp_path):
    RunFolder.create(tmp_path / "run").close()
    RunFolder.create(tmp_path / "run").close()


def test_overwrite_removes_every_trace_of_the_old_run(make_run):
    path = make_run()
    (path / "checkpoints" / "100").mkdir(parents=True)
    (path / "plots").mkdir()
    (path / ".writing-abc.png").touch()
    (path / "reference.nc").touch()
    with RunFolder.create(path, overwrite=True):
        assert os.listdir(path) == [".lock"]


@pytest.mark.parametrize(
    "names",
    [
        ["notes.txt"],  # no run at all
        ["case.yaml"],  # a case somebody wrote
        ["case.yaml", "ref.nc"],
        ["case.yaml", "summary.json", "thesis.tex"],  # a run with something else in it
        ["summary.json", "plots", "data/"],
    ],
)
def test_overwrite_leaves_alone_what_no_run_wrote(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(RunExistsError, match="left alone"):
        RunFolder.create(tmp_path, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == before


def test_overwrite_does_not_follow_links(make_run, tmp_path):
    path = make_run()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (path / "checkpoints").symlink_to(elsewhere)
    RunFolder.create(path, overwrite=True).close()
    assert (elsewhere / "precious").exists()

    (tmp_path / "link").symlink_to(make_run("other"))
    with pytest.raises(RunExistsError, match="link"):
        RunFolder.create(tmp_path / "link", overwrite=True)
    assert (tmp_path / "other" / "summary.json").exists()


def test_a_planted_lock_link_creates_nothing_elsewhere(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "planted")
    with pytest.raises(OSError, match="symbolic links"):
        RunFolder.create(tmp_path / "run")
    assert not (tmp_path / "planted").exists()


def test_default_names_never_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [RunFolder.create(case="burgers") for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all(str(run.path).startswith("runs/burgers-2") for run in runs)
    escaped = RunFolder.create(case="../../etc/pass wd")
    assert escaped.path.resolve().parent == tmp_path / "runs"


def test_opening_what_is_not_a_run_says_so(tmp_path):
    with pytest.raises(NotARunError, match=r"no run \(no case.yaml\)"):
        RunFolder.open(tmp_path)
    with pytest.raises(NotARunError, match="is not a folder"):
        RunFolder.open(tmp_path / "missing")


# --- one writer


def test_two_processes_do_not_write_one_run(make_run):
    path = make_run()
    code = f"""
        import sys
        from cases._folder import RunFolder
        run = RunFolder.open({str(path)!r}, lock=True)
        print("locked", flush=True)
        sys.stdin.read()
        """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunLockedError, match="another process"):
            RunFolder.open(path, lock=True)
        with pytest.raises(RunLockedError):
            RunFolder.create(path, overwrite=True)
        assert (path / "summary.json").exists()
        (path / "summary.json").unlink()
        assert RunFolder.open(path).status == "running"
        other.kill()
    assert RunFolder.open(path).status == "unfinished"
    RunFolder.open(path, lock=True).close()


def test_two_runs_in_one_process_are_kept_apart_as_well(tmp_path):
    with RunFolder.create(tmp_path / "run"), pytest.raises(RunLockedError):
        RunFolder.create(tmp_path / "run")


def test_the_lock_survives_the_folder_being_cleared(make_run):
    path = make_run()
    with RunFolder.create(path, overwrite=True), pytest.raises(RunLockedError):
        RunFolder.create(path)


# --- history


def test_history_forgets_a_torn_last_line(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.append({"step": 0, "loss": 1.0})
    with open(history.path, "a") as file:
        file.write('{"step": 10, "lo')
    assert [row["step"] for row in history.read()] == [0]
    again = History(history.path)
    again.append({"step": 10, "loss": float("nan")})
    assert again.read() == [{"step": 0, "loss": 1.0}, {"step": 10, "loss": None}]


def test_history_truncates_to_the_checkpoints_step(tmp_path):
    history = History(tmp_path / "history.jsonl")
    for step in range(0, 50, 10):
        history.append({"step": step})
    before = history.path.read_bytes()
    with open(history.path, "a") as file:
        file.write('{"step": 5')
    history.truncate(30)
    assert history.path.read_bytes() == before[: before.index(b'{"step": 40}')]
    history.append({"step": 40})
    assert history.path.read_bytes() == before


def test_history_reports_damage_in_the_middle_with_its_line(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"step": 0}\nrubbish\n{"step": 20}\n')
    with pytest.raises(ValueError, match=r"history\.jsonl:2: this line is not JSON"):
        History(tmp_path / "history.jsonl").read()


def test_no_history_is_an_empty_one(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.truncate(10)
    history.sync()
    assert history.read() == []


# --- provenance


def test_provenance_names_versions_seed_device_and_start():
    record = provenance(seed=7, device="cpu", argv=["sciopt", "run", "heat"])
    assert record["seed"] == 7
    assert record["device"] == "cpu"
    assert record["argv"] == ["sciopt", "run", "heat"]
    assert record["started"].endswith("+00:00")
    for name in ("jax", "jaxlib", "equinox", "numpy"):
        assert record["versions"][name][0].isdigit()
    assert record == json_safe(record)


def test_commit_is_that_of_this_project_only(tmp_path):
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q")
    assert commit(tmp_path) is None  # nothing committed yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "first", "--no-verify")
    head = git("rev-parse", "HEAD")
    assert commit(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path) == head + "-dirty"
    (tmp_path / "venv").mkdir()
    assert commit(tmp_path / "venv") is None  # inside a repository that is not ours


def test_the_folder_needs_no_jax():
    code = "import sys, cases._folder, cases._provenance; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    assert _folder.__doc__
