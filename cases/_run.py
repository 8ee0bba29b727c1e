"""Run a case: the host's loop around the compiled one, and everything it leaves on disk.

The host sees scalars, every so many steps; what happens when depends on the number of the step
alone, so that a resumed run does exactly what an uninterrupted one would have done.
"""

import contextlib
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import pde
import sciopt

from . import _build as build
from ._checkpoint import Checkpoints
from ._folder import RunFolder, RunFolderError
from ._load import CaseError, Problem, dump, load
from ._provenance import provenance
from ._report import report
from ._schema import Case, FileReference
from ._solution import open_solution, write_solution

if TYPE_CHECKING:
    import xarray as xr

# `jax.Device` is a variable to a type checker, and cannot annotate.
Device = Any

COMPLETED, DIVERGED, INTERRUPTED = "completed", "diverged", "interrupted"

# A loss this many times the first one is not on its way back.
DIVERGENCE = 1e6


@dataclass(frozen=True)
class Progress:
    """What a run tells whoever watches it.

    - `phase`: `compile`, `train`, `evaluate` or `report`.
    - `step`, `steps`: taken, and to take.
    - `loss`; `residual`, the root mean square of each block; `error`, the relative L2 error of
        each field, empty where the case has no reference.
    - `steps_per_second`, `seconds_left`: zero and `None` before the first step.
    """

    phase: str
    step: int
    steps: int
    loss: float = float("nan")
    residual: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    steps_per_second: float = 0.0
    seconds_left: float | None = None


@dataclass(frozen=True)
class Run:
    """A run that has ended, by its folder."""

    folder: Path
    summary: dict[str, Any]

    @property
    def status(self) -> str:
        """`completed`, `diverged` or `interrupted`."""
        return self.summary["status"]

    @property
    def case(self) -> Case:
        """The resolved case."""
        return load(self.folder / "case.yaml")

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of `history.jsonl`."""
        return RunFolder.open(self.folder).history.read()

    @property
    def solution(self) -> "xr.Dataset":
        """The fields on a grid, with reference and error: `solution.nc`, read lazily."""
        return open_solution(self.folder / "solution.nc")


def run(
    path: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    sets: Sequence[str] = (),
    device: str | None = None,
    memory_limit: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Run a case file.

    **Arguments:**

    - `path`: a case file, or the name of a case that is shipped.
    - `out`: the run's folder; `runs/<case>-<time>` by default. `overwrite` replaces a run there.
    - `sets`: overrides such as `"train.steps=50"`.
    - `device`: `"cpu"` or `"gpu"`; JAX's default otherwise.
    - `memory_limit`: bytes above which a case is refused.
    - `on_progress`: called with a [`cases.Progress`][] now and then.

    **Raises:** `cases.CaseError` for a case that is wrong; `cases.RunFolderError` for a folder that
    cannot be used. Divergence and interruption are no exceptions: see `Run.status`.

    ```python
    >>> import cases, tempfile
    >>> out = tempfile.mkdtemp() + "/quick"
    >>> run = cases.run("poisson_quick", out=out, sets=["train.steps=2"])
    >>> run.status, run.summary["steps"]
    ('completed', 2)

    ```
    """
    case = load(path, sets, memory_limit)
    chosen = _device(device)
    # Whatever can still be wrong with the case shows here, before a folder is touched.
    engine = _Engine(case, str(path), chosen, on_progress)
    with RunFolder.create(out, case=case.name, overwrite=overwrite) as folder:
        folder.write_text("case.yaml", dump(_adopt_reference(case, folder)))
        return engine.run(folder)


def resume(
    folder: str | os.PathLike[str],
    *,
    device: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Continue a run that was interrupted or killed, from its last checkpoint.

    The numbers are those of a run that never stopped. A run that has completed is given back as
    it is.

    **Raises:** `cases.RunFolderError` where there is no run, or another process is writing it.
    """
    with RunFolder.open(folder, lock=True) as opened:
        case = load(opened.case)
        if opened.read_summary().get("status") == COMPLETED:
            return Run(opened.path, opened.read_summary())
        return _Engine(case, str(opened.case), _device(device), on_progress).run(opened)


def _device(name: str | None) -> Device:
    if name is None:
        return jax.devices()[0]
    try:
        return jax.devices(name)[0]
    except RuntimeError as e:
        hint = "; pip install 'sciopt[gpu]' brings the CUDA build of JAX" if name == "gpu" else ""
        raise RunFolderError(f"no {name} device was found by JAX{hint}") from e


def _adopt_reference(case: Case, folder: RunFolder) -> Case:
    # A run must not depend on files outside of its folder: it may be moved, or sent to somebody.
    if not isinstance(case.reference, FileReference):
        return case
    name = f"reference{case.reference.path.suffix}"
    shutil.copyfile(case.reference.path, folder.path / name)
    reference = case.reference.model_copy(update={"path": Path(name)})
    return case.model_copy(update={"reference": reference})


class _Engine:
    """One run of one case."""

    def __init__(self, case: Case, source: str, device: Device, on_progress):
        self.case = case
        self.device = device
        self.tell: Callable[[Progress], None] = on_progress or (lambda progress: None)
        self.axes = {
            name: np.linspace(*case.coordinates[name], count)
            for name, count in case.evaluate.grid.items()
        }
        adapt = case.sampler.adapt
        self.resample_every = adapt.every if adapt else case.sampler.resample_every
        self.started = time.perf_counter()
        self.tell(Progress("compile", 0, case.train.steps))
        with self._settings():
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
        if case.evaluate.points is None:
            return ({} if reference is None else reference(self.axes)), None
        box = self.pinn.problem.domain
        # The points are those of the domain, whatever the seed.
        unit = pde.Sobol()(jax.random.key(0), case.evaluate.points, box.ndim)
        self.judges = box.from_unit(unit)
        grid = np.meshgrid(*self.axes.values(), indexing="ij")
        middle = (np.asarray(box.lower) + np.asarray(box.upper)) / 2
        plane = np.tile(middle, (grid[0].size, 1))
        for name, values in zip(self.axes, grid, strict=True):
            plane[:, box.axis(name)] = values.ravel()
        self.plane = jnp.asarray(plane)
        if reference is None:
            return {}, {}
        assert isinstance(reference, pde.reference.Exact)
        on_grid, judged = (
            reference.at({n: np.asarray(c, float) for n, c in box.named(p).items()}, len(p))
            for p in (self.plane, self.judges)
        )
        return {name: u.reshape(grid[0].shape) for name, u in on_grid.items()}, judged

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        # Scoped, since a library must not change its caller's switches.
        precision = jax.enable_x64(self.case.precision == "float64")
        with precision, jax.default_device(self.device):
            yield

    def run(self, folder: RunFolder) -> Run:
        """Train from the last checkpoint in `folder`, or from the start, and write all of it."""
        self.folder = folder
        with self._settings(), _interruptible() as interrupted:
            with Checkpoints(folder.checkpoints) as self.checkpoints:
                state = self._first_state()
                status, state = self._train(state, interrupted)
            self._write_solution(status, state)
            summary = self._summary(status, state)
        folder.write_json("summary.json", summary)
        self.tell(Progress("report", int(state.step), self.case.train.steps))
        report(folder.path)
        return Run(folder.path, folder.read_summary())

    def _first_state(self) -> sciopt.FitState:
        """The state to start from, with every program compiled that the loop will need."""
        folder, case = self.folder, self.case
        before = time.perf_counter()
        state = self.fit.init(self.pinn.params)
        state = self.fit.advance(state, 0)
        self.first_loss = float(state.loss)
        self._watch(state)
        if self.resample_every:
            self.fit.resample(state)  # only to be compiled
        self.compile_seconds = time.perf_counter() - before
        self.seconds_before = 0.0
        saved = self.checkpoints.latest()
        if saved is None:
            record = provenance(seed=case.seed, device=self.device.device_kind)
            folder.write_json("provenance.json", record)
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
                "seconds": self._seconds(),
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
        return {name: np.asarray(u, np.float64) for name, u in values.items()}

    def _errors(self, state: sciopt.FitState) -> dict[str, dict[str, float]]:
        if self.judged is None:
            return _errors(self._fields(state), self.reference)
        found = self.pinn.field(state.params).at(self.judges)
        return _errors({name: np.asarray(u, np.float64) for name, u in found.items()}, self.judged)

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
            self.reference,
            self.case.units,
            attrs,
        )

    def _summary(self, status: str, state: sciopt.FitState) -> dict[str, Any]:
        summary = {
            "status": status,
            "case": self.case.name,
            "steps": int(state.step),
            "wall_seconds": self._seconds(),
            "compile_seconds": self.compile_seconds,
            "peak_memory_bytes": _peak_memory(self.device),
            "residual": float(np.sqrt(state.loss)),
            "tolerance": self.case.evaluate.tolerance,
            "seed": self.case.seed,
            "device": self.device.device_kind,
        }
        for name, measures in self._errors(state).items():
            for measure, value in measures.items():
                summary[f"error.{name}.{measure}"] = value
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

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started


_rms = eqx.filter_jit(lambda residuals, params, points: residuals.rms(params, points))


def _errors(
    fields: dict[str, np.ndarray], reference: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    out = {}
    for name, exact in reference.items():
        difference = fields[name] - exact
        scale = np.linalg.norm(exact)
        # Where the reference is zero everywhere there is only the absolute error.
        relative = np.linalg.norm(difference) / (scale if scale > 0 else 1.0)
        out[name] = {"relative_l2": float(relative), "max": float(np.max(np.abs(difference)))}
    return out


def _peak_memory(device: Device) -> int:
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats:
        return int(stats["peak_bytes_in_use"])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or SIGTERM ask for a checkpoint, and obey the second one at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {}

    def ask(number, frame):
        asked.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
