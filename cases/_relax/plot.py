"""Pictures of a relaxation case, from the arrays that its run has left.

The fields at a few times; what each step took, beside what other values of omega would have; and
which values the tuner chose, over what each of them costs.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._folder import RunFolder
from .._kinds import Table
from .._plot import COLOURS, INK, SIGNED, VALUES, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arrays = dict[str, NDArray[Any]]

CHOSEN, FIRST, FIXED, INSTANCE = COLOURS[0], COLOURS[1], COLOURS[2], "#555b66"
# What tuners are told of a system.
CONTEXTS = {
    "heat": "mean κ", "advection_diffusion": "Courant number", "navier_stokes": "",
}  # fmt: skip
# Columns of a map over steps, and the part of the steps that a moving mean is over.
COLUMNS, WINDOW = 400, 1 / 50


def figures(run: RunFolder) -> "Iterator[tuple[str, Figure]]":
    """The fields, `iterations`, and `omega`."""
    arrays = run.read_arrays()
    if not arrays or not len(arrays["cost"]):
        return
    with styled():
        dims = arrays["u"].ndim - 1
        if "vorticity" in arrays:
            yield "flow", _draw_flow(arrays)
        elif dims == 1:
            yield "u", _draw_lines(arrays)
        else:
            yield "u", _draw_maps(arrays)
        yield "iterations", _draw_iterations(arrays, CONTEXTS[run.read_case()["problem"]["type"]])
        yield "omega", _draw_omega(arrays)


def tables(run: RunFolder) -> list[Table]:
    """What the steps took, by who chooses omega."""
    said, rows = run.read_summary(), []
    if "iterations.best_fixed" not in said:
        return []
    best = said["iterations.best_fixed"]
    for name, key in (
        ("the tuner", "iterations"),
        (f"always {said['omega.first']:.3g}", "iterations.first_omega"),
        (f"the best fixed one, {said['omega.best_fixed']:.3g}", "iterations.best_fixed"),
        ("the best one of each step", "iterations.instance_optimal"),
    ):
        rows.append((name, str(said[key]), f"{100 * (said[key] / best - 1):+.1f} %"))
    return [Table("Iterations in all", ("omega is", "iterations", "over the best fixed"), rows)]


# --- fields ---------------------------------------------------------------------------------------


def _coordinates(arrays: Arrays, field: str) -> list[str]:
    return [name.removeprefix(f"{field}.") for name in arrays if name.startswith(f"{field}.")]


def _draw_lines(arrays: Arrays) -> "Figure":
    (name,) = _coordinates(arrays, "u")
    figure = new_figure(7.0, 4.0)
    ax = figure.subplots()
    for colour, time, u in zip(COLOURS, arrays["times"], arrays["u"], strict=False):
        ax.plot(arrays[f"u.{name}"], u, color=colour, label=f"t = {time:.3g}")
    if "u_exact" in arrays:
        ax.plot(arrays[f"u.{name}"], arrays["u_exact"], "--", color=INK, lw=1.2, label="exact")
    ax.set(xlabel=plain(name), ylabel="u")
    ax.grid(True)
    ax.legend()
    return figure


def _draw_maps(arrays: Arrays) -> "Figure":
    """The field at each time, in its middle plane if there are three axes, and the error."""
    fields, error = arrays["u"], None
    names = _coordinates(arrays, "u")
    if "u_exact" in arrays:
        error = fields[-1] - arrays["u_exact"]
    if len(names) == 3:
        middle = fields.shape[-1] // 2
        fields, error = fields[..., middle], None if error is None else error[..., middle]
    count = len(fields) + (error is not None)
    figure = new_figure(2.9 * count + 0.8, 3.2)
    axes = figure.subplots(1, count, squeeze=False)[0]
    x, y = (arrays[f"u.{name}"] for name in names[:2])
    _row(figure, list(axes[: len(fields)]), x, y, fields, arrays["times"], VALUES, "u")
    if error is not None:
        top = float(np.abs(error).max()) or 1.0
        _map(figure, axes[-1], x, y, error, SIGNED, (-top, top))
        axes[-1].set_title("error at the end", loc="left")
    for ax in axes:
        ax.set_xlabel(plain(names[0]))
    axes[0].set_ylabel(plain(names[1]))
    if len(names) == 3:
        figure.suptitle(plain(f"In the middle of {names[2]}"), x=0.01, ha="left")
    return figure


def _draw_flow(arrays: Arrays) -> "Figure":
    """Vorticity with streamlines, and pressure below it, at each time."""
    times, names = arrays["times"], _coordinates(arrays, "p")
    x, y = (arrays[f"p.{name}"] for name in names)
    left, below = (
        np.r_[1.5 * a[0] - a[1] / 2, (a[1:] + a[:-1]) / 2, 1.5 * a[-1] - a[-2] / 2] for a in (x, y)
    )
    height = 2.75 * float(np.clip(np.ptp(y) / np.ptp(x), 0.4, 2.0))
    figure = new_figure(2.75 * len(times) + 1.0, 2 * height + 0.9)
    axes = figure.subplots(2, len(times), sharex=True, sharey=True, squeeze=False)
    vorticity = arrays["vorticity"]
    # What a wall tears off may be larger by far than anything inside, and would leave it pale.
    top, most = (float(np.quantile(np.abs(vorticity), q)) for q in (1.0, 0.98))
    top = (most if top > 2 * most > 0 else top) or 1.0
    beyond = "both" if np.abs(vorticity).max() > 1.02 * top else "neither"
    _row(
        figure,
        list(axes[0]),
        left,
        below,
        vorticity,
        times,
        SIGNED,
        "vorticity",
        (-top, top),
        beyond,
    )
    u = (arrays["u"][:, 1:] + arrays["u"][:, :-1]) / 2
    v = (arrays["v"][:, :, 1:] + arrays["v"][:, :, :-1]) / 2
    for ax, a, b in zip(axes[0], u, v, strict=True):
        if np.hypot(a, b).max() > 0:
            ax.streamplot(
                x, y, a.T, b.T, color="#22262eaa", linewidth=0.6, density=0.9, arrowsize=0.6
            )
            ax.set(xlim=left[[0, -1]], ylim=below[[0, -1]])
    # Before the first step there is no pressure.
    shown = np.where(np.arange(len(times))[:, None, None] > 0, arrays["p"], np.nan)
    _row(figure, list(axes[1]), x, y, shown, None, VALUES, "pressure")
    axes[1][0].text(
        0.5, 0.5, "not known\nbefore a step", transform=axes[1][0].transAxes, ha="center",
        va="center", color="#555b66",
    )  # fmt: skip
    for ax in axes[1]:
        ax.set_xlabel(plain(names[0]))
    for row in axes:
        row[0].set_ylabel(plain(names[1]))
    return figure


def _row(
    figure: "Figure", axes: "list[Axes]", x, y, fields, times, colours: str, label: str,
    limits: tuple[float, float] | None = None, extend: str = "neither",
) -> None:  # fmt: skip
    """Fields of one scale side by side, with one bar."""
    if limits is None:
        finite = fields[np.isfinite(fields)]
        limits = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    mesh = None
    for i, (ax, field) in enumerate(zip(axes, fields, strict=True)):
        mesh = ax.pcolormesh(
            x, y, field.T, cmap=colours, vmin=limits[0], vmax=limits[1], rasterized=True,
            shading="gouraud" if np.isfinite(field).all() else "nearest",
        )  # fmt: skip
        ax.set_aspect("equal")
        ax.margins(0)
        if times is not None:
            ax.set_title(f"t = {times[i]:.3g}", loc="left")
        if i:
            ax.tick_params(labelleft=False)
    assert mesh is not None
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, label=label, extend=extend)
    bar.outline.set_visible(False)


def _map(figure: "Figure", ax: "Axes", x, y, field, colours: str, limits) -> None:
    mesh = ax.pcolormesh(
        x, y, field.T, cmap=colours, vmin=limits[0], vmax=limits[1], shading="gouraud",
        rasterized=True,
    )  # fmt: skip
    ax.set_aspect("equal")
    ax.margins(0)
    ax.tick_params(labelleft=False)
    bar = figure.colorbar(mesh, ax=ax, pad=0.02)
    bar.outline.set_visible(False)
    if (limit := getattr(bar.formatter, "set_powerlimits", None)) is not None:
        limit((-2, 3))


# --- iterations -----------------------------------------------------------------------------------


def _rivals(arrays: Arrays) -> list[tuple[str, str, NDArray[Any]]]:
    """Name, colour and iterations of each step, the tuner's last so that it is seen."""
    omega, found = arrays["omega"], []
    if "costs" in arrays:
        table = arrays["costs"]
        best = int(table.sum(axis=0).argmin())
        found = [
            (f"always ω = {omega[0]:.3g}", FIRST, table[:, 0]),
            ("best ω of each step", INSTANCE, table.min(axis=1)),
            (f"best fixed ω = {omega[best]:.3g}", FIXED, table[:, best]),
        ]
    return [*found, ("tuner", CHOSEN, arrays["cost"])]


def _draw_iterations(arrays: Arrays, context: str) -> "Figure":
    """Iterations of each step, over the context; and what they add up to."""
    varies = np.ptp(arrays["context"]) > 0
    figure = new_figure(11.0, 4.6)
    grid = figure.add_gridspec(2, 2, height_ratios=[3, 1])
    left = figure.add_subplot(grid[0 if varies else slice(None), 0])
    right = figure.add_subplot(grid[:, 1])
    steps = np.arange(1, len(arrays["cost"]) + 1)
    window = max(1, round(WINDOW * len(steps)))
    rivals = _rivals(arrays)
    for _, colour, cost in rivals:
        left.plot(steps, _smooth(cost, window), color=colour, lw=1.4, ls=_line(colour))
    left.set_ylim(bottom=0)
    mean = "" if window == 1 else f", mean of {window}"
    left.set_title(f"Iterations of a step{mean}", loc="left")
    fixed = next((cost for _, colour, cost in rivals if colour == FIXED), None)
    for name, colour, cost in rivals:
        gone = np.cumsum(cost - fixed) if fixed is not None else np.cumsum(cost)
        label = f"{name}: {cost.sum():,}"
        right.plot(steps, gone, color=colour, lw=1.6, ls=_line(colour), label=label)
    title = "Iterations in all" if fixed is None else "Iterations in all, over the best fixed ω"
    right.set_title(title, loc="left")
    right.set_xlabel("step")
    right.legend(loc="best")
    if varies:
        below = figure.add_subplot(grid[1, 0], sharex=left)
        below.plot(steps, arrays["context"], color=INK, lw=1.0)
        below.set_ylabel(context)
        below.set_xlabel("step")
        below.grid(True)
        left.tick_params(labelbottom=False)
    else:
        left.set_xlabel("step")
    for ax in (left, right):
        ax.grid(True)
        ax.margins(x=0.01)
    return figure


def _line(colour: str) -> Any:
    """Dashes where one line may lie on another."""
    return (0, (4, 3)) if colour == FIXED else "-"


def _draw_omega(arrays: Arrays) -> "Figure":
    """What was chosen, over what each omega costs."""
    chosen, omega = arrays["value"], arrays["omega"]
    steps = np.arange(1, len(chosen) + 1)
    window = max(1, round(WINDOW * len(steps)))
    figure = new_figure(9.5, 4.4)
    ax = figure.subplots()
    if "costs" in arrays and len(omega) > 1:
        table = _columns(arrays["costs"].astype(float))
        half = (omega[1] - omega[0]) / 2
        mesh = ax.imshow(
            np.log10(table.T), aspect="auto", origin="lower", cmap="Greys", interpolation="nearest",
            extent=(0.5, len(steps) + 0.5, omega[0] - half, omega[-1] + half),
        )  # fmt: skip
        bar = figure.colorbar(mesh, ax=ax, pad=0.02, label="iterations")
        bar.outline.set_visible(False)
        low, high = np.log10(table.min()), np.log10(table.max())
        ticks = np.linspace(low, high, 5)
        bar.set_ticks(ticks, labels=[f"{10**tick:.0f}" for tick in ticks])
        best = omega[int(arrays["costs"].sum(axis=0).argmin())]
        # In the middle of all values that are as good.
        tied = arrays["costs"] == arrays["costs"].min(axis=1, keepdims=True)
        middle = (tied * omega).sum(axis=1) / tied.sum(axis=1)
        ax.plot(steps, _smooth(middle, window), color=FIRST, lw=1.4, label="best ω of each step")
        label = f"best fixed ω = {best:.3g}"
        ax.axhline(best, color=FIXED, lw=1.8, ls=_line(FIXED), zorder=2.5, label=label)
    size = np.clip(8000 / len(steps), 1.6, 14.0)
    ax.scatter(steps, chosen, s=size, color=CHOSEN, lw=0, label="tuner's choice")
    if window > 1:
        mean = _smooth(chosen, window)
        ax.plot(steps, mean, color="white", lw=3.0)
        ax.plot(steps, mean, color=CHOSEN, lw=1.6, label=f"its mean over {window}")
    ax.set(xlabel="step", ylabel="ω", xlim=(0.5, len(steps) + 0.5))
    ax.set_title("Chosen ω, over what each costs", loc="left")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
    return figure


def _smooth(values: NDArray[Any], window: int) -> NDArray[Any]:
    """A moving mean; at the ends over what there is."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _columns(table: NDArray[Any]) -> NDArray[Any]:
    """Means over so many steps that no more than `COLUMNS` are left."""
    size = -(-len(table) // COLUMNS)
    starts = np.arange(0, len(table), size)
    counts = np.diff(np.r_[starts, len(table)])
    return np.add.reduceat(table, starts, axis=0) / counts[:, None]
