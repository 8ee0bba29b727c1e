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
  epsilon 0.1, 1, 10, in float32, one thread.
- `adam`: the same in JAX, compiled.
- `ssbfgs`: `transport.bridge.fit` with `sciopt.SSBFGS` from k-means, on 10 000 samples of each end,
  200 steps, float64.
- `em`: `transport.bridge.fit` as it is from k-means, on all samples, at most 30 steps, float32; and
  `few em`, six of them.

A seed draws a pool of 100 000 samples of each end, and the method's randomness. Compilation is
timed apart; `compile_seconds` of `em` are those of a first k-means and one step. Rows of other
cells stay as they are.
Results: `benchmarks/results/bridge_light.json`, and the table in `docs/bridges.md`.
"""

# pyright: reportMissingImports=false

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from _machine import publish, write

import sciopt
from transport.bridge import Diagonal, LightSB, MixturePair, SumExpQuadratic, cbw2_uvp, fit

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/bridge_light.json"
RATES = {0.1: 1e-3, 1.0: 3e-3, 10.0: 6e-2}
COMPONENTS, BATCH, STEPS, POOL, STARTS = 50, 128, 10_000, 100_000, 500


def by_torch(seed: int, epsilon: float, x0, x1):
    torch.manual_seed(seed)
    x0, x1 = (torch.tensor(np.asarray(x), dtype=torch.float32) for x in (x0, x1))
    n, d = x1.shape
    begin = time.perf_counter()
    start = torch.full((COMPONENTS,), -epsilon * np.log(COMPONENTS), dtype=torch.float32)
    log_alpha = torch.nn.Parameter(start)  # times epsilon, as published
    r = torch.nn.Parameter(x1[torch.randperm(n)[:COMPONENTS]].clone())
    log_s = torch.nn.Parameter(torch.full((COMPONENTS, d), float(np.log(0.1))))
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
    seconds = time.perf_counter() - begin
    alpha, r, log_s = (jnp.asarray(v.detach().numpy(), float) for v in (log_alpha, r, log_s))
    found = SumExpQuadratic(alpha / epsilon, r / jnp.sqrt(epsilon), Diagonal(log_s))
    return LightSB(epsilon, found), seconds, 0.0


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
    clock = time.perf_counter()
    compiled = jax.jit(run).lower(*arguments).compile()
    made = time.perf_counter()
    parameters = jax.block_until_ready(compiled(*arguments))
    seconds = time.perf_counter() - made
    found = bridge(jax.tree.map(lambda v: v.astype(float), parameters))
    return found, seconds, made - clock


def by_ssbfgs(seed: int, epsilon: float, x0, x1):
    x0, x1 = x0[:10_000], x1[:10_000]

    def run():
        clock = time.perf_counter()
        begin = LightSB.from_samples(jax.random.key(seed), epsilon, x1, COMPONENTS)
        solver = sciopt.SSBFGS(rtol=1e-8, atol=1e-8, history_length=20)
        found = jax.block_until_ready(fit(begin, x0, x1, solver, max_steps=200).value)
        return found, time.perf_counter() - clock

    _, first = run()
    found, seconds = run()
    return found, seconds, first - seconds


def by_em(seed: int, epsilon: float, x0, x1, max_steps: int = 30):
    x0, x1 = x0.astype(jnp.float32), x1.astype(jnp.float32)

    def run(max_steps):
        clock = time.perf_counter()
        begin = LightSB.from_samples(jax.random.key(seed), epsilon, x1, COMPONENTS)
        found = fit(begin, x0, x1, max_steps=max_steps).value
        return jax.block_until_ready(found), time.perf_counter() - clock

    first, (found, seconds) = run(1)[1], run(max_steps)
    return in_float64(found), seconds, first


def by_few_em(seed: int, epsilon: float, x0, x1):
    return by_em(seed, epsilon, x0, x1, 6)


def in_float64(bridge):
    return jax.tree.map(lambda v: v.astype(float) if eqx.is_inexact_array(v) else v, bridge)


METHODS = {
    "torch": by_torch, "adam": by_adam, "ssbfgs": by_ssbfgs, "em": by_em, "few em": by_few_em,
}  # fmt: skip


def table(rows: list[dict]) -> str:
    """Errors of each seed and the median time; a cell is empty where nothing was run."""
    names = [name for name in METHODS if any(row["method"] == name for row in rows)]
    text = "\n| D | ε | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names) + "\n"
    for d, epsilon in dict.fromkeys((row["d"], row["epsilon"]) for row in rows):
        text += f"| {d} | {epsilon:g} "
        for name in names:
            mine = [r for r in rows if (r["d"], r["epsilon"], r["method"]) == (d, epsilon, name)]
            errors = ", ".join(f"{row['cbw2_uvp']:.3g}" for row in mine)
            took = statistics.median(row["seconds"] for row in mine) if mine else 0.0
            text += f"| {errors} in {took:.1f} s " if mine else "| "
        text += "|\n"
    return text + "\n"


def judged(method, d: int, epsilon: float, seed: int) -> dict:
    """What a method finds on samples that its seed draws, and how long it takes."""
    pair = MixturePair.random(jax.random.key(d), d, epsilon)
    keys = jax.random.split(jax.random.key(1000 + d), 3)
    variance = jnp.sum(jnp.var(pair.sample_end(keys[1], POOL), axis=0))
    starts = pair.sample_start(keys[2], STARTS)
    true = pair.bridge.conditional_moments(starts)
    one, other = jax.random.split(jax.random.fold_in(keys[0], seed))
    x0, x1 = pair.sample_start(one, POOL), pair.sample_end(other, POOL)
    bridge, seconds, compiling = method(seed, epsilon, x0, x1)
    error = cbw2_uvp(bridge.conditional_moments(starts), true, variance)
    return {
        "cbw2_uvp": float(error), "seconds": round(seconds, 2),
        "compile_seconds": round(compiling, 2),
    }  # fmt: skip


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
