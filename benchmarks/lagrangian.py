"""Convection at growing speeds: a network that follows the flow, and a plain one of its size.

    python benchmarks/lagrangian.py

Mojgani et al. (2023), section 4.1: u_t + c u_x = 0 from sin x. Both networks have a hard start and
period, 400 points, and 60 steps of Gauss-Newton, the plain
one also as many as take the other's time; three seeds. Errors are relative, in L2, on a grid
of 64 places and 41 times. Results: `benchmarks/results/lagrangian.json`.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _machine import write

import pde

jax.config.update("jax_enable_x64", True)
RESULTS = Path(__file__).parent / "results" / "lagrangian.json"
SPEEDS, SEEDS, STEPS, LONG, POINTS = (10.0, 50.0, 200.0), (0, 1, 2), 60, 1500, 400
ROUND = 2 * float(np.pi)
AXES = {"x": jnp.linspace(0, ROUND, 64), "t": jnp.linspace(0, 1, 41)}


def convection(speed):
    return pde.Problem(
        pde.Box(x=(0, ROUND), t=(0, 1)),
        ["u"],
        {"transport": lambda v: v.u_t + speed * v.u_x},
        {
            "start": pde.Initial({"u": lambda v: jnp.sin(v.x)}, hard=True),
            "wrap": pde.Periodic("x", hard=True),
        },
    )


def main():
    rows = []
    for speed in SPEEDS:
        problem, velocity = convection(speed), {"x": lambda v, speed=speed: speed}
        networks = {
            "plain": lambda key: pde.MLP(3, 1, width=16, depth=2, key=key),
            "plain, equal time": lambda key: pde.MLP(3, 1, width=16, depth=2, key=key),
            "lagrangian": lambda key, problem=problem, velocity=velocity: pde.Lagrangian(
                problem, pde.TwoBranch.mlp(3, 1, 1, width=10, depth=2, key=key), velocity
            ),
        }
        exact = jnp.sin(AXES["x"][:, None] - speed * AXES["t"])
        for name, make in networks.items():
            errors, seconds, size = [], [], 0
            steps = LONG if name == "plain, equal time" else STEPS
            for seed in SEEDS:
                key = jax.random.key(seed)
                pinn = pde.PINN(problem, make(key), points=POINTS)
                size = sum(leaf.size for leaf in jax.tree.leaves(pinn.params))
                before = time.perf_counter()
                found = pde.solve(pinn, steps=steps, key=key).on_grid(AXES)["u"]
                errors.append(float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)))
                seconds.append(round(time.perf_counter() - before, 2))
            rows.append({"speed": speed, "network": name, "parameters": size, "steps": steps,
                         "errors": errors,
                         "seconds, the first with compiling": seconds})  # fmt: skip
            print(rows[-1], flush=True)
    write(RESULTS, {"points": POINTS, "seeds": SEEDS, "rows": rows})


if __name__ == "__main__":
    main()
