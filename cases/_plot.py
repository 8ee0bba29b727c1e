"""Pictures of a run: each field with its reference and error, and the convergence history.

Drawn with matplotlib's objects on an Agg canvas: no pyplot, hence no display, no global figure list
and nothing left behind in a notebook. matplotlib is imported only when something is drawn.

Colours: values in `viridis` (perceptually uniform), with one scale for a solution and its
reference. Errors are shown with their sign on a symmetric diverging map; where they are
concentrated (a front), that map would be blank almost everywhere, and log₁₀|error| is shown.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import _kinds as kinds
from ._atomic import replacing
from ._folder import RunFolder
from ._solution import ERROR, REFERENCE

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

VALUES, SIGNED, MAGNITUDE = "viridis", "RdBu_r", "magma"
# Okabe and Ito's palette: told apart by every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK, PALE = "#22262e", "#d5d9e0"
CONCENTRATED = 30.0  # max|error| over median|error| above which the error is drawn in decades
DECADES = 5.0
SLICES = 4
DPI, ANIMATION_DPI = 150, 100
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.edgecolor": "#8a909c",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": "#555b66",
    "ytick.color": "#555b66",
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def plot(folder: str | os.PathLike[str]) -> list[Path]:
    """Draw what the run in `folder` has so far into its `plots/`; return the pictures' paths.

    What is drawn is the kind's: see its `plot.py`.

    Raises:
        NotARunError: there is no run in `folder`.
    """
    run = RunFolder.open(folder)
    run.plots.mkdir(exist_ok=True)
    drawn = kinds.plot(run.read_case().get("kind")).figures(run)
    return [
        save_animation(picture, run.plots / f"{name}.gif")
        if isinstance(picture, kinds.Animation)
        else save(picture, run.plots / f"{name}.png")
        for name, picture in drawn
    ]


def save(figure: "Figure", path: Path) -> Path:
    """Write `figure` to `path` atomically as a PNG of 150 dots an inch."""
    with styled(), replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
    return path


def save_animation(animation: kinds.Animation, path: Path) -> Path:
    """Write `animation` to `path` atomically as a GIF that plays for ever."""
    from matplotlib.animation import PillowWriter

    figure = animation.figure
    with styled(), replacing(path) as temporary:
        writer = PillowWriter(fps=round(animation.per_second))
        with writer.saving(figure, str(temporary), dpi=ANIMATION_DPI):
            for frame in range(animation.frames):
                animation.draw(frame)
                writer.grab_frame()
                # Laid out once: axes that moved by a pixel would tremble.
                figure.set_layout_engine("none")
    return path


@contextmanager
def styled() -> Iterator[None]:
    """The suite's look, for figures made inside; what the caller had set comes back afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """A figure of `width` by `height` inches on an Agg canvas, unknown to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.06)
    FigureCanvasAgg(figure)
    return figure


# --- fields ---------------------------------------------------------------------------------------


def draw_field(solution: "xr.Dataset", field: str) -> "Figure":
    """One field of a solution's Dataset, with its reference and error where it has them.

    Lines for one coordinate; heatmaps for two, and below them cuts through the second one where
    that is time; for three, a column of heatmaps for each of four values of the last. With more
    coordinates, the ones in the middle are held at their middle values, and the title says so.

    Raises:
        KeyError: `field` is not in `solution`.
    """
    layers = {"": solution[field]}
    if field + REFERENCE in solution:
        layers[REFERENCE] = solution[field + REFERENCE]
        layers[ERROR] = solution[field + ERROR]
    held = {}
    dims = [str(name) for name in solution[field].dims]
    for name in dims[2:-1]:
        index = solution.sizes[name] // 2
        held[name] = float(solution[name][index])
        layers = {key: layer.isel({name: index}) for key, layer in layers.items()}
    with styled():
        draw = {1: _draw_lines, 2: _draw_maps}.get(len(dims), _draw_slices)
        figure = draw(layers, field)
        if held:
            figure.suptitle(plain(", ".join(f"{name} = {held[name]:.3g}" for name in held)))
    return figure


KINDS = {"": "solution", REFERENCE: "reference", ERROR: "error"}


def plain(text: object) -> str:
    """`text` as matplotlib shall show it: a case's `$` is a character, not the start of TeX."""
    return str(text).replace("$", r"\$")


def _label(variable: "xr.DataArray", name: str | None = None) -> str:
    unit = str(variable.attrs.get("units", "1"))
    name = str(variable.name) if name is None else name
    return plain(name if unit in ("1", "") else f"{name} [{unit}]")


def _draw_lines(layers: Mapping[str, "xr.DataArray"], field: str) -> "Figure":
    solution = layers[""]
    (name,) = solution.dims
    x = solution[name]
    has_error = ERROR in layers
    figure = new_figure(7.0, 5.6 if has_error else 3.6)
    axes = figure.subplots(
        2 if has_error else 1, 1, sharex=True, squeeze=False,
        height_ratios=[2, 1] if has_error else None,
    )[:, 0]  # fmt: skip
    axes[0].plot(x, solution, color=COLOURS[0], label="solution")
    if has_error:
        axes[0].plot(x, layers[REFERENCE], "--", color=COLOURS[1], lw=1.3, label="reference")
        axes[0].legend()
        magnitude = np.abs(layers[ERROR].to_numpy())
        magnitude = np.where(magnitude > 0, magnitude, np.nan)  # zero has no logarithm
        axes[1].semilogy(x, magnitude, color=COLOURS[0], lw=1.4)
        axes[1].set_ylabel(_label(solution, f"|error of {field}|"))
    axes[0].set_title(plain(field), loc="left")
    axes[0].set_ylabel(_label(solution, field))
    axes[-1].set_xlabel(_label(x))
    for ax in axes:
        ax.grid(True)
        ax.margins(x=0)
    return figure


def _plane(variable: "xr.DataArray") -> tuple[str, str]:
    """(horizontal, vertical) coordinate: time runs to the right, as in the literature."""
    first, second = (str(name) for name in variable.dims)
    return (second, first) if second == "t" else (first, second)


def _draw_maps(layers: Mapping[str, "xr.DataArray"], field: str) -> "Figure":
    solution = layers[""]
    horizontal, vertical = _plane(solution)
    cuts = horizontal == "t"
    columns = len(layers)
    aspect = _aspect(solution, horizontal, vertical)
    height = 3.3 if aspect is None else 3.5
    if cuts:
        figure = new_figure(4.3 * max(columns, 2), height + 2.5)
        grid = figure.add_gridspec(2, 1, height_ratios=[height, 2.5])
        top = grid[0].subgridspec(1, columns)
        maps = [figure.add_subplot(top[0, column]) for column in range(columns)]
        _draw_cuts(figure, grid[1].subgridspec(1, SLICES), layers, field)
    else:
        figure = new_figure(4.3 * columns, height)
        maps = list(figure.subplots(1, columns, squeeze=False)[0])
    limits = _limits(layers)
    for ax, (kind, layer) in zip(maps, layers.items(), strict=True):
        _draw_heatmap(figure, [ax], [layer], kind, limits)
        title = f"{plain(field)}: {KINDS[kind]}"
        ax.set_title(title + (_relative(layers) if kind == ERROR else ""), loc="left")
        ax.set_xlabel(_label(solution[horizontal]))
        ax.set_ylabel(_label(solution[vertical]))
        if aspect is not None:
            ax.set_aspect("equal")
    return figure


def _aspect(variable: "xr.DataArray", horizontal: str, vertical: str) -> float | None:
    """The plane's shape, if it is space with one unit both ways and not too slender to be drawn."""
    if "t" in (horizontal, vertical):
        return None
    x, y = variable[horizontal], variable[vertical]
    if x.attrs.get("units", "1") != y.attrs.get("units", "1"):
        return None
    ratio = float(np.ptp(y.to_numpy()) / max(np.ptp(x.to_numpy()), 1e-300))
    return ratio if 0.4 <= ratio <= 2.5 else None


def _draw_slices(layers: Mapping[str, "xr.DataArray"], field: str) -> "Figure":
    """Rows: solution, reference, error; columns: values of the last coordinate."""
    solution = layers[""]
    along = str(solution.dims[-1])
    picks = _picks(solution.sizes[along])
    flat = solution.isel({along: 0})
    horizontal, vertical = _plane(flat)
    equal = _aspect(flat, horizontal, vertical) is not None
    figure = new_figure(2.75 * len(picks) + 1.0, 2.6 * len(layers) + 0.9)
    axes = figure.subplots(len(layers), len(picks), sharex=True, sharey=True, squeeze=False)
    limits = _limits(layers)
    for row, (kind, layer) in zip(axes, layers.items(), strict=True):
        slices = [layer.isel({along: index}) for index in picks]
        _draw_heatmap(figure, list(row), slices, kind, limits)
        for ax, index in zip(row, picks, strict=True):
            if kind == "":
                ax.set_title(_at(solution[along], index))
            if equal:
                ax.set_aspect("equal")
        row[0].set_ylabel(f"{KINDS[kind]}\n{_label(solution[vertical])}")
    for ax in axes[-1]:
        ax.set_xlabel(_label(solution[horizontal]))
    return figure


def _picks(size: int) -> list[int]:
    """At most four indices, from first to last."""
    return sorted({round(index) for index in np.linspace(0, size - 1, SLICES)})


def _at(coordinate: "xr.DataArray", index: int) -> str:
    unit = str(coordinate.attrs.get("units", "1"))
    value = f"{float(coordinate[index]):.3g}"
    return plain(f"{coordinate.name} = {value}" + ("" if unit in ("1", "") else f" {unit}"))


def _relative(layers: Mapping[str, "xr.DataArray"]) -> str:
    """`, relative L2 3.1e-05`: the number that the case's tolerance is about."""
    there = np.isfinite(layers[REFERENCE].to_numpy())  # outside of a shape there is nothing
    norm = float(np.linalg.norm(layers[REFERENCE].to_numpy()[there]))
    error = float(np.linalg.norm(layers[ERROR].to_numpy()[there]))
    return f", relative L2 {error / norm:.1e}" if norm > 0 and np.isfinite(error) else ""


def _finite(values: NDArray[np.floating]) -> NDArray[np.floating]:
    values = values[np.isfinite(values)]
    return values if values.size else np.zeros(1)


def _limits(layers: Mapping[str, "xr.DataArray"]) -> tuple[float, float]:
    """One colour scale for solution and reference; the reference's, if there is one.

    A solution that has gone astray then shows as saturated, instead of flattening the reference.
    """
    values = _finite(layers[REFERENCE if REFERENCE in layers else ""].to_numpy())
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _draw_heatmap(
    figure: "Figure",
    axes: Sequence["Axes"],
    planes: Sequence["xr.DataArray"],
    kind: str,
    limits: tuple[float, float],
) -> None:
    """The same colour scale for all `planes`, and one bar to the right of the last axes."""
    from matplotlib.colors import Normalize

    horizontal, vertical = _plane(planes[0])
    arrays = [np.asarray(plane.transpose(vertical, horizontal).to_numpy()) for plane in planes]
    label = ""
    if kind != ERROR:
        colours, norm, extend = VALUES, Normalize(*limits), "neither"
        stacked = _finite(np.stack(arrays))
        slack = 0.02 * (limits[1] - limits[0])  # an arrow for what is out of scale, not for noise
        over, under = stacked.max() > limits[1] + slack, stacked.min() < limits[0] - slack
        extend = {(False, False): "neither", (True, False): "max", (False, True): "min"}.get(
            (bool(over), bool(under)), "both"
        )
    else:
        magnitude = _finite(np.abs(np.stack(arrays)))
        top = float(magnitude.max()) or 1.0
        median = float(np.median(magnitude))
        extend = "neither"
        if top > CONCENTRATED * median:
            floor = top * 10.0**-DECADES
            arrays = [np.log10(np.maximum(np.abs(array), floor)) for array in arrays]
            colours, norm = MAGNITUDE, Normalize(np.log10(floor), np.log10(top))
            label, extend = "log₁₀ |error|", "min"
        else:
            colours, norm = SIGNED, Normalize(-top, top)
    x, y = (planes[0][name].to_numpy() for name in (horizontal, vertical))
    mesh = None
    for ax, array in zip(axes, arrays, strict=True):
        # Gouraud shading interpolates as the fields do: no staircase on a coarse evaluation grid.
        # It cannot leave holes, so where values are missing the cells are drawn flat.
        smooth = bool(np.isfinite(array).all()) and min(array.shape) > 1
        mesh = ax.pcolormesh(
            x, y, array, cmap=colours, norm=norm, rasterized=True,
            shading="gouraud" if smooth else "nearest",
        )  # fmt: skip
        ax.set_facecolor("#b8bcc4")  # what is not finite
        ax.margins(0)
    assert mesh is not None
    bar = figure.colorbar(mesh, ax=list(axes), pad=0.02, extend=extend, label=label)
    bar.outline.set_visible(False)
    formatter = getattr(bar.formatter, "set_powerlimits", None)
    if formatter is not None:
        formatter((-2, 3))


def _draw_cuts(figure: "Figure", grid: Any, layers: Mapping[str, "xr.DataArray"], field: str):
    """The field over space at four times, over the reference: fronts and lag show at a glance."""
    solution = layers[""]
    vertical = next(str(name) for name in solution.dims if name != "t")
    first: Axes | None = None
    for column, index in enumerate(_picks(solution.sizes["t"])):
        ax = figure.add_subplot(grid[0, column], sharey=first)
        ax.plot(solution[vertical], solution.isel(t=index), color=COLOURS[0], label="solution")
        if REFERENCE in layers:
            ax.plot(
                solution[vertical], layers[REFERENCE].isel(t=index), "--",
                color=COLOURS[1], lw=1.3, label="reference",
            )  # fmt: skip
        ax.set_title(_at(solution["t"], index), loc="left", fontweight="normal")
        ax.set_xlabel(_label(solution[vertical]))
        ax.grid(True)
        ax.margins(x=0)
        if first is None:
            first = ax
            ax.set_ylabel(_label(solution, field))
            if REFERENCE in layers:
                ax.legend(loc="best")
        else:
            ax.tick_params(labelleft=False)


# --- convergence ----------------------------------------------------------------------------------


def draw_convergence(
    history: Sequence[Mapping[str, Any]], tolerance: float | None = None
) -> "Figure":
    """Loss and residuals, and beside them the relative L2 errors, over the step; log scale.

    Parameters:
        history: rows of `history.jsonl`; values that are missing or null leave gaps.
        tolerance: the case's tolerance on the relative L2 error, drawn as a line.
    """
    with styled():
        errors = series(history, "error")
        figure = new_figure(10.5 if errors else 6.5, 3.9)
        axes = figure.subplots(1, 2 if errors else 1, squeeze=False)[0]
        step = [row["step"] for row in history]
        log_line(axes[0], step, [row.get("loss") for row in history], "loss", INK, width=2.2)
        for colour, (block, values) in coloured(series(history, "residual").items()):
            log_line(axes[0], step, values, block, colour)
        finish_axes(axes[0], "Loss, and residual (rms) of each block", "step")
        if errors:
            for colour, (field, values) in coloured(errors.items()):
                log_line(axes[1], step, values, field, colour)
            if tolerance:
                tolerance_line(axes[1], tolerance)
            finish_axes(axes[1], "Relative L2 error", "step")
    return figure


def series(history: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[float | None]]:
    """The column of each name below `key` (blocks, fields), in the order of their appearance.

    >>> series([{"residual": {"a": 1.0}}, {"residual": {"a": 0.5, "b": 2.0}}], "residual")
    {'a': [1.0, 0.5], 'b': [None, 2.0]}
    """
    names = dict.fromkeys(name for row in history for name in row.get(key) or {})
    return {name: [(row.get(key) or {}).get(name) for row in history] for name in names}


def coloured(items: Iterable[T]) -> Iterator[tuple[str, T]]:
    """Each item with a colour; the palette starts again when it runs out."""
    return zip(itertools.cycle(COLOURS), items, strict=False)


def log_line(
    ax: "Axes",
    x: Sequence[Any] | NDArray[Any],
    y: Sequence[Any] | NDArray[Any],
    label: str,
    colour: str,
    width: float = 1.5,
) -> None:
    """Plot the positive ones of `y`; others leave gaps. A lone point gets a marker."""
    shown = [value if value is not None and value > 0 else np.nan for value in y]
    marker = "o" if np.isfinite(np.asarray(shown, float)).sum() == 1 else None
    # A leading underscore would hide the name from the legend.
    label = plain("\u200b" + label if label.startswith("_") else label)
    ax.plot(x, shown, color=colour, lw=width, label=label, marker=marker, markersize=4)


def tolerance_line(ax: "Axes", tolerance: float) -> None:
    """A dashed line at the case's tolerance, named in the legend."""
    ax.axhline(tolerance, color="#555b66", ls=(0, (4, 3)), lw=1.2, label=f"tolerance {tolerance:g}")


def finish_axes(ax: "Axes", title: str, label: str) -> None:
    """Log scale, grid, title and legend, as every convergence plot has them."""
    ax.set_yscale("log")
    ax.set_title(title, loc="left")
    ax.set_xlabel(label)
    ax.grid(True)
    ax.margins(x=0.02)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best", ncols=2 if len(ax.lines) > 4 else 1)
