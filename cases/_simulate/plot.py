"""Pictures of a simulation: its fields over time, and what they keep or lose."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .._folder import RunFolder
from .._kinds import Animation, Table
from .._plot import COLOURS, SIGNED, VALUES, draw_field, new_figure, plain, styled
from .._solution import field_names, open_solution

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

CURVES = ("energy", "enstrophy", "mass")
PER_SECOND = 12.0


def figures(run: RunFolder) -> "Iterator[tuple[str, Figure | Animation]]":
    """Each field with its reference, `balance`, and `<field>_moving` in one or two coordinates."""
    history = run.history.read()
    if history and set(CURVES) & set(history[-1]["residual"]):
        with styled():
            yield "balance", _draw_balance(run, history)
    if not run.solution.exists():
        return
    with open_solution(run.solution) as solution:
        for field in field_names(solution):
            yield field, draw_field(solution, field)
        field = field_names(solution)[-1]
        if solution[field].ndim <= 3 and solution.sizes["t"] > 2:
            with styled():
                yield f"{field}_moving", moving(solution[field].load())


def tables(run: RunFolder) -> list[Table]:
    """What is kept of energy, enstrophy and mass."""
    said = run.read_summary()
    rows = [
        (name, f"{said[f'{name}.first']:.6g}", f"{said[f'{name}.last']:.6g}")
        for name in CURVES
        if f"{name}.first" in said
    ]
    return [Table("Means over the domain", ("of", "first", "last"), rows)] if rows else []


def _draw_balance(run: RunFolder, history: list[dict]) -> "Figure":
    """Energy, enstrophy, and how fast energy is lost against what viscosity takes."""
    case = run.read_case()
    t = np.array([row["step"] for row in history]) * case["time"]["step"]
    curves = {
        name: np.array([row["residual"][name] for row in history])
        for name in CURVES
        if name in history[-1]["residual"]
    }
    figure = new_figure(4.6 * len(curves), 3.6)
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for colour, ax, (name, values) in zip(COLOURS, axes, curves.items(), strict=False):
        ax.plot(t, values, color=colour)
        ax.set_title(name, loc="left")
        ax.set_xlabel("t")
        ax.grid(True)
        ax.margins(x=0)
    return figure


def moving(field: "xr.DataArray") -> Animation:
    """A field of one or two coordinates, the last of its axes being time."""
    values = field.to_numpy()
    low, high = float(values.min()), float(values.max())
    names = [str(name) for name in field.dims[:-1]]
    x = field[names[0]].to_numpy()
    figure = new_figure(5.4, 4.6 if len(names) == 2 else 3.4)
    ax = figure.subplots()
    ax.set_xlabel(plain(names[0]))
    title = ax.set_title("", loc="left")
    if len(names) == 1:
        (line,) = ax.plot(x, values[:, 0], color=COLOURS[0])
        slack = 0.05 * (high - low or 1.0)
        ax.set(ylim=(low - slack, high + slack), ylabel=plain(field.name))
        ax.grid(True)
        ax.margins(x=0)

        def show(frame: int) -> None:
            line.set_ydata(values[:, frame])
    else:
        y = field[names[1]].to_numpy()
        signed = low < 0 < high
        top = max(-low, high)
        mesh = ax.pcolormesh(
            x, y, values[..., 0].T, cmap=SIGNED if signed else VALUES,
            vmin=-top if signed else low, vmax=top if signed else high, rasterized=True,
        )  # fmt: skip
        ax.set_ylabel(plain(names[1]))
        ax.set_aspect("equal")
        figure.colorbar(mesh, ax=ax, pad=0.02)

        def show(frame: int) -> None:
            mesh.set_array(values[..., frame].T)

    def draw(frame: int) -> None:
        show(frame)
        title.set_text(plain(f"{field.name}, t = {float(field['t'][frame]):.3g}"))

    return Animation(figure, values.shape[-1], draw, PER_SECOND)
