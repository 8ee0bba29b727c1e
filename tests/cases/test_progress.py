"""Claims about what a person watching a run sees. The whole of it, in processes, is in test_cli."""

import io

import pytest
from rich.console import Console

from cases import Progress
from cases._progress import LiveLine, PlainLines, display, live_text, outcome, print_outcome

BLOCKS = {"momentum": 1.5e-3, "continuity": 2.5e-4, "walls": 3e-5, "start": 4e-6}


def training(step: int, **more) -> Progress:
    given = {"loss": 1e-6, "residual": BLOCKS, "error": {"u": 2e-4}, "steps_per_second": 4.0}
    return Progress("train", step, 300, **{**given, "seconds_left": (300 - step) / 4.0, **more})


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_at_most_every_two_seconds_and_the_last_one_always():
    out, clock = io.StringIO(), Clock()
    with PlainLines(out, clock=clock) as show:
        show(Progress("compile", 0, 300))
        for step in range(1, 101):
            clock.now += 0.1
            show(training(step))
        show(Progress("evaluate", 100, 300))
        show(Progress("report", 100, 300))
    lines = out.getvalue().splitlines()
    steps = [line.split()[1] for line in lines if line.startswith("step")]
    assert steps[0] == "1/300"
    assert steps[-1] == "100/300"
    assert 5 <= len(steps) <= 7  # ten seconds, and both ends
    assert [lines[0], *lines[-2:]] == ["compiling", "evaluating", "writing the report"]


def test_the_last_plain_line_is_written_even_when_the_run_fails():
    out, clock = io.StringIO(), Clock()

    def fail():
        with PlainLines(out, clock=clock) as show:
            show(training(1))
            show(training(2))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert out.getvalue().splitlines()[-1].startswith("step 2/300")


def test_a_plain_line_names_every_block_the_error_the_speed_and_the_time_left():
    out = io.StringIO()
    with PlainLines(out) as show:
        show(training(100))
    assert out.getvalue() == (
        "step 100/300  error u 2.0e-04  momentum 1.5e-03  continuity 2.5e-04  walls 3.0e-05  "
        "start 4.0e-06  4 steps/s  50 s left\n"
    )


@pytest.mark.parametrize("width", range(40, 220, 7))
@pytest.mark.parametrize("fields", [0, 1, 3])
def test_the_live_line_keeps_to_one_row_and_never_cuts_the_time_left(width, fields):
    error = {f"u{number}": 2e-4 for number in range(fields)}
    text = live_text(training(7, error=error), width)
    assert text.cell_len < width
    assert text.plain.endswith("73 s left")


def test_a_wide_live_line_shows_everything():
    text = live_text(training(150), 200).plain
    for part in ("150/300", "momentum 1.5e-03", "start 4.0e-06", "error u 2.0e-04", "4 steps/s"):
        assert part in text
    assert "…" not in text


def test_the_live_line_counts_the_seconds_of_compiling():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with LiveLine(console) as show:
        show(Progress("compile", 0, 300))
        show._since -= 42
        show._live.refresh()
    assert "compiling" in out.getvalue()
    assert "42 s" in out.getvalue()


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_without_cursor_movement_gets_plain_lines(term, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", term)
    assert isinstance(display(Terminal()), PlainLines)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(display(Terminal()), LiveLine)
    assert isinstance(display(io.StringIO()), PlainLines)


def test_the_outcome_says_what_to_do_next(tmp_path):
    summary = {"status": "interrupted", "case": "heat", "steps": 40, "wall_seconds": 9.0}
    assert f"go on with: resume {tmp_path}" in outcome(tmp_path, summary)
    summary |= {"status": "diverged", "advice": "Try a smaller step."}
    assert "Try a smaller step." in outcome(tmp_path, summary)


def test_a_hostile_case_cannot_write_escape_codes_or_markup_to_the_terminal(tmp_path):
    out = io.StringIO()
    summary = {"status": "completed", "case": "[red]a\x1b[2Jb\rc\x9b0m", "steps": 1}
    print_outcome(tmp_path, summary, out)
    assert out.getvalue().splitlines()[0] == "[red]a�[2Jb�c�0m: completed"
