"""Pictures of a control case: how the search went, the state it makes, and what it was to be."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .._folder import RunFolder
from .._kinds import Animation, Table
from .._plot import (
    COLOURS,
    INK,
    SIGNED,
    draw_field,
    finish_axes,
    log_line,
    new_figure,
    plain,
    styled,
)  # fmt: skip
from .._simulate.plot import moving
from .._solution import REFERENCE, field_names, open_solution
from .._wording import size

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

TARGET = "_target"


def figures(run: RunFolder) -> "Iterator[tuple[str, Figure | Animation]]":
    """`search`; `match`, the state that is judged; the fields; and the first of them, moving."""
    if history := run.history.read():
        with styled():
            figure = new_figure(6.5, 3.9)
            ax = figure.subplots()
            steps = [row["step"] for row in history]
            log_line(ax, steps, [row["loss"] for row in history], "mismatch", INK, width=2.2)
            slopes = [row["residual"]["slope"] for row in history]
            log_line(ax, steps, slopes, "largest slope", COLOURS[0])
            finish_axes(ax, "Search", "step")
            yield "search", figure
    if not run.solution.exists():
        return
    with open_solution(run.solution) as solution:
        names = [name for name in field_names(solution) if not name.endswith(TARGET)]
        with styled():
            yield "match", _draw_match(solution, names[0])
        for name in names:
            yield name, draw_field(solution, name)
        if solution[names[0]].ndim <= 3:
            with styled():
                yield f"{names[0]}_moving", moving(solution[names[0]].load())


def tables(run: RunFolder) -> list[Table]:
    """What a gradient takes."""
    if not (taken := run.read_summary().get("gradient_bytes")):
        return []
    return [Table("Gradient", ("of", ""), [("workspace of one gradient", size(taken))])]


def _draw_match(solution: "xr.Dataset", name: str) -> "Figure":
    """The last state and its target, or the first and the truth."""
    targeted = name + TARGET in solution
    which = -1 if targeted else 0
    wanted = solution[name + (TARGET if targeted else REFERENCE)].isel(t=which)
    found = solution[name].isel(t=which)
    words = ("reached", "target") if targeted else ("recovered", "truth")
    if found.ndim == 1:
        figure = new_figure(7.0, 3.8)
        ax = figure.subplots()
        x = found[found.dims[0]]
        if targeted:
            ax.plot(x, solution[name].isel(t=0), color="#b8bcc4", label="at first")
        ax.plot(x, found, color=COLOURS[0], label=words[0])
        ax.plot(x, wanted, "--", color=COLOURS[1], lw=1.4, label=words[1])
        ax.set(xlabel=plain(found.dims[0]), ylabel=plain(name))
        ax.grid(True)
        ax.margins(x=0)
        ax.legend()
        return figure
    middle = {dim: found.sizes[dim] // 2 for dim in found.dims[2:]}
    found, wanted = found.isel(middle), wanted.isel(middle)
    figure = new_figure(8.6, 3.9)
    axes = figure.subplots(1, 2, sharey=True)
    top = float(np.abs(wanted).max()) or 1.0
    mesh = None
    for ax, values, word in zip(axes, (found, wanted), words, strict=True):
        x, y = (found[dim].to_numpy() for dim in found.dims)
        mesh = ax.pcolormesh(x, y, values.to_numpy().T, cmap=SIGNED, vmin=-top, vmax=top)
        ax.set_title(plain(f"{name}: {word}"), loc="left")
        ax.set_xlabel(plain(found.dims[0]))
        ax.set_aspect("equal")
    axes[0].set_ylabel(plain(found.dims[1]))
    assert mesh is not None
    figure.colorbar(mesh, ax=list(axes), pad=0.02)
    return figure
