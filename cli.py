"""The front door: it parses words and draws progress. No numerics.

Nothing heavy is imported here, so that `--help` answers at once; each command imports what it
needs. What a person did wrong is said in plain lines on standard error, never as a traceback.

Exit codes: 0 completed (or stopped by a rule of the case), 2 a bad case or bad arguments,
3 diverged, 130 interrupted, 1 a fault of ours or of the machine.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cases import Run
    from cases._model import AbstractCase

BAD_INPUT, DIVERGED, INTERRUPTED, FAULT = 2, 3, 130, 1
EXIT_CODES = {"completed": 0, "stopped": 0, "diverged": DIVERGED, "interrupted": INTERRUPTED}

app = typer.Typer(
    help="Solve a case, written in YAML, and look at what came out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Method(StrEnum):
    """How a spectrum is found."""

    dense = "dense"
    lanczos = "lanczos"


class Device(StrEnum):
    """Where a run computes."""

    cpu = "cpu"
    gpu = "gpu"


CaseArgument = Annotated[
    str, typer.Argument(metavar="CASE", help="A YAML file, or the name of a case that ships.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as train.steps=50. Repeat."),
]
DeviceOption = Annotated[
    Device | None, typer.Option(help="Where to compute; by default what JAX finds best.")
]
MemoryOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Refuse a case estimated to need more, as 8GB or 500MiB."),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]


@app.command()
def run(
    case: CaseArgument,
    sets: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run's folder; by default runs/CASE-TIME."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that is in --out.")
    ] = False,
    device: DeviceOption = None,
    memory_limit: MemoryOption = None,
    debug: DebugOption = False,
) -> None:
    """Solve a case and write its folder: solution, history, pictures, report."""
    with plain_errors(debug):
        limit = None if memory_limit is None else parse_size(memory_limit)
        import cases
        from cases._progress import display

        with display() as show:
            done = cases.run(
                case, out=out, overwrite=overwrite, sets=tuple(sets or ()),
                device=device and device.value, memory_limit=limit, on_progress=show,
            )  # fmt: skip
        finish(done)


@app.command()
def resume(run: RunArgument, device: DeviceOption = None, debug: DebugOption = False) -> None:
    """Go on with a run from its last checkpoint."""
    with plain_errors(debug):
        import cases
        from cases._progress import display

        with display() as show:
            done = cases.resume(run, device=device and device.value, on_progress=show)
        finish(done)


@app.command()
def check(
    case: CaseArgument,
    sets: SetOption = None,
    memory_limit: MemoryOption = None,
    debug: DebugOption = False,
) -> None:
    """Read a case and say what is wrong with it, without running it."""
    with plain_errors(debug):
        limit = None if memory_limit is None else parse_size(memory_limit)
        import cases

        typer.echo(f"ok: {case}: {size_of_case(cases.load(case, tuple(sets or ()), limit))}")


@app.command(name="list")
def list_cases(
    folder: Annotated[
        Path | None, typer.Argument(help="Where to look; by default the cases that ship.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """List cases, with a line each."""
    with plain_errors(debug):
        from cases import CaseError, load, shipped
        from cases._wording import printable

        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder} is not a folder")
        paths = sorted(folder.glob("*.yaml")) if folder else list(shipped().values())
        if not paths:
            raise UserError(f"{folder} holds no .yaml file")
        width = max(len(path.stem) for path in paths)
        for path in paths:
            try:
                line = load(path).description or ""
            except CaseError as error:
                line = f"(not a valid case: {str(error).splitlines()[0]})"
            typer.echo(printable(f"{path.stem:<{width}}  {line}".rstrip()))


@app.command()
def schema(debug: DebugOption = False) -> None:
    """Print the JSON Schema of a case, for editors that complete keys."""
    with plain_errors(debug):
        import json

        from cases import json_schema

        typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def report(run: RunArgument, debug: DebugOption = False) -> None:
    """Draw a run's pictures and write its report.html again."""
    with plain_errors(debug):
        from cases._report import report as write_report

        typer.echo(str(write_report(run)))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The runs' folders.")],
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The picture; by default beside the first run."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Compare runs: a table of results and differing keys, and an overlaid plot."""
    with plain_errors(debug):
        from cases._compare import compare as compare_runs
        from cases._compare import print_comparison

        print_comparison(compare_runs(runs, plot))


@app.command()
def diagnose(
    case: Annotated[
        str,
        typer.Argument(metavar="CASE", help="A YAML file, a case that ships, or a run's folder."),
    ],
    sets: SetOption = None,
    method: Annotated[
        Method, typer.Option(help="Lanczos needs no Jacobian in memory; dense sees every end.")
    ] = Method.dense,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The picture; by default CASE-spectrum.png here."),
    ] = None,
    device: DeviceOption = None,
    debug: DebugOption = False,
) -> None:
    """Say how hard a case is to train: the spectrum and condition number of its residuals.

    Of the network as it is initialised or, given a run's folder, at the last checkpoint.
    """
    with plain_errors(debug):
        from cases._diagnose import diagnose as find
        from cases._diagnose import print_diagnosis

        found = find(
            case, sets=tuple(sets or ()), method=method.value, device=device and device.value
        )
        name = Path(case).resolve().stem
        title = f"{name} after {found.step} steps"
        print_diagnosis(found, title, plot or Path(f"{name}-spectrum.png"))


# --- words in -------------------------------------------------------------------------------------


class UserError(Exception):
    """Something in the arguments that the user can put right."""


def parse_size(word: str) -> int:
    """Bytes in `8GB`, `500 MiB` or `1e9`.

    Raises:
        UserError: `word` is not a positive size.

    >>> parse_size("8GB"), parse_size("1.5 KiB")
    (8000000000, 1536)
    """
    import math
    import re

    found = re.fullmatch(
        r"([0-9.]+(?:e\+?[0-9]{1,2})?)\s*(?:([kmgt]?)(i?)b?)?", word.strip().lower()
    )
    try:
        if found is None:
            raise ValueError
        number, prefix, binary = found.groups()
        base = 1024 if binary else 1000
        count = float(number) * base ** ("kmgt".index(prefix) + 1 if prefix else 0)
        if not math.isfinite(count) or count < 1:
            raise ValueError
    except ValueError:
        raise UserError(f"--memory-limit {word}: expected a size such as 8GB or 500MiB") from None
    return int(count)


# --- words out ------------------------------------------------------------------------------------


def size_of_case(case: "AbstractCase") -> str:
    """What a case resolves to, and what it is estimated to need, in a line."""
    from cases._wording import size

    return f"{case.size()}, about {size(case.memory_estimate())} of memory"


def finish(done: "Run") -> None:
    """Print a run's outcome and leave with its exit code."""
    from cases._progress import print_outcome

    print_outcome(done.folder, done.summary)
    raise typer.Exit(EXIT_CODES.get(str(done.summary.get("status")), FAULT))


@contextmanager
def plain_errors(debug: bool) -> Iterator[None]:
    """Say errors in plain lines on standard error and exit; with `debug`, let them through."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        # The engine turns Ctrl-C into a checkpoint; this is for before it starts and after.
        if debug:
            raise
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            raise
        lines, code = said(error)
        from cases._wording import printable

        for line in "\n".join(lines).splitlines():
            typer.echo(printable(line), err=True)
        raise typer.Exit(code) from None


def said(error: Exception) -> tuple[list[str], int]:
    """The lines that tell a person of `error`, and the exit code."""
    from cases import CaseError
    from cases._folder import RunFolderError

    if isinstance(error, CaseError):
        return [str(problem) for problem in error.problems], BAD_INPUT
    if isinstance(error, UserError | RunFolderError | PermissionError):
        return [f"error: {error}"], BAD_INPUT
    if isinstance(error, OSError):  # a full disk, a path that is too long
        return [f"error: {error}"], FAULT
    return [
        f"internal error: {type(error).__name__}: {error}",
        "this should not happen; run it again with --debug to see where it came from",
    ], FAULT


def main() -> None:
    """The console script `sciopt`, and `python cli.py`."""
    # XLA calls OpenBLAS for factorisations, whose idle threads then spin on the cores that XLA's
    # own threads need: a step of Burgers takes 190 ms so, and 140 ms where they go to sleep.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a dash must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()


if __name__ == "__main__":
    main()
