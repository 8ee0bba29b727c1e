"""Runs side by side: what they reached, what they cost, in what their cases differ.

The table has a column for each run and a row for each quantity; cases differ in few keys, so the
rows below the numbers are only those. The picture lays the runs' histories over one another,
against the step (how good is the method) and against seconds (how good is the bargain).
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ._folder import NotARunError, RunFolder
from ._plot import (
    coloured,
    finish_axes,
    log_line,
    new_figure,
    save,
    series,
    styled,
    tolerance_line,
)
from ._wording import MEASURES, NOTHING, errors, number, printable, seconds, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Comparison:
    """A table as words, and the picture beside it.

    Attributes:
        names: one for each run, told apart from one another.
        rows: quantity -> one entry for each run; a dash where a run does not have it.
        differing: dotted key of the case -> one entry for each run, for keys that differ.
        plot: the picture; None where no run has a history.
    """

    names: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]
    differing: dict[str, tuple[str, ...]]
    plot: Path | None


def compare(
    folders: Iterable[str | os.PathLike[str]], plot: str | os.PathLike[str] | None = None
) -> Comparison:
    """Compare the runs in `folders`; unfinished ones take part with what they have.

    Parameters:
        folders: the runs, at least one.
        plot: where the picture goes; None for `compare-<run>-<run>….png` beside the first run.

    Raises:
        ValueError: there are no folders.
        NotARunError: some of them hold no run; the message names every one.
    """
    runs, missing = [], []
    for folder in folders:
        try:
            runs.append(RunFolder.open(folder))
        except NotARunError as error:
            missing.append(str(error))
    if missing:
        raise NotARunError("; ".join(missing))
    if not runs:
        raise ValueError("there is no run to compare")
    names = told_apart([run.path for run in runs])
    summaries = [run.read_summary() for run in runs]
    histories = [run.history.read() for run in runs]
    picture = None
    if any(histories):
        # Names of many runs would make a file name that no file system takes.
        target = runs[0].path.resolve().parent / f"compare-{'-'.join(names)[:120]}.png".replace(
            os.sep, "-"
        )
        tolerances = {summary.get("tolerance") for summary in summaries} - {None}
        figure = draw_comparison(
            names, histories, tolerances.pop() if len(tolerances) == 1 else None
        )
        picture = save(figure, Path(plot) if plot is not None else target)
    return Comparison(names, _rows(runs, summaries), _differing(runs), picture)


def told_apart(paths: Sequence[Path]) -> tuple[str, ...]:
    """The shortest ends of `paths` that are all different; numbered if even whole paths agree.

    >>> told_apart([Path("/a/x/run"), Path("/a/y/run")])
    ('x/run', 'y/run')
    """
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = tuple(str(Path(*some[-length:])) for some in parts)
        if len(set(names)) == len(names):
            return names
    return tuple(f"{path.name} ({number})" for number, path in enumerate(paths, start=1))


def _rows(
    runs: Sequence[RunFolder], summaries: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[str, ...]]:
    def row(key: str, say: Any = str) -> tuple[str, ...]:
        return tuple(NOTHING if s.get(key) is None else say(s[key]) for s in summaries)

    rows = {"case": row("case"), "status": tuple(run.status for run in runs)}
    for field in dict.fromkeys(field for summary in summaries for field in errors(summary)):
        for end, said in MEASURES.items():
            rows[f"{said} of {field}"] = row(f"error.{field}{end}", number)
        rows[f"max error of {field}"] = row(f"error.{field}.max", number)
    rows |= {
        "tolerance": row("tolerance", number),
        "residual": row("residual", _residual),
        "steps": row("steps"),
        "wall time": row("wall_seconds", seconds),
        "compiling": row("compile_seconds", seconds),
        "peak memory": row("peak_memory_bytes", size),
        "device": row("device"),
    }
    return {name: row for name, row in rows.items() if any(entry != NOTHING for entry in row)}


def _residual(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else str(value)


def _differing(runs: Sequence[RunFolder]) -> dict[str, tuple[str, ...]]:
    """A key that a case lacks differs from any value of it; a run without a case shows dashes."""
    cases = [_flat_case(run) for run in runs]
    known = [case for case in cases if case is not None]
    keys = dict.fromkeys(key for case in known for key in case)
    return {
        key: tuple(NOTHING if case is None else case.get(key, NOTHING) for case in cases)
        for key in keys
        if len({case.get(key) for case in known}) > 1
    }


def _flat_case(run: RunFolder) -> dict[str, str] | None:
    return flat(run.read_case()) or None


def flat(content: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys, with the leaves as words.

    >>> flat({"train": {"steps": 300}, "domain": {"x": [0, 1]}})
    {'train.steps': '300', 'domain.x': '[0, 1]'}
    """
    leaves: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{above}{key}.")
        else:
            leaves[f"{above}{key}"] = str(value)
    return leaves


def draw_comparison(
    names: Sequence[str],
    histories: Sequence[Sequence[Mapping[str, Any]]],
    tolerance: float | None = None,
) -> "Figure":
    """Loss and, where there is one, relative L2 error; over the step and over seconds.

    A run with several fields is shown by the worst of them at each step.
    """
    worst = [_worst(history, "error") for history in histories]
    # Transport has no loss: the worst of its marginal errors stands for it.
    with_loss = any(row.get("loss") is not None for history in histories for row in history)
    falling = [
        [row.get("loss") for row in history] if with_loss else _worst(history, "residual")
        for history in histories
    ]
    with_errors = any(value is not None for column in worst for value in column)
    with styled():
        rows = 2 if with_errors else 1
        figure = new_figure(10.5, 3.6 * rows)
        axes = figure.subplots(rows, 2, squeeze=False, sharey="row")
        for column, (key, label) in enumerate((("step", "step"), ("seconds", "seconds"))):
            for colour, (name, history, first, error) in coloured(
                zip(names, histories, falling, worst, strict=True)
            ):
                x = [row.get(key) for row in history]
                x = [float("nan") if value is None else value for value in x]
                log_line(axes[0][column], x, first, name, colour)
                if with_errors:
                    log_line(axes[1][column], x, error, name, colour)
            finish_axes(axes[0][column], "Loss" if with_loss else "Residual", label)
            if with_errors:
                if tolerance:
                    tolerance_line(axes[1][column], tolerance)
                finish_axes(axes[1][column], "Relative error", label)
            # One legend a row says it all.
        for ax in axes[:, 1]:
            ax.get_legend().remove()
    return figure


def _worst(history: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    columns = series(history, key).values()
    rows = zip(*columns, strict=True) if columns else ((None,) for _ in history)
    return [max((v for v in row if v is not None), default=None) for row in rows]


def print_comparison(comparison: Comparison, stream: TextIO | None = None) -> None:
    """The table, then the path of the picture. Off a terminal a row is never folded."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out: TextIO = stream or sys.stdout
    console = Console(file=out, width=None if out.isatty() else 10_000)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in comparison.names:
        table.add_column(Text(printable(name)), justify="right", overflow="fold")

    def add(rows: Mapping[str, tuple[str, ...]]) -> None:
        for name, entries in rows.items():
            # Text, not str: brackets in a case are not rich's markup.
            table.add_row(*(Text(printable(word)) for word in (name, *entries)))

    add(comparison.rows)
    if comparison.differing:
        table.add_section()
        add(comparison.differing)
    console.print(table)
    if comparison.plot is not None:
        print(f"plot  {comparison.plot}", file=out)
