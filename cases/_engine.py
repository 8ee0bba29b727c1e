"""Run a case of any kind: the folder, the device, the signals, and what is told meanwhile.

What is solved, and how, is the kind's engine, in its `run.py`.
"""

import abc
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

import jax
import numpy as np

from . import _kinds as kinds
from ._folder import RunFolder, RunFolderError
from ._load import dump, load
from ._model import AbstractCase
from ._provenance import provenance
from ._report import report
from ._solution import open_solution

if TYPE_CHECKING:
    import xarray as xr

# `jax.Device` is a variable to a type checker, and cannot annotate.
Device = Any

COMPLETED, STOPPED, DIVERGED, INTERRUPTED = "completed", "stopped", "diverged", "interrupted"


@dataclass(frozen=True)
class Progress:
    """What a run tells whoever watches it.

    - `phase`: `train` or `iterate`, which count steps, or another that takes its time (`compile`,
      `solve`, `reference`, `evaluate`, `report`).
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
        """`completed`, `stopped`, `diverged` or `interrupted`."""
        return self.summary["status"]

    @property
    def case(self) -> Any:
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

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of `solution.npz`: plans, potentials, draws, paths; none before it is."""
        return RunFolder.open(self.folder).read_arrays()


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
    # Whatever can still be wrong with the case shows here, before a folder is touched.
    engine = _engine(case, str(path), device, on_progress)
    with RunFolder.create(out, case=case.name, overwrite=overwrite) as folder:
        folder.write_text("case.yaml", dump(_adopted(case, folder)))
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
        return _engine(case, str(opened.case), device, on_progress).run(opened)


def _engine(case: AbstractCase, source: str, device: str | None, on_progress) -> "AbstractEngine":
    return kinds.engine(case.kind)(case, source, _device(device), on_progress)


def _device(name: str | None) -> Device:
    if name is None:
        return jax.devices()[0]
    try:
        return jax.devices(name)[0]
    except RuntimeError as e:
        hint = "; pip install 'sciopt[gpu]' brings the CUDA build of JAX" if name == "gpu" else ""
        raise RunFolderError(f"no {name} device was found by JAX{hint}") from e


def _adopted(case: AbstractCase, folder: RunFolder) -> AbstractCase:
    # A run must not depend on files outside of its folder: it may be moved, or sent to somebody.
    for key in case.files():
        path = case.get(key)
        name = folder.input_name(key, path.suffix)
        shutil.copyfile(path, folder.path / name)
        case = case.with_value(key, Path(name))
    return case


class AbstractEngine(abc.ABC):
    """One run of one case.

    Making it checks what loading could not; `run` then writes all of the folder.
    """

    def __init__(
        self,
        case: Any,
        source: str,
        device: Device,
        on_progress: Callable[[Progress], None] | None = None,
    ):
        self.case = case
        self.source = source
        self.device = device
        self.tell: Callable[[Progress], None] = on_progress or (lambda progress: None)
        self.seconds_before = 0.0
        self.compile_seconds = 0.0
        self.started = time.perf_counter()

    @abc.abstractmethod
    def solve(self, folder: RunFolder, interrupted: Callable[[], bool]) -> dict[str, Any]:
        """Go on from the last checkpoint in `folder`, or start; what the summary shall say.

        Of that `status`, `steps` and `residual` must be. `interrupted` is to be asked often: once
        it says so, a checkpoint is written, and the status is `interrupted`.
        """

    def run(self, folder: RunFolder) -> Run:
        """Solve, and write the summary and the report."""
        with self.settings(), _interruptible() as interrupted:
            found = self.solve(folder, interrupted)
        summary = {
            "status": found["status"],
            "case": self.case.name,
            "steps": found["steps"],
            "wall_seconds": self.seconds(),
            "compile_seconds": self.compile_seconds,
            "peak_memory_bytes": _peak_memory(self.device),
            "residual": found["residual"],
            "tolerance": found.get("tolerance"),
            "seed": self.case.seed,
            "device": self.device.device_kind,
        }
        folder.write_json("summary.json", summary | found)
        self.tell(Progress("report", found["steps"], found["steps"]))
        report(folder.path)
        return Run(folder.path, folder.read_summary())

    @contextlib.contextmanager
    def settings(self) -> Iterator[None]:
        """The case's precision and device, and nothing else's."""
        # Scoped, since a library must not change its caller's switches.
        precision = jax.enable_x64(self.case.precision == "float64")
        with precision, jax.default_device(self.device):
            yield

    def seconds(self) -> float:
        """Since the run began, without the time in which it lay still."""
        return self.seconds_before + time.perf_counter() - self.started

    def write_provenance(self, folder: RunFolder) -> None:
        """Where this run came from."""
        record = provenance(seed=self.case.seed, device=self.device.device_kind)
        folder.write_json("provenance.json", record)


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
