"""Light bridges on pairs whose bridge is known, against the published training in torch.

    python benchmarks/bridge_light.py [--dims 2 16 64 128] [--seeds 0 1 2] [--methods em]

Pairs are `transport.bridge.MixturePair.random`, made as the benchmark of Gushchin et al. (*Building
the Bridge of Schrödinger*, NeurIPS 2023) makes its own, whose parameters are a download: the start
is standard normal, the potential a mixture of five Gaussians with means on the sphere of radius 5,
random axes and variances between 0.5 and 1.5. The metric is its cBW2^2-UVP
(`transport.bridge.cbw2_uvp`), with conditional moments in closed form instead of from draws, over
500 starts.

- `torch`: the algorithm and the settings of Korotin et al. (2024) in torch: 50 diagonal components
  at samples of the end, S = 0.1, batches of 128, 10 000 steps of Adam at 1e-3, 3e-3, 6e-2 for
  epsilon 0.1, 1, 10, in float32, one thread. `torch S=1` has S = 1, as the authors' notebook
  for the benchmark does; the default of their code is 0.1.
- `adam`: the same as `torch` in JAX, compiled.
- `ssbfgs`: `transport.bridge.fit` with `sciopt.SSBFGS` from k-means, on 10 000 samples of each end,
  200 steps, float64.
- `em`: thirty steps of expectation-maximisation from k-means, on all samples, float32; those that
  `transport.bridge.fit` takes, one by one so that each can be judged, outside of the clock. `way`
  has the seconds and the error after some. `em in two` takes ten steps on a tenth of the samples
  before twenty on all.

A seed draws a pool of 100 000 samples of each end, and the method's randomness. Seconds are the
processor's, of one core, with k-means and without compilation, which is timed apart; to be
comparable run them with one core (`taskset -c 1`). Rows of other cells stay as they are.
Results: `benchmarks/results/bridge_light.json`, and the table in `docs/bridges.md`.
"""

# pyright: reportMissingImports=false

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from _machine import publish, write

import sciopt
from transport.bridge import (
    Diagonal,
    ExpectationMaximisation,
    LightSB,
    MixturePair,
    SumExpQuadratic,
    cbw2_uvp,
    fit,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/bridge_light.json"
RATES = {0.1: 1e-3, 1.0: 3e-3, 10.0: 6e-2}
COMPONENTS, BATCH, STEPS, POOL, STARTS = 50, 128, 10_000, 100_000, 500
# Steps after which expectation-maximisation is judged.
LOOKS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 30)


def now() -> np.ndarray:
    """Of the wall's clock and of the processor's."""
    return np.array([time.perf_counter(), time.process_time()])


def by_torch(seed: int, epsilon: float, x0, x1, variance: float = 0.1):
    torch.manual_seed(seed)
    x0, x1 = (torch.tensor(np.asarray(x), dtype=torch.float32) for x in (x0, x1))
    n, d = x1.shape
    begin = now()
    start = torch.full((COMPONENTS,), -epsilon * np.log(COMPONENTS), dtype=torch.float32)
    log_alpha = torch.nn.Parameter(start)  # times epsilon, as published
    r = torch.nn.Parameter(x1[torch.randperm(n)[:COMPONENTS]].clone())
    log_s = torch.nn.Parameter(torch.full((COMPONENTS, d), float(np.log(variance))))
    adam = torch.optim.Adam([log_alpha, r, log_s], lr=RATES[epsilon])
    for _ in range(STEPS):
        x, y = x0[torch.randint(n, (BATCH,))], x1[torch.randint(n, (BATCH,))]
        s, weight = torch.exp(log_s), log_alpha / epsilon
        inner = (x**2 @ s.T + 2 * x @ r.T) / (2 * epsilon) + weight
        square = torch.sum((y[:, None] - r) ** 2 / (epsilon * s) + log_s, dim=-1)
        loss = torch.logsumexp(inner, 1).mean() - torch.logsumexp(weight - 0.5 * square, 1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    seconds = now() - begin
    alpha, r, log_s = (jnp.asarray(v.detach().numpy(), float) for v in (log_alpha, r, log_s))
    found = SumExpQuadratic(alpha / epsilon, r / jnp.sqrt(epsilon), Diagonal(log_s))
    return LightSB(epsilon, found), seconds, np.zeros(2)


def by_torch_from_one(seed: int, epsilon: float, x0, x1):
    return by_torch(seed, epsilon, x0, x1, 1.0)


def by_adam(seed: int, epsilon: float, x0, x1):
    key, steps = jax.random.split(jax.random.key(seed))
    x0, x1 = x0.astype(jnp.float32), x1.astype(jnp.float32)
    begin = LightSB.from_samples(key, epsilon, x1, COMPONENTS, centres="random", variance=0.1)
    adam = optax.adam(RATES[epsilon])
    scale = jnp.sqrt(epsilon)

    # In the published parameters: epsilon times log alpha, and r in the units of the data.
    def bridge(parameters):
        log_alpha, r, log_s = parameters
        return LightSB(epsilon, SumExpQuadratic(log_alpha / epsilon, r / scale, Diagonal(log_s)))

    def run(parameters, keys, x0, x1):
        def step(carry, key):
            one, two = jax.random.split(key)
            parameters, state = carry
            x = x0[jax.random.randint(one, (BATCH,), 0, len(x0))]
            y = x1[jax.random.randint(two, (BATCH,), 0, len(x1))]
            gradient = jax.grad(lambda p: bridge(p).objective(x, y))(parameters)
            update, state = adam.update(gradient, state)
            return (optax.apply_updates(parameters, update), state), None

        return jax.lax.scan(step, (parameters, adam.init(parameters)), keys)[0][0]

    potential = begin.potential
    assert isinstance(potential.covariance, Diagonal)
    arguments = (
        (epsilon * potential.log_alpha, scale * potential.r, potential.covariance.log_variance),
        jax.random.split(steps, STEPS), x0, x1,
    )  # fmt: skip
    arguments = jax.tree.map(
        lambda v: v.astype(jnp.float32) if jnp.issubdtype(v.dtype, jnp.floating) else v, arguments
    )
    clock = now()
    compiled = jax.jit(run).lower(*arguments).compile()
    made = now()
    parameters = jax.block_until_ready(compiled(*arguments))
    seconds = now() - made
    found = bridge(jax.tree.map(lambda v: v.astype(float), parameters))
    return found, seconds, made - clock


def by_ssbfgs(seed: int, epsilon: float, x0, x1):
    x0, x1 = x0[:10_000], x1[:10_000]

    def run():
        clock = now()
        begin = LightSB.from_samples(jax.random.key(seed), epsilon, x1, COMPONENTS)
        solver = sciopt.SSBFGS(rtol=1e-8, atol=1e-8, history_length=20)
        found = jax.block_until_ready(fit(begin, x0, x1, solver, max_steps=200).value)
        return found, now() - clock

    _, first = run()
    found, seconds = run()
    return found, seconds, first - seconds


# Made once: what is compiled is kept by the identity of functions.
OBJECTIVE = sciopt.Objective(lambda potential, units: LightSB(1.0, potential).objective(*units))


def first(x, *_):
    return x


def by_em(seed: int, epsilon: float, x0, x1, stages=((POOL, 30),)):
    x0, x1 = x0.astype(jnp.float32), x1.astype(jnp.float32)
    key, solver = jax.random.key(seed), ExpectationMaximisation()

    def run(stages):
        """The bridge after each step, and the seconds until then."""
        clock = now()
        begin = LightSB.from_samples(key, epsilon, x1, COMPONENTS)
        reference, potential, way = begin.reference, begin.potential, []
        units = jax.block_until_ready((reference.to_unit(0, x0), reference.to_unit(1, x1)))
        for count, steps in stages:
            shown = jax.tree.map(lambda u: u[:count], units)  # noqa: B023
            fitting = sciopt.Fit(OBJECTIVE, solver, eqx.Partial(first, shown), key)
            state = fitting.init(potential)
            for _ in range(steps):
                state = jax.block_until_ready(fitting.advance(state, 1))
                potential = state.params
                way.append((now() - clock, LightSB(reference, potential)))
        return [way[k - 1] for k in LOOKS if k <= len(way)]

    compiling = run([(count, 1) for count, _ in stages])[-1][0]
    way = [(seconds, in_float64(bridge)) for seconds, bridge in run(stages)]
    return way[-1][1], way[-1][0], compiling, way


def by_em_in_two(seed: int, epsilon: float, x0, x1):
    return by_em(seed, epsilon, x0, x1, ((POOL // 10, 10), (POOL, 20)))


def in_float64(bridge):
    return jax.tree.map(lambda v: v.astype(float) if eqx.is_inexact_array(v) else v, bridge)


METHODS = {
    "torch": by_torch, "torch S=1": by_torch_from_one, "adam": by_adam, "ssbfgs": by_ssbfgs,
    "em": by_em, "em in two": by_em_in_two,
}  # fmt: skip


def table(rows: list[dict]) -> str:
    """Errors of each seed and the median time; a cell is empty where nothing was run."""
    names = [name for name in METHODS if any(row["method"] == name for row in rows)]
    text = "\n| D | ε | " + " | ".join(names) + " | em meets torch's error after | sooner by |\n"
    text += "|---|---|" + "---|" * (len(names) + 2) + "\n"
    for d, epsilon in dict.fromkeys((row["d"], row["epsilon"]) for row in rows):
        text += f"| {d} | {epsilon:g} "
        here = {
            name: {
                row["seed"]: row for row in rows
                if (row["d"], row["epsilon"], row["method"]) == (d, epsilon, name)
            }
            for name in names
        }  # fmt: skip
        for mine in here.values():
            errors = ", ".join(f"{row['cbw2_uvp']:.3g}" for row in mine.values())
            text += f"| {errors} in {median(mine)} s " if mine else "| "
        theirs, ours = here.get("torch", {}), here.get("em", {})
        met = [met_after(theirs[s], ours[s]) for s in theirs if s in ours and "way" in ours[s]]
        if met:
            ratio = float(median(theirs).rstrip("*")) / max(met)
            text += f"| {', '.join(f'{after:.1f}' for after in met)} s | {ratio:.0f} times |\n"
        else:
            text += "| | |\n"
    return text + "\n"


def median(rows: dict[int, dict]) -> str:
    """Of seconds; with a star, if none was measured with nothing else to do for the machine."""
    alone = [row["seconds"] for row in rows.values() if not row.get("loaded")]
    if alone:
        return f"{statistics.median(alone):.1f}"
    return f"{statistics.median(row['seconds'] for row in rows.values()):.1f}*"


def met_after(theirs: dict, ours: dict) -> float:
    """Seconds until expectation-maximisation has the other's last error."""
    return next((s for s, error in ours["way"] if error <= theirs["cbw2_uvp"]), float("inf"))


def judged(method, d: int, epsilon: float, seed: int) -> dict:
    """What a method finds on samples that its seed draws, and how long it takes."""
    pair = MixturePair.random(jax.random.key(d), d, epsilon)
    keys = jax.random.split(jax.random.key(1000 + d), 3)
    variance = jnp.sum(jnp.var(pair.sample_end(keys[1], POOL), axis=0))
    starts = pair.sample_start(keys[2], STARTS)
    true = pair.bridge.conditional_moments(starts)
    one, other = jax.random.split(jax.random.fold_in(keys[0], seed))
    x0, x1 = pair.sample_start(one, POOL), pair.sample_end(other, POOL)
    bridge, seconds, compiling, *way = method(seed, epsilon, x0, x1)

    def error(bridge):
        return float(cbw2_uvp(bridge.conditional_moments(starts), true, variance))

    row: dict[str, Any] = {
        "cbw2_uvp": error(bridge), "seconds": round(float(seconds[1]), 2),
        "wall_seconds": round(float(seconds[0]), 2),
        "compile_seconds": round(float(compiling[1]), 2),
    }  # fmt: skip
    if way:
        row["way"] = [[round(float(s[1]), 3), float(f"{error(found):.4g}")] for s, found in way[0]]
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 16, 64, 128])
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    torch.set_num_threads(1)
    path = arguments.results
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    found = {cell(row): row for row in old}
    for new in itertools.product(
        arguments.seeds, arguments.dims, arguments.epsilons, arguments.methods
    ):
        seed, d, epsilon, name = new
        row = dict(zip(("seed", "d", "epsilon", "method"), new, strict=True))
        row |= judged(METHODS[name], d, epsilon, seed)
        print(row, flush=True)
        found[cell(row)] = row
        write(path, {"rows": sorted(found.values(), key=cell)}, "torch")
    rows = sorted(found.values(), key=cell)
    if path == RESULTS:
        page = ROOT / "docs" / "bridges.md"
        publish(page, "<!-- table: bridge_light -->\n", table(rows), "<!-- end -->")


def cell(row: dict) -> tuple:
    """What a row is about; rows of other cells stay as they are."""
    return row["d"], row["epsilon"], row["method"], row["seed"]


if __name__ == "__main__":
    main()
