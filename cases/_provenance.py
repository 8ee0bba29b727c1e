"""Where a run came from: enough to make it again on another machine, and no more.

No host name, user name or environment variable is kept, since run folders are shared.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

DISTRIBUTIONS = (
    "sciopt", "jax", "jaxlib", "equinox", "optimistix", "lineax", "optax", "ott-jax",
    "orbax-checkpoint", "numpy", "scipy", "xarray",
)  # fmt: skip


def provenance(
    *,
    seed: int | None = None,
    device: str | None = None,
    argv: Sequence[str] | None = None,
    started: datetime | None = None,
) -> dict[str, Any]:
    """Versions, commit, platform and the run's own seed, device and start; safe to write as JSON.

    `device` is the kind that JAX reports (say `cpu` or `NVIDIA H100`); the engine passes it, so
    that this module need not import JAX. `argv` defaults to the process's, `started` to now (UTC).

    >>> record = provenance(seed=0, device="cpu")
    >>> record["seed"], record["device"], record["versions"]["numpy"] is not None
    (0, 'cpu', True)
    """
    started = started or datetime.now(UTC)
    return {
        "started": started.astimezone(UTC).isoformat(timespec="seconds"),
        "argv": list(sys.argv if argv is None else argv),
        "seed": seed,
        "device": device,
        "cpu_count": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in DISTRIBUTIONS},
        "commit": commit(),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def commit(root: Path | None = None) -> str | None:
    """The commit of this project's own checkout, `-dirty` where files differ; None elsewhere.

    Only a `.git` directly in the project's root counts: installed into a virtual environment that
    lies inside somebody else's repository, we must not report theirs.
    """
    root = root or Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--verify", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("-dirty" if dirty else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True, text=True, timeout=5, check=True,
    )  # fmt: skip
    return done.stdout.strip()
