"""Train the network of a case: the host's loop around the compiled one, and what it leaves.

The host sees scalars, every so many steps; what happens when depends on the number of the step
alone, so that a resumed run does exactly what an uninterrupted one would have done.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import pde
import sciopt

from .._checkpoint import Checkpoints
from .._engine import COMPLETED, DIVERGED, INTERRUPTED, AbstractEngine, Device, Progress
from .._folder import RunFolder
from .._provenance import provenance
from .._solution import write_solution
from .._source import CaseError, Problem
from . import build
from .schema import Case

# A loss this many times the first one is not on its way back.
DIVERGENCE = 1e6


class Engine(AbstractEngine):
    """One run of one case of a network."""

    case: Case
    # Which places of the grid are in the domain: all, where it has no shape.
    inside: Any = ...

    def __init__(self, case: Case, source: str, device: Device, on_progress=None):
        super().__init__(case, source, device, on_progress)
        self.axes = {
            name: np.linspace(*case.coordinates[name], count)
            for name, count in case.evaluate.grid.items()
        }
        adapt = case.sampler.adapt
        self.resample_every = adapt.every if adapt else case.sampler.resample_every
        self.tell(Progress("compile", 0, case.train.steps))
        with self.settings():
            network_key, points_key = jax.random.split(jax.random.key(case.seed))
            try:
                self.pinn = build.pinn(case, network_key)
                self.reference, self.judged = self._references()
            except ValueError as e:  # what shows only once expressions are evaluated, files read
                raise CaseError([Problem(source, str(e))]) from None
            optimizer = build.optimizer(case)
            self.fit = sciopt.Fit(self.pinn.residuals, optimizer, self.pinn.sample, points_key)

    def _references(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
        """The reference on the grid, and at the points that judge the error where they do."""
        case, reference = self.case, build.reference(self.case)
        box = self.pinn.problem.domain
        if case.evaluate.points is None:
            if case.shape is not None:
                grid = np.meshgrid(*(self.axes[name] for name in box.names), indexing="ij")
                self.inside = np.asarray(box.covers(jnp.asarray(np.stack(grid, -1))))
            found = {} if reference is None else reference(self.axes)
            for name, values in found.items():
                if not np.isfinite(values[self.inside]).all():
                    raise ValueError(f"the reference of {name} is not finite within the domain")
            return found, None
        # The points are those of the domain, whatever the seed.
        self.judges = box.draw(pde.Sobol(), jax.random.key(0), case.evaluate.points)
        grid = np.meshgrid(*self.axes.values(), indexing="ij")
        middle = (np.asarray(box.lower) + np.asarray(box.upper)) / 2
        plane = np.tile(middle, (grid[0].size, 1))
        for name, values in zip(self.axes, grid, strict=True):
            plane[:, box.axis(name)] = values.ravel()
        self.plane = jnp.asarray(plane)
        if case.shape is not None:
            self.inside = np.asarray(box.covers(self.plane)).reshape(grid[0].shape)
        if reference is None:
            return {}, {}
        assert isinstance(reference, pde.reference.Exact)
        on_grid, judged = (
            reference.at({n: np.asarray(c, float) for n, c in box.named(p).items()}, len(p))
            for p in (self.plane, self.judges)
        )
        return {name: u.reshape(grid[0].shape) for name, u in on_grid.items()}, judged

    def solve(self, folder: RunFolder, interrupted) -> dict[str, Any]:
        """Train from the last checkpoint in `folder`, or from the start, and write the fields."""
        self.folder = folder
        with Checkpoints(folder.checkpoints) as self.checkpoints:
            state = self._first_state()
            status, state = self._train(state, interrupted)
        self._write_solution(status, state)
        return self._summary(status, state)

    def _first_state(self) -> sciopt.FitState:
        """The state to start from, with every program compiled that the loop will need."""
        folder = self.folder
        before = time.perf_counter()
        state = self.fit.init(self.pinn.params)
        state = self.fit.advance(state, 0)
        self.first_loss = float(state.loss)
        self._watch(state)
        if self.resample_every:
            self.fit.resample(state)  # only to be compiled
        self.compile_seconds = time.perf_counter() - before
        saved = self.checkpoints.latest()
        if saved is None:
            self.write_provenance(folder)
            self.checkpoints.save(0, state)
            folder.history.truncate(-1)
            return state
        state = self.checkpoints.restore(saved, state)
        folder.history.truncate(saved)
        rows = folder.history.read()
        self.seconds_before = rows[-1]["seconds"] if rows else 0.0
        return state

    def _train(self, state: sciopt.FitState, interrupted) -> tuple[str, sciopt.FitState]:
        train, resample_every = self.case.train, self.resample_every
        every = [n for n in (train.log_every, train.checkpoint_every, resample_every) if n]
        # Between optimizers points are chosen anew, where they are chosen anew at all.
        ends = set(train.ends) if resample_every else set()
        good, step = state, int(state.step)
        began, first = time.perf_counter(), step
        while step < train.steps:
            if interrupted():
                self.checkpoints.save(step, state)
                return INTERRUPTED, state
            later = [n for n in ends if n > step]
            stop = min([train.steps, *later, *(n * (step // n + 1) for n in every)])
            state = self.fit.advance(state, stop - step)
            if self._diverged(state):
                self.checkpoints.save(step, good)
                return DIVERGED, good
            step = stop
            if step % train.log_every == 0 or step == train.steps:
                rate = (step - first) / (time.perf_counter() - began)
                self._log(state, rate)
            due = resample_every and (step % resample_every == 0 or step in ends)
            if due and step < train.steps:
                state = self.fit.resample(state)
            if step % train.checkpoint_every == 0 or step == train.steps:
                self.folder.history.sync()
                self.checkpoints.save(step, state)
            good = state
        return COMPLETED, state

    def _diverged(self, state: sciopt.FitState) -> bool:
        loss = float(state.loss)
        finite = all(bool(jnp.all(jnp.isfinite(p))) for p in jax.tree.leaves(state.params))
        return not finite or not loss <= DIVERGENCE * max(self.first_loss, 1.0)

    def _watch(self, state: sciopt.FitState) -> tuple[dict[str, float], dict[str, float]]:
        """Root mean square of each residual, and relative error of each field."""
        residual = _rms(self.fit.residuals, state.params, state.points)
        errors = self._errors(state)
        return (
            {name: float(r) for name, r in residual.items()},
            {name: e["relative_l2"] for name, e in errors.items()},
        )

    def _log(self, state: sciopt.FitState, rate: float) -> None:
        residual, error = self._watch(state)
        step, steps, loss = int(state.step), self.case.train.steps, float(state.loss)
        self.folder.history.append(
            {
                "step": step,
                "loss": loss,
                "residual": residual,
                "error": error,
                "seconds": self.seconds(),
            }
        )
        left = (steps - step) / rate
        self.tell(Progress("train", step, steps, loss, residual, error, rate, left))

    def _fields(self, state: sciopt.FitState) -> dict[str, np.ndarray]:
        field = self.pinn.field(state.params)
        if self.judged is None:
            axes = {name: jnp.asarray(axis) for name, axis in self.axes.items()}
            values = field.on_grid(axes)
        else:
            shape = tuple(map(len, self.axes.values()))
            values = {name: u.reshape(shape) for name, u in field.at(self.plane).items()}
        return self._blank({name: np.asarray(u, np.float64) for name, u in values.items()})

    def _blank(self, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Fields without the values that they have outside of the domain."""
        if self.inside is ...:
            return fields
        return {name: np.where(self.inside, u, np.nan) for name, u in fields.items()}

    def _errors(self, state: sciopt.FitState) -> dict[str, dict[str, float]]:
        """Of the fields, and of inferred parameters whose truth is known."""
        found = self._field_errors(state)
        for name, value in self.pinn.inferred(state.params).items():
            truth = self.case.parameters[name].truth
            if truth is not None:
                away = abs(float(value) - truth)
                found[name] = {"relative_l2": away / (abs(truth) or 1.0), "max": away}
        return found

    def _field_errors(self, state: sciopt.FitState) -> dict[str, dict[str, float]]:
        if self.judged is None:
            return _errors(self._fields(state), self.reference, self.inside)
        found = self.pinn.field(state.params).at(self.judges)
        values = {name: np.asarray(u, np.float64) for name, u in found.items()}
        return _errors(values, self.judged, ...)

    def _write_solution(self, status: str, state: sciopt.FitState) -> None:
        if status != COMPLETED:
            return
        self.tell(Progress("evaluate", int(state.step), self.case.train.steps))
        attrs = {
            "title": self.case.description or self.case.name,
            "case": self.case.name,
            "sciopt_version": provenance()["versions"]["sciopt"] or "unknown",
        }
        write_solution(
            self.folder.solution,
            self.axes,
            self._fields(state),
            self._blank(self.reference),
            self.case.units,
            attrs,
        )

    def _summary(self, status: str, state: sciopt.FitState) -> dict[str, Any]:
        summary: dict[str, Any] = {
            "status": status,
            "steps": int(state.step),
            "residual": float(np.sqrt(state.loss)),
            "tolerance": self.case.evaluate.tolerance,
        }
        for name, measures in self._errors(state).items():
            for measure, value in measures.items():
                summary[f"error.{name}.{measure}"] = value
        if self.pinn.problem.inferred:
            deviations = self.pinn.deviations(state.params, state.points)
            for name, value in self.pinn.inferred(state.params).items():
                summary[f"inferred.{name}.value"] = float(value)
                summary[f"inferred.{name}.deviation"] = deviations[name]
        if status == DIVERGED:
            summary["advice"] = self._advice()
        return summary

    def _advice(self) -> str:
        if not np.isfinite(self.first_loss):
            return "Try other expressions: the residual is not finite before the first step."
        kinds = {o.type for o in self.case.train.optimizers}
        if "gauss_newton" in kinds:
            return "Try a larger train.optimizer.damping (say 1), or more collocation points."
        return "Try a learning rate ten times smaller: --set train.optimizer.learning_rate=…"


_rms = eqx.filter_jit(lambda residuals, params, points: residuals.rms(params, points))


def _errors(
    fields: dict[str, np.ndarray], reference: dict[str, np.ndarray], where: Any
) -> dict[str, dict[str, float]]:
    """Of each field that has a reference, at the places that an index picks."""
    out = {}
    for name, values in reference.items():
        exact = values[where]
        difference = fields[name][where] - exact
        scale = np.linalg.norm(exact)
        # Where the reference is zero everywhere there is only the absolute error.
        relative = np.linalg.norm(difference) / (scale if scale > 0 else 1.0)
        out[name] = {"relative_l2": float(relative), "max": float(np.max(np.abs(difference)))}
    return out
