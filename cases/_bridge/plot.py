"""Pictures of a bridge, from the arrays that its run has left.

Draws of the ends beside the points that the method was shown, paths over the density that moves,
the drift at four times, how the error fell; and the density as it evolves, as an animation.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._folder import RunFolder
from .._kinds import Animation, Table
from .._plot import (
    COLOURS,
    INK,
    VALUES,
    coloured,
    finish_axes,
    log_line,
    new_figure,
    series,
    styled,
    tolerance_line,
)
from .._wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arrays = dict[str, NDArray[Any]]

SOURCE, TARGET, FITTED, LEFT_OUT = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3]
SHOWN_BETWEEN, GIVEN = COLOURS[4], "#8a909c"
# Arrays that are points of the space.
IN_SPACE = ("source", "target", "starts", "ends", "paths", "snapshot", "snapshot.drawn")
# Of arrays named after their times: the laws between the ends.
BETWEEN = "between."
# Points of a scatter that an eye can still tell apart.
POINTS = 1500
FRAMES_A_SECOND = 12


def figures(run: RunFolder) -> "Iterator[tuple[str, Figure | Animation]]":
    """`samples`, `trajectories`, `drift`, `convergence` and the animation `evolution`."""
    arrays = _arrays(run)
    line = bool(arrays) and arrays["starts"].shape[1] == 1
    with styled():
        if arrays:
            yield "samples", (_draw_histograms if line else _draw_samples)(arrays)
            yield "trajectories", (_draw_tube if line else _draw_paths)(arrays)
            yield "drift", (_draw_drift_on_a_line if line else _draw_drift)(arrays)
        history = [r for r in run.history.read() if r["residual"] or r.get("error")]
        if history:
            yield "convergence", _draw_convergence(history, run.read_summary())
        if arrays:
            yield "evolution", (_animate_line if line else _animate)(arrays)


def tables(run: RunFolder) -> list[Table]:
    """The judgements on the way."""
    rows = [
        (
            str(row["step"]), number(row.get("objective")) if "objective" in row else "",
            number(next(iter(row["residual"].values()), None)),
            number(next(iter(row["error"].values()), None)), f"{row['seconds']:.1f}",
        )
        for row in run.history.read()
        if row.get("error")
    ]  # fmt: skip
    head = ("step", "objective", "gradient", "error", "seconds")
    return [Table("The bridge on the way", head, rows)] if rows else []


def _arrays(run: RunFolder) -> Arrays:
    arrays = run.read_arrays()
    if arrays and arrays["plane"].shape[0] > 2:
        names = [*IN_SPACE, *(name for name in arrays if name.startswith(BETWEEN))]
        arrays |= {name: arrays[name] @ arrays["plane"] for name in names if name in arrays}
    return arrays


def _between(arrays: Arrays) -> list[tuple[str, NDArray[Any]]]:
    """Laws between the ends, by their times."""
    found = [name.removeprefix(BETWEEN) for name in arrays if name.startswith(BETWEEN)]
    return [(t, arrays[BETWEEN + t]) for t in sorted(found, key=float)]


def _names(arrays: Arrays) -> tuple[str, str]:
    """Labels of the axes."""
    if (d := len(arrays["plane"])) == 2:
        return "x₁", "x₂"
    return f"first principal axis of the target (of {d})", "second principal axis"


def _box(arrays: Arrays) -> tuple[float, float, float, float]:
    x, y = arrays["density.x"], arrays["density.y"]
    return float(x[0]), float(x[-1]), float(y[0]), float(y[-1])


def _slope(arrays: Arrays) -> float:
    """Height over width of what is drawn."""
    left, right, low, high = _box(arrays)
    return min(max((high - low) / (right - left), 0.4), 1.6)


def _frame(ax: "Axes", arrays: Arrays) -> None:
    left, right, low, high = _box(arrays)
    ax.set(xlim=(left, right), ylim=(low, high), aspect="equal", xlabel=_names(arrays)[0])
    ax.grid(True)


# --- ends -----------------------------------------------------------------------------------------


def _draw_samples(arrays: Arrays) -> "Figure":
    """What the method was shown, what it was not, and the bridge's draws then."""
    panels = [
        (arrays["source"], SOURCE, "Source, as shown to the method"),
        (arrays["target"], TARGET, "Target, as shown to the method"),
    ]
    if "snapshot" in arrays:
        t = float(arrays["snapshot.time"])
        panels += [
            (arrays["snapshot"], LEFT_OUT, f"Left out, t = {t:g}"),
            (arrays["snapshot.drawn"], FITTED, f"The bridge, t = {t:g}"),
        ]
    elif "unbalanced" in arrays:
        panels += [
            (arrays["starts"], FITTED, "Starts of the bridge"),
            (arrays["ends"], FITTED, "Ends of the bridge"),
        ]
    else:
        panels.append((arrays["ends"], FITTED, "Ends of the bridge, from fresh starts"))
    panels[1:1] = [(points, SHOWN_BETWEEN, f"Between, t = {t}") for t, points in _between(arrays)]
    if len(panels) > 4:
        short = ", as shown to the method"
        panels = [(points, hue, title.removesuffix(short)) for points, hue, title in panels]
    figure = new_figure(13.0, 1.1 + (12.4 / len(panels) - 0.25) * _slope(arrays))
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True)
    for ax, (points, colour, title) in zip(axes, panels, strict=True):
        ax.scatter(*points[:POINTS, :2].T, s=7, color=colour, alpha=0.45, lw=0)
        _frame(ax, arrays)
        ax.set_title(title, loc="left")
    axes[0].set_ylabel(_names(arrays)[1])
    return figure


def _draw_histograms(arrays: Arrays) -> "Figure":
    figure = new_figure(7.2, 4.0)
    ax = figure.subplots()
    edges = arrays["density.x"][::2].tolist()
    layers = [
        ("source", SOURCE, "source"), ("target", TARGET, "target"),
        ("ends", FITTED, "ends of the bridge"),
    ]  # fmt: skip
    if "snapshot" in arrays:
        t = float(arrays["snapshot.time"])
        layers[2:] = [
            ("snapshot", LEFT_OUT, f"left out, t = {t:g}"),
            ("snapshot.drawn", FITTED, f"the bridge, t = {t:g}"),
        ]
    for name, colour, label in layers:
        ax.hist(
            arrays[name][:, 0], edges, weights=arrays.get(f"{name}.weights"), density=True,
            histtype="step", lw=1.6, color=colour, label=label,
        )  # fmt: skip
    ax.set(xlabel="x", ylabel="density")
    ax.set_title("What the method was shown, and the bridge", loc="left")
    ax.grid(True)
    ax.legend()
    return figure


# --- paths ----------------------------------------------------------------------------------------


def _draw_paths(arrays: Arrays) -> "Figure":
    """Paths from a few starts, over both ends."""
    paths = arrays["paths"]
    figure = new_figure(7.4, 0.9 + 6.5 * _slope(arrays))
    ax = figure.subplots()
    unbalanced = "unbalanced" in arrays
    layers = [
        (arrays["starts"], SOURCE, "starts of the bridge" if unbalanced else "source"),
        (arrays["ends"], TARGET, "ends of the bridge"),
    ]
    if unbalanced:
        given = np.concatenate([arrays[name][: POINTS // 2] for name in ("source", "target")])
        layers.insert(0, (given, GIVEN, "source and target"))
    if "snapshot" in arrays and (t := float(arrays["snapshot.time"])) < 1:
        layers.insert(1, (arrays["snapshot"], LEFT_OUT, f"left out, t = {t:g}"))
    layers[1:1] = [(points, SHOWN_BETWEEN, f"shown, t = {t}") for t, points in _between(arrays)]
    for points, colour, label in layers:
        ax.scatter(
            *points[:POINTS, :2].T, s=9, color=colour, alpha=0.3, lw=0, label=label,
            rasterized=True,
        )  # fmt: skip
    for i in range(paths.shape[1]):
        label = "paths" if i == 0 else None
        ax.plot(*paths[:, i, :2].T, color="white", lw=2.2, alpha=0.7, zorder=3)
        ax.plot(*paths[:, i, :2].T, color=INK, lw=0.9, zorder=4, label=label)
    for at, colour in ((0, SOURCE), (-1, TARGET)):
        ax.scatter(
            *paths[at, :, :2].T, s=46, color=colour, edgecolors="white", lw=1.2, zorder=5
        )  # fmt: skip
    _frame(ax, arrays)
    ax.set_ylabel(_names(arrays)[1])
    ax.set_title("Paths of the bridge", loc="left")
    legend = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=4, markerscale=2)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(0.9)
    return figure


def _draw_tube(arrays: Arrays) -> "Figure":
    """On a line: the density over time, and paths on it."""
    figure = new_figure(8.4, 4.4)
    ax = figure.subplots()
    times, edges, density = arrays["density.times"], arrays["density.x"], arrays["density"]
    mesh = ax.pcolormesh(
        times, (edges[1:] + edges[:-1]) / 2, density.T, cmap=VALUES, shading="gouraud",
        vmax=np.quantile(density, 0.995), rasterized=True,
    )  # fmt: skip
    ax.plot(arrays["paths.times"], arrays["paths"][..., 0], color="white", lw=0.8, alpha=0.85)
    bar = figure.colorbar(mesh, ax=ax, pad=0.02, extend="max", label="density of draws")
    bar.outline.set_visible(False)
    ax.set(xlabel="t", ylabel="x")
    ax.set_title("Density of the bridge, and some of its paths", loc="left")
    return figure


# --- drift ----------------------------------------------------------------------------------------


def _draw_drift(arrays: Arrays) -> "Figure":
    """Arrows over the density: their length is the speed in each panel's own unit."""
    times, points, drift = arrays["drift.times"], arrays["drift.points"], arrays["drift"]
    figure = new_figure(13.0, 1.1 + 2.85 * _slope(arrays))
    axes = figure.subplots(1, len(times), sharex=True, sharey=True)
    left, right, low, high = _box(arrays)
    reach = 0.055 * max(right - left, high - low)
    for ax, t, x, b in zip(axes, times, points, drift, strict=True):
        frame = int(np.abs(arrays["density.times"] - t).argmin())
        density = arrays["density"][frame].T
        ax.imshow(
            density, cmap="Greys", origin="lower", extent=(left, right, low, high), alpha=0.55,
            vmax=1.4 * density.max(), interpolation="bilinear",
        )  # fmt: skip
        # Speeds where the bridge hardly ever is are not measured by, only cut.
        inside = _at(arrays, frame, x) > 0.01 * density.max()
        speed = np.hypot(*b.T)
        unit = float(np.quantile(speed[inside] if inside.any() else speed, 0.9)) or 1.0
        arrow = b / np.maximum(speed, unit)[:, None] * reach
        for chosen, shade in ((inside, 0.95), (~inside, 0.25)):
            ax.quiver(
                *x[chosen].T, *arrow[chosen].T, angles="xy", scale_units="xy", scale=1,
                color=SOURCE, alpha=shade, width=0.005, headwidth=4,
            )  # fmt: skip
        _frame(ax, arrays)
        ax.grid(False)
        ax.set_title(f"t = {t:.2g}   longest arrow: {unit:.2g}", loc="left", fontsize=10)
    axes[0].set_ylabel(_names(arrays)[1])
    figure.suptitle(
        "Drift over the bridge's density; pale where the bridge hardly ever is", x=0.01, ha="left",
        weight="bold", fontsize=10.5,
    )  # fmt: skip
    return figure


def _at(arrays: Arrays, frame: int, points: NDArray[Any]) -> NDArray[Any]:
    """The density of a frame in the cells of points."""
    cells = [
        np.clip(np.searchsorted(arrays[f"density.{axis}"], points[:, i]) - 1, 0, None)
        for i, axis in enumerate("xy")
    ]
    i, j = (np.minimum(c, n - 1) for c, n in zip(cells, arrays["density"].shape[1:], strict=True))
    return arrays["density"][frame][i, j]


def _draw_drift_on_a_line(arrays: Arrays) -> "Figure":
    figure = new_figure(7.2, 4.0)
    ax = figure.subplots()
    for colour, (t, x, b) in coloured(
        zip(arrays["drift.times"], arrays["drift.points"], arrays["drift"], strict=True)
    ):
        ax.plot(x[:, 0], b[:, 0], color=colour, label=f"t = {t:g}")
    ax.axhline(0, color="#8a909c", lw=0.8)
    ax.set(xlabel="x", ylabel="drift b(t, x)")
    ax.set_title("Drift of the bridge", loc="left")
    ax.grid(True)
    ax.legend()
    return figure


# --- errors ---------------------------------------------------------------------------------------


def _draw_convergence(history: list[dict[str, Any]], summary: dict[str, Any]) -> "Figure":
    """What the case promises, over seconds, and what the method looks at, over steps.

    Seconds of networks have the compilation in them: they go over steps.
    """
    errors, residuals = series(history, "error"), series(history, "residual")
    panels = bool(errors) + bool(residuals)
    figure = new_figure(2.5 + 4.0 * panels, 3.9)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    steps = [row["step"] for row in history]
    for colour, (name, values) in coloured(residuals.items()):
        log_line(axes[0], steps, values, name, colour)
        axes[0].plot(steps, values, "o", ms=3.5, color=colour)
        gradient = name == "gradient"
        title = (
            "Gradient of the objective (rms)" if gradient else "Marginal error of the static plan"
        )
        finish_axes(axes[0], title, "step")
        axes[0].xaxis.get_major_locator().set_params(integer=True)
    if len(residuals) == 1:
        axes[0].legend().remove()
    if errors:
        along = [row["fit_seconds"] for row in history] if residuals else steps
        ((name, values),) = errors.items()
        log_line(axes[-1], along, values, "this bridge", FITTED)
        axes[-1].plot(along, values, "o", ms=3.5, color=FITTED)
        if tolerance := summary.get("tolerance"):
            tolerance_line(axes[-1], tolerance)
        for key, label, colour in (
            ("floor", "two halves of the snapshot", SOURCE),
            ("from_source", "the source in its place", TARGET),
            ("from_target", "the target in its place", LEFT_OUT),
        ):
            if (value := summary.get(f"{name}.w2_{key}")) is not None:
                axes[-1].axhline(value, color=colour, lw=1.4, ls=":", label=label)
        title = "W₂ to the snapshot" if name == "snapshot" else "cBW₂²-UVP of the plan [%]"
        finish_axes(
            axes[-1], title, "seconds of the fit, without compiling" if residuals else "step"
        )
        if name == "snapshot":
            # Distances between samples have a floor: no decades to show.
            axes[-1].set_yscale("linear")
            axes[-1].set_ylim(bottom=0)
    for ax in axes:
        _name_few_ticks(ax)
    return figure


def _name_few_ticks(ax: "Axes") -> None:
    """On an axis of few decades name the twos and fives too, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    low, high = ax.get_ylim()
    if ax.get_yscale() == "log":
        few = high < 100 * low and low > 1e-4
        twos = FuncFormatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "25" else "")
        ax.yaxis.set_minor_formatter(twos if few else NullFormatter())
        if few:
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


# --- animation ------------------------------------------------------------------------------------


def _animate(arrays: Arrays) -> Animation:
    """The density of draws at each time; colours are scaled to the most of each frame."""
    density, times = arrays["density"], arrays["density.times"]
    left, right, low, high = _box(arrays)
    figure = new_figure(4.6, 0.8 + 3.9 * _slope(arrays))
    ax = figure.subplots()
    ax.set(xlabel=_names(arrays)[0], ylabel=_names(arrays)[1])
    image = ax.imshow(
        density[0].T, cmap=VALUES, origin="lower", extent=(left, right, low, high), vmin=0,
        interpolation="bilinear",
    )  # fmt: skip

    def draw(frame: int) -> None:
        shown = density[frame]
        image.set_data(shown.T)
        image.set_clim(0, float(shown.max()))
        ax.set_title(f"Density of the bridge, t = {times[frame]:.2f}", loc="left")

    return Animation(figure, len(times), draw, FRAMES_A_SECOND)


def _animate_line(arrays: Arrays) -> Animation:
    density, times, edges = arrays["density"], arrays["density.times"], arrays["density.x"]
    figure = new_figure(5.6, 3.4)
    ax = figure.subplots()
    middles = (edges[1:] + edges[:-1]) / 2
    (line,) = ax.plot(middles, density[0], color=SOURCE)
    ax.set(xlabel="x", ylabel="density", ylim=(0, 1.08 * float(density.max())))
    ax.margins(x=0)
    ax.grid(True)

    def draw(frame: int) -> None:
        line.set_ydata(density[frame])
        ax.set_title(f"Density of the bridge, t = {times[frame]:.2f}", loc="left")

    return Animation(figure, len(times), draw, FRAMES_A_SECOND)
