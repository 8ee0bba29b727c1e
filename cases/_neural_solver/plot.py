"""Pictures of a neural solver, from the arrays that its run has left."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._folder import RunFolder
from .._kinds import Table
from .._plot import COLOURS, INK, SIGNED, VALUES, draw_convergence, new_figure, plain, styled
from .._wording import number, seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arrays = dict[str, NDArray[Any]]

NAMES = ("median", "worst", "best")  # of the starts that are drawn


def figures(run: RunFolder) -> "Iterator[tuple[str, Figure]]":
    """`samples`, `errors` and `convergence`."""
    arrays = run.read_arrays()
    if arrays:
        with styled():
            lines = arrays["start"].ndim == 2
            yield "samples", (_draw_lines if lines else _draw_maps)(arrays)
            yield "errors", _draw_errors(arrays)
    if history := run.history.read():
        yield (
            "convergence",
            draw_convergence(history, tolerance=run.read_summary().get("tolerance")),
        )


def tables(run: RunFolder) -> list[Table]:
    """What the network and the simulation take for all of the starts, and errors by grid."""
    said = run.read_summary()
    if "seconds.network" not in said:
        return []
    points = run.read_case()["points"]
    rows = [(f"{points} points", number(said["error.u.relative_l2"]))]
    for key, error in said.items():
        if key.startswith("at_"):
            rows.append((key.split(".")[0].removeprefix("at_").replace("_", " "), number(error)))
    rows.append(("if nothing happened", number(said["unchanged.u.relative_l2"])))
    spent = [
        ("network", seconds(said["seconds.network"])),
        ("simulation", seconds(said["seconds.simulation"])),
    ]
    return [
        Table("Mean relative L2 error at the end", ("on", "error"), rows),
        Table("All of the test's starts", ("by", "takes"), spent),
    ]


def _axes(arrays: Arrays) -> list[tuple[str, NDArray[Any]]]:
    return [(n.removeprefix("u."), a) for n, a in arrays.items() if n.startswith("u.")]


def _title(arrays: Arrays, i: int) -> str:
    return f"{NAMES[i]}, error {arrays['shown'][i]:.1e}"


def _draw_lines(arrays: Arrays) -> "Figure":
    """Starts, what becomes of them, and what the network says; under each, the difference."""
    ((name, x),) = _axes(arrays)
    count = len(arrays["start"])
    figure = new_figure(3.4 * count + 0.6, 4.6)
    grid = figure.subplots(2, count, sharex=True, squeeze=False, height_ratios=(2.2, 1))
    for i in range(count):
        top, under = grid[0, i], grid[1, i]
        top.plot(x, arrays["start"][i], color="#aab1bd", lw=1.2, label="start")
        top.plot(x, arrays["aim"][i], color=INK, lw=2.4, label="simulation")
        top.plot(x, arrays["given"][i], "--", color=COLOURS[1], lw=1.6, label="network")
        top.set_title(_title(arrays, i), loc="left")
        under.plot(x, arrays["given"][i] - arrays["aim"][i], color=COLOURS[1], lw=1.2)
        under.set_xlabel(plain(name))
        for ax in (top, under):
            ax.grid(True)
    grid[0, 0].set_ylabel("u")
    grid[1, 0].set_ylabel("error")
    grid[0, 0].legend()
    return figure


def _draw_maps(arrays: Arrays) -> "Figure":
    """A row a start: the start, what becomes of it, what the network says, and the difference."""
    (name, x), (other, y) = _axes(arrays)
    count = len(arrays["start"])
    figure = new_figure(13.0, 2.7 * count + 0.4)
    grid = figure.subplots(count, 4, sharex=True, sharey=True, squeeze=False)
    for i in range(count):
        aim = arrays["aim"][i]
        span = (float(aim.min()), float(aim.max()))
        wrong = arrays["given"][i] - aim
        top = float(np.abs(wrong).max()) or 1.0
        layers = (
            ("start", arrays["start"][i], VALUES, None), ("simulation", aim, VALUES, span),
            ("network", arrays["given"][i], VALUES, span), ("error", wrong, SIGNED, (-top, top)),
        )  # fmt: skip
        for ax, (title, field, colours, limits) in zip(grid[i], layers, strict=True):
            low, high = limits or (float(field.min()), float(field.max()))
            drawn = ax.pcolormesh(
                x, y, field.T, cmap=colours, vmin=low, vmax=high, rasterized=True, shading="nearest"
            )
            figure.colorbar(drawn, ax=ax, pad=0.03, shrink=0.8)
            ax.set_aspect("equal")
            ax.set_title(_title(arrays, i) if title == "error" else title, loc="left")
        grid[i, 0].set_ylabel(plain(other))
    for ax in grid[-1]:
        ax.set_xlabel(plain(name))
    return figure


def _draw_errors(arrays: Arrays) -> "Figure":
    """How the starts' errors are spread, and how they grow as the network is applied again."""
    again = len(arrays["rollout"]) > 1
    figure = new_figure(9.0 if again else 5.0, 3.6)
    axes = figure.subplots(1, 1 + again, squeeze=False)[0]
    errors = arrays["errors"]
    bins = np.geomspace(errors.min(), errors.max() * (1 + 1e-9), 25)
    axes[0].hist(errors, bins=bins, color=COLOURS[0])
    axes[0].axvline(errors.mean(), color=INK, lw=1.2, ls="--", label=f"mean {errors.mean():.1e}")
    axes[0].set(xscale="log", xlabel="relative L2 error", ylabel="starts")
    axes[0].legend()
    if again:
        axes[1].plot(arrays["times"], arrays["rollout"], "o-", color=COLOURS[1])
        axes[1].set(xlabel="t", ylabel="mean relative L2 error", yscale="log")
        axes[1].set_title("applied to what it gave", loc="left")
        axes[1].grid(True)
    return figure
