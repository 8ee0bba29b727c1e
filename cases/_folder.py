"""A run's folder: made once, never overwritten by accident, written by one process at a time.

Layout (DESIGN.md): `case.yaml`, `provenance.json`, `history.jsonl`, `checkpoints/`, `solution.nc`
(or `.npz`), `summary.json`, `plots/`, `report.html`; beside them `.lock`, which the writing process
holds.
"""

import json
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from ._atomic import TEMPORARY_PREFIX, write_bytes, write_json, write_text
from ._history import History
from ._model import Key

if TYPE_CHECKING:
    import numpy as np

LOCK = ".lock"
FILES = ("case.yaml", "provenance.json", "history.jsonl", "solution.nc", "solution.npz",
         "summary.json", "report.html")  # fmt: skip
FOLDERS = ("checkpoints", "plots")
# Keys of a case under which there may be a file, which the run's folder then has a copy of.
INPUTS = ("data", "reference", "source", "target", "cost")


class RunFolderError(OSError):
    """Something about a run's folder that its user can put right; `str()` is one sentence."""


class RunExistsError(RunFolderError, FileExistsError):
    """The folder is there, is not empty, and may not be (or was not asked to be) overwritten."""


class RunLockedError(RunFolderError, BlockingIOError):
    """Another process is writing this run."""


class NotARunError(RunFolderError, FileNotFoundError):
    """There is no run in that folder."""


class RunFolder:
    """The paths of one run, and the exclusive right to write them while it is open.

    Use `create` for a new run and `open` for one that exists. As a context manager it gives the
    lock back on leaving; the operating system does so if the process dies.

    >>> import tempfile
    >>> with RunFolder.create(Path(tempfile.mkdtemp()) / "run") as folder:
    ...     _ = folder.write_json("summary.json", {"status": "completed", "residual": float("nan")})
    ...     folder.read_summary()
    {'status': 'completed', 'residual': None}
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.case = self.path / "case.yaml"
        self.provenance = self.path / "provenance.json"
        self.history = History(self.path / "history.jsonl")
        self.checkpoints = self.path / "checkpoints"
        self.solution = self.path / "solution.nc"
        self.arrays = self.path / "solution.npz"
        self.summary = self.path / "summary.json"
        self.plots = self.path / "plots"
        self.report = self.path / "report.html"
        self._lock: BinaryIO | None = None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        case: str = "run",
        overwrite: bool = False,
    ) -> Self:
        """Make and lock a new run's folder.

        Parameters:
            path: the folder's exact name; None for `runs/<case>-<UTC time>`, numbered if taken.
            case: the case's name, used only where `path` is None.
            overwrite: remove the run that is at `path`, if everything there belongs to a run.

        Raises:
            RunExistsError: `path` is not empty and `overwrite` is off, or what is there is not
                recognisably a run and nothing else, or `path` is a link.
            RunLockedError: another process is writing the run at `path`.
        """
        if path is None:
            return cls._create_named(case)
        folder = cls(path)
        folder._refuse_unless_free(overwrite)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder._acquire()
        try:
            # Look again: another process may have filled it between the look and the lock.
            folder._refuse_unless_free(overwrite)
            folder._clear()
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def _create_named(cls, case: str) -> Self:
        stem = re.sub(r"[^\w.-]+", "-", case).strip(".-") or "run"
        name = f"{stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        number = 1
        while True:
            folder = cls(Path("runs") / (name if number == 1 else f"{name}-{number}"))
            folder.path.parent.mkdir(exist_ok=True)
            try:
                folder.path.mkdir()  # who makes it owns it: two processes never get one name
            except FileExistsError:
                number += 1
                continue
            folder._acquire()
            return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, lock: bool = False) -> Self:
        """The run at `path`; with `lock`, for writing (resume).

        Raises:
            NotARunError: there is neither a `case.yaml` nor a `summary.json` at `path`.
            RunLockedError: with `lock`, another process is writing it.
        """
        folder = cls(path)
        if not folder.case.is_file() and not folder.summary.is_file():
            what = "holds no run (no case.yaml)" if folder.path.is_dir() else "is not a folder"
            raise NotARunError(f"{folder.path} {what}")
        if lock:
            folder._acquire()
        return folder

    def write_text(self, name: str, content: str) -> Path:
        """Write the file `name` of this run atomically."""
        return write_text(self.path / name, content)

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write the file `name` of this run atomically."""
        return write_bytes(self.path / name, content)

    def write_json(self, name: str, content: Any) -> Path:
        """Write the file `name` of this run atomically as strict JSON; NaN becomes null."""
        return write_json(self.path / name, content)

    @staticmethod
    def input_name(key: Key, suffix: str) -> str:
        """The name, in a run's folder, of the copy of the file that a case has at `key`."""
        assert key[0] in INPUTS, key
        return f"{'-'.join(str(part) for part in key[:-1])}{suffix}"

    def read_case(self) -> dict[str, Any]:
        """The keys of `case.yaml` as they stand, unchecked; none where it is not even YAML."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            content = YAML(typ="safe", pure=True).load(self.case.read_text(encoding="utf-8"))
        except (OSError, ValueError, YAMLError):
            return {}
        return content if isinstance(content, dict) else {}

    def read_arrays(self) -> "dict[str, np.ndarray]":
        """The arrays of `solution.npz`, or none where the run has not written it (yet)."""
        import numpy as np

        if not self.arrays.exists():
            return {}
        with np.load(self.arrays, allow_pickle=False) as arrays:
            return dict(arrays)

    def read_summary(self) -> dict[str, Any]:
        """`summary.json`, or an empty dict where the run has not written it (yet)."""
        return _read_object(self.summary)

    def read_provenance(self) -> dict[str, Any]:
        """`provenance.json`, or an empty dict where there is none."""
        return _read_object(self.provenance)

    @property
    def status(self) -> str:
        """The summary's status; without a summary, `running` or (if nobody is) `unfinished`."""
        # The summary first: the engine makes the report while it still holds the lock.
        status = self.read_summary().get("status")
        if status:
            return str(status)
        return "running" if self._lock is not None or self._locked_elsewhere() else "unfinished"

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_unless_free(self, overwrite: bool) -> None:
        if self.path.is_symlink() and not self.path.is_dir():
            raise RunExistsError(f"{self.path} is a link to something that is not a folder")
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RunExistsError(f"{self.path} is a file, not a folder")
        names = {entry.name for entry in os.scandir(self.path)} - {LOCK}
        if not names:
            return
        if not overwrite:
            raise RunExistsError(
                f"{self.path} exists and is not empty; choose another --out, or pass --overwrite"
            )
        if self.path.is_symlink():
            raise RunExistsError(f"{self.path} is a link, and --overwrite does not follow links")
        if not names & {"case.yaml", "summary.json"}:
            raise RunExistsError(f"{self.path} does not look like a run; it is left alone")
        if names == {"case.yaml"} and not (self.path / LOCK).exists():
            # A lone case.yaml may be what somebody wrote, not what a run left.
            raise RunExistsError(
                f"{self.path} holds only a case.yaml that no run wrote; it is left alone"
            )
        foreign = sorted(name for name in names if not self._belongs(name))
        if foreign:
            raise RunExistsError(
                f"{self.path} also holds what no run wrote ({', '.join(foreign[:3])}"
                f"{', …' if len(foreign) > 3 else ''}); it is left alone"
            )

    def _belongs(self, name: str) -> bool:
        path = self.path / name
        if path.is_symlink():
            return name in FILES + FOLDERS  # the link is ours to remove, not what it points to
        if path.is_dir():
            return name in FOLDERS
        # Somebody's own `data.csv` is not a copy: those of a run have the name of a block too.
        known = f"data-[0-9A-Za-z_ -]+|({'|'.join(INPUTS[1:])})(-[0-9a-z]+)?"
        copied = re.fullmatch(rf"({known})\.[a-z]+", name)
        return name in FILES or name.startswith(TEMPORARY_PREFIX) or copied is not None

    def _clear(self) -> None:
        for entry in os.scandir(self.path):
            if entry.name == LOCK:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    def _acquire(self) -> None:
        file = _open_lock(self.path / LOCK)
        if not _try_lock(file):
            file.close()
            raise RunLockedError(f"{self.path} is being written by another process")
        self._lock = file

    def _locked_elsewhere(self) -> bool:
        try:
            with open(self.path / LOCK, "rb") as file:  # reading is enough to ask
                return not _try_lock(file)
        except OSError:
            return False


def _open_lock(path: Path) -> BinaryIO:
    # O_NOFOLLOW: a link planted in a shared folder must not make us create a file elsewhere.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o666), "rb+", buffering=0)


def _try_lock(file: BinaryIO) -> bool:
    """Whether the lock was free; held until `file` is closed."""
    try:
        import fcntl
    except ImportError:  # Windows: one writer is then a matter of care
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RunFolderError(f"{path} is not JSON: {error}") from None
    return content if isinstance(content, dict) else {}
