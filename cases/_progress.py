"""What a person watching a run sees: one live line on a terminal, plain lines anywhere else.

The two displays are context managers that are called with each `Progress` of the engine. The plain
one writes no control characters and at most a line every two seconds, so a log stays readable.
"""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from ._wording import number, printable, seconds, verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ._engine import Progress

EVERY = 2.0  # seconds between plain lines
NARROW, WIDE = 10, 24  # characters of the bar


def display(stream: TextIO | None = None) -> "PlainLines | LiveLine":
    """The live line if `stream` (standard output) is a terminal that can show one, else lines."""
    out: TextIO = stream or sys.stdout
    if not out.isatty():
        return PlainLines(out)
    from rich.console import Console

    console = Console(file=out)
    return PlainLines(out) if console.is_dumb_terminal else LiveLine(console)


# These count steps; the others are said by a word, and take what they take.
COUNTED = ("train", "iterate")
PHASES = {
    "compile": "compiling",
    "solve": "solving",
    "reference": "making the reference",
    "evaluate": "evaluating",
    "ensemble": "training the ensemble",
    "report": "writing the report",
}


def details(progress: "Progress") -> list[str]:
    """The parts of a line, the most wanted first: a narrow terminal drops them from the end.

    >>> from types import SimpleNamespace
    >>> details(SimpleNamespace(residual={"momentum": 1.5e-3}, error={"u": 2e-4}, loss=2e-6,
    ...                         steps_per_second=3.9, seconds_left=46.0))
    ['error u 2.0e-04', 'momentum 1.5e-03', '3.9 steps/s', '46 s left']
    """
    parts = [f"error {field} {number(value)}" for field, value in progress.error.items()]
    parts += [f"{block} {number(value)}" for block, value in progress.residual.items()]
    if not progress.residual:
        parts.append(f"loss {number(progress.loss)}")
    if progress.steps_per_second > 0:
        parts.append(f"{progress.steps_per_second:.3g} steps/s".replace("e+0", "e"))
    if progress.seconds_left is not None:
        parts.append(_left(progress.seconds_left))
    return parts


def _left(left: float) -> str:
    return f"{round(left)} s left" if left < 120 else f"{seconds(left)} left"


class PlainLines:
    """A line for each new phase, then at most one every `every` seconds, and the last one.

    >>> import io
    >>> from types import SimpleNamespace
    >>> out = io.StringIO()
    >>> with PlainLines(out) as show:
    ...     for step in range(1, 101):
    ...         show(SimpleNamespace(phase="train", step=step, steps=100, loss=1.0, residual={},
    ...                              error={}, steps_per_second=50.0, seconds_left=None))
    >>> print(out.getvalue(), end="")
    step 1/100  loss 1.0e+00  50 steps/s
    step 100/100  loss 1.0e+00  50 steps/s
    """

    def __init__(
        self,
        stream: TextIO,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream = stream
        self._every = every
        self._clock = clock
        self._last = -float("inf")
        self._phase = ""
        self._waiting: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def __call__(self, progress: "Progress") -> None:
        """Write the line now or keep it in case it turns out to be the last."""
        if progress.phase != self._phase:
            self._flush()
            self._phase = progress.phase
            if progress.phase not in COUNTED:
                self._write(PHASES.get(progress.phase, progress.phase))
                return
            self._last = -float("inf")
        if progress.phase not in COUNTED:
            return
        line = "  ".join([f"step {progress.step}/{progress.steps}", *details(progress)])
        if self._clock() - self._last >= self._every:
            self._write(line)
        else:
            self._waiting = line

    def _flush(self) -> None:
        if self._waiting is not None:
            self._write(self._waiting)

    def _write(self, line: str) -> None:
        self._waiting = None
        self._last = self._clock()
        print(line, file=self._stream, flush=True)


class LiveLine:
    """One line that redraws itself, with a spinner and a clock while there are no steps to count.

    rich redraws it from a thread, so the clock also runs while XLA compiles.
    """

    def __init__(self, console: "Console"):
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = console
        self._spinner = Spinner("dots", style="cyan")
        self._progress: Progress | None = None
        self._since = time.monotonic()
        self._live = Live(
            get_renderable=self._render,
            console=console,
            refresh_per_second=10,
            transient=True,  # the outcome takes its place
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, value, traceback)

    def __call__(self, progress: "Progress") -> None:
        """Show `progress` from the next redraw on."""
        if self._progress is None or progress.phase != self._progress.phase:
            self._since = time.monotonic()
        self._progress = progress
        if progress.step == progress.steps:
            self._live.refresh()  # the last step is seen, however soon the next phase comes

    def _render(self) -> "Text":
        from rich.text import Text

        now = time.monotonic()
        progress = self._progress
        if progress is not None and progress.phase in COUNTED:
            return live_text(progress, self._console.width)
        spinner = self._spinner.render(now)
        phase = "starting" if progress is None else PHASES.get(progress.phase, progress.phase)
        text = spinner if isinstance(spinner, Text) else Text()
        text = Text.assemble(text, " ", phase, (f"  {now - self._since:.0f} s", "dim"))
        text.no_wrap = True
        return text


def live_text(progress: "Progress", width: int) -> "Text":
    """The training line in exactly one row of `width` characters: whole parts, no cut numbers."""
    from rich.text import Text

    count = f"{progress.step:>{len(str(progress.steps))}}/{progress.steps}"
    bar = NARROW if width < 100 else WIDE
    done = round(bar * min(1.0, progress.step / max(1, progress.steps)))
    text = Text(no_wrap=True, overflow="crop")
    text.append("━" * done, "cyan")
    text.append("━" * (bar - done), "bright_black")
    text.append(f" {count}", "bold")
    parts = details(progress)
    # The time left is wanted even where the blocks are too many to show.
    last = [parts.pop()] if progress.seconds_left is not None else []
    room = width - text.cell_len - sum(len(part) + 3 for part in last) - 1
    shown = []
    for part in parts:
        if len(part) + 3 > room - (4 if part is not parts[-1] else 0):
            shown.append("…")
            break
        room -= len(part) + 3
        shown.append(part)
    for part in shown + last:
        text.append(" · ", "bright_black")
        text.append(part, "green" if part.startswith("error ") else "")
    text.truncate(width - 1, overflow="crop")
    return text


def print_outcome(folder: Path, summary: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """How a run ended: a panel on a terminal, the same lines plain anywhere else."""
    out: TextIO = stream or sys.stdout
    status = str(summary.get("status"))
    lines = outcome(folder, summary)
    if not out.isatty():
        print("\n".join(lines), file=out, flush=True)
        return
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    judged = verdict(summary)
    good = status in ("completed", "stopped") and (judged is None or judged.good)
    colour = "green" if good else "red" if status == "diverged" else "yellow"
    body = Text("\n".join(lines[1:]), overflow="fold")
    Console(file=out).print(
        Panel(body, title=Text(lines[0], style="bold"), title_align="left", border_style=colour)
    )


def outcome(folder: Path, summary: Mapping[str, Any]) -> list[str]:
    """The lines of `print_outcome`; the first is the headline.

    >>> print("\\n".join(outcome(Path("runs/heat"), {
    ...     "status": "completed", "case": "heat", "steps": 300, "wall_seconds": 84.2,
    ...     "compile_seconds": 11.7, "error.u.relative_l2": 2e-5, "tolerance": 1e-4})))
    heat: completed
    relative L2 error of u 2.0e-05, within the tolerance 1.0e-04
    300 steps in 84.2 s, of which compiling 11.7 s
    folder  runs/heat
    """
    judged = verdict(summary)
    lines = [f"{summary.get('case', folder.name)}: {summary.get('status')}"]
    if judged is not None:
        lines.append(judged.text)
    elif isinstance(summary.get("residual"), int | float):
        lines.append(f"residual {number(summary['residual'])} (the case has no reference)")
    if "steps" in summary:
        line = f"{summary['steps']} steps in {seconds(summary.get('wall_seconds'))}"
        compiling = summary.get("compile_seconds")
        lines.append(
            line if compiling is None else f"{line}, of which compiling {seconds(compiling)}"
        )
    if summary.get("advice"):
        lines.append(str(summary["advice"]))
    if summary.get("status") == "interrupted":
        lines.append(f"go on with: resume {folder}")
    lines.append(f"folder  {folder}")
    report = folder / "report.html"
    if report.exists():
        lines.append(f"report  {report}")
    return [printable(line) for line in lines]
