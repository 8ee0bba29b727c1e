"""Pictures of a learned solver, from the arrays that its run has left.

How many unseen instances are solved within so many iterations, by who sets omega; the omega that
the networks set, over each random number; and how they were trained.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._folder import RunFolder
from .._kinds import Table
from .._plot import COLOURS, INK, new_figure, plain, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arrays = dict[str, NDArray[Any]]

LEARNED, FIRST, FIXED, CLASSICAL, INSTANCE = (*COLOURS[:4], "#555b66")


def figures(run: RunFolder) -> "Iterator[tuple[str, Figure]]":
    """`iterations`, `omega` and `training`."""
    arrays = run.read_arrays()
    if not arrays:
        return
    with styled():
        yield "iterations", _draw_iterations(arrays)
        yield "omega", _draw_omega(arrays)
        yield "training", _draw_training(arrays)


def tables(run: RunFolder) -> list[Table]:
    """Mean iterations, by who sets omega."""
    said = run.read_summary()
    if "iterations.learned" not in said:
        return []
    best, rows = said["iterations.best_fixed"], []
    for name, key in (
        ("a network, trained on the number of iterations", "learned"),
        ("one trained on the residual after a fixed number", "classical"),
        (f"always {said['omega.first']:.3g}", "first_omega"),
        (f"the best fixed one, {said['omega.best_fixed']:.3g}", "best_fixed"),
        ("the best of the grid for each instance", "instance_optimal"),
    ):
        mean = said[f"iterations.{key}"]
        rows.append((name, f"{mean:.1f}", f"{100 * (mean / best - 1):+.1f} %"))
    head = ("omega is set by", "iterations", "over the best fixed")
    return [Table("Mean iterations on unseen instances", head, rows)]


def _rivals(arrays: Arrays) -> list[tuple[str, str, NDArray[Any]]]:
    """Name, colour and iterations of each instance."""
    costs, omega = arrays["costs"], arrays["omega"]
    best = int(costs.mean(axis=0).argmin())
    return [
        (f"always ω = {omega[0]:.3g}", FIRST, costs[:, 0]),
        (f"best fixed ω = {omega[best]:.3g}", FIXED, costs[:, best]),
        ("classical meta-learning", CLASSICAL, arrays["cost.classical"]),
        ("best ω of each", INSTANCE, costs.min(axis=1)),
        ("learned", LEARNED, arrays["cost.learned"]),
    ]


def _draw_iterations(arrays: Arrays) -> "Figure":
    figure = new_figure(10.5, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    rivals = _rivals(arrays)
    top = max(float(np.quantile(cost, 0.99)) for _, _, cost in rivals)
    for name, colour, cost in rivals:
        share = np.arange(1, len(cost) + 1) / len(cost)
        left.step(np.sort(cost), share, where="post", color=colour, label=name)
    left.set(xlabel="iterations", ylim=(0, 1.02), xlim=(1, top), xscale="log")
    left.set_title("Share of unseen instances solved", loc="left")
    left.grid(True)
    left.legend(loc="lower right")
    means = [cost.mean() for *_, cost in rivals]
    right.barh(range(len(means)), means, color=[colour for _, colour, _ in rivals], height=0.6)
    for k, mean in enumerate(means):
        right.annotate(f" {mean:.1f}", (mean, k), va="center")
    right.set_yticks(range(len(means)), labels=[name for name, *_ in rivals])
    right.set_xlim(0, 1.15 * max(means))
    right.set_title("Mean iterations", loc="left")
    return figure


def _draw_omega(arrays: Arrays) -> "Figure":
    names = [n.removeprefix("random.") for n in arrays if n.startswith("random.")]
    figure = new_figure(3.2 * len(names) + 0.6, 3.9)
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    tied = arrays["costs"] == arrays["costs"].min(axis=1, keepdims=True)
    middle = (tied * arrays["omega"]).sum(axis=1) / tied.sum(axis=1)
    for ax, name in zip(axes, names, strict=True):
        numbers = arrays[f"random.{name}"]
        for label, colour, omega in (
            ("best of the grid", INSTANCE, middle),
            ("classical meta-learning", CLASSICAL, arrays["omega.classical"]),
            ("learned", LEARNED, arrays["omega.learned"]),
        ):
            ax.scatter(numbers, omega, s=9, color=colour, lw=0, alpha=0.7, label=label)
        ax.set_xlabel(plain(name))
        if numbers.min() > 0 and numbers.max() > 30 * numbers.min():
            ax.set_xscale("log")
        ax.grid(True)
    axes[0].set_ylabel("ω")
    axes[0].set_title("ω of unseen instances", loc="left")
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5 * len(names), -0.17), ncols=3)
    return figure


def _draw_training(arrays: Arrays) -> "Figure":
    figure = new_figure(9.0, 3.4)
    left, right = figure.subplots(1, 2)
    for ax, name, colour, title in (
        (left, "learned", LEARNED, "Surrogate of the iterations"),
        (right, "classical", CLASSICAL, "Squared residual after a fixed number"),
    ):
        loss = arrays[f"loss.{name}"]
        ax.plot(np.arange(1, len(loss) + 1), loss, color=colour, lw=1.0)
        ax.set_title(title, loc="left", color=INK)
        ax.set_xlabel("step")
        ax.grid(True)
    right.set_yscale("log")
    return figure
