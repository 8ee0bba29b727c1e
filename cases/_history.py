"""`history.jsonl`: what the training loop saw, one JSON object a line, only ever appended to.

A process killed in the middle of a line leaves that line without its end. A line counts only once
its newline is there, so the torn one is skipped by the reader and cut off by the next writer.
"""

import json
import os
from pathlib import Path
from typing import Any

from ._atomic import json_safe, write_bytes


class History:
    """The rows of one run, in the order of their steps.

    Each row has at least `step`; the engine writes `step`, `loss`, `residual` (root mean square for
    each block), `error` (relative L2 for each field) and `seconds` (wall clock since the start).

    Raises:
        ValueError: from `read`, where a line other than the last is not JSON.

    >>> import tempfile
    >>> history = History(Path(tempfile.mkdtemp()) / "history.jsonl")
    >>> for step in (0, 10, 20):
    ...     history.append({"step": step, "loss": 1.0 / (step + 1)})
    >>> history.truncate(10)
    >>> [row["step"] for row in history.read()]
    [0, 10]
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._whole = False  # whether we know that the file ends with a whole line

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; it survives the death of the process at once, a power cut after `sync`."""
        if not self._whole:
            self._cut_torn_line()
            self._whole = True
        line = json.dumps(json_safe(row), allow_nan=False) + "\n"
        # One write to a file opened for appending: a reader never sees two rows interleaved.
        with open(self.path, "ab", buffering=0) as file:
            file.write(line.encode("utf-8"))

    def sync(self) -> None:
        """Force the rows to disk; to be called before the checkpoint that relies on them."""
        if self.path.exists():
            with open(self.path, "rb+") as file:
                os.fsync(file.fileno())

    def read(self) -> list[dict[str, Any]]:
        """Every whole row; an empty list where there is no file."""
        rows = []
        lines = self._lines()
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                if number == len(lines):
                    break  # the file system may have kept the newline and lost what was before it
                raise ValueError(f"{self.path}:{number}: this line is not JSON") from None
            if not isinstance(row, dict):
                raise ValueError(f"{self.path}:{number}: expected an object")
            rows.append(row)
        return rows

    def truncate(self, step: int) -> None:
        """Keep the rows up to and including `step`, those that a checkpoint of that step knows."""
        if not self.path.exists():
            return
        kept = [row for row in self.read() if row["step"] <= step]
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept)
        write_bytes(self.path, text.encode("utf-8"))
        self._whole = True

    def _lines(self) -> list[bytes]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return content.split(b"\n")[:-1]  # what follows the last newline is torn, or nothing

    def _cut_torn_line(self) -> None:
        if not self.path.exists():
            return
        with open(self.path, "rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
