"""Time to a fixed relative L2 error, ours and peers': Burgers with nu = 0.01/pi, Poisson in 2-D.

    python benchmarks/pinn_peers.py --seconds 600 --seeds 0 1 2
    python benchmarks/pinn_peers.py --only deepxde --problems burgers --seconds 30 --out try.json

Each contestant runs in a process of its own, in float64 unless it says otherwise, until it is below
the lowest target or its seconds are spent. Every so often the error is looked at on one grid, the
same for all, with the clock stopped. Setting up (imports, compilation) is given beside the times
and not in them: the clock starts with the first step, or with the second where a library compiles
and goes on at once, as `jinns.solve` does. Rows that are not measured anew are kept.

Needs `pip install torch==2.13.0 deepxde jinns` beside this package. jaxpi is on no index and wants
flax, ml_collections and wandb: what it does is written here, on our residuals, with optax.
"""

# The extra `bench`.
# pyright: reportMissingImports=false

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "pinn_peers.json"
TARGETS = {"burgers": (1e-4, 1e-6), "poisson2d": (1e-6,)}
PEERS = ("jinns", "deepxde", "torch")
FOREVER = 10**7


class Race:
    """A contestant's clock, and what was seen whenever it stopped."""

    def __init__(self, problem: str, seconds: float):
        import cases
        from cases._pinn import build

        case: cases.Case = cases.load(problem, [])
        self.problem, self.seconds = problem, seconds
        self.axes = {n: np.linspace(*case.coordinates[n], k) for n, k in case.evaluate.grid.items()}
        reference = build.reference(case)
        assert reference is not None
        self.exact = reference(self.axes)["u"]
        mesh = np.meshgrid(*self.axes.values(), indexing="ij")
        self.points = np.stack([m.ravel() for m in mesh], axis=1)
        self.spent, self.looks, self.over = 0.0, [], False
        self.created, self.setup_seconds, self.since = time.perf_counter(), 0.0, 0.0

    def start(self) -> None:
        self.setup_seconds = time.perf_counter() - self.created
        self.since = time.perf_counter()

    def look(self, step: int, u: Callable[[], Any]) -> bool:
        """Stop the clock, see how good `u()` is on the grid, and say whether to stop for good."""
        self.spent += time.perf_counter() - self.since
        wrong = np.asarray(u(), float).reshape(self.exact.shape) - self.exact
        error = float(np.linalg.norm(wrong) / np.linalg.norm(self.exact))
        self.looks.append({"seconds": round(self.spent, 3), "step": step, "error": error})
        reached = error <= min(TARGETS[self.problem])
        self.over = self.over or reached or self.spent > self.seconds or not np.isfinite(error)
        self.since = time.perf_counter()
        return self.over

    def row(self) -> dict:
        reached = {
            f"{target:.0e}": next((x["seconds"] for x in self.looks if x["error"] <= target), None)
            for target in TARGETS[self.problem]
        }
        # Some fifty looks are enough for a curve.
        best = min(self.looks, key=lambda x: x["error"])
        kept = [*self.looks[:: max(len(self.looks) // 50, 1)], self.looks[-1]]
        return {
            "reached": reached, "best": best, "seconds": round(self.spent, 3),
            "setup_seconds": round(self.setup_seconds, 3), "looks": kept,
        }  # fmt: skip


def ours(race: Race, seed: int, sets: Iterable[str] = ()) -> None:
    """A case as it ships, or with some keys changed."""
    import jax
    import jax.numpy as jnp

    import cases
    import sciopt
    from cases._pinn import build

    jax.config.update("jax_enable_x64", True)
    case = cases.load(race.problem, list(sets))
    every = case.train.log_every
    adapt = case.sampler.adapt
    redraw = case.sampler.resample_every if adapt is None else adapt.every
    network_key, points_key = jax.random.split(jax.random.key(seed))
    pinn = build.pinn(case, network_key)
    fit = sciopt.Fit(pinn.residuals, build.optimizer(case), pinn.sample, points_key)
    state, step = fit.init(pinn.params), 0
    jax.block_until_ready(fit.resample(fit.advance(state, 1)))
    axes = {n: jnp.asarray(x) for n, x in race.axes.items()}
    race.start()
    while not race.over:
        state = fit.advance(state, every)
        step += every
        if redraw and step % redraw == 0:
            state = fit.resample(state)
        jax.block_until_ready(state)
        race.look(step, lambda state=state: pinn.field(state.params).on_grid(axes)["u"])


def jaxpi_style(race: Race, seed: int, sets: Iterable[str], single: bool) -> None:
    """Adam with causal weights (Wang, Sankaran and Perdikaris 2022), as jaxpi's examples/burgers.

    Its optimizer and weights (`configs/default.py`): Adam, 1e-3, times 0.9 every 2000 steps; 4096
    uniform points drawn anew each step; 32 chunks of time with tolerance 1. Start and walls hold by
    the ansatz of our case, so there is no loss to balance with the equation's. Without a time, as
    for Poisson, what is left is Adam.
    """
    import jax
    import jax.numpy as jnp
    import optax

    import cases
    from cases._pinn import build

    jax.config.update("jax_enable_x64", not single)
    case = cases.load(race.problem, ["sampler={type: uniform, points: 4096}", ADAM, *sets])
    network_key, points_key = jax.random.split(jax.random.key(seed))
    pinn = build.pinn(case, network_key)
    chunks, every = 32, 10 if single else 100
    adam = optax.adam(optax.exponential_decay(1e-3, 2000, 0.9))

    def loss(params, key):
        points = pinn.sample(key, params)
        block = points["equations"]
        if "t" in case.domain:
            axis = list(case.domain).index("t")
            times = jnp.sort(block["x"][:, axis])
            points["equations"] = block | {"x": block["x"].at[:, axis].set(times)}
        (found,) = pinn.residuals(params, points).values()
        if "t" not in case.domain:
            return jnp.mean(found**2)
        means = jnp.mean(found.reshape(chunks, -1) ** 2, axis=1)
        before = jnp.cumsum(means) - means
        return jnp.mean(jax.lax.stop_gradient(jnp.exp(-before)) * means)

    @jax.jit
    def advance(params, state, step):
        def one(carry, step):
            params, state = carry
            grad = jax.grad(loss)(params, jax.random.fold_in(points_key, step))
            updates, state = adam.update(grad, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(one, (params, state), step + jnp.arange(every))[0]

    axes = {n: jnp.asarray(x) for n, x in race.axes.items()}
    params, state = pinn.params, adam.init(pinn.params)
    compiled = advance.lower(params, state, 0).compile()
    race.start()
    step = 0
    while not race.over:
        params, state = jax.block_until_ready(compiled(params, state, step))
        step += every
        race.look(step, lambda params=params: pinn.field(params).on_grid(axes)["u"])


def jinns_run(race: Race, seed: int, method: str, hidden: list[int], counts: dict) -> None:
    """jinns, with `jinns.solve` and a validation module that looks and stops.

    `counts` has the points inside (`n`), and those on the walls (`nb`) and at the start (`ni`);
    without the latter two the conditions hold by jinns' `output_transform`.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jinns
    from jax.experimental import io_callback
    from jinns.optimizers import scale_by_SSBroyden_family, vanilla_ngd
    from jinns.solver import GetJinnsVariableName
    from jinns.validation._validation import AbstractValidationModule

    jax.config.update("jax_enable_x64", True)
    burgers = race.problem == "burgers"
    kind = "PDENonStatio" if burgers else "PDEStatio"
    soft = "nb" in counts
    # Keys of the old kind, which jinns' Sobol' points need.
    points_key, network_key, solve_key = jax.random.split(jax.random.PRNGKey(seed), 3)

    def ansatz(inputs, out, xp):
        """For jinns' inputs: `(t, x)`, or `(x, y)`."""
        if soft:
            return out
        a, b = inputs[..., 0], inputs[..., 1]
        if burgers:
            return -xp.sin(np.pi * b) + a * (1 - b**2) * out
        return a * (1 - a) * b * (1 - b) * out

    sizes = [2, *hidden, 1]
    layers = []
    for before, after in itertools.pairwise(sizes):
        layers += [(eqx.nn.Linear, before, after), (jax.nn.tanh,)]
    u, nn_params = jinns.nn.PINN_MLP.create(
        key=network_key, eqx_list=tuple(layers[:-1]), eq_type=kind,
        output_transform=lambda inputs, out, params: ansatz(inputs, out.squeeze(), jnp)[None],
    )  # fmt: skip
    shape = {"key": points_key, "method": counts.get("method", "uniform"), "n": counts["n"]}
    condition = jinns.loss.Dirichlet() if soft else None
    if burgers:
        params = jinns.parameters.Params(
            nn_params=nn_params, eq_params={"nu": jnp.array(0.01 / np.pi)}
        )
        data = jinns.data.CubicMeshPDENonStatio(
            **shape, nb=counts.get("nb"), ni=counts.get("ni"), dim=1,
            min_pts=(-1.0,), max_pts=(1.0,), tmin=0.0, tmax=1.0,
        )  # fmt: skip
        loss = jinns.loss.LossPDENonStatio(
            u=u, dynamic_loss=jinns.loss.BurgersEquation(Tmax=1), params=params,
            loss_weights=jinns.loss.LossWeightsPDENonStatio(
                dyn_loss=1.0,
                initial_condition=1.0 if soft else None,
                boundary_loss=1.0 if soft else None,
            ),
            boundary_condition=condition,
            initial_condition_fun=(lambda x: -jnp.sin(jnp.pi * x)) if soft else None,
        )  # fmt: skip
    else:

        class Poisson(jinns.loss.PDEStatio):
            def equation(self, x, u, params):
                laplacian = jinns.loss.laplacian_rev(x, u, params, eq_type="PDEStatio")
                source = 2 * jnp.pi**2 * jnp.prod(jnp.sin(jnp.pi * x))
                return jnp.reshape(laplacian + source, (1,))

        params = jinns.parameters.Params(nn_params=nn_params, eq_params={})
        data = jinns.data.CubicMeshPDEStatio(
            **shape, nb=counts.get("nb"), dim=2, min_pts=(0.0, 0.0), max_pts=(1.0, 1.0)
        )
        loss = jinns.loss.LossPDEStatio(
            u=u, dynamic_loss=Poisson(), params=params, boundary_condition=condition,
            loss_weights=jinns.loss.LossWeightsPDEStatio(
                dyn_loss=1.0, boundary_loss=1.0 if soft else None
            ),
        )  # fmt: skip

    def predict(leaves):
        # Outside JAX: its runtime may not be called from a callback of its own.
        inputs = race.points[:, ::-1] if burgers else race.points
        out = inputs.T
        for number, (weight, bias) in enumerate(zip(leaves[::2], leaves[1::2], strict=True)):
            out = weight @ out + bias[:, None]
            if number < len(hidden):
                out = np.tanh(out)
        return ansatz(inputs, out[0], np)

    every = 2 if method == "ngd" else 10
    calls = []

    def look(*leaves):
        if not calls:
            race.start()
        calls.append(None)
        leaves = [np.asarray(leaf) for leaf in leaves]
        return np.array(race.look((len(calls) - 1) * every + 1, lambda: predict(leaves)))

    class Look(AbstractValidationModule):
        call_every: int = eqx.field(kw_only=True, default=every)

        def __call__(self, params):
            leaves = jax.tree.leaves(eqx.filter(params.nn_params, eqx.is_inexact_array))
            result = jax.ShapeDtypeStruct((), bool)
            stop = io_callback(look, result, *leaves)
            return self, stop, jnp.array(0.0), jnp.array(False)

    extra = None
    if method == "ngd":
        optimizer = vanilla_ngd()
    else:
        optimizer = scale_by_SSBroyden_family(method=method)
        # As in jinns' own tests/optimizer_tests/test_ssbfgs.py, names included.
        extra = {
            "value": GetJinnsVariableName("train_loss_value"),
            "grad_pt": GetJinnsVariableName("grads"),
            "value_fn": callback_value_fn,
            "grad_fn": callback_grad_fn,
            "batch": GetJinnsVariableName("batch"),
            "loss": GetJinnsVariableName("loss"),
        }
    jinns.solve(
        n_iter=2_000_000, init_params=params, data=data, loss=loss, optimizer=optimizer,
        validation=Look(), extra_optax_args_and_kwargs=extra, print_loss_every=FOREVER,
        verbose=False, key=solve_key,
    )  # fmt: skip


def callback_value_fn(params, batch, loss):
    return loss.evaluate(params, batch)[0]


def callback_grad_fn(params, batch, loss):
    return loss.ponderate_and_sum_gradient(loss.values_and_grads(params, batch)[1])


def deepxde_run(race: Race, seed: int, hard: bool) -> None:
    """DeepXDE on PyTorch: Adam, then L-BFGS, then NNCG, as its examples/pinn_forward/Burgers.py.

    From there: the points, the 3 x 20 network, 15000 steps of Adam at 1e-3, and NNCG with rank 50
    and mu 0.1 where L-BFGS stalls. In float64, as its `set_LBFGS_options` advises. `hard` puts the
    conditions into an output transform, as examples/pinn_forward/Allen_Cahn.py does and, for
    Poisson, Helmholtz_Dirichlet_2d.py. L-BFGS goes on for as long as it moves.
    """
    os.environ["DDE_BACKEND"] = "pytorch"
    import deepxde as dde
    import torch

    dde.config.set_default_float("float64")
    dde.config.set_random_seed(seed)
    burgers = race.problem == "burgers"

    def pde(x, y):
        second = dde.grad.hessian(y, x, i=0, j=0)
        if burgers:
            first, rate = (dde.grad.jacobian(y, x, i=0, j=j) for j in (0, 1))
            return rate + y * first - 0.01 / np.pi * second
        source = torch.sin(np.pi * x[:, 0:1]) * torch.sin(np.pi * x[:, 1:2])
        return second + dde.grad.hessian(y, x, i=1, j=1) + 2 * np.pi**2 * source

    def transform(x, y):
        a, b = x[:, 0:1], x[:, 1:2]
        if burgers:
            return -torch.sin(np.pi * a) + b * (1 - a**2) * y
        return a * (1 - a) * b * (1 - b) * y

    def on_boundary(_, boundary):
        return boundary

    if burgers:
        interval = dde.geometry.Interval(-1, 1)
        domain = dde.geometry.GeometryXTime(interval, dde.geometry.TimeDomain(0, 1))
        conditions = [
            dde.icbc.DirichletBC(domain, lambda x: 0, on_boundary),
            dde.icbc.IC(domain, lambda x: -np.sin(np.pi * x[:, 0:1]), on_boundary_of_time),
        ]
        data = dde.data.TimePDE(
            domain, pde, [] if hard else conditions, num_domain=2540,
            num_boundary=0 if hard else 80, num_initial=0 if hard else 160,
        )  # fmt: skip
    else:
        domain = dde.geometry.Rectangle([0, 0], [1, 1])
        conditions = dde.icbc.DirichletBC(domain, lambda x: 0, on_boundary)
        data = dde.data.PDE(
            domain, pde, [] if hard else conditions, num_domain=1024,
            num_boundary=0 if hard else 128,
        )  # fmt: skip
    net = dde.nn.FNN([2, 20, 20, 20, 1], "tanh", "Glorot normal")
    if hard:
        net.apply_output_transform(transform)
    model = dde.Model(data, net)

    class Look(dde.callbacks.Callback):
        every = 50

        def __init__(self):
            super().__init__()
            self.last = 0

        def on_batch_end(self):
            step = self.model.train_state.step
            if step - self.last >= self.every and not race.over:
                self.last = step
                if race.look(step, lambda: self.model.predict(race.points)):
                    self.model.stop_training = True

    look = Look()
    dde.optimizers.set_LBFGS_options(maxcor=100, ftol=0, gtol=0, maxiter=FOREVER, maxls=50)
    # So many iterations of L-BFGS in one call of it, between two looks.
    options = dde.optimizers.config.LBFGS_options
    options["iter_per_step"], options["fun_per_step"] = 50, 100
    model.compile("adam", lr=1e-3)
    race.start()
    model.train(iterations=15000, callbacks=[look], display_every=FOREVER, verbose=0)
    if not race.over:
        model.compile("L-BFGS")
        model.train(callbacks=[look], display_every=FOREVER, verbose=0)
    if not race.over:
        look.every = 1
        dde.optimizers.set_NNCG_options(rank=50, mu=1e-1)
        model.compile("NNCG")
        # Its preconditioner may fail to factorise; the race then ends with what L-BFGS reached.
        with contextlib.suppress(torch.linalg.LinAlgError):
            model.train(iterations=FOREVER, callbacks=[look], display_every=FOREVER, verbose=0)


def on_boundary_of_time(_, initial):
    return initial


SMALL = {
    "burgers": [
        "train.log_every=5", "network.depth=5", "sampler.points=1000",
        "sampler.adapt={type: rad, every: 25, candidates: 10000, offset: 0.3, unbiased: true}",
    ],
    "poisson2d": ["network.depth=1", "network.width=32", "sampler.points=400"],
}  # fmt: skip
ADAM = "train.optimizer={type: adam}"
JAXPI_NETWORK = (
    "network={type: mlp, width: 256, depth: 4, activation: tanh, "
    "embedding: {type: fourier, features: 128, scale: 1}}"
)
# The nets and points of jinns' own pages: Notebooks/PDE/1D_non_stationary_Burgers.ipynb, and
# Notebooks/PDE/heat_equation_ngd.ipynb for Poisson.
NOTEBOOK: dict[str, Any] = {
    "burgers": ([16, 16, 16], {"n": 900, "nb": 2000, "ni": 2000}),
    "poisson2d": ([16, 16], {"n": 2028, "nb": 2028}),
}


def like_ours(problem: str) -> tuple[list[int], dict]:
    """The case's net and number of points, hard conditions: jinns' pages train no PDE with these
    methods. (Its Sobol' points ask for some at the start, which no loss of ours then reads.)"""
    import cases

    case = cases.load(problem)
    start = {"ni": 2} if problem == "burgers" else {}
    counts = {"n": case.sampler.points, "method": "sobol", **start}
    return [case.network.width] * case.network.depth, counts


CONTESTANTS: dict[str, tuple[str, Callable[[Race, int], None]]] = {
    "sciopt": ("the case as it ships", ours),
    "sciopt_small": (
        "Gauss-Newton, a smaller net and fewer points",
        lambda race, seed: ours(race, seed, SMALL[race.problem]),
    ),
    "jinns_ngd": (
        "vanilla_ngd(), its notebooks' nets and points, soft conditions",
        lambda race, seed: jinns_run(race, seed, "ngd", *NOTEBOOK[race.problem]),
    ),
    "jinns_ngd_hard": (
        "vanilla_ngd(), our net and points, hard conditions",
        lambda race, seed: jinns_run(race, seed, "ngd", *like_ours(race.problem)),
    ),
    "jinns_ssbroyden": (
        "scale_by_SSBroyden_family('SSBroyden'), our net and points, hard conditions",
        lambda race, seed: jinns_run(race, seed, "SSBroyden", *like_ours(race.problem)),
    ),
    "jinns_ssbfgs": (
        "scale_by_SSBroyden_family('SSBFGS'), our net and points, hard conditions",
        lambda race, seed: jinns_run(race, seed, "SSBFGS", *like_ours(race.problem)),
    ),
    "deepxde": (
        "Adam, L-BFGS, NNCG of examples/pinn_forward/Burgers.py, soft conditions",
        lambda race, seed: deepxde_run(race, seed, hard=False),
    ),
    "deepxde_hard": (
        "the same with hard conditions",
        lambda race, seed: deepxde_run(race, seed, hard=True),
    ),
    "jaxpi_style": (
        "Adam, causal weights, jaxpi's 4 x 256 net on Fourier features; float32, as jaxpi",
        lambda race, seed: jaxpi_style(race, seed, [JAXPI_NETWORK], single=True),
    ),
    "jaxpi_style_small": (
        "Adam, causal weights, our net",
        lambda race, seed: jaxpi_style(race, seed, [], single=False),
    ),
}


def measure(name: str, problem: str, seed: int, seconds: float) -> dict:
    race = Race(problem, seconds)
    CONTESTANTS[name][1](race, seed)
    row = {"contestant": name, "problem": problem, "seed": seed, "setting": CONTESTANTS[name][0]}
    versions = {peer: metadata.version(peer) for peer in PEERS}
    return row | race.row() | {"machine": machine() | {"peers": versions}}


def apart(name: str, problem: str, seed: int, seconds: float) -> dict:
    """`measure` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "row.json")
        environment = os.environ | {
            "OPENBLAS_THREAD_TIMEOUT": "4",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        command = [
            sys.executable, __file__, "--row", str(out), "--only", name, "--problems", problem,
            "--seeds", str(seed), "--seconds", str(seconds),
        ]  # fmt: skip
        # What hangs is a row too: its seconds twice, and time to compile and to look.
        log = Path(folder, "log")
        try:
            with log.open("w") as stream:
                subprocess.run(
                    command, check=True, env=environment, timeout=2 * seconds + 300,
                    stdout=stream, stderr=subprocess.STDOUT,
                )  # fmt: skip
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
            print(log.read_text()[-3000:], file=sys.stderr)
            return {
                "contestant": name, "problem": problem, "seed": seed,
                "setting": CONTESTANTS[name][0], "failed": type(failure).__name__,
                "machine": machine(),
            }  # fmt: skip
        return json.loads(out.read_text())


def table(rows: list[dict]) -> str:
    """Seconds to each target, and the best error where it is not reached."""
    lines = ["| problem | contestant | seed | seconds to target | best error | setting up |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        if "failed" in row:
            told = f"{row['failed']} | | "
        else:
            reached = ", ".join(
                f"{target}: {'—' if seconds is None else f'{seconds:.1f}'}"
                for target, seconds in row["reached"].items()
            )
            best = row["best"]
            told = f"{reached} | {best['error']:.1e} at {best['seconds']:.0f} s"
            told += f" | {row['setup_seconds']:.0f} s"
        lines.append(f"| {row['problem']} | `{row['contestant']}` | {row['seed']} | {told} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--problems", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="cap of each contestant")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        (name,), (problem,), (seed,) = options.only, options.problems, options.seeds
        options.row.write_text(json.dumps(measure(name, problem, seed, options.seconds)))
        return
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    order = list(CONTESTANTS)
    for problem in options.problems:
        for seed in options.seeds:
            for name in options.only:
                row = apart(name, problem, seed, options.seconds)
                mine = problem, name, seed
                rows = [r for r in rows if (r["problem"], r["contestant"], r["seed"]) != mine]
                rows = sorted(
                    [*rows, row],
                    key=lambda r: (r["problem"], order.index(r["contestant"]), r["seed"]),
                )
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
                print(table([row]).splitlines()[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
