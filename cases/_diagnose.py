"""`diagnose`: how hard a case is for gradient descent, as a table, in words and as a picture."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np

from ._engine import _device
from ._load import load
from ._plot import coloured, new_figure, plain, save, styled
from ._source import CaseError, Problem
from ._wording import number, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pde.preconditioning import Spectrum

    from ._pinn.diagnose import Diagnosis

STEPS = (1_000, 100_000)
HEAD = ("residual", "eigenvalues", "rank", "largest", "smallest", "condition")


def diagnose(
    path: str | os.PathLike[str],
    *,
    sets: Sequence[str] = (),
    method: Literal["dense", "lanczos"] = "dense",
    device: str | None = None,
) -> "Diagnosis":
    """The spectra of a case, initialised; or of a run's folder, at its last checkpoint.

    **Arguments:** `path`, a case file, the name of a case that ships, or a run's folder; `sets`,
    overrides; `method`, see [`pde.preconditioning.spectrum`][]; `device`.

    **Raises:** `cases.CaseError` for a case that is wrong or trains no network;
    `cases.RunFolderError` for a folder without a checkpoint.
    """
    folder = Path(path) if Path(path).is_dir() else None
    source = str(path) if folder is None else str(folder / "case.yaml")
    case = load(source, sets)
    if case.kind != "pinn":
        message = f"kind: a case of the kind {case.kind} trains no network, and has no spectrum"
        raise CaseError([Problem(source, message)])
    from ._pinn.diagnose import diagnose as of_network

    return of_network(case, source, _device(device), folder, method)


def rows(spectra: Mapping[str, "Spectrum"]) -> list[tuple[str, ...]]:
    """The table, a row a residual, below `HEAD`."""
    found = []
    for name, spectrum in spectra.items():
        values, rank = np.asarray(spectrum.eigenvalues), spectrum.rank
        smallest = values[rank - 1] if rank else None
        ends = (number(values[0]), number(smallest), number(spectrum.condition))
        found.append((printable(name), str(spectrum.size), str(rank), *ends))
    return found


def sentences(diagnosis: "Diagnosis") -> list[str]:
    """What the spectrum of all residuals means, in plain words."""
    whole = diagnosis.spectra["all"]
    said = [
        f"Plain gradient descent needs about {number(whole.condition)} steps to learn everything "
        "that the residuals ask for (the condition number)."
    ]
    for steps in STEPS:
        said.append(
            f"In {steps:,} steps it learns {whole.learned(steps)} of {whole.rank} directions."
        )
    if not whole.complete:
        said.append("Lanczos stopped before the end: the smallest eigenvalue is an upper bound.")
    blocks = {n: s for n, s in diagnosis.spectra.items() if n in _blocks(diagnosis)}
    if len(blocks) > 1:
        weights = {name: float(spectrum.eigenvalues[0]) for name, spectrum in blocks.items()}
        loud, quiet = max(weights, key=weights.__getitem__), min(weights, key=weights.__getitem__)
        if weights[quiet] > 0 and (ratio := weights[loud] / weights[quiet]) > 10:
            said.append(
                f"{printable(loud)!r} speaks {number(ratio)} times as loud as "
                f"{printable(quiet)!r}: a weight, or a hard condition, would balance them."
            )
    said.append(
        "A second-order optimizer (gauss_newton, ssbroyden) does not feel the condition number, "
        "until it reaches the rounding of the linear algebra."
    )
    return said


def _blocks(diagnosis: "Diagnosis") -> list[str]:
    """The residuals' names: what comes before their sum."""
    names = list(diagnosis.spectra)
    return names[: names.index("all")]


def draw(diagnosis: "Diagnosis", title: str) -> "Figure":
    """Eigenvalues in descending order, a line a residual block and one for all of them."""
    with styled():
        figure = new_figure(7.0, 4.2)
        axes = figure.subplots()
        for colour, (name, spectrum) in coloured(diagnosis.spectra.items()):
            values = np.asarray(spectrum.eigenvalues)[: spectrum.rank]
            width = 2.6 if name == "all" else 1.4
            label = plain(f"{name}: condition {number(spectrum.condition)}")
            index = np.arange(1, values.size + 1)
            axes.loglog(index, values, ".-", color=colour, lw=width, ms=3, label=label)
        axes.set_xlabel("index")
        axes.set_ylabel("eigenvalue")
        axes.set_title(plain(title), loc="left")
        axes.grid(True)
        axes.legend(loc="lower left")
    return figure


def print_diagnosis(diagnosis: "Diagnosis", title: str, plot: Path | None, out: Any = None) -> None:
    """Print the table and the sentences, and save the picture where there is a place for it."""
    stream: TextIO = sys.stdout if out is None else out
    table = [HEAD, *rows(diagnosis.spectra)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    for row in table:
        first, *others = zip(row, widths, strict=True)
        cells = [f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]
        print("  ".join(cells), file=stream)
    print("", *sentences(diagnosis), sep="\n", file=stream)
    if plot is not None:
        print(f"picture: {save(draw(diagnosis, title), plot)}", file=stream)
