"""What a figure was measured on: kinds and versions, no names of hosts or paths."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


def machine(*distributions: str) -> dict:
    """Processor, cores, date, and versions of JAX's stack and of `distributions`."""
    cpu = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    pinned = getattr(os, "sched_getaffinity", None)
    names = ("jax", "jaxlib", "equinox", "optimistix", "optax", "numpy", "scipy", *distributions)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu or platform.machine(),
        "cores": len(pinned(0)) if pinned else os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
    }


def publish(page: Path, begin: str, text: str, end: str) -> None:
    """Put a text between its marks on a page, in the place of what is there."""
    before, _, rest = page.read_text().partition(begin)
    page.write_text(before + begin + text + end + rest.partition(end)[2])


def write(path: Path, record: dict, *distributions: str) -> None:
    """A record of figures, with the machine that they were measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(*distributions), **record}, indent=1)
    path.write_text(text + "\n")
