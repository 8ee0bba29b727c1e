"""Runs as the engine leaves them, made up: reporting is tested without training anything."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cases._folder import RunFolder
from cases._provenance import provenance
from cases._solution import write_solution

CASE = """\
description: Heat <script>alert("x")</script>
seed: {seed}
parameters: {{alpha: 0.1}}
domain: {{x: [0, 1], t: [0, 1]}}
network: {{type: mlp, width: {width}}}
train: {{steps: 100}}
"""


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`make_run(name, dims=..., status=...)` writes a run of `dims` coordinates; its folder."""

    def make(
        name: str = "run", *, dims: int = 2, status: str = "completed", seed: int = 0,
        width: int = 20, scale: float = 1.0, reference: bool = True,
    ) -> Path:  # fmt: skip
        with RunFolder.create(tmp_path / name) as run:
            run.write_json("provenance.json", provenance(seed=seed, device="cpu", argv=["test"]))
            run.write_text("case.yaml", CASE.format(seed=seed, width=width))
            for step in range(0, 101, 10):
                decay = scale * float(np.exp(-step / 20))
                run.history.append(
                    {
                        "step": step,
                        "loss": decay**2,
                        "residual": {"momentum": decay, "walls": 0.1 * decay},
                        "error": {"u": 0.01 * decay} if reference else {},
                        "seconds": 2.0 + 0.1 * step,
                    }
                )
            summary = {
                "status": status, "case": "heat", "steps": 100, "wall_seconds": 12.0,
                "compile_seconds": 2.0, "peak_memory_bytes": 250_000_000,
                "residual": scale * float(np.exp(-5.0)), "tolerance": 1e-3, "seed": seed,
                "device": "cpu",
            }  # fmt: skip
            if status == "completed":
                axes, exact = grid(dims)
                error = 1e-4 * scale * np.cos(7 * axes["x"]).reshape(-1, *[1] * (dims - 1))
                write_solution(
                    run.solution, axes, {"u": exact + error}, {"u": exact} if reference else None,
                    {"x": "m", "t": "s", "u": "K"}, {"title": "heat"},
                )  # fmt: skip
                if reference:
                    summary |= {"error.u.relative_l2": 1e-4 * scale, "error.u.max": 2e-4 * scale}
            run.write_json("summary.json", summary)
        return tmp_path / name

    return make


def grid(dims: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`dims` coordinates, the last of which is `t` if there are at least two, and a product."""
    names = {1: ["x"], 2: ["x", "t"], 3: ["x", "y", "t"], 4: ["x", "y", "z", "t"]}[dims]
    axes = {name: np.linspace(0, 1, 12 + index) for index, name in enumerate(names)}
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    return axes, np.prod([np.sin(np.pi * points) for points in mesh], axis=0)
