"""Pictures of a minimisation: the field on its way, and energies with and without momentum."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .._folder import RunFolder
from .._kinds import Animation, Table
from .._plot import COLOURS, SIGNED, draw_field, new_figure, plain, styled
from .._simulate.plot import moving
from .._solution import open_solution
from .schema import FIELD, METHODS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def figures(run: RunFolder) -> "Iterator[tuple[str, Figure | Animation]]":
    """`u`, `energy`, and `u_moving` in one or two coordinates."""
    arrays = run.read_arrays()
    if run.solution.exists() and arrays and "sides" in arrays:
        with open_solution(run.solution) as solution:
            yield FIELD, _draw_points(solution[FIELD], arrays)
    elif run.solution.exists():
        with open_solution(run.solution) as solution:
            flat = solution[FIELD].ndim == 3
            yield FIELD, _draw_phases(solution[FIELD]) if flat else draw_field(solution, FIELD)
            if solution[FIELD].ndim <= 3 and solution.sizes["t"] > 2:
                with styled():
                    yield f"{FIELD}_moving", moving(solution[FIELD].load())
    if arrays:
        with styled():
            yield "energy", _draw_energy(arrays["energies"], run.read_case().get("reference"))


def tables(run: RunFolder) -> list[Table]:
    """What both methods need, and end at."""
    said = run.read_summary()
    rows = [
        (name.replace("_", " "), str(said[f"{name}.steps"]), f"{said[f'{name}.energy']:.8g}")
        for name in METHODS
        if f"{name}.steps" in said
    ]
    head = ("by", "steps to within a twentieth", "energy at the end")
    return [Table("The same steps with and without momentum", head, rows)] if rows else []


def _draw_phases(field: "xr.DataArray") -> "Figure":
    """A plane's field, at times in geometric progression: most happens early."""
    picks = np.unique(np.geomspace(1, field.sizes["t"] - 1, 4).round().astype(int))
    x, y, _ = map(str, field.dims)
    with styled():
        figure = new_figure(3.0 * len(picks) + 0.6, 3.5)
        axes = figure.subplots(1, len(picks), sharey=True, squeeze=False)[0]
        for ax, at in zip(axes, picks, strict=True):
            drawn = ax.pcolormesh(
                field[x], field[y], field.isel(t=at).T, cmap=SIGNED, vmin=-1, vmax=1,
                rasterized=True,
            )  # fmt: skip
            ax.set_aspect("equal")
            ax.set_xlabel(plain(x))
            ax.set_title(f"t = {float(field['t'][at]):.3g}", loc="left")
            if ax is axes[-1]:
                figure.colorbar(drawn, ax=ax, pad=0.02)
        axes[0].set_ylabel(plain(y))
    return figure


def _draw_points(field: "xr.DataArray", arrays: dict) -> "Figure":
    """A graph's points after few, some and all steps, with the labels and who ends up wrong."""
    picks = (1, max(1, field.sizes["t"] // 5), field.sizes["t"] - 1)
    x, y = arrays["places"].T
    given, wrong = arrays["labels"] != 0, np.sign(field[:, -1]) != arrays["sides"]
    with styled():
        figure = new_figure(3.6 * len(picks) + 0.6, 3.2)
        axes = figure.subplots(1, len(picks), sharey=True)
        drawn = [
            ax.scatter(x, y, c=field[:, at], cmap=SIGNED, vmin=-1, vmax=1, s=8)
            for ax, at in zip(axes, picks, strict=True)
        ]
        for ax, at in zip(axes, picks, strict=True):
            ax.scatter(x[given], y[given], facecolors="none", edgecolors="k", s=45, label="labels")
            ax.set_aspect("equal")
            ax.set_title(f"t = {float(field['t'][at]):.3g}", loc="left")
        if wrong.any():
            axes[-1].scatter(x[wrong], y[wrong], color="k", marker="x", s=25, label="wrong")
        axes[-1].legend(loc="lower left")
        figure.colorbar(drawn[-1], ax=axes[-1], pad=0.02, shrink=0.62)
    return figure


def _draw_energy(energies: np.ndarray, reference: dict | None) -> "Figure":
    """Over the steps, of both methods."""
    figure = new_figure(6.5, 3.8)
    ax = figure.subplots()
    for name, own, colour in zip(METHODS, energies, COLOURS, strict=False):
        ax.plot(own, color=colour, label=name.replace("_", " "))
    if reference and reference["type"] == "energy":
        ax.axhline(float(reference["value"]), color="#555b66", ls="--", lw=1.2, label="reference")
    ax.set(xscale="symlog", yscale="log", xlabel="steps", ylabel="energy")
    ax.set_xlim(0, energies.shape[1] - 1)
    ax.grid(True)
    ax.legend()
    return figure
