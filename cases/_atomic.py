"""Writing a file so that a reader sees the old one or the new one, never half of one.

The bytes go to a temporary file beside the target, are forced to disk, and the name is then moved
over (`rename` is atomic in POSIX within one file system); the directory is forced to disk last, so
that the new name survives a power cut as well.
"""

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".writing-"


def _sync_directory(path: Path) -> None:
    if os.name != "posix":  # Windows cannot open a directory
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; on leaving, move it over `path`.

    For libraries that want a file name (NetCDF, PNG). If the body raises, `path` is untouched and
    the temporary file is removed.

    Raises:
        OSError: the folder does not exist or cannot be written.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    descriptor, name = tempfile.mkstemp(
        prefix=TEMPORARY_PREFIX, suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private to the user; give what an ordinary `open` would have given.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write `content` to `path` atomically and return the path."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_text(path: str | os.PathLike[str], content: str) -> Path:
    """Write `content` to `path` atomically as UTF-8 and return the path."""
    return write_bytes(path, content.encode("utf-8"))


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write `content` to `path` atomically as indented JSON (see `json_safe`)."""
    return write_text(path, json.dumps(json_safe(content), indent=2, allow_nan=False) + "\n")


def json_safe(value: Any) -> Any:
    """`value` in strict JSON's types: NaN and infinities become null, arrays lists, paths text.

    Arrays are known by their `tolist`, so that this module needs neither numpy nor JAX.

    >>> json_safe({"loss": float("nan"), "at": (1, 2)})
    {'loss': None, 'at': [1, 2]}
    """
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_safe(item) for item in value]
    if hasattr(value, "tolist"):
        return json_safe(value.tolist())
    return str(value)
