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
from .._training import finite
from . import build
from .inference import Laplace
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
        self.steps = case.train.steps * case.train.windows
        self.finished: list[pde.Field] = []
        self.tell(Progress("compile", 0, self.steps))
        with self.settings():
            try:
                self._enter_window()
                self.reference, self.judged = self._references()
            except ValueError as e:  # what shows only once expressions are evaluated, files read
                raise CaseError([Problem(source, str(e))]) from None

    def _enter_window(self) -> None:
        """Pose the problem of the window after those that are finished."""
        case, turn = self.case, len(self.finished)
        network_key, points_key = jax.random.split(jax.random.key(case.seed))
        posed = None
        if case.train.windows > 1:
            posed = build.problem(case)
            interval = pde.windows(posed, case.train.windows)[turn]
            posed = pde.in_window(posed, interval, self.finished[-1] if turn else None)
        self.pinn = build.pinn(case, network_key, posed)
        optimizer = build.optimizer(case)
        key = jax.random.fold_in(points_key, turn) if turn else points_key
        self.fit = sciopt.Fit(self.pinn.residuals, optimizer, self.pinn.sample, key)

    def _step(self, state: sciopt.FitState) -> int:
        """Steps so far, in all windows."""
        return len(self.finished) * self.case.train.steps + int(state.step)

    def _saved(self, state: sciopt.FitState) -> Any:
        """What a checkpoint holds: the state, and the networks of the windows before."""
        return state, [pde.partition(field.network)[0] for field in self.finished]

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
            self.checkpoints.save(0, self._saved(state))
            folder.history.truncate(-1)
            return state
        state = self.restored(saved, state)
        folder.history.truncate(saved)
        rows = folder.history.read()
        self.seconds_before = rows[-1]["seconds"] if rows else 0.0
        return state

    def restored(self, saved: int, state: sciopt.FitState) -> sciopt.FitState:
        """The state of a checkpoint, and its window; `state` is the first one of the first."""
        train = self.case.train
        before = min(saved // max(train.steps, 1), train.windows - 1)
        like = (state, [self.pinn.params] * before)
        state, params = self.checkpoints.restore(saved, like)
        for own in params:
            self.finished.append(self.pinn.field(own))
            self._enter_window()
        if not params:
            return state
        # Functions that an optimizer's state may hold are those of its own window.
        fresh = eqx.filter(self.fit.init(state.params), eqx.is_array, inverse=True)
        return eqx.combine(eqx.filter(state, eqx.is_array), fresh)

    def _train(self, state: sciopt.FitState, interrupted) -> tuple[str, sciopt.FitState]:
        """Window after window."""
        while True:
            status, state = self._train_window(state, interrupted)
            if status != COMPLETED or len(self.finished) == self.case.train.windows - 1:
                return status, state
            self.finished.append(self.pinn.field(state.params))
            self._enter_window()
            # From where the one before it ended, whose clock it also is.
            state = self.fit.init(state.params)
            self.folder.history.sync()
            self.checkpoints.save(self._step(state), self._saved(state))

    def _train_window(self, state: sciopt.FitState, interrupted) -> tuple[str, sciopt.FitState]:
        train, resample_every = self.case.train, self.resample_every
        every = [n for n in (train.log_every, train.checkpoint_every, resample_every) if n]
        # Between optimizers points are chosen anew, where they are chosen anew at all.
        changes = set(train.ends) if resample_every else set()
        good, step = state, int(state.step)
        began, first = time.perf_counter(), step
        while step < train.steps:
            if interrupted():
                self.checkpoints.save(self._step(state), self._saved(state))
                return INTERRUPTED, state
            later = [n for n in changes if n > step]
            stop = min([train.steps, *later, *(n * (step // n + 1) for n in every)])
            state = self.fit.advance(state, stop - step)
            if self._diverged(state):
                self.checkpoints.save(self._step(good), self._saved(good))
                return DIVERGED, good
            step = stop
            if step % train.log_every == 0 or step == train.steps:
                rate = (step - first) / (time.perf_counter() - began)
                self._log(state, rate)
            due = resample_every and (step % resample_every == 0 or step in changes)
            if due and step < train.steps:
                state = self.fit.resample(state)
            ends = step == train.steps
            last = len(self.finished) == train.windows - 1
            # At the end of a window it is the next one that is saved, as it begins.
            if last if ends else step % train.checkpoint_every == 0:
                self.folder.history.sync()
                self.checkpoints.save(self._step(state), self._saved(state))
            good = state
        return COMPLETED, state

    def _diverged(self, state: sciopt.FitState) -> bool:
        bound = DIVERGENCE * max(self.first_loss, 1.0)
        return not finite(state) or not float(state.loss) <= bound

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
        step, steps, loss = self._step(state), self.steps, float(state.loss)
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
        """On the grid, as far as the windows that have begun reach."""
        field = self.pinn.field(state.params)
        if self.judged is None:
            axes = {name: jnp.asarray(axis) for name, axis in self.axes.items()}
            if self.case.train.windows > 1:
                box = self.pinn.problem.domain
                axes["t"] = axes["t"][: self._reached(box.upper[box.axis("t")])]
                values = pde.Marched([*self.finished, field]).on_grid(axes)
            else:
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

    def _reached(self, time: float) -> int:
        """How many times of the grid are not after another."""
        return int(np.sum(self.axes["t"] <= time * (1 + 1e-12)))

    def _errors(self, state: sciopt.FitState) -> dict[str, dict[str, float]]:
        """Of the fields, and of inferred parameters whose truth is known."""
        found = self._field_errors(state)
        for name, value in self.pinn.inferred(state.params).items():
            truth = getattr(self.case.parameters[name], "truth", None)
            if truth is not None:
                away = abs(float(value) - truth)
                found[name] = {"relative_l2": away / (abs(truth) or 1.0), "max": away}
        return found

    def _field_errors(self, state: sciopt.FitState) -> dict[str, dict[str, float]]:
        if self.judged is None:
            fields = self._fields(state)
            # Later windows have no error yet.
            shape = tuple(map(slice, next(iter(fields.values())).shape))
            reference = {name: u[shape] for name, u in self.reference.items()}
            inside = self.inside if self.inside is ... else self.inside[shape]
            return _errors(fields, reference, inside)
        found = self.pinn.field(state.params).at(self.judges)
        values = {name: np.asarray(u, np.float64) for name, u in found.items()}
        return _errors(values, self.judged, ...)

    def _write_solution(self, status: str, state: sciopt.FitState) -> None:
        if status != COMPLETED:
            return
        self.tell(Progress("evaluate", self._step(state), self.steps))
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
            "steps": self._step(state),
            "residual": float(np.sqrt(state.loss)),
            "tolerance": self.case.evaluate.tolerance,
        }
        for name, measures in self._errors(state).items():
            for measure, value in measures.items():
                summary[f"error.{name}.{measure}"] = value
        if self.pinn.problem.inferred:
            summary |= self._inferred(status, state)
        if status == DIVERGED:
            summary["advice"] = self._advice()
        return summary

    def _inferred(self, status: str, state: sciopt.FitState) -> dict[str, float | None]:
        """Each inferred parameter, and its standard deviation; the mean of an ensemble."""
        spec = self.case.uncertainty
        found: dict[str, float | None] = {}
        values = self.pinn.inferred(state.params)
        if isinstance(spec, Laplace) or status != COMPLETED:
            deviations = self.pinn.deviations(state.params, state.points)
        else:
            drawn = self._ensemble(spec.members, state)
            deviations = {
                name: float(np.std(own, ddof=1)) if len(own) > 1 else None
                for name, own in drawn.items()
            }
            found |= {
                f"inferred.{name}.mean": float(np.mean(own)) if len(own) else None
                for name, own in drawn.items()
            }
        for name, value in values.items():
            found[f"inferred.{name}.value"] = float(value)
            found[f"inferred.{name}.deviation"] = deviations[name]
        return found

    def _ensemble(self, members: int, state: sciopt.FitState) -> dict[str, np.ndarray]:
        """The values of those members that stayed finite."""
        self.tell(Progress("ensemble", self._step(state), self.steps))
        case = self.case
        keys = jax.random.split(jax.random.fold_in(jax.random.key(case.seed), members), members + 1)
        drawn = pde.ensemble(
            self.pinn,
            [build.pinn(case, key, self.pinn.problem).params for key in keys[1:]],
            build.optimizer(case),
            steps=case.train.steps,
            key=keys[0],
            noise=self.pinn.noise(state.params, state.points),
        )
        found = {name: np.asarray(values, np.float64) for name, values in drawn.items()}
        return {name: values[np.isfinite(values)] for name, values in found.items()}

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
