"""Claims about the command line, as a process: what it prints, how soon, and its exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
QUICK = ["poisson_quick", "--set", "train.steps=10"]


def cli(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = cli("run", *QUICK, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def fastest(*arguments: str, times: int = 5) -> float:
    taken = []
    for _ in range(times):
        before = time.perf_counter()
        assert cli(*arguments).returncode == 0
        taken.append(time.perf_counter() - before)
    return min(taken)


def test_help_answers_in_under_0_4_seconds():
    assert fastest("--help") < 0.4


def test_check_answers_in_under_a_second():
    assert fastest("check", "burgers") < 1.0


def test_help_names_every_command():
    said = cli("--help").stdout
    for command in ("run", "check", "list", "schema", "resume", "report", "compare"):
        assert command in said


def test_list_has_a_line_for_each_case():
    lines = cli("list").stdout.splitlines()
    names = sorted(path.stem for path in (ROOT / "cases").glob("*.yaml"))
    assert [line.split()[0] for line in lines] == names
    assert all(len(line.split()) > 3 for line in lines)


def test_schema_is_json_schema():
    schema = json.loads(cli("schema").stdout)
    network, transport = (schema["$defs"][kind]["properties"] for kind in ("pinn", "transport"))
    assert network["train"]
    assert "burgers" in json.dumps(network["equation"])
    assert transport["solver"]


def test_a_run_prints_plain_lines_off_a_terminal_and_writes_its_folder(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["steps"] == 10
    again = cli("run", *QUICK, "--out", run)
    assert again.returncode == 2
    assert "exists and is not empty" in again.stderr
    over = cli("run", *QUICK, "--out", run, "--overwrite")
    assert over.returncode == 0
    assert "step 10/10" in over.stdout
    assert "relative L2 error of u" in over.stdout
    assert "\x1b" not in over.stdout
    assert "\r" not in over.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "burgrs"), "did you mean the shipped case 'burgers'?"),
        (("run", "burgers", "--set", "train.stepz=3"), "did you mean 'steps'?"),
        (
            ("check", "burgers", "--set", "equations.momentum=__import__('os')"),
            "did not expect '_'",
        ),
        (("check", "burgers", "--memory-limit", "1MB"), "the limit is 0.001 GB"),
        (("check", "burgers", "--memory-limit", "lots"), "expected a size such as"),
        (("resume", "nowhere"), "nowhere is not a folder"),
        (("report", "nowhere"), "nowhere"),
        (("compare", "nowhere"), "nowhere"),
        (("run", "burgers", "--device", "gpu", "--out", "x"), ""),
        (("fly",), "No such command"),
    ],
)
def test_mistakes_exit_2_with_words_and_no_traceback(arguments, message, tmp_path):
    if "gpu" in arguments:
        import jax

        if jax.default_backend() == "gpu":
            pytest.skip("this machine has a GPU, so asking for one is no mistake")
        message = "no gpu device was found"
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_divergence_exits_3_with_advice(tmp_path):
    done = cli(
        "run", "poisson_quick", "--out", tmp_path / "a",
        "--set", "train.optimizer={type: sgd, learning_rate: 1e9}",
    )  # fmt: skip
    assert done.returncode == 3
    assert "diverged" in done.stdout
    assert "Try a learning rate ten times smaller" in done.stdout


def test_ctrl_c_checkpoints_exits_130_and_resume_completes(tmp_path):
    out = tmp_path / "a"
    command = [
        sys.executable, str(ROOT / "cli.py"), "run", "poisson_quick", "--out", str(out),
        "--set", "train.steps=100000", "--set", "train.log_every=20",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step"):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    case = (out / "case.yaml").read_text()
    steps = summary["steps"] + 20
    (out / "case.yaml").write_text(case.replace("steps: 100000", f"steps: {steps}"))
    done = cli("resume", out)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "summary.json").read_text())["steps"] == steps


def test_report_and_compare_work_on_a_finished_run(run, tmp_path):
    done = cli("report", run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(run / "report.html")
    picture = tmp_path / "both.png"
    done = cli("compare", run, run, "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_live_line_on_a_terminal_shows_residual_error_and_time(tmp_path):
    """In a pseudo-terminal, as a person would see it."""
    pty = pytest.importorskip("pty", reason="pseudo-terminals are a POSIX matter")
    command = [
        sys.executable, str(ROOT / "cli.py"), "run", "poisson_quick", "--out", str(tmp_path / "a"),
    ]  # fmt: skip
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    seen = b""
    try:
        while chunk := os.read(master, 4096):
            seen += chunk
    except OSError:  # the other end closed
        pass
    assert process.wait(timeout=60) == 0
    said = seen.decode(errors="replace")
    for part in ("60/60", "balance", "error u", "steps/s", "within the tolerance"):
        assert part in said, part
