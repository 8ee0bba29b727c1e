"""Run a control case: steps of a search, each by gradients through the whole simulation."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._checkpoint import Checkpoints
from .._engine import COMPLETED, DIVERGED, INTERRUPTED, AbstractEngine, Device, Progress
from .._folder import RunFolder
from .._simulate import build
from .._solution import write_solution
from . import schema
from .problem import Problem

SAVE_EVERY = 10.0  # seconds between checkpoints


class Engine(AbstractEngine):
    """One run of one control case."""

    case: schema.Case

    def __init__(self, case: schema.Case, source: str, device: Device, on_progress=None):
        super().__init__(case, source, device, on_progress)
        with self.settings():
            self.problem = Problem(case)
        self.search = optax.lbfgs(memory_size=case.search.memory)

    def solve(self, folder: RunFolder, interrupted) -> dict[str, Any]:
        """Go on from the last checkpoint, or start; then the fields, and the summary."""
        steps = self.case.search.steps
        sought = self.problem.begin
        state = jax.tree.map(jnp.asarray, self.search.init(sought))
        if not folder.provenance.exists():
            self.write_provenance(folder)
        with Checkpoints(folder.checkpoints) as saved:
            done = 0
            if (latest := saved.latest()) is not None:
                sought, state, elapsed = saved.restore(latest, (sought, state, jnp.zeros(())))
                done, self.seconds_before = latest, float(elapsed)
            folder.history.truncate(done)
            program = self._compiled(sought, state)
            begun, last, first = time.perf_counter(), time.perf_counter(), done
            value = slope = np.inf
            while done < steps:
                new, state, value, slope = program(sought, state)
                value, slope = float(value), float(slope)
                if not np.isfinite(value) or not bool(jnp.all(jnp.isfinite(new))):
                    advice = f"Search step {done + 1} is not finite; try a smaller time.step."
                    return {"status": DIVERGED, "steps": done, "residual": None, "advice": advice}
                sought, done = new, done + 1
                rate = (done - first) / (time.perf_counter() - begun)
                self._tell(folder, done, value, slope, rate)
                if (stop := interrupted()) or time.perf_counter() - last > SAVE_EVERY:
                    saved.save(done, (sought, state, jnp.asarray(self.seconds())))
                    last = time.perf_counter()
                if stop and done < steps:
                    return {"status": INTERRUPTED, "steps": done, "residual": None}
                if slope <= self.case.search.gradient:
                    break
        self.tell(Progress("evaluate", 0, 0))
        return self._outcome(folder, sought, done, value)

    def _compiled(self, sought: Any, state: Any) -> Any:
        self.tell(Progress("compile", 0, 0))
        before = time.perf_counter()
        value_and_grad = optax.value_and_grad_from_state(self.problem.mismatch)

        def step(sought, state):
            value, grad = value_and_grad(sought, state=state)
            update, state = self.search.update(
                grad, state, sought, value=value, grad=grad, value_fn=self.problem.mismatch
            )
            return optax.apply_updates(sought, update), state, value, jnp.abs(grad).max()

        program = jax.jit(step).lower(sought, state).compile()
        self.compile_seconds += time.perf_counter() - before
        return program

    def _tell(self, folder: RunFolder, done: int, value: float, slope: float, rate: float) -> None:
        steps = self.case.search.steps
        said = {"slope": slope}
        self.tell(
            Progress("iterate", done, steps, loss=value, residual=said, steps_per_second=rate,
                     seconds_left=(steps - done) / rate)
        )  # fmt: skip
        row = {"step": done, "loss": value, "residual": said, "error": {}}
        folder.history.append({**row, "seconds": self.seconds()})

    def _outcome(self, folder: RunFolder, sought: Any, done: int, value: float) -> dict[str, Any]:
        case, problem = self.case, self.problem
        frames = jax.jit(problem.trajectory)(sought)
        found, exact = problem.judged(sought, frames)
        begun = sought if isinstance(case.seek, schema.Initial) else problem.first
        fields = np.concatenate([np.asarray(begun)[None], np.asarray(frames)])
        said: dict[str, Any] = {
            "status": COMPLETED, "steps": done, "residual": value, "tolerance": case.tolerance,
            "gradient_bytes": problem.gradient_bytes(),
        }  # fmt: skip
        for name, a, b in zip(case.fields, np.asarray(found), np.asarray(exact), strict=True):
            norm = float(np.linalg.norm(b))
            if norm > 0:
                said[f"error.{name}.relative_l2"] = float(np.linalg.norm(a - b)) / norm
                said[f"error.{name}.max"] = float(np.abs(a - b).max())
        truth: dict[str, Any] = {}
        if isinstance(case.seek, schema.Initial):
            true = np.asarray(jax.jit(problem.trajectory)(problem.first))
            true = np.concatenate([np.asarray(problem.first)[None], true])
            truth = {name: np.moveaxis(true[:, k], 0, -1) for k, name in enumerate(case.fields)}
        shown = {name: np.moveaxis(fields[:, k], 0, -1) for k, name in enumerate(case.fields)}
        t = np.linspace(0, case.time.step * case.time.steps, case.time.frames + 1)
        if isinstance(case.seek, schema.Force):
            nodes = np.linspace(0, t[-1], case.seek.nodes)
            shown["force"] = _between(nodes, np.asarray(sought), t)
            for name, values in zip(case.fields, np.asarray(problem.known), strict=True):
                shown[f"{name}_target"] = np.repeat(values[..., None], t.size, axis=-1)
        axes = dict(zip(case.domain, build.points(problem.plain.equation), strict=True))
        write_solution(folder.solution, {**axes, "t": t}, shown, truth)
        return said


def _between(nodes: np.ndarray, values: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Linear between nodes; time last."""
    flat = values.reshape(len(nodes), -1)
    found = np.stack([np.interp(t, nodes, column) for column in flat.T])
    return found.reshape(*values.shape[1:], t.size)
