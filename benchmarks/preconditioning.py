"""Condition numbers and steps of gradient descent, before and after preconditioning.

    python benchmarks/preconditioning.py

The linear models of De Ryck et al. (ICLR 2024): Poisson by the number of modes and advection by
the speed, each plain and with rescaled waves; a network, with the remedies that are in use; and
the inverse Laplacian as a left preconditioner, of a linear model and of a network under Adam.
Results: `benchmarks/results/preconditioning.json`, `docs/img/preconditioning.png`.
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
from pde import preconditioning

jax.config.update("jax_enable_x64", True)
HERE = Path(__file__).parent
PI = float(np.pi)
TOLERANCE = 1e-3
WEIGHT = 0.01  # of the boundary


def poisson(modes):
    problem = pde.Problem(
        pde.Box(x=(-PI, PI)),
        ["u"],
        {"load": lambda v: v.u_xx + jnp.sin(v.x)},
        {"ends": pde.Dirichlet({"x": (-PI, PI)}, {"u": 0.0}, weight=WEIGHT, points=2)},
    )
    return problem, pde.FourierSeries(1, 1, modes=modes), 4 * modes


def advection(speed, modes=2):
    problem = pde.Problem(
        pde.Box(x=(0, 2 * PI), t=(0, 2 * PI)),
        ["u"],
        {"transport": lambda v: v.u_t + speed * v.u_x},
        {"start": pde.Initial({"u": lambda v: jnp.sin(v.x)}, weight=WEIGHT, points=64)},
    )
    times = speed * modes  # as fast as the fastest wave
    return problem, pde.FourierSeries(2, 1, modes=(modes, times)), (2 * times + 2) ** 2


def linear(problem, series, points):
    """Condition number and steps to the tolerance, plain and rescaled."""
    row = {}
    for name in ("plain", "rescaled"):
        pinn = pde.PINN(problem, series, points=points, sampler=pde.Grid())
        drawn = pinn.sample(jax.random.key(0), pinn.params)
        found = preconditioning.spectrum(pinn.residuals, pinn.params, drawn)["all"]
        _, jacobian = pinn.residuals.jacobian(pinn.params, drawn)
        row[name] = {"condition": found.condition, "steps": steps(np.asarray(jacobian))}
        series = series.rescaled(preconditioning.diagonal(pinn, drawn))
    return row


def steps(jacobian):
    """Of gradient descent with the best constant step, until an error of one in each coefficient
    has shrunk to the tolerance: in closed form, since an error follows the eigenvectors."""
    values, vectors = np.linalg.eigh(jacobian.T @ jacobian)
    shrink = np.abs(1 - 2 * values / (values[-1] + values[0]))
    error = vectors.T @ np.ones(values.size)
    low, high = 0, 1
    size = lambda k: np.linalg.norm(error * shrink**k) / np.linalg.norm(error)  # noqa: E731
    while size(high) > TOLERANCE:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) > TOLERANCE else (low, middle)
    return high


def network(start):
    """Advection at speed 5, by a network, with its initial condition in some way."""
    problem = pde.Problem(
        pde.Box(x=(0, 2 * PI), t=(0, 1)),
        ["u"],
        {"transport": lambda v: v.u_t + 5 * v.u_x},
        {"start": start, "wrap": pde.Periodic("x", hard=True)},
    )
    net = pde.MLP(pde.Features(problem).size, 1, width=16, depth=2, key=jax.random.key(0))
    pinn = pde.PINN(problem, net, points=512)
    return preconditioning.spectrum(
        pinn.residuals, pinn.params, pinn.sample(jax.random.key(1), pinn.params)
    )


def remedies():
    def sine(v):
        return jnp.sin(v.x)

    soft = network(pde.Initial({"u": sine}, points=64))
    ratio = float(soft["transport"].eigenvalues[0] / soft["start"].eigenvalues[0])
    found = {
        "soft": soft["all"],
        "soft, weights balanced": network(pde.Initial({"u": sine}, points=64, weight=ratio))["all"],
        "hard": network(pde.Initial({"u": sine}, hard=True))["all"],
    }
    rows = {
        name: {
            "rank": s.rank, "parameters": s.size, "condition": s.condition,
            "of largest, above 1e-3": s.learned(1_000), "above 1e-6": s.learned(1_000_000),
        }
        for name, s in found.items()
    }  # fmt: skip
    values = np.asarray(found["hard"].eigenvalues)
    for damping in (1e-4, 1e-8, 1e-12):
        shrunk = values / (values + damping * values[0])
        rows[f"hard, Gauss-Newton damped by {damping:.0e}"] = {
            "above 1e-3": int(np.sum(shrunk > 1e-3)), "above 0.5": int(np.sum(shrunk > 0.5)),
        }  # fmt: skip
    return rows, found


def left_linear(modes):
    """-u'' + (2 + cos x) u on a period, whose lower terms no rescaling removes."""
    problem = pde.Problem(
        pde.Box(x=(-PI, PI)), ["u"],
        {"load": lambda v: -v.u_xx + (2 + jnp.cos(v.x)) * v.u}, {},
    )  # fmt: skip
    row = {}
    for name, power in (("plain", 0.0), ("power 1/2", 0.5), ("power 1", 1.0)):
        solve = preconditioning.InverseLaplacian(
            problem.domain, 4 * modes, {"x": "periodic"}, power
        )
        pinn = pde.PINN(
            problem, pde.FourierSeries(1, 1, modes=modes), points=4 * modes, sampler=pde.Grid(),
            left={"load": solve},
        )  # fmt: skip
        drawn = pinn.sample(jax.random.key(0), pinn.params)
        found = preconditioning.spectrum(pinn.residuals, pinn.params, drawn)["all"]
        row[name] = found.condition
    return row


def left_network(most=30_000, every=250, seeds=(0, 1, 2)):
    """Poisson on a square by a network under Adam: steps to a relative error of 1e-2, then 1e-3."""

    def exact(x, y):
        return jnp.sin(PI * x) * jnp.sin(PI * y) + 0.25 * jnp.sin(4 * PI * x) * jnp.sin(3 * PI * y)

    def load(v):
        first = jnp.sin(PI * v.x) * jnp.sin(PI * v.y)
        second = jnp.sin(4 * PI * v.x) * jnp.sin(3 * PI * v.y)
        return v.u_xx + v.u_yy + PI**2 * (2 * first + 25 / 4 * second)

    problem = pde.Problem(
        pde.Box(x=(0, 1), y=(0, 1)), ["u"], {"load": load},
        {"sides": pde.Dirichlet({"x": (0, 1), "y": (0, 1)}, {"u": 0.0}, hard=True)},
    )  # fmt: skip
    axis = jnp.linspace(0, 1, 41)
    truth = exact(axis[:, None], axis[None])
    rows = {}
    for name, power in (("plain", 0.0), ("power 1/2", 0.5), ("power 1", 1.0)):
        solve = preconditioning.InverseLaplacian(problem.domain, 256, power=power)
        taken: dict[str, dict[str, list]] = {}
        spectra = []
        for rate, seed in ((r, s) for r in (1e-3, 1e-2) for s in seeds):
            net = pde.MLP(2, 1, width=24, depth=2, key=jax.random.key(seed))
            pinn = pde.PINN(problem, net, points=256, sampler=pde.Grid(), left={"load": solve})
            if rate == 1e-3:
                drawn = pinn.sample(jax.random.key(0), pinn.params)
                found = preconditioning.spectrum(pinn.residuals, pinn.params, drawn)["all"]
                values = np.asarray(found.eigenvalues)
                spectra.append(
                    {
                        "first over 20th": float(values[0] / values[19]),
                        "first over 50th": float(values[0] / values[49]),
                        "above 1e-3": found.learned(1_000), "above 1e-6": found.learned(1_000_000),
                    }
                )  # fmt: skip
            fit = sciopt.Fit(pinn.residuals, optax.adam(rate), pinn.sample, jax.random.key(1))
            state, reached, step, best = fit.init(pinn.params), {}, 0, np.inf
            while step < most and len(reached) < 2:
                state, step = fit.advance(state, every), step + every
                u = pinn.field(state.params).on_grid({"x": axis, "y": axis})["u"]
                error = float(jnp.linalg.norm(u - truth) / jnp.linalg.norm(truth))
                best = min(best, error)
                for target in (1e-2, 1e-3):
                    if error <= target:
                        reached.setdefault(f"{target:.0e}", step)
            mine = taken.setdefault(f"{rate:.0e}", {"1e-02": [], "1e-03": [], "best": []})
            for target in ("1e-02", "1e-03"):
                mine[target].append(reached.get(target))
            mine["best"].append(best)
        rows[name] = {"spectra": spectra, "steps of Adam, by its rate": taken}
        print(name, rows[name], flush=True)
    return rows


def draw(tables, found):
    with styled():
        figure = new_figure(10.5, 3.6)
        axes = figure.subplots(1, 3)
        labels = {"poisson": ("modes K", 4), "advection": ("speed c", 2)}
        for ax, (name, (label, power)) in zip(axes, labels.items(), strict=False):
            sizes = np.array(list(tables[name]), float)
            for colour, kind in zip(COLOURS, ("plain", "rescaled"), strict=False):
                ax.loglog(sizes, [r[kind]["condition"] for r in tables[name].values()], "o-",
                          color=colour, label=kind)  # fmt: skip
            first = next(iter(tables[name].values()))["plain"]["condition"]
            ax.loglog(sizes, first * (sizes / sizes[0]) ** power, ":", color="#555555",
                      label=f"power {power}")  # fmt: skip
            ax.set(title=name.capitalize(), xlabel=label, ylabel="condition number")
            ax.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
            ax.minorticks_off()
            ax.legend()
        for colour, (name, spectrum) in zip(COLOURS, found.items(), strict=False):
            values = np.asarray(spectrum.eigenvalues)[: spectrum.rank]
            axes[2].semilogy(values, color=colour, label=name)
        axes[2].set(title="Advection by a network", xlabel="index", ylabel="eigenvalue")
        axes[2].legend()
        save(figure, HERE.parent / "docs" / "img" / "preconditioning.png")


def main():
    tables = {
        "poisson": {k: linear(*poisson(k)) for k in (4, 8, 16, 32, 64)},
        "advection": {c: linear(*advection(c)) for c in (2, 4, 8, 16)},
    }
    rows, found = remedies()
    for name, table in (tables | {"network": rows}).items():
        print(name, *table.items(), sep="\n  ")
    left = {k: left_linear(k) for k in (8, 16, 32)}
    print("left", *left.items(), sep="\n  ")
    tables |= {"left, linear": left, "left, network": left_network()}
    record = {"tolerance": TOLERANCE, "weight of the boundary": WEIGHT, **tables, "network": rows}
    write(HERE / "results" / "preconditioning.json", record)
    draw(tables, found)


if __name__ == "__main__":
    main()
