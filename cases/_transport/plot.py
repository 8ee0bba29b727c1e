"""Pictures of a transport case, from the arrays that its run has left.

For each cost, what the plan does: on a line its density; in a space the arrows of the barycentric
map; between images the mass on its way; between pictures their colours exchanged; without
positions the entries themselves. And how errors fell.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._folder import RunFolder
from .._kinds import Table
from .._plot import COLOURS, INK, VALUES, finish_axes, log_line, new_figure, plain, styled
from .._wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arrays = dict[str, NDArray[Any]]

SOURCE, TARGET, OFFERED = COLOURS[0], COLOURS[1], "#9aa1ad"
# As many arrows and lines as an eye can follow.
ARROWS, LINES = 250, 400
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Rows of the table of iterations.
ROWS = 60


def figures(run: RunFolder) -> "Iterator[tuple[str, Figure]]":
    """Two for each cost of the case: `plan-<cost>` and `convergence-<cost>`."""
    arrays = run.read_arrays()
    summary = run.read_summary()
    for label in _labels(arrays):
        own = {k[len(label) + 1 :]: v for k, v in arrays.items() if k.startswith(f"{label}.")}
        own |= {k: v for k, v in arrays.items() if k.startswith(("source.", "target."))}
        with styled():
            yield f"plan-{label}", _draw_plan(own, label)
            draw = _draw_gap if "objectives" in own else _draw_errors
            yield f"convergence-{label}", draw(own, label, summary)


def tables(run: RunFolder) -> list[Table]:
    """The iterations of the solver, for each cost."""
    arrays, made = run.read_arrays(), []
    for label in _labels(arrays):
        if f"{label}.newton" not in arrays:
            continue
        errors, epsilons, newton = (
            arrays[f"{label}.{name}"] for name in ("errors", "epsilons", "newton")
        )
        rows = [
            (str(i + 1), "Newton step" if newton[i] else "sweep", f"{epsilons[i]:.2e}",
             number(errors[i]))
            for i in range(len(errors))
        ]  # fmt: skip
        if len(rows) > ROWS:
            half = ROWS // 2
            rows = [*rows[:half], ("…", "", "", ""), *rows[-half:]]
        title = f"Iterations for the cost {label}"
        made.append(Table(title, ("iteration", "kind", "epsilon", "marginal error"), rows))
    return made


def _labels(arrays: Arrays) -> list[str]:
    return [name.removesuffix(".forward") for name in arrays if name.endswith(".forward")]


def _draw_plan(arrays: Arrays, label: str) -> "Figure":
    draw: Callable[[Arrays, str], Figure]
    dimensions = arrays["source.points"].shape[1]
    grids = len(arrays["source.grid"]) == len(arrays["target.grid"]) == 2
    if "cost_paid" in arrays:
        draw = _draw_entries
    elif {"source_recoloured", "target_recoloured"} <= arrays.keys():
        draw = _draw_recoloured
    elif grids and "plan" in arrays:
        draw = _draw_interpolation
    elif dimensions == 1 and "plan" in arrays:
        draw = _draw_density
    else:
        draw = _draw_arrows
    return draw(arrays, label)


# --- plans ----------------------------------------------------------------------------------------


def _draw_density(arrays: Arrays, label: str) -> "Figure":
    """The plan over a square, both measures along its sides."""
    x, y = arrays["source.points"][:, 0], arrays["target.points"][:, 0]
    by_x, by_y = np.argsort(x), np.argsort(y)
    x, y, plan = x[by_x], y[by_y], arrays["plan"][np.ix_(by_x, by_y)]
    figure = new_figure(6.4, 5.6)
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 4.2], height_ratios=[1, 4.2])
    ax = figure.add_subplot(grid[1, 1])
    top, side = figure.add_subplot(grid[0, 1], sharex=ax), figure.add_subplot(grid[1, 0], sharey=ax)
    floor = plan.max() * 1e-5
    shown = np.log10(np.maximum(plan.T, floor))
    mesh = ax.pcolormesh(x, y, shown, cmap=VALUES, shading="nearest", rasterized=True)
    inside = np.isfinite(arrays["forward"][by_x, 0])
    ax.plot(
        x[inside], arrays["forward"][by_x, 0][inside], color="white", lw=1.2, ls="--",
        label="barycentric map",
    )  # fmt: skip
    ax.legend(loc="upper left", labelcolor="white")
    bar = figure.colorbar(mesh, ax=ax, pad=0.02, extend="min", label="log₁₀ of the plan's mass")
    bar.outline.set_visible(False)
    ax.set_xlabel("source x")
    ax.tick_params(labelleft=False)
    top.fill_between(x, arrays["source.weights"][by_x], color=SOURCE, alpha=0.75, lw=0)
    side.fill_betweenx(y, arrays["target.weights"][by_y], color=TARGET, alpha=0.75, lw=0)
    side.invert_xaxis()
    side.set_ylabel("target y")
    side.set_xlabel("mass")
    top.set_ylabel("mass")
    top.tick_params(labelbottom=False)
    top.set_ylim(bottom=0)
    top.set_title(plain(f"Plan for the cost {label}"), loc="left")
    return figure


def _draw_arrows(arrays: Arrays, label: str) -> "Figure":
    """Points, lines of the plan's largest entries, and arrows to the barycentres."""
    x, y, forward = arrays["source.points"], arrays["target.points"], arrays["forward"]
    if x.shape[1] == 1:
        x, y, forward = (np.hstack([p, np.zeros_like(p)]) for p in (x, y, forward))
    figure = new_figure(10.6, 5.2)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax in (left, right):
        ax.scatter(*y[:, :2].T, s=_sizes(arrays["target.weights"]), color=TARGET, lw=0, alpha=0.6,
                   label="target")  # fmt: skip
        ax.scatter(*x[:, :2].T, s=_sizes(arrays["source.weights"]), color=SOURCE, lw=0, alpha=0.8,
                   label="source")  # fmt: skip
        ax.set_aspect("equal", adjustable="box")
        ax.grid(True)
        ax.set_xlabel("x₁")
    if "plan" in arrays:
        _draw_lines(left, x, y, arrays["plan"])
        left.set_title(plain(f"Largest entries of the plan, cost {label}"), loc="left")
    left.set_ylabel("x₂")
    left.legend(loc="best")
    some = np.linspace(0, len(x) - 1, min(ARROWS, len(x))).round().astype(int)
    move = (forward - x)[some, :2]
    right.quiver(
        *x[some, :2].T, *move.T, angles="xy", scale_units="xy", scale=1, width=0.0025, color=INK,
        alpha=0.75,
    )  # fmt: skip
    title = "Barycentric map" + ("" if x.shape[1] <= 2 else f", two of {x.shape[1]} coordinates")
    right.set_title(title, loc="left")
    return figure


def _sizes(weights: NDArray[Any]) -> NDArray[Any]:
    return np.clip(14 * weights / weights.mean(), 2, 60) * min(1.0, (400 / len(weights)) ** 0.5)


def _draw_lines(ax: "Axes", x: NDArray[Any], y: NDArray[Any], plan: NDArray[Any]) -> None:
    from matplotlib.collections import LineCollection

    count = min(LINES, plan.size)
    largest = np.argpartition(plan.ravel(), -count)[-count:]
    i, j = np.unravel_index(largest, plan.shape)
    mass = plan[i, j]
    segments = np.stack([x[i, :2], y[j, :2]], axis=1)
    shade = [(0.13, 0.15, 0.18, a) for a in np.clip(0.7 * mass / mass.max(), 0.02, 0.7)]
    ax.add_collection(LineCollection(list(segments), colors=shade, linewidths=0.8, zorder=1))


def _draw_interpolation(arrays: Arrays, label: str) -> "Figure":
    """The mass at five times on its straight way; below, where each pixel's mass goes."""
    x, y, plan = arrays["source.points"], arrays["target.points"], arrays["plan"]
    height, width = np.maximum(arrays["source.grid"], arrays["target.grid"])
    i, j = np.nonzero(plan > 1e-9 * plan.max())
    mass = plan[i, j]
    figure = new_figure(11.0, 6.2)
    grid = figure.add_gridspec(2, 1, height_ratios=[1, 1.7])
    upper, lower = grid[0].subgridspec(1, len(TIMES)), grid[1].subgridspec(1, 2)
    for column, t in enumerate(TIMES):
        ax = figure.add_subplot(upper[0, column])
        at = (1 - t) * x[i] + t * y[j]
        ax.imshow(_splat(at, mass, height, width), cmap="gray_r", origin="lower", vmin=0)
        ax.set_title(f"t = {t:g}" + {0.0: " (source)", 1.0: " (target)"}.get(t, ""), loc="left")
        ax.set_xticks([])
        ax.set_yticks([])
        if not column:
            ax.set_ylabel("mass on its way")
    for column, (points, move, weights, title, colour) in enumerate(
        (
            (x, arrays["forward"] - x, arrays["source.weights"], "source to target", SOURCE),
            (y, arrays["back"] - y, arrays["target.weights"], "target to source", TARGET),
        )
    ):
        ax = figure.add_subplot(lower[0, column])
        ax.quiver(
            *points.T, *move.T, angles="xy", scale_units="xy", scale=1, width=0.004, color=colour,
            alpha=np.clip(weights / weights.max(), 0.1, 1),
        )  # fmt: skip
        ax.set(xlim=(-1, width), ylim=(-1, height), aspect="equal", xlabel="x [pixels]")
        ax.set_ylabel("y [pixels]")
        ax.set_title(f"Barycentric map, {title}", loc="left")
        ax.grid(True)
    figure.suptitle(plain(f"Plan for the cost {label}"), x=0.01, ha="left", weight="bold")
    return figure


def _splat(at: NDArray[Any], mass: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Mass at positions between pixels, shared among the four that are next."""
    picture = np.zeros((height + 1, width + 1))
    corner = np.floor(at).astype(int)
    part = at - corner
    for dx in (0, 1):
        for dy in (0, 1):
            share = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
            np.add.at(picture, (corner[:, 1] + dy, corner[:, 0] + dx), share * mass)
    return picture[:height, :width]


def _draw_recoloured(arrays: Arrays, label: str) -> "Figure":
    """Both pictures, and each in the colours of the other."""
    names = (
        ("source", "source"), ("source_recoloured", "source in the target's colours"),
        ("target", "target"), ("target_recoloured", "target in the source's colours"),
    )  # fmt: skip
    height, width = arrays["source"].shape[:2]
    figure = new_figure(10.0, 10.0 * height / width + 0.9)
    for ax, (name, title) in zip(figure.subplots(2, 2).ravel(), names, strict=True):
        ax.imshow(arrays[name])
        ax.set_title(title, loc="left")
        ax.axis("off")
    return figure


def _draw_entries(arrays: Arrays, label: str) -> "Figure":
    """Where the plan has mass, and which costs it pays among those that are offered."""
    figure = new_figure(10.6, 4.6)
    left, right = figure.subplots(1, 2)
    if "plan" in arrays:
        plan = arrays["plan"]
        if max(plan.shape) <= 100:
            mesh = left.imshow(plan * len(plan), cmap=VALUES, vmin=0, aspect="auto")
            bar = figure.colorbar(mesh, ax=left, pad=0.02, label="share of the row's mass")
            bar.outline.set_visible(False)
        else:
            i, j = np.nonzero(plan > 0.05 * plan.max())
            share = plan[i, j] / plan.max()
            left.scatter(j, i, s=9 * share, color=SOURCE, lw=0)
            left.set(xlim=(0, plan.shape[1]), ylim=(plan.shape[0], 0))
        left.set_xlabel("atom of the target")
        left.set_ylabel("atom of the source")
        left.set_title(plain(f"Plan for the cost {label}"), loc="left")
    edges = arrays["cost_edges"]
    middles = np.sqrt(edges[1:] * edges[:-1])
    for name, colour, title in (
        ("cost_offered", OFFERED, "all entries"), ("cost_paid", TARGET, "paid by the plan"),
    ):  # fmt: skip
        share = 100 * arrays[name] / arrays[name].sum()
        right.fill_between(middles, share, step="mid", color=colour, alpha=0.7, lw=0, label=title)
    right.set_xscale("log")
    right.set_ylim(bottom=0)
    right.set_xlabel("cost of an entry, in its unit")
    right.set_ylabel("share [%] in a bin")
    right.set_title("Costs offered, and paid", loc="left")
    right.grid(True)
    right.legend()
    return figure


# --- errors ---------------------------------------------------------------------------------------


def _draw_errors(arrays: Arrays, label: str, said: dict[str, Any]) -> "Figure":
    """The marginal error over iterations of either method; for the exact solver, the gap too."""
    with_gap = "gaps" in arrays
    figure = new_figure(10.5 if with_gap else 7.2, 4.2)
    axes = figure.subplots(1, 2 if with_gap else 1, squeeze=False)[0]
    errors = arrays["errors"]
    steps = arrays.get("iterations", np.arange(1, len(errors) + 1))
    name = "Sinkhorn" if "newton" not in arrays else "proximal" if with_gap else "sparse Newton"
    log_line(axes[0], steps, errors, name, SOURCE)
    if "newton" in arrays:
        newton = arrays["newton"].astype(bool)
        axes[0].plot(steps[newton], errors[newton], "o", ms=4, color=SOURCE, label="Newton steps")
    if "sinkhorn_errors" in arrays:
        log_line(
            axes[0], arrays["sinkhorn_iterations"], arrays["sinkhorn_errors"], "Sinkhorn (ott)",
            TARGET,
        )  # fmt: skip
        axes[0].set_xscale("log")
    finish_axes(axes[0], plain(f"Marginal error (L1), cost {label}"), "iteration")
    if with_gap:
        gaps = arrays["gaps"]
        scale = abs(float(said.get(f"{label}.transport_cost") or 1)) or 1.0
        steps = np.arange(1, len(gaps) + 1)
        log_line(axes[1], steps, gaps / scale, "duality gap", COLOURS[2])
        axes[1].plot(steps, gaps / scale, "o", ms=4, color=COLOURS[2])
        finish_axes(axes[1], "Duality gap, relative to the cost", "proximal step")
    return figure


def _draw_gap(arrays: Arrays, label: str, said: dict[str, Any]) -> "Figure":
    """The objective's excess over the number of steps, beside the slope that theory promises."""
    figure = new_figure(7.2, 4.2)
    ax = figure.subplots()
    steps, errors = arrays["iterations"], arrays["errors"]
    if "optimum" in arrays:
        optimum = float(arrays["optimum"])
        gap = np.abs(arrays["objectives"] - optimum) / (abs(optimum) or 1.0)
        name = "excess over the optimum, relative"
        if len(steps) > 2 and (gap > 0).all():
            name += f": slope {np.polyfit(np.log(steps), np.log(gap), 1)[0]:.2f}"
        log_line(ax, steps, gap, name, SOURCE)
        ax.plot(steps, gap, "o", ms=4, color=SOURCE)
        rate = np.sqrt(steps[0] / steps) * gap[0]
        ax.plot(steps, rate, ls=(0, (4, 3)), lw=1.2, color="#555b66", label="1/√t: slope -0.50")
    log_line(ax, steps, errors, "marginal error before rounding", COLOURS[2])
    ax.set_xscale("log")
    finish_axes(ax, plain(f"Mirror Sinkhorn, cost {label}"), "step t")
    return figure
