"""Ginzburg-Landau energies with and without momentum: how many steps, and a picture.

    python benchmarks/phase_fields.py

A random start on a torus of 128 x 128 points parts into two phases; both methods take the same
steps, implicit in what is convex, and are asked how many bring the energy down to a level: 1.05
times the largest of what they end at. Seeds 0, 1 and 2. Results:
`benchmarks/results/phase_fields.json`; the picture, of seed 0 and of two moons that are parted from
four labels of each: `docs/img/phase_fields.png`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _machine import write

import pde
import sciopt
from cases._plot import COLOURS, new_figure, save, styled

ROOT = Path(__file__).resolve().parent.parent
POINTS, WIDTH, STEPS, EVERY = 128, 0.02, 1000, 20
LENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
MOMENTA = {"gradient flow": 0.0, "momentum 0.9": 0.9, "FISTA, restarted": None}


def descend(energy: pde.GinzburgLandau, optimizer, u, steps: int):
    """The fields after every so many steps, and the energy before each step."""

    def step(both, _):
        u, state = both
        updates, state = optimizer.update(energy.gradient(u), state, u)
        return (optax.apply_updates(u, updates), state), energy(u)

    def stretch(both, _):
        both, energies = jax.lax.scan(step, both, None, length=EVERY)
        return both, (both[0], energies)

    _, (fields, energies) = jax.lax.scan(
        stretch, (u, optimizer.init(u)), None, length=steps // EVERY
    )
    return fields, energies.ravel()


def separation(seed: int) -> dict:
    energy = pde.GinzburgLandau(pde.Torus([1.0, 1.0], [POINTS, POINTS]), WIDTH)
    start = jax.random.uniform(jax.random.key(seed), (POINTS, POINTS), minval=-1.0)
    paths = {}
    for length in LENGTHS:
        for name, momentum in MOMENTA.items():
            optimizer = sciopt.nesterov(length, energy.precondition(length), momentum)
            run = jax.jit(lambda u, o=optimizer: descend(energy, o, u, STEPS))
            paths[name, length] = tuple(map(np.asarray, run(start)))
    return paths


def level(paths: dict) -> float:
    # Stripes across the torus are minima too: a level that all come to.
    return 1.05 * max(energies.min() for _, energies in paths.values())


def moons(each: int = 200):
    rng = np.random.default_rng(0)
    angle = np.pi * rng.uniform(size=(2, each))
    upper = np.stack([np.cos(angle[0]), np.sin(angle[0])], 1)
    lower = np.stack([1 - np.cos(angle[1]), 0.5 - np.sin(angle[1])], 1)
    return np.concatenate([upper, lower]) + 0.1 * rng.normal(size=(2 * each, 2))


def parted(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phases of the points of two moons, from labels of four of each."""
    squares = np.sum((points[:, None] - points[None]) ** 2, -1)
    scale = np.sqrt(np.sort(squares, 1)[:, 10])
    weights = np.exp(-squares / (scale[:, None] * scale))
    np.fill_diagonal(weights, 0)
    given = np.arange(0, len(points), len(points) // 8)
    labels, fidelity = np.zeros(len(points)), np.zeros(len(points))
    labels[given], fidelity[given] = np.repeat([1.0, -1.0], 4), 30.0
    graph = pde.Graph(jnp.asarray(weights), modes=20)
    energy = pde.GinzburgLandau(graph, 4.0, jnp.asarray(labels), jnp.asarray(fidelity))
    optimizer = sciopt.nesterov(0.3, energy.precondition(0.3))
    fields, _ = descend(energy, optimizer, graph.vectors @ (graph.vectors.T @ labels), 300)
    return np.asarray(fields)[-1], given


def draw(paths: dict) -> None:
    with styled():
        figure = new_figure(12.5, 3.4)
        axes = figure.subplots(1, 4, width_ratios=(1, 1, 1.25, 1.25))
        for ax, name in zip(axes, ("gradient flow", "momentum 0.9"), strict=False):
            fields, _ = paths[name, 0.1]
            ax.imshow(fields[0], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{name}, {EVERY} steps", loc="left")
        for (name, _), colour in zip(MOMENTA.items(), COLOURS, strict=False):
            axes[2].plot(paths[name, 0.1][1], color=colour, label=name)
        axes[2].set(xscale="log", xlabel="steps of length 0.1", ylabel="energy", ylim=(0, 25))
        axes[2].grid(True)
        axes[2].legend()
        points = moons()
        u, given = parted(points)
        axes[3].scatter(*points.T, c=u, cmap="RdBu_r", vmin=-1, vmax=1, s=8)
        axes[3].scatter(*points[given].T, facecolors="none", edgecolors="k", s=45, label="labels")
        axes[3].set(xticks=[], yticks=[])
        axes[3].set_title("a graph, eight labels", loc="left")
        axes[3].legend(loc="lower left")
        save(figure, ROOT / "docs" / "img" / "phase_fields.png")


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    rows = []
    for seed in (0, 1, 2):
        paths = separation(seed)
        if seed == 0:
            draw(paths)
        aim = level(paths)
        for (name, length), (_, energies) in paths.items():
            below = energies <= aim
            rows.append({
                "seed": seed, "method": name, "length": length, "level": round(float(aim), 4),
                "steps": int(np.argmax(below)) if below.any() else None,
                "least": round(float(energies.min()), 4),
            })  # fmt: skip
            print(rows[-1])
    write(ROOT / "benchmarks" / "results" / "phase_fields.json", {"runs": rows})


if __name__ == "__main__":
    main()
