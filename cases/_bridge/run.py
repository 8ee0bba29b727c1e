"""Find a case's bridge, judge it, and leave what its pictures are drawn from."""

import time
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from jaxtyping import Array, PyTree
from ott.solvers.linear.sinkhorn import Sinkhorn

import sciopt
import transport
from transport.bridge import (
    BridgeChain,
    DiscreteBridge,
    ExpectationMaximisation,
    GaussianBridge,
    LightSB,
    NeuralBridge,
    SumExpQuadratic,
    markovian_fitting,
    proportional_fitting,
)

from .._atomic import replacing
from .._checkpoint import Checkpoints
from .._engine import COMPLETED, DIVERGED, INTERRUPTED, STOPPED, AbstractEngine, Device, Progress
from .._folder import RunFolder
from .._training import finite
from . import populations, schema
from .judge import Bridge, judge
from .scenes import scenes

# Steps between two chances to be interrupted.
PIECE = 20


class Engine(AbstractEngine):
    """One run of one case of a bridge."""

    case: schema.Case

    def __init__(self, case: schema.Case, source: str, device: Device, on_progress=None):
        super().__init__(case, source, device, on_progress)
        self.tell(Progress("reference", 0, 0))
        with self.settings():
            self.process, truth = populations.process(case), populations.truth(case)
            self.ends = populations.shown(case, truth)
            self.between = populations.shown_between(case)
            self.judge = judge(case, truth, self.ends[1].points)

    def solve(self, folder: RunFolder, interrupted) -> dict[str, Any]:
        """The bridge from the last checkpoint in `folder`, or from the start; then its arrays."""
        self.folder, self.interrupted = folder, interrupted
        self.steps, self.said = 0, {}
        folder.checkpoints.mkdir(exist_ok=True)
        if not folder.provenance.exists():
            self.write_provenance(folder)
        match self.case.method:
            case schema.Light():
                bridge = self._light(self.case.method)
            case schema.Discrete():
                bridge = self._discrete(self.case.method)
            case schema.Networks():
                bridge = self._networks(self.case.method)
            case schema.ClosedForm():
                bridge = self._closed_form()
        if bridge is None or interrupted():
            return {"status": INTERRUPTED, "steps": self.steps, "residual": None}
        said = {"status": COMPLETED, "steps": self.steps, "residual": None} | self.said
        self.tell(Progress("evaluate", self.steps, self.steps))
        if said["status"] != DIVERGED:
            said |= self._judged(bridge)
            arrays: dict[str, np.ndarray] = {}
            for name, end in zip(("source", "target"), self.ends, strict=True):
                arrays |= {name: end.points, f"{name}.weights": end.weights}
            for spec, shown in zip(self.case.between, self.between, strict=True):
                arrays[f"between.{spec.time:g}"] = shown.points
            arrays |= scenes(self.case, bridge, *(end.points for end in self.ends))
            arrays |= {} if self.judge is None else self.judge.arrays(bridge)
            with replacing(folder.arrays) as temporary:
                np.savez_compressed(temporary, **arrays)  # pyright: ignore[reportArgumentType]
        return said

    def _judged(self, bridge: Bridge) -> dict[str, Any]:
        if self.judge is None:
            return {}
        assert self.case.reference is not None
        said = {
            f"error.{self.judge.label}.{self.judge.measure}": self.judge.error(bridge),
            "tolerance": self.case.reference.tolerance,
        }
        return said | self.judge.remarks(bridge)

    # --- methods ----------------------------------------------------------------------------------

    def _closed_form(self) -> GaussianBridge:
        self.tell(Progress("solve", 0, 0))
        self.folder.history.truncate(-1)
        moments = []
        for spec, shown in zip((self.case.source, self.case.target), self.ends, strict=True):
            if isinstance(spec, schema.Gaussian):
                moments.append(spec.moments)
            else:
                off = shown.points - shown.points.mean(0)
                moments.append((shown.points.mean(0), off.T @ off / len(off)))
        return populations.between_gaussians(self.case, *moments)

    def _discrete(self, spec: schema.Discrete) -> DiscreteBridge | BridgeChain:
        self.tell(Progress("solve", 0, 0))
        self.folder.history.truncate(-1)
        before = time.perf_counter()
        laws = [self.ends[0], *self.between, self.ends[1]]
        times = [0.0, *(shown.time for shown in self.case.between), 1.0]
        bridges = [
            self._between_points(spec, self.process.over(late - early), one, other)
            for (early, late), (one, other) in zip(pairwise(times), pairwise(laws), strict=True)
        ]
        last = [bridge.plan.errors for bridge in bridges]
        last = [np.asarray(errors)[np.asarray(errors) >= 0] for errors in last]
        for early, errors in zip(times[:-1], last, strict=True):
            # A static plan of its own for each interval.
            name = f"marginals from t = {early:g}" if self.between else "marginals"
            for error in errors:
                self.steps += 1
                self.folder.history.append({"step": self.steps, "residual": {name: float(error)}})
        self.said = {
            "residual": max(float(errors[-1]) for errors in last),
            "solve_seconds": time.perf_counter() - before,
            "converged": all(bool(bridge.plan.converged) for bridge in bridges),
        }
        if not self.said["converged"]:
            self.said["status"] = STOPPED
            self.said["advice"] = (
                "The static solver ended above its threshold: raise method.max_iterations, "
                "method.threshold or epsilon."
            )
        if not spec.balanced:
            weights = np.asarray(bridges[0].plan.marginal(0))
            self.said["mass"] = float(weights.sum())
        return BridgeChain(times, bridges) if self.between else bridges[0]

    def _between_points(self, spec: schema.Discrete, process, start, end) -> DiscreteBridge:
        x0, x1, a, b = (
            jnp.asarray(part, float) for name in ("points", "weights")
            for part in (getattr(law, name) for law in (start, end))
        )  # fmt: skip
        kind = transport.SinkhornNewtonSparse if spec.balanced else Sinkhorn
        solver = kind(threshold=spec.threshold, max_iterations=spec.max_iterations)
        bridge = DiscreteBridge(
            process, x0, x1, a / a.sum(), b / b.sum(), tau_a=spec.tau_a, tau_b=spec.tau_b,
            solver=solver, batch_size=spec.batch_size,
        )  # fmt: skip
        return jax.block_until_ready(bridge)

    def _networks(self, spec: schema.Networks) -> NeuralBridge | None:
        """The trained bridge; None where Ctrl-C came first."""
        x0, x1 = (jnp.asarray(end.points, float) for end in self.ends)
        key = jax.random.key(self.case.seed)
        bridge = NeuralBridge.from_samples(
            key, self.process, x0, x1, width=spec.width, depth=spec.depth
        )
        adam = optax.adam(optax.cosine_decay_schedule(spec.rate, spec.steps))
        options: dict[str, Any] = {
            "iterations": 1, "steps": spec.steps, "batch_size": spec.batch_size,
            "paths": spec.paths, "path_steps": spec.path_steps, "average": spec.average,
        }  # fmt: skip
        fitting = proportional_fitting if spec.type == "ipf" else markovian_fitting
        with Checkpoints(self.folder.checkpoints) as self.checkpoints:
            forward, backward = self._restored((bridge.forward, bridge.backward))
            bridge = NeuralBridge(self.process, forward, backward, bridge.mean, bridge.spread)
            self.steps = self.checkpoints.latest() or 0
            rows = self.folder.history.read()
            if not rows:
                # The reference, which is where a bridge of networks begins.
                self._judge_networks(bridge, 0.0)
            before = fitted = rows[-1]["fit_seconds"] if rows else 0.0
            first, total = self.steps, 2 * spec.steps * spec.iterations
            for turn in range(first // (2 * spec.steps), spec.iterations):
                if self.interrupted():
                    return None
                if turn and spec.type == "dsbm":
                    # What a further iteration would begin with: pairs of the bridge so far.
                    def pairs(key, x0, _, bridge=bridge):
                        return bridge.sample(key, x0, spec.path_steps)

                    options["coupling"] = pairs
                began, along = time.perf_counter(), jax.random.fold_in(key, turn + 1)
                solution = jax.block_until_ready(
                    fitting(bridge, x0, x1, adam, key=along, **options)
                )
                fitted += time.perf_counter() - began
                bridge, self.steps = solution.value, 2 * spec.steps * (turn + 1)
                if solution.result != optx.RESULTS.successful:
                    advice = "A loss was not finite: take a lower method.rate."
                    self.said = {"status": DIVERGED, "advice": advice}
                    return bridge
                loss = float(jnp.mean(solution.aux[0, 1, -(spec.steps // 10 + 1) :]))
                error = self._judge_networks(bridge, fitted, loss)
                self.checkpoints.save(self.steps, (bridge.forward, bridge.backward))
                rate = (self.steps - first) / (fitted - before)
                left = (total - self.steps) / rate
                self.tell(Progress("train", self.steps, total, loss, {}, error, rate, left))
        return bridge

    def _judge_networks(
        self, bridge: NeuralBridge, fitted: float, loss: float | None = None
    ) -> dict[str, float]:
        """The error after so many seconds of training, which the history keeps."""
        error = {} if self.judge is None else {self.judge.label: self.judge.error(bridge)}
        self.folder.history.append(
            {"step": self.steps, "objective": loss, "residual": {}, "error": error,
             "seconds": self.seconds(), "fit_seconds": fitted}
        )  # fmt: skip
        self.folder.history.sync()
        return error

    def _light(self, spec: schema.Light) -> LightSB | None:
        """The fitted bridge; None where Ctrl-C came first."""
        x0, x1 = (jnp.asarray(end.points, float) for end in self.ends)
        units = self.process.to_unit(0, x0), self.process.to_unit(1, x1)
        if spec.covariance == "low_rank":
            solver = sciopt.SSBFGS(rtol=spec.tolerance, atol=spec.tolerance, history_length=20)
        else:
            solver = ExpectationMaximisation(spec.tolerance)
        self.tell(Progress("compile", 0, spec.steps))
        before = time.perf_counter()
        key = jax.random.key(self.case.seed)
        start = LightSB.from_samples(
            key, self.process, x1, spec.components, covariance=spec.covariance,
            rank=spec.rank, centres=spec.centres, variance=spec.variance,
        )  # fmt: skip
        # The samples are an argument of every program, and a constant of none.
        shown = eqx.Partial(lambda units, key, potential: units, units)
        self.fit = sciopt.Fit(sciopt.Objective(_objective), solver, shown, key)
        state = self.fit.advance(self.fit.init(start.potential), 0)
        _watched(solver, state)  # only to be compiled, as is the judge
        if self.judge is not None:
            self.judge.error(start)
        self.compile_seconds = time.perf_counter() - before
        with Checkpoints(self.folder.checkpoints) as self.checkpoints:
            restored = self._restored(_saved(state))
            state = eqx.tree_at(
                lambda s: s.points, restored, state.points, is_leaf=lambda x: x is None
            )
            state, ended = self._descend(state)
        self.steps = int(state.step)
        if not ended:
            return None
        slope, converged = _watched(solver, state)
        self.said = {
            "residual": float(slope), "objective": float(state.loss), "converged": bool(converged)
        }  # fmt: skip
        if not finite(state):
            self.said["status"] = DIVERGED
            self.said["advice"] = "Try a larger epsilon, fewer components or another seed."
        return LightSB(self.process, state.params)

    def _restored(self, like: PyTree) -> PyTree:
        """What was saved last, or `like` as it is; and the history of that length."""
        saved = self.checkpoints.latest()
        self.folder.history.truncate(-1 if saved is None else saved)
        if saved is None:
            return like
        rows = self.folder.history.read()
        self.seconds_before = rows[-1]["seconds"] if rows else 0.0
        # Those of a checkpoint are bound to a device, and every program would be compiled for them.
        free = lambda x: jnp.asarray(np.asarray(x)) if eqx.is_array(x) else x  # noqa: E731
        return jax.tree.map(free, self.checkpoints.restore(saved, like))

    def _descend(self, state: sciopt.FitState) -> tuple[sciopt.FitState, bool]:
        """Steps, in pieces; and whether they came to their end."""
        spec = self.case.method
        assert isinstance(spec, schema.Light)
        looks = {round(s) for s in np.geomspace(spec.steps, 1, spec.looks)}
        rows, step = self.folder.history.read(), int(state.step)
        before = fitted = rows[-1]["fit_seconds"] if rows else 0.0
        error: dict[str, float] = {}
        slope, converged = _watched(self.fit.optimizer, state)
        first, ended = step, bool(converged) and step > 0
        for stop in sorted(looks | set(range(PIECE, spec.steps, PIECE))):
            if stop <= step or ended:
                continue
            if self.interrupted():
                self.checkpoints.save(step, _saved(state))
                return state, False
            began = time.perf_counter()
            state = jax.block_until_ready(self.fit.advance(state, stop - step))
            fitted += time.perf_counter() - began
            step, objective = stop, float(state.loss)
            slope, converged = _watched(self.fit.optimizer, state)
            residual, ended = {"gradient": float(slope)}, bool(converged) or not finite(state)
            if stop in looks or ended:
                error = self._error(state)
                self.folder.history.append(
                    {"step": step, "objective": objective, "residual": residual, "error": error,
                     "seconds": self.seconds(), "fit_seconds": fitted}
                )  # fmt: skip
                self.folder.history.sync()
                self.checkpoints.save(step, _saved(state))
            rate = (step - first) / (fitted - before)
            left = (spec.steps - step) / rate
            self.tell(
                Progress("train", step, spec.steps, objective, residual, error, rate, left)
            )  # fmt: skip
        return state, True

    def _error(self, state: sciopt.FitState) -> dict[str, float]:
        if self.judge is None:
            return {}
        bridge = LightSB(self.process, state.params)
        return {self.judge.label: self.judge.error(bridge) if finite(state) else np.nan}


def _objective(potential: SumExpQuadratic, units) -> Array:
    """Of a light bridge between samples in unit coordinates."""
    return LightSB(1.0, potential).objective(*units)


@eqx.filter_jit
def _watched(solver, state: sciopt.FitState) -> tuple[Array, Array]:
    """The root mean square of the objective's gradient, and whether the solver has converged."""
    gradient = jax.grad(_objective)(state.params, state.points)
    flat = jnp.concatenate([jnp.ravel(g) for g in jax.tree.leaves(gradient)])
    value = lambda potential, units: (_objective(potential, units),) * 2  # noqa: E731
    converged = solver.terminate(
        value, state.params, state.points, {}, state.inner, frozenset()
    )[0]  # fmt: skip
    return jnp.sqrt(jnp.mean(flat**2)), converged


def _saved(state: sciopt.FitState) -> sciopt.FitState:
    """Without the samples, which are drawn again."""
    return eqx.tree_at(lambda s: s.points, state, None)
