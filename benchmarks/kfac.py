"""KFAC for physics-informed networks, as its authors run it, beside this suite at equal time.

    python benchmarks/kfac.py --source FOLDER --seconds 40 --seeds 0 1 2 \
        --out benchmarks/results/kfac.json

Their two-dimensional Poisson problem: product of sines on the unit square, 900 points inside and
120 on the sides, drawn once, soft conditions, float64, a tanh network of one layer of 64 or of
64-64-48-48. `FOLDER` is a clone of github.com/f-dangel/kfac-pinns-experiments, whose `train.py` is
run in torch with the settings that its authors found best for the problem (tuned for 1000 s of a
GPU): `kfac` with momentum and a line search, `kfac_star` with the quadratic model's step. It needs
torch, einops, backpack-for-pytorch and tueplots; wandb and hessianfree, which it imports and does
not use here, are stood in for by empty modules. Its clock leaves out the loading of torch, ours
compilation, which is given beside. Ours is not tuned. Errors are relative L2.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from _machine import write
from _race import LOOKS, race, relative_error
from natural_gradient import Tanh

import pde
import sciopt

NETWORKS = {"mlp-tanh-64": (2, 64, 1), "mlp-tanh-64-64-48-48": (2, 64, 64, 48, 48, 1)}
OURS = {
    "gauss_newton": sciopt.GaussNewton(),
    "engd": sciopt.ENGD(damping=1e-10),
    "ssbroyden": sciopt.SSBroyden(),
}
# From the `best_runs` of experiments 9 and 15.
THEIRS = {
    ("kfac", "mlp-tanh-64"): [
        "--KFAC_damping=1.5440986717145857e-12", "--KFAC_ema_factor=0.4496490467123582",
        "--KFAC_momentum=0.5117574706015794",
    ],
    ("kfac_star", "mlp-tanh-64"): [
        "--KFAC_damping=1.2156399458704562e-10", "--KFAC_ema_factor=0.9263313896660544",
        "--KFAC_lr=auto",
    ],
    ("kfac", "mlp-tanh-64-64-48-48"): [
        "--KFAC_damping=2.6403898829119678e-11", "--KFAC_ema_factor=0.5556663890566588",
        "--KFAC_momentum=0.09995595182480271",
    ],
    ("kfac_star", "mlp-tanh-64-64-48-48"): [
        "--KFAC_damping=2.989246965479676e-13", "--KFAC_ema_factor=0.6258340006622556",
        "--KFAC_lr=auto",
    ],
}  # fmt: skip
STANDINS = {
    "wandb/__init__.py": "Api = None",
    "wandb/apis/__init__.py": "",
    "wandb/apis/public/__init__.py": "",
    "wandb/apis/public/sweeps.py": "Sweep = None",
    "hessianfree/__init__.py": "",
    "hessianfree/optimizer.py": "class HessianFree: ...",
}
LINE = re.compile(r"Step: (\d+), Loss: (\S+), L2 Error: (\S+), .*Time: (\S+)s")


def theirs(source: Path, method: str, network: str, seed: int, seconds: float) -> dict:
    with tempfile.TemporaryDirectory() as standins:
        for name, text in STANDINS.items():
            path = Path(standins, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        path = os.pathsep.join([str(source), standins, os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [
                sys.executable, "train.py", "--optimizer=KFAC", *THEIRS[method, network],
                "--KFAC_initialize_to_identity", f"--model={network}",
                f"--num_seconds={seconds:g}", f"--max_logs={LOOKS}", f"--model_seed={seed + 1}",
                f"--data_seed={seed}",
            ],
            cwd=source / "kfac_pinns_exp", env={**os.environ, "PYTHONPATH": path},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = [[float(x) for x in match.groups()] for match in LINE.finditer(done.stdout)]
    # Their error is the root of a mean square; that of the solution is 1/2.
    return {
        "looks": [
            {"seconds": spent, "step": int(step), "loss": loss, "error": 2 * error}
            for step, loss, error, spent in found
        ]
    }


def ours(method: str, network: str, seed: int, seconds: float) -> dict:
    network_key, points_key = jax.random.split(jax.random.key(seed))
    problem = pde.Problem(
        pde.Box(x=(0, 1), y=(0, 1)),
        ["u"],
        {"load": lambda v: v.u_xx + v.u_yy + 2 * jnp.pi**2 * truth(v.x, v.y)},
        {"sides": pde.Dirichlet({"x": (0, 1), "y": (0, 1)}, {"u": 0.0}, points=120)},
    )
    net = Tanh(NETWORKS[network], network_key)
    pinn = pde.PINN(problem, net, points=900, sampler=pde.Uniform())
    test = jax.random.uniform(jax.random.key(1234), (9000, 2))
    values = truth(test[:, 0], test[:, 1])
    error = relative_error(pinn, test, values)
    return race(pinn, OURS[method], points_key, seconds, 0, error)


def truth(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sin(jnp.pi * x) * jnp.sin(jnp.pi * y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    for network in options.networks:
        for seed in options.seeds:
            for method in ("kfac", "kfac_star", *OURS):
                if method in OURS:
                    found = ours(method, network, seed, options.seconds)
                else:
                    source = options.source.resolve()
                    found = theirs(source, method, network, seed, options.seconds)
                rows.append({"network": network, "method": method, "seed": seed, **found})
                print(f"{network} {method:12s} seed {seed}: {found['looks'][-1]}", flush=True)
                if options.out:
                    write(options.out, {"seconds": options.seconds, "rows": rows}, "torch")


if __name__ == "__main__":
    main()
