"""Light bridges on pairs whose bridge is known, against the published training in torch.

    python benchmarks/bridge_light.py [--dims 2 16 64 128] [--seeds 3]

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
- `ssbfgs`: `transport.bridge.fit` from k-means, on 10 000 samples of each end, 200 steps, float64.

All draw from one pool of 100 000 samples of each end. Compilation is timed apart. Rows of other
dimensions stay as they are.
Results: `benchmarks/results/bridge_light.json`, and the table in `docs/bridges.md`.
"""

# pyright: reportMissingImports=false

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from _machine import publish, write

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
        found = jax.block_until_ready(fit(begin, x0, x1, max_steps=200).value)
        return found, time.perf_counter() - clock

    _, first = run()
    found, seconds = run()
    return found, seconds, first - seconds


METHODS = {"torch": by_torch, "adam": by_adam, "ssbfgs": by_ssbfgs}


def table(rows: list[dict]) -> str:
    text = "\n| D | ε | " + " | ".join(METHODS) + " |\n|---|---|" + "---|" * len(METHODS) + "\n"
    for d, epsilon in dict.fromkeys((row["d"], row["epsilon"]) for row in rows):
        text += f"| {d} | {epsilon:g} "
        for name in METHODS:
            mine = [r for r in rows if (r["d"], r["epsilon"], r["method"]) == (d, epsilon, name)]
            errors = ", ".join(f"{row['cbw2_uvp']:.3g}" for row in mine)
            seconds = statistics.median(row["seconds"] for row in mine)
            text += f"| {errors} in {seconds:.1f} s "
        text += "|\n"
    return text + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 16, 64, 128])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    torch.set_num_threads(1)
    old = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = [row for row in old if row["d"] not in arguments.dims]
    for d in arguments.dims:
        for epsilon in RATES:
            pair = MixturePair.random(jax.random.key(d), d, epsilon)
            keys = jax.random.split(jax.random.key(1000 + d), 3)
            x0, x1 = pair.sample_start(keys[0], POOL), pair.sample_end(keys[1], POOL)
            variance = jnp.sum(jnp.var(x1, axis=0))
            starts = pair.sample_start(keys[2], STARTS)
            true = pair.bridge.conditional_moments(starts)
            for seed in range(arguments.seeds):
                for name, method in METHODS.items():
                    bridge, seconds, compiling = method(seed, epsilon, x0, x1)
                    row = {
                        "d": d, "epsilon": epsilon, "seed": seed, "method": name,
                        "cbw2_uvp": float(
                            cbw2_uvp(bridge.conditional_moments(starts), true, variance)
                        ),
                        "seconds": round(seconds, 2), "compile_seconds": round(compiling, 2),
                    }  # fmt: skip
                    rows.append(row)
                    print(row, flush=True)
            rows.sort(key=lambda row: (row["d"], row["epsilon"]))
            write(RESULTS, {"rows": rows}, "torch")
            page = ROOT / "docs" / "bridges.md"
            publish(page, "<!-- table: bridge_light -->\n", table(rows), "<!-- end -->")


if __name__ == "__main__":
    main()
