"""Time a step, and time to equal error, against jinns and DeepXDE on flows and inverse problems.

    python benchmarks/inverse_peers.py --seconds 150
    python benchmarks/inverse_peers.py --only deepxde --problems kovasznay --out try.json

Beside Burgers and Poisson of `pinn_peers.py` the problems of jinns' table: Navier-Stokes in 2-D
(here Kovasznay's flow, DeepXDE's example of it, whose solution is known), inverse Poisson (jinns'
notebook and PINNacle's PInv), the inverse diffusion-reaction system and inverse Navier-Stokes of
DeepXDE (the latter with Kovasznay's flow in the place of a cylinder's wake). Data are without
noise, as theirs, so that there is no floor but the method's.

Everyone is given the equations of our case file, evaluated by its own library, the same values on
the boundary and the same data; peers have them as soft conditions, as in their examples. An error
is the worst, over the fields and the parameters, of the relative L2 errors on the case's grid,
looked at with the clock stopped. Setting up (imports, compilation) is beside the times and not in
them.
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
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pinn_peers
from _machine import machine

RESULTS = pinn_peers.RESULTS.parent / "inverse_peers.json"
CLEAN = "data.probes.noise=0"
# Our cases, and what is changed of them.
PROBLEMS = {
    "kovasznay": [],
    "inverse_poisson": [CLEAN, "data.probes.weight=1", "network.depth=2"],
    "inverse_diffusion_reaction": [CLEAN],
    "inverse_navier_stokes": [CLEAN],
}
FOR_LONG = "train.steps=100000"
# Points at which peers learn soft conditions, all sides together.
BOUNDARY = 400
# The peers' net: that of examples/pinn_inverse/reaction_inverse.py.
HIDDEN = [20, 20, 20]


class Race(pinn_peers.Race):
    """The clock of `pinn_peers.py`, for several fields and parameters."""

    def __init__(self, problem: str, seconds: float):
        import cases
        from cases._pinn import build, inference

        case: cases.Case = cases.load(problem, PROBLEMS[problem])
        self.case = case
        self.problem, self.seconds = problem, seconds
        self.axes = {n: np.linspace(*case.coordinates[n], k) for n, k in case.evaluate.grid.items()}
        reference = build.reference(case)
        assert reference is not None
        self.exact = reference(self.axes)
        mesh = np.meshgrid(*self.axes.values(), indexing="ij")
        self.points = np.stack([m.ravel() for m in mesh], axis=1)
        self.inferred: dict[str, Any] = {
            n: p for n, p in case.parameters.items() if isinstance(p, inference.Inferred)
        }
        self.spent, self.looks, self.over = 0.0, [], False
        self.created, self.setup_seconds, self.since = time.perf_counter(), 0.0, 0.0

    def observations(self) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Soft conditions and data alike: points, and the values of unknowns there."""
        import jax

        import pde
        from cases._pinn import build

        posed, found, data = build.problem(self.case), [], set()
        condition: Any
        for condition in posed.conditions.values():
            if isinstance(condition, pde.Data):
                data.add(len(found))
                found.append((np.asarray(condition.at), dict(condition.values)))
                continue
            faces = condition.at if isinstance(condition, pde.Dirichlet) else (("t", 0.0),)
            count = BOUNDARY * len(faces) // 4
            on, _ = posed.domain.draw_on(faces, pde.Sobol(), jax.random.key(0), count)
            values = {
                u: np.asarray(jax.vmap(lambda x, f=f: f(posed.at(x)))(on)) + np.zeros(len(on))
                for u, f in condition.values.items()
            }
            same = [i for i, (_, v) in enumerate(found) if list(v) == list(values)]
            same = [i for i in same if i not in data]
            if not same:
                found.append((np.asarray(on), values))
                continue
            # One set of points for all conditions on the same unknowns: jinns takes four data sets
            # for something else.
            at, before = found[same[0]]
            joined = {u: np.concatenate([before[u], v]) for u, v in values.items()}
            found[same[0]] = np.concatenate([at, on]), joined
        return found

    def residuals(self, read, given: dict, xp) -> list:
        """The equations of the case, by a library's own arrays."""
        values: Any = _Values(read, {**self.case.parameters, **given})
        return [text(values, xp) for text in self.case.equations.values()]

    def judge(self, step: int, fields, params) -> bool:
        """Stop the clock, and see how good `fields()`, columns or by name, and `params()` are."""
        self.spent += time.perf_counter() - self.since
        found = fields()
        if not isinstance(found, dict):
            found = dict(zip(self.case.unknowns, np.asarray(found, float).T, strict=True))
        errors = {
            n: np.linalg.norm(np.asarray(found[n], float).reshape(u.shape) - u) / np.linalg.norm(u)
            for n, u in self.exact.items()
        }
        errors |= {n: abs(float(v) / self.inferred[n].truth - 1) for n, v in params().items()}
        errors = {n: float(e) for n, e in errors.items()}
        error = max(errors.values())
        self.looks.append(
            {"seconds": round(self.spent, 3), "step": step, "error": error, "errors": errors}
        )
        self.over = self.over or self.spent > self.seconds or not np.isfinite(error)
        self.since = time.perf_counter()
        return self.over

    def row(self) -> dict:
        best = min(self.looks, key=lambda x: x["error"])
        # The envelope is what a time to an error is read from.
        least, kept = np.inf, []
        for look in self.looks:
            if look["error"] < 0.95 * least:
                least = look["error"]
                kept.append({k: look[k] for k in ("seconds", "step", "error")})
        last = self.looks[-1]
        return {
            "best": best, "seconds": round(self.spent, 3), "steps": last["step"],
            "ms_a_step": round(1e3 * last["seconds"] / last["step"], 3),
            "setup_seconds": round(self.setup_seconds, 3), "looks": kept,
        }  # fmt: skip


class _Values:
    """Names of an expression, looked up by a library's `read` where they are no parameters."""

    def __init__(self, read, given):
        self.read, self.given = read, given

    def __getitem__(self, name):
        return self.given[name] if name in self.given else self.read(name)


def split(name: str, unknowns, coordinates) -> tuple[int, list[int]]:
    """`u_xx` as the number of its unknown and those of its coordinates."""
    unknown, _, by = name.partition("_")
    return unknowns.index(unknown), [coordinates.index(c) for c in by]


def ours(race: Race, seed: int, sets: tuple[str, ...] = ()) -> None:
    import jax
    import jax.numpy as jnp

    import cases
    import sciopt
    from cases._pinn import build

    jax.config.update("jax_enable_x64", True)
    case = cases.load(race.problem, [*PROBLEMS[race.problem], *sets])
    network_key, points_key = jax.random.split(jax.random.key(seed))
    pinn = build.pinn(case, network_key)
    fit = sciopt.Fit(pinn.residuals, build.optimizer(case), pinn.sample, points_key)
    state, step = fit.init(pinn.params), 0
    jax.block_until_ready(fit.advance(state, 1))
    axes = {n: jnp.asarray(x) for n, x in race.axes.items()}
    every = 10 if case.train.steps < 10_000 else 50
    race.start()
    while not race.over and step < case.train.steps:
        state = jax.block_until_ready(fit.advance(state, every))
        step += every
        race.judge(
            step, lambda s=state: pinn.field(s.params).on_grid(axes),
            lambda s=state: pinn.inferred(s.params) if race.inferred else {},
        )  # fmt: skip


def jinns_run(race: Race, seed: int, method: str) -> None:
    """jinns: a self-scaled method, natural gradients (Adam for parameters), or Adam.

    As its tutorial 1D_non_stationary_Burgers_JointEstimation_Vanilla.ipynb, with our points. Values
    on the boundary are data sets of their own beside the data.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jinns
    import optax
    from jax.experimental import io_callback
    from jinns.optimizers import scale_by_SSBroyden_family, vanilla_ngd
    from jinns.solver import GetJinnsVariableName
    from jinns.validation._validation import AbstractValidationModule

    jax.config.update("jax_enable_x64", True)
    case, names = race.case, list(race.case.coordinates)
    unknowns = list(case.unknowns)
    timed = "t" in names
    # jinns has time first.
    order = ["t", *(n for n in names if n != "t")] if timed else names
    kind = "PDENonStatio" if timed else "PDEStatio"
    columns = [names.index(n) for n in order]
    points_key, network_key, obs_key, solve_key = jax.random.split(jax.random.PRNGKey(seed), 4)
    sizes = [2, *HIDDEN, len(unknowns)]
    layers = []
    for before, after in itertools.pairwise(sizes):
        layers += [(eqx.nn.Linear, before, after), (jax.nn.tanh,)]
    lower, upper = (np.array([case.coordinates[n][i] for n in order]) for i in (0, 1))
    u, nn_params = jinns.nn.PINN_MLP.create(
        key=network_key, eqx_list=tuple(layers[:-1]), eq_type=kind,
        input_transform=lambda x, _: 2 * (x - lower) / (upper - lower) - 1,
    )  # fmt: skip
    params = jinns.parameters.Params(
        nn_params=nn_params,
        eq_params={n: jnp.array(float(p.initial)) for n, p in race.inferred.items()}
        or {"unused": jnp.array(0.0)},
    )
    base = jinns.loss.PDENonStatio if timed else jinns.loss.PDEStatio

    class Equations(base):
        def equation(self, x, u, params):
            def field(x):
                return u(x, params)

            value, slopes = field(x), jax.jacrev(field)(x)
            curves = jax.jacfwd(jax.jacrev(field))(x)

            def read(name):
                if name in order:
                    return x[order.index(name)]
                unknown, by = split(name, unknowns, order)
                return (value, slopes, curves)[len(by)][(unknown, *by)]

            given = {n: getattr(params.eq_params, n) for n in race.inferred}
            return jnp.stack(race.residuals(read, given, jnp))

    count = case.sampler.points
    if timed:
        (space,) = (n for n in names if n != "t")
        data = jinns.data.CubicMeshPDENonStatio(
            key=points_key, method="sobol", n=count, nb=None, ni=2, dim=1,
            min_pts=(case.coordinates[space][0],), max_pts=(case.coordinates[space][1],),
            tmin=case.coordinates["t"][0], tmax=case.coordinates["t"][1],
        )  # fmt: skip
    else:
        data = jinns.data.CubicMeshPDEStatio(
            key=points_key, method="sobol", n=count, nb=None, dim=2,
            min_pts=tuple(lower), max_pts=tuple(upper),
        )  # fmt: skip
    seen = race.observations()
    slices = [[unknowns.index(n) for n in values] for _, values in seen]
    obs = jinns.data.DataGeneratorObservations(
        key=obs_key,
        observed_pinn_in=tuple(jnp.asarray(at[:, columns]) for at, _ in seen),
        observed_values=tuple(jnp.asarray(np.stack(list(v.values()), -1)) for _, v in seen),
    )
    keys_of = jinns.parameters.DerivativeKeysPDENonStatio if timed else (
        jinns.parameters.DerivativeKeysPDEStatio
    )  # fmt: skip
    both = "both" if race.inferred else "nn_params"
    keys = keys_of.from_str(params=params, dyn_loss=both, observations="nn_params")
    weights_of = jinns.loss.LossWeightsPDENonStatio if timed else jinns.loss.LossWeightsPDEStatio
    loss = (jinns.loss.LossPDENonStatio if timed else jinns.loss.LossPDEStatio)(
        u=u, dynamic_loss=Equations(), params=params, derivative_keys=keys,
        loss_weights=weights_of(dyn_loss=1.0, observations=(1.0,) * len(seen)),
        obs_slice=tuple(slice(s[0], s[-1] + 1) for s in slices),
    )  # fmt: skip
    inputs = 2 * (race.points[:, columns] - lower) / (upper - lower) - 1

    def predict(leaves):
        # Outside JAX: its runtime may not be called from a callback of its own.
        out = inputs.T
        for number, (weight, bias) in enumerate(zip(leaves[::2], leaves[1::2], strict=True)):
            out = weight @ out + bias[:, None]
            if number < len(HIDDEN):
                out = np.tanh(out)
        return out.T

    every = {"ngd": 5, "adam": 100}.get(method, 20)
    calls = []

    def look(eq_leaves, *leaves):
        if not calls:
            race.start()
        calls.append(None)
        leaves = [np.asarray(leaf) for leaf in leaves]
        values = dict(zip(race.inferred, np.asarray(eq_leaves), strict=False))
        step = (len(calls) - 1) * every + 1
        return np.array(race.judge(step, lambda: predict(leaves), lambda: values))

    class Look(AbstractValidationModule):
        call_every: int = eqx.field(kw_only=True, default=every)

        def __call__(self, params):
            leaves = jax.tree.leaves(eqx.filter(params.nn_params, eqx.is_inexact_array))
            raw = [getattr(params.eq_params, n) for n in race.inferred]
            raw = jnp.stack(raw) if raw else jnp.zeros(0)
            result = jax.ShapeDtypeStruct((), bool)
            stop = io_callback(look, result, raw, *leaves)
            return self, stop, jnp.array(0.0), jnp.array(False)

    extra = None
    if method == "ngd":
        adam = {n: optax.adam(1e-3) for n in race.inferred}
        optimizer = vanilla_ngd(eq_params_tx=adam or None)
    elif method == "adam":
        optimizer = optax.adam(1e-3)
    else:
        optimizer = scale_by_SSBroyden_family(method=method)
        extra = {
            "value": GetJinnsVariableName("train_loss_value"),
            "grad_pt": GetJinnsVariableName("grads"),
            "value_fn": pinn_peers.callback_value_fn,
            "grad_fn": pinn_peers.callback_grad_fn,
            "batch": GetJinnsVariableName("batch"),
            "loss": GetJinnsVariableName("loss"),
        }
    jinns.solve(
        n_iter=2_000_000, init_params=params, data=data, loss=loss, optimizer=optimizer,
        validation=Look(), extra_optax_args_and_kwargs=extra, obs_data=obs,
        print_loss_every=pinn_peers.FOREVER, verbose=False, key=solve_key,
    )  # fmt: skip


def deepxde_run(race: Race, seed: int) -> None:
    """DeepXDE on PyTorch in float64: Adam at 1e-3 for a third of the time, then L-BFGS.

    As examples/pinn_forward/Kovasznay_flow.py, whose 30000 steps of Adam alone would be three times
    the whole race on one core; the net is that of pinn_inverse/reaction_inverse.py.
    """
    os.environ["DDE_BACKEND"] = "pytorch"
    import deepxde as dde
    import torch

    dde.config.set_default_float("float64")
    dde.config.set_random_seed(seed)
    case, names, unknowns = race.case, list(race.case.coordinates), list(race.case.unknowns)
    variables = {n: dde.Variable(float(p.initial)) for n, p in race.inferred.items()}
    lower, upper = (np.array([case.coordinates[n][i] for n in names]) for i in (0, 1))

    def pde(x, y):
        def read(name):
            if name in names:
                i = names.index(name)
                return x[:, i : i + 1]
            unknown, by = split(name, unknowns, names)
            if not by:
                return y[:, unknown : unknown + 1]
            if len(by) == 1:
                return dde.grad.jacobian(y, x, i=unknown, j=by[0])
            return dde.grad.hessian(y, x, component=unknown, i=by[0], j=by[1])

        return race.residuals(read, variables, torch)

    conditions = [
        dde.icbc.PointSetBC(at, np.asarray(value)[:, None], component=unknowns.index(name))
        for at, values in race.observations()
        for name, value in values.items()
    ]
    # Time is a coordinate like another: all conditions are values at points.
    domain = dde.geometry.Rectangle(list(lower), list(upper))
    data = dde.data.PDE(domain, pde, conditions, num_domain=case.sampler.points, num_boundary=0)
    net = dde.nn.FNN([2, *HIDDEN, len(unknowns)], "tanh", "Glorot normal")
    scale = torch.tensor(2 / (upper - lower)), torch.tensor(lower)
    net.apply_feature_transform(lambda x: scale[0] * (x - scale[1]) - 1)
    model = dde.Model(data, net)
    outside = list(variables.values())

    class Look(dde.callbacks.Callback):
        every, until, last = 50, race.seconds / 3, 0

        def on_batch_end(self):
            step = self.model.train_state.step
            if step - self.last >= self.every and not race.over:
                self.last = step
                over = race.judge(
                    step, lambda: self.model.predict(race.points),
                    lambda: {n: v.item() for n, v in variables.items()},
                )  # fmt: skip
                if over or race.spent > self.until:
                    self.model.stop_training = True

    look = Look()
    dde.optimizers.set_LBFGS_options(
        maxcor=100, ftol=0, gtol=0, maxiter=pinn_peers.FOREVER, maxls=50
    )
    options = dde.optimizers.config.LBFGS_options
    options["iter_per_step"], options["fun_per_step"] = 20, 40
    model.compile("adam", lr=1e-3, external_trainable_variables=outside)
    race.start()
    shared = {"callbacks": [look], "display_every": pinn_peers.FOREVER, "verbose": 0}
    model.train(iterations=pinn_peers.FOREVER, **shared)
    look.until, look.every = race.seconds, 20
    if not race.over:
        model.compile("L-BFGS", external_trainable_variables=outside)
        with contextlib.suppress(RuntimeError):
            model.train(**shared)


CONTESTANTS = {
    "sciopt": ("the case file, without noise", ours),
    "sciopt_ssbroyden": (
        "the same by self-scaled Broyden, as jinns below",
        lambda race, seed: ours(race, seed, ("train.optimizer={type: ssbroyden}", FOR_LONG)),
    ),
    "jinns_ssbroyden": (
        "scale_by_SSBroyden_family('SSBroyden') on net and parameters",
        lambda race, seed: jinns_run(race, seed, "SSBroyden"),
    ),
    "jinns_ngd": (
        "vanilla_ngd(), parameters by Adam",
        lambda race, seed: jinns_run(race, seed, "ngd"),
    ),
    "jinns_adam": ("optax.adam(1e-3)", lambda race, seed: jinns_run(race, seed, "adam")),
    "deepxde": ("Adam for a third of the time, then L-BFGS", deepxde_run),
}


def measure(name: str, problem: str, seed: int, seconds: float) -> dict:
    race = Race(problem, seconds)
    CONTESTANTS[name][1](race, seed)
    row = {"contestant": name, "problem": problem, "seed": seed, "setting": CONTESTANTS[name][0]}
    versions = {peer: metadata.version(peer) for peer in pinn_peers.PEERS}
    return row | race.row() | {"machine": machine() | {"peers": versions}}


def apart(name: str, problem: str, seed: int, seconds: float) -> dict:
    """`measure` in a process of its own; what fails is a row too."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder, "row.json"), Path(folder, "log")
        path = os.pathsep.join([str(pinn_peers.ROOT), os.environ.get("PYTHONPATH", "")])
        command = [
            sys.executable, __file__, "--row", str(out), "--only", name, "--problems", problem,
            "--seeds", str(seed), "--seconds", str(seconds),
        ]  # fmt: skip
        try:
            with log.open("w") as stream:
                subprocess.run(
                    command, check=True, env=os.environ | {"PYTHONPATH": path},
                    timeout=2 * seconds + 300, stdout=stream, stderr=subprocess.STDOUT,
                )  # fmt: skip
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
            print(log.read_text()[-3000:], file=sys.stderr)
            row = {"contestant": name, "problem": problem, "seed": seed}
            return row | {"setting": CONTESTANTS[name][0], "failed": type(failure).__name__}
        return json.loads(out.read_text())


def reached(row: dict, error: float) -> float | None:
    return next((x["seconds"] for x in row["looks"] if x["error"] <= error), None)


def table(rows: list[dict]) -> str:
    """Of each problem and seed: the best peer's error, when it had it, and when we did."""
    lines = [
        "| problem | seed | contestant | ms a step | best error | at | ours has it at | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    mine = {(r["problem"], r["seed"]): r for r in rows if r["contestant"] == "sciopt"}
    for row in rows:
        head = f"| {row['problem']} | {row['seed']} | `{row['contestant']}` "
        if "failed" in row:
            lines.append(head + f"| {row['failed']} | | | | |")
            continue
        best = row["best"]
        told = f"| {row['ms_a_step']:.1f} | {best['error']:.1e} | {best['seconds']:.1f} s "
        our = mine.get((row["problem"], row["seed"]))
        if row is our or our is None:
            lines.append(head + told + "| | |")
            continue
        first = reached(our, best["error"])
        ratio = "" if first is None else f"{best['seconds'] / first:.0f}"
        said = "not" if first is None else f"{first:.2f} s"
        lines.append(head + told + f"| {said} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=150.0, help="cap of each contestant")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print what is stored")
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        (name,), (problem,), (seed,) = options.only, options.problems, options.seeds
        options.row.write_text(json.dumps(measure(name, problem, seed, options.seconds)))
        return
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    every = itertools.product(options.problems, options.seeds, options.only)
    for problem, seed, name in () if options.table else every:
        row = apart(name, problem, seed, options.seconds)
        rows = [
            r for r in rows
            if (r["problem"], r["contestant"], r["seed"]) != (problem, name, seed)
        ]  # fmt: skip
        order = list(PROBLEMS), list(CONTESTANTS)
        rows = sorted(
            [*rows, row],
            key=lambda r: (
                order[0].index(r["problem"]), r["seed"], order[1].index(r["contestant"])
            ),
        )  # fmt: skip
        options.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
        print(table([row]).splitlines()[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
