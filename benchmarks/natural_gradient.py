"""Natural gradients at equal wall time on Poisson in two and five dimensions.

    python benchmarks/natural_gradient.py --seconds 60 --seeds 0 1 2 \
        --out benchmarks/results/natural_gradient.json

`poisson2d` is the shipped case. `poisson5d` is that of Guzmán-Cordero et al. (2025): the sum of
cos(pi x_i) on the unit cube with soft conditions, a tanh network 64-64-48-48 and their small batch
(800 points inside, 200 on the sides), drawn anew each step. The relative L2 error on fixed points
is looked at every so often, with the clock stopped; compilation is given beside. Damping, momentum
and rank are one choice a problem, of the order of the paper's best, and not tuned here.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from _machine import write
from _race import race, relative_error

import cases
import pde
import sciopt
from cases._pinn import build
from sciopt import damped

NAMES = "xyzws"


class Tanh(eqx.Module):
    """The network of the 5-D problem: layers of given widths."""

    layers: list[eqx.nn.Linear]

    def __init__(self, widths: tuple[int, ...], key: jax.Array):
        keys = jax.random.split(key, len(widths) - 1)
        pairs = zip(widths, widths[1:], keys, strict=False)
        self.layers = [eqx.nn.Linear(a, b, key=k) for a, b, k in pairs]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer(x))
        return self.layers[-1](x)


def poisson2d(key: jax.Array) -> tuple[pde.PINN, Callable[[jax.Array], jax.Array]]:
    pinn = build.pinn(cases.load("poisson2d"), key)
    return pinn, lambda x: jnp.prod(jnp.sin(jnp.pi * x), axis=-1)


def poisson5d(key: jax.Array) -> tuple[pde.PINN, Callable[[jax.Array], jax.Array]]:
    def exact(v):
        return jnp.sum(jnp.stack([jnp.cos(jnp.pi * getattr(v, name)) for name in NAMES]))

    def balance(v):
        laplacian = jnp.stack([getattr(v, f"u_{name}{name}") for name in NAMES])
        return jnp.sum(laplacian) + jnp.pi**2 * exact(v)

    problem = pde.Problem(
        pde.Box(**dict.fromkeys(NAMES, (0, 1))),
        ["u"],
        {"balance": balance},
        {"sides": pde.Dirichlet(dict.fromkeys(NAMES, (0, 1)), {"u": exact}, points=200)},
    )
    network = Tanh((5, 64, 64, 48, 48, 1), key)
    pinn = pde.PINN(problem, network, points=800, sampler=pde.Uniform())
    return pinn, lambda x: jnp.sum(jnp.cos(jnp.pi * x), axis=-1)


# The problem, its damping, the rank of its sketch, after how many steps it draws new points.
PROBLEMS = {"poisson2d": (poisson2d, 1e-10, 100, 0), "poisson5d": (poisson5d, 1e-9, 200, 1)}


def optimizer(method: str, damping: float, rank: int):
    key = jax.random.key(1)
    sizes = sciopt.ENGD().step_sizes
    sketch = damped.Nystrom(rank, key)
    stable = damped.Nystrom(rank, key, orthonormal=True)
    return {
        "gauss_newton": sciopt.GaussNewton(),
        "engd": sciopt.ENGD(damping=damping),
        "engd_constant": sciopt.ENGD(damping=damping, step_sizes=(0.06,)),
        "spring": sciopt.SPRING(damping=damping),
        "spring_search": sciopt.SPRING(
            damping=damping, momentum=0.06, step_sizes=sizes, norm_constraint=math.inf
        ),
        # The rank cuts the spectrum far above the exact methods' damping: it takes a larger one.
        "nystrom": sciopt.ENGD(damping=1e4 * damping, linear_solver=sketch),
        "nystrom_stable": sciopt.ENGD(damping=1e4 * damping, linear_solver=stable),
        "tngd": sciopt.TNGD(time=10 / damping, key=key, damping=damping),
        "tngd_short": sciopt.TNGD(time=1e4, key=key, damping=damping),
        "tngd_noisy": sciopt.TNGD(time=1e4, key=key, damping=damping, temperature=1e-10),
    }[method]


METHODS = ("gauss_newton", "engd", "spring", "spring_search", "nystrom", "tngd")


def measure(problem: str, method: str, seed: int, seconds: float) -> dict:
    make, damping, rank, every = PROBLEMS[problem]
    network_key, points_key = jax.random.split(jax.random.key(seed))
    pinn, exact = make(network_key)
    axes = len(pinn.problem.domain.names)
    test = jax.random.uniform(jax.random.key(1234), (10_000, axes))
    values = exact(test)
    error = relative_error(pinn, test, values)
    found = race(pinn, optimizer(method, damping, rank), points_key, seconds, every, error)
    return {
        "problem": problem, "method": method, "seed": seed, "damping": damping, "rank": rank,
        **found,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    for problem in options.problems:
        for seed in options.seeds:
            for method in options.methods:
                rows.append(measure(problem, method, seed, options.seconds))
                last = rows[-1]["looks"][-1]
                print(f"{problem} {method:14s} seed {seed}: {json.dumps(last)}", flush=True)
                if options.out:
                    write(options.out, {"rows": rows})


if __name__ == "__main__":
    main()
