"""Tuners of omega on the two sequences of systems of *Learning to Relax* (arXiv:2310.02246).

    python benchmarks/relax_heat.py family
    python benchmarks/relax_heat.py heat [--points 24]
    python benchmarks/relax_heat.py overhead

After the authors' code (mkhodak/learning-to-relax), which this does not copy:

- `family`, their `scripts/contextual.m`: 5000 systems delsq(numgrid('S', 12)) + c I with
  c = -0.15 + 0.6 Beta(1/2, 3/2) and Gaussian right-hand sides, by SOR from zero in natural order
  until the residual has fallen by 1e-8. The context is c. Their truncation of the Gaussian changes
  its length only, of which the counts are independent.
- `heat`, their `scripts/h2d.m`: 5000 steps of Crank-Nicolson to t = 5 on the unit square, with
  conductivity max(sin(2 pi t) / 10, -10 sin(2 pi t)), a moving bump as the source, and
  SSOR-preconditioned CG in natural order from the last step's solution to 1e-8 |b|. The context
  is the conductivity.
- `overhead`: choosing and learning, timed against a solve of `heat` on 256 by 256 points.

20 values of omega on [1, 1.95], three seeds, everything inside `jit` and `scan`. "Best fixed" is
the value that would have cost least in all, "instance-optimal" the best of the 20 for each system,
and "Young" the authors' instance-optimal omega of `family`, Young's formula.
Results: `benchmarks/results/relax_heat.json`, and the tables in `docs/relaxation.md`.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from _machine import publish, write

from sciopt import relax

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/relax_heat.json"
PAGE = ROOT / "docs/relaxation.md"
ARMS, ROUNDS, SEEDS, TOLERANCE = 20, 5000, 3, 1e-8
OMEGAS = np.linspace(1.0, 1.95, ARMS)


def tuners(lower: float, upper: float, bins: int) -> dict[str, relax.AbstractTuner]:
    """The bins of Tsallis-INF-CB are the authors': 5 for `family`, 6 for `heat`."""
    return {
        "TsallisINF": relax.TsallisINF(ARMS),
        "TsallisINF(reduced_variance=False)": relax.TsallisINF(ARMS, reduced_variance=False),
        "Binned(TsallisINF)": relax.Binned(relax.TsallisINF(ARMS), bins, lower, upper),
        "ChebCB": relax.ChebCB(ARMS, lower, upper),
        "EXP3": relax.EXP3(ARMS),
        "UCB1": relax.UCB1(ARMS),
        "Thompson": relax.Thompson(ARMS),
        "EpsilonGreedy": relax.EpsilonGreedy(ARMS),
        "Constant, omega = 1": relax.Constant(0),
    }


@jax.jit
def sweeps(omegas, shifts, vectors):
    """Of SOR, for every system of the family. In batches of like ones, which end together."""

    def batch(systems):
        omegas, shifts, b = systems

        def prepare(shift):
            operator = relax.Stencil.laplacian((10, 10), spacing=1.0, shift=shift)
            return relax.SOR(ordering="natural").prepare(operator)

        def relaxed(omega, splitting, x, b):
            return relax.SOR(omega=omega, ordering="natural").relax(splitting, x, b)

        splittings = jax.vmap(prepare)(shifts)
        b = jax.vmap(lambda splitting, b: splitting.pack(b))(splittings, b)

        def norms(x):
            residuals = jax.vmap(lambda splitting, x, b: splitting.residual(x, b))(splittings, x, b)
            return jnp.sqrt(jnp.sum(residuals**2, axis=(1, 2)))

        target = TOLERANCE * norms(jnp.zeros_like(b))

        def step(carry):
            x, going, count = carry
            x = jax.vmap(relaxed)(omegas, splittings, x, b)
            return x, norms(x) > target, count + going

        start = jnp.zeros_like(b), jnp.full(len(b), True), jnp.zeros(len(b))
        return jax.lax.while_loop(lambda carry: carry[1].any(), step, start)[2]

    order = jnp.argsort(shifts)
    inputs = [x[order].reshape(-1, 250, *x.shape[1:]) for x in (omegas, shifts, vectors)]
    return jnp.zeros(len(shifts)).at[order].set(jax.lax.map(batch, tuple(inputs)).reshape(-1))


@eqx.filter_jit
def play(tuner, table, contexts, key):
    """The choices against a table of what each arm costs each round."""

    def round(state, inputs):
        costs, context, key = inputs
        choice = tuner.choose(state, context, key)
        return tuner.update(state, choice, context, costs[choice]), choice

    keys = jax.random.split(key, len(table))
    return jax.lax.scan(round, tuner.init(), (table, contexts, keys))[1]


@eqx.filter_jit
def solve_family(tuned, shifts, vectors, key):
    """What the solves of a tuned SOR cost, to compare with the table."""

    def round(state, inputs):
        shift, b, key = inputs
        operator = relax.Stencil.laplacian((10, 10), spacing=1.0, shift=shift)
        solution, state = tuned.solve(operator, b, state, key, shift)
        return state, solution.stats["cost"]

    inputs = shifts, vectors, jax.random.split(key, len(shifts))
    return jax.lax.scan(round, tuned.init(), inputs)[1]


def family() -> dict:
    runs = []
    for seed in range(SEEDS):
        one, two, play_key = jax.random.split(jax.random.key(seed), 3)
        contexts = -0.15 + 0.6 * jax.random.beta(one, 0.5, 1.5, (ROUNDS,))
        vectors = jax.random.normal(two, (ROUNDS, 10, 10))
        young = relax.optimal_omega(4 * jnp.cos(jnp.pi / 11) / (4 + contexts))
        table = [sweeps(jnp.full(ROUNDS, omega), contexts, vectors) for omega in OMEGAS]
        table = jnp.stack(table, axis=1)
        costs = {}
        for name, tuner in tuners(-0.15, 0.65, 5).items():
            choices = play(tuner, table, contexts, play_key)
            costs[name] = np.asarray(table[jnp.arange(ROUNDS), choices])
        if seed == 0:
            solver = relax.SOR(ordering="natural", max_steps=4000)
            tuned = relax.Tuned(solver, tuners(-0.15, 0.65, 5)["ChebCB"], jnp.asarray(OMEGAS))
            solved = solve_family(tuned, contexts[:300], vectors[:300], play_key)
            choices = play(tuned.tuner, table[:300], contexts[:300], play_key)
            assert (solved == table[jnp.arange(300), choices]).all()
        runs.append(
            account(table, costs) | {"young": float(sweeps(young, contexts, vectors).sum())}
        )
        print(json.dumps({k: v for k, v in runs[-1].items() if k != "regret"}), flush=True)
    return {"systems": ROUNDS, "seeds": runs}


def account(table, costs: dict) -> dict:
    """Totals, and regret against the best fixed arm as it grows."""
    table = np.asarray(table)
    best = int(relax.hindsight_best(jnp.asarray(table)))
    when = np.unique(np.geomspace(50, len(table), 12).astype(int))
    return {
        "best_omega": float(OMEGAS[best]),
        "best_fixed": float(table[:, best].sum()),
        "instance_optimal": float(table.min(axis=1).sum()),
        "totals": {name: float(cost.sum()) for name, cost in costs.items()},
        "rounds": when.tolist(),
        "regret": {
            name: (cost - table[:, best]).cumsum()[when - 1].tolist()
            for name, cost in costs.items()
        },
    }


def conductivity(t):
    wave = jnp.sin(2 * jnp.pi * t)
    return jnp.maximum(0.1 * wave, -10 * wave)


class Heat(eqx.Module):
    """Crank-Nicolson's systems on n by n points within the unit square."""

    points: int = eqx.field(static=True)
    dt: float = 1e-3

    def bump(self, centre, radius):
        x = jnp.arange(1, self.points + 1) / (self.points + 1)
        square = (x[:, None] - centre[0]) ** 2 + (x - centre[1]) ** 2
        inside = jnp.minimum(square / radius**2, 1)
        return jnp.where(inside < 1, jnp.exp(1 - 1 / jnp.where(inside < 1, 1 - inside, 1)), 0)

    def initial(self):
        return self.bump((0.5, 0.5), 0.25)

    def system(self, step, u):
        t = (step + 0.5) * self.dt
        shape, spacing = (self.points, self.points), 1 / (self.points + 1)
        half = relax.Stencil.laplacian(shape, spacing, 0.5 * self.dt * conductivity(t), shift=1.0)
        angle = 16 * jnp.pi * t
        source = 32 * self.bump((0.5 + jnp.cos(angle) / 4, 0.5 + jnp.sin(angle) / 4), 0.125)
        # (1 - C) u = 2u - (1 + C) u.
        return half, 2 * u - half.mv(u) + self.dt * source, conductivity(step * self.dt)


SOLVER = relax.CG(
    preconditioner=relax.SSOR(omega=1.0, ordering="natural"), rtol=TOLERANCE, max_steps=400
)


def omega_of(solver):
    return solver.preconditioner.omega


@eqx.filter_jit
def heat_table(heat: Heat):
    """What each omega costs at each step of one trajectory."""

    def step(u, k):
        operator, b, context = heat.system(k, u)

        def solve(omega):
            solver = eqx.tree_at(omega_of, SOLVER, omega)
            found = lx.linear_solve(operator, b, solver, options={"y0": u}, throw=False)
            return found.value, found.stats["num_steps"]

        values, steps = jax.vmap(solve)(jnp.asarray(OMEGAS))
        return values[ARMS // 2], (jnp.maximum(steps, 1).astype(float), context)

    return jax.lax.scan(step, heat.initial(), jnp.arange(ROUNDS))[1]


@eqx.filter_jit
def simulate(heat: Heat, tuned, keys):
    """The costs of the solves of a tuned simulation, for several keys at once."""

    def one(key):
        def step(carry, inputs):
            u, state = carry
            k, key = inputs
            operator, b, context = heat.system(k, u)
            solution, state = tuned.solve(
                operator, b, state, key, context, options={"y0": u}, throw=False
            )
            return (solution.value, state), solution.stats["cost"]

        inputs = jnp.arange(ROUNDS), jax.random.split(key, ROUNDS)
        return jax.lax.scan(step, (heat.initial(), tuned.init()), inputs)[1]

    return jax.vmap(one)(keys)


def heat(points: int) -> dict:
    table, _ = heat_table(Heat(points))
    keys = jax.random.split(jax.random.key(0), SEEDS)
    costs = {}
    for name, tuner in tuners(0.0, 10.0, 6).items():
        tuned = relax.Tuned(SOLVER, tuner, jnp.asarray(OMEGAS), omega_of)
        begin = time.perf_counter()
        costs[name] = np.asarray(simulate(Heat(points), tuned, keys))
        seconds = time.perf_counter() - begin
        print(name, costs[name].sum(axis=1), f"{seconds:.0f} s", flush=True)
    runs = [account(table, {name: cost[s] for name, cost in costs.items()}) for s in range(SEEDS)]
    return {"systems": ROUNDS, "points": points, "seeds": runs}


def overhead() -> dict:
    """Seconds a round, medians: the tuner's choice and update alone, and a solve at 256^2."""
    shown = Heat(256)
    u = shown.initial()
    seconds = {}
    for t, name in ((0.1, "slow diffusion"), (0.75, "fast diffusion")):
        operator, b, _ = shown.system(round(t / shown.dt), u)
        tuned = relax.Tuned(SOLVER, relax.Constant(10), jnp.asarray(OMEGAS), omega_of)
        solve = eqx.filter_jit(lambda operator, b, tuned=tuned: tuned.solve(
            operator, b, None, jax.random.key(0), options={"y0": u})[0].value)  # fmt: skip
        seconds[f"solve, {name}"] = timed(lambda solve=solve, s=(operator, b): solve(*s), 5)
    table = 20 + 10 * jax.random.uniform(jax.random.key(1), (ROUNDS, ARMS))
    contexts = jax.random.uniform(jax.random.key(2), (ROUNDS,))
    for name, tuner in tuners(0.0, 1.0, 6).items():
        run = timed(lambda tuner=tuner: play(tuner, table, contexts, jax.random.key(0)), 3)
        seconds[name] = run / ROUNDS
    return seconds


def timed(run, times: int) -> float:
    jax.block_until_ready(run())
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def table(record: dict) -> str:
    """Totals over the best fixed omega's, means of the seeds, and regret as it grows."""
    parts = [name for name in record if name == "family" or name.startswith("heat_")]
    titles = {
        name: "diffusion family" if name == "family" else f"heat, {record[name]['points']}²"
        for name in parts
    }
    lines = ["| total iterations, best fixed omega's = 1 | " + " | ".join(titles.values()) + " |"]
    lines.append("|---|" + "---|" * len(parts))

    def row(label: str, of) -> str:
        cells = []
        for name in parts:
            shares = [of(run) / run["best_fixed"] for run in record[name]["seeds"] if of(run)]
            spread = max(shares) - min(shares) if shares else 0
            cells.append(f"{statistics.mean(shares):.3f} ± {spread / 2:.3f}" if shares else "")
        return f"| {label} | " + " | ".join(cells) + " |"

    lines.append(row("instance-optimal, of the 20", lambda run: run["instance_optimal"]))
    lines.append(row("instance-optimal by Young's formula", lambda run: run.get("young")))
    for tuner in record[parts[0]]["seeds"][0]["totals"]:
        lines.append(row(f"`{tuner}`", lambda run, tuner=tuner: run["totals"][tuner]))
    best = [record[name]["seeds"] for name in parts]
    cells = [f"{runs[0]['best_fixed']:.0f} at {runs[0]['best_omega']:.2f}" for runs in best]
    lines.append("| the best fixed omega's, first seed | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *regrets(record["family"]["seeds"]), "", *shares(record)]) + "\n"


def regrets(runs: list) -> list[str]:
    """A table of the regret a round on the diffusion family, means of the seeds."""
    when = np.array(runs[0]["rounds"])[2::3]
    lines = ["| regret a round, diffusion family, after | " + " | ".join(map(str, when)) + " |"]
    lines.append("|---|" + "---|" * len(when))
    for tuner in ("TsallisINF", "Binned(TsallisINF)", "ChebCB", "EXP3", "UCB1"):
        regret = np.mean([run["regret"][tuner] for run in runs], axis=0)[2::3] / when
        lines.append(f"| `{tuner}` | " + " | ".join(f"{r:.1f}" for r in regret) + " |")
    return lines


def shares(record: dict) -> list[str]:
    """What choosing and learning take."""
    if "overhead" not in record:
        return []
    taken = dict(record["overhead"])
    solves = [taken.pop(name) for name in list(taken) if name.startswith("solve")]
    lines = [
        f"| a round's microseconds (a solve at 256²: {min(solves) * 1e6:.0f}) | |",
        "|---|---|",
    ]
    return lines + [
        f"| `{name}` | {seconds * 1e6:.1f}, {100 * seconds / min(solves):.2f} % |"
        for name, seconds in taken.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("family", "heat", "overhead"))
    parser.add_argument("--points", type=int, default=24)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    name = f"heat_{args.points}" if args.part == "heat" else args.part
    figures = {"family": family, "heat": lambda: heat(args.points), "overhead": overhead}[
        args.part
    ]()
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    record = {key: value for key, value in record.items() if key != "machine"} | {name: figures}
    write(RESULTS, record)
    if "family" in record:
        publish(PAGE, "<!-- table: relax_heat -->\n", table(record), "<!-- end: relax_heat -->")


if __name__ == "__main__":
    main()
