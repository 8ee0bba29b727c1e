"""Run a simulation: the march from frame to frame, and the same by what it is judged by."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx

from pde import grid, reference

from .._checkpoint import Checkpoints
from .._engine import COMPLETED, DIVERGED, INTERRUPTED, AbstractEngine, Device, Progress
from .._folder import RunFolder
from .._solution import write_solution
from . import build, schema

Arrays = dict[str, np.ndarray]

SAVE_EVERY = 10.0  # seconds between checkpoints


class Engine(AbstractEngine):
    """One run of one simulation."""

    case: schema.Case

    def __init__(self, case: schema.Case, source: str, device: Device, on_progress=None):
        super().__init__(case, source, device, on_progress)
        with self.settings():
            self.loop = build.loop(case)

    def solve(self, folder: RunFolder, interrupted) -> dict[str, Any]:
        """Go on from the last checkpoint, or start; then the reference, and the summary."""
        frames = self.case.time.frames
        size = self.case.time.steps // frames
        march = self._march(self.loop)
        state, kept = march.begin()
        if not folder.provenance.exists():
            self.write_provenance(folder)
        with Checkpoints(folder.checkpoints) as saved:
            done = 0
            if (latest := saved.latest()) is not None:
                state, kept, elapsed = saved.restore(latest, (state, kept, jnp.zeros(())))
                done, self.seconds_before = latest // size, float(elapsed)
            kept = {name: np.array(value) for name, value in kept.items()}
            folder.history.truncate(done * size)
            begun, last, first = time.perf_counter(), time.perf_counter(), done
            while done < frames and bool(state.result == optx.RESULTS.successful):
                state = march.advance(state, size)
                if bool(state.result == optx.RESULTS.successful):
                    done += 1
                    march.keep(kept, state, done)
                    rate = (done - first) * size / (time.perf_counter() - begun)
                    self._tell(folder, kept, done, size, rate)
                if (stop := interrupted()) or time.perf_counter() - last > SAVE_EVERY:
                    self._save(saved, done * size, state, kept)
                    last = time.perf_counter()
                if stop and done < frames:
                    return {"status": INTERRUPTED, "steps": done * size, "residual": None}
            exact = None
            if done == frames:
                self._save(saved, done * size, state, kept)
                exact = self._reference(kept, interrupted)
                if exact is None and interrupted():
                    return {"status": INTERRUPTED, "steps": done * size, "residual": None}
        self.tell(Progress("evaluate", 0, 0))
        return self._outcome(folder, state, kept, exact, done)

    # --- the march --------------------------------------------------------------------------------

    def _march(self, loop: grid.March, finer: int = 1) -> "_March":
        return _March(self.case, loop, finer, self._compiled)

    def _compiled(self, run: Any, state: grid.MarchState) -> Callable:
        self.tell(Progress("compile", 0, 0))
        before = time.perf_counter()
        program = eqx.filter_jit(run).lower(state).compile()
        self.compile_seconds += time.perf_counter() - before
        return program

    def _save(self, saved: Checkpoints, step: int, state: grid.MarchState, kept: Arrays) -> None:
        arrays = {name: jnp.asarray(value) for name, value in kept.items()}
        saved.save(step, (state, arrays, jnp.asarray(self.seconds())))

    def _tell(self, folder: RunFolder, kept: Arrays, done: int, size: int, rate: float) -> None:
        said = {name: float(kept[name][done]) for name in kept if name in _March.TOLD}
        steps = self.case.time.steps
        self.tell(
            Progress("iterate", done * size, steps, residual=said, steps_per_second=rate,
                     seconds_left=(steps - done * size) / rate)
        )  # fmt: skip
        folder.history.append(
            {"step": done * size, "residual": said, "error": {}, "seconds": self.seconds()}
        )

    # --- what came of it --------------------------------------------------------------------------

    def _reference(self, kept: Arrays, interrupted) -> Arrays | None:
        """The fields of the reference in all frames; None where there is none, or no time."""
        spec, case = self.case.reference, self.case
        if spec is None:
            return None
        self.tell(Progress("reference", 0, 0))
        if isinstance(spec, schema.Refined):
            finer = self._march(build.loop(case, 2), 2)
            state, exact = finer.begin()
            exact = {name: np.array(value) for name, value in exact.items()}
            for frame in range(1, case.time.frames + 1):
                state = finer.advance(state, 2 * case.time.steps // case.time.frames)
                finer.keep(exact, state, frame)
                self.tell(Progress("reference", frame, case.time.frames))
                if interrupted():
                    return None
            return {name: exact[name] for name in case.fields}
        at = build.points(self.loop.equation)
        if isinstance(spec, schema.ColeHopf):
            assert isinstance(case.equation, schema.Burgers)
            made = reference.ColeHopf(case.equation.viscosity)({"x": at[0], "t": kept["t"]})
            return {"u": np.moveaxis(made["u"], -1, 0)}
        mesh = tuple(np.meshgrid(*at, indexing="ij"))
        found = np.stack([np.asarray(build.fields(case, spec.values, mesh, t)) for t in kept["t"]])
        return {name: found[:, k] for k, name in enumerate(case.fields) if name in spec.values}

    def _outcome(
        self, folder: RunFolder, state: grid.MarchState, kept: Arrays, exact: Arrays | None,
        done: int,
    ) -> dict[str, Any]:  # fmt: skip
        case = self.case
        said: dict[str, Any] = {
            "status": COMPLETED, "steps": int(state.step), "residual": None,
            "tolerance": case.reference.tolerance if case.reference else None,
            "courant": float(kept["courant"][: done + 1].max()),
        }  # fmt: skip
        if done < case.time.frames:
            said |= {"status": DIVERGED, "advice": self._advice(state)}
        kept = {name: values[: done + 1] for name, values in kept.items()}
        for name, values in (exact or {}).items():
            error = kept[name] - values
            said[f"error.{name}.relative_l2"] = float(
                np.linalg.norm(error) / (np.linalg.norm(values) or 1.0)
            )
            said[f"error.{name}.max"] = float(np.abs(error).max())
        for name in set(kept) & {"energy", "enstrophy", "mass"}:
            said[f"{name}.first"], said[f"{name}.last"] = map(float, kept[name][[0, -1]])
        axes = dict(zip(case.domain, build.points(self.loop.equation), strict=True))
        last = {name: np.moveaxis(kept[name], 0, -1) for name in case.fields}
        exact = {name: np.moveaxis(values, 0, -1) for name, values in (exact or {}).items()}
        write_solution(folder.solution, {**axes, "t": kept["t"]}, last, exact)
        return said

    def _advice(self, state: grid.MarchState) -> str:
        """Which step failed, and what to try."""
        courant = float(self.loop.equation.courant(state.t, state.y, jnp.asarray(self.loop.dt)))
        return (
            f"Step {int(state.step) + 1}, of Courant number {courant:.3g}, gave what is not "
            "finite; try a smaller time.step."
        )


class _March:
    """A loop from frame to frame, and what is kept of each."""

    TOLD = ("energy", "enstrophy", "mass", "courant")

    def __init__(self, case: schema.Case, loop: grid.March, finer: int, compiled: Callable):
        self.case, self.loop, self.finer, self.compiled = case, loop, finer, compiled
        self.program: Callable | None = None
        self.looked = eqx.filter_jit(self._look)

    def begin(self) -> tuple[grid.MarchState, dict[str, jax.Array]]:
        """The first state, and room for all frames with the first in it."""
        y = build.start(self.case, self.loop.equation)
        state = jax.tree.map(jnp.asarray, self.loop.init(y))
        frames = self.case.time.frames + 1
        kept = {
            name: jnp.zeros((frames, *value.shape), value.dtype).at[0].set(value)
            for name, value in self.looked(state).items()
        }
        return state, kept

    def advance(self, state: grid.MarchState, steps: int) -> grid.MarchState:
        """So many steps, the same at each call."""
        if self.program is None:
            run = partial(self.loop.run, steps=steps, throw=False)
            self.program = self.compiled(lambda state: run(state)[0], state)
        return jax.block_until_ready(self.program(state))

    def keep(self, kept: Arrays, state: grid.MarchState, frame: int) -> None:
        """A frame."""
        for name, value in self.looked(state).items():
            kept[name][frame] = value

    def _look(self, state: grid.MarchState) -> dict[str, jax.Array]:
        case, made = self.case, self.loop.equation
        values = build.shown(case, made, state.y)
        found = {name: self._coarse(values[k]) for k, name in enumerate(case.fields)}
        found["t"] = state.t
        found["courant"] = made.courant(state.t, state.y, jnp.asarray(self.loop.dt, state.t.dtype))
        for name in ("energy", "enstrophy"):
            if hasattr(made, name):
                found[name] = getattr(made, name)(state.y)
        if isinstance(case.equation, schema.ShallowWater):
            found["mass"] = values[0].mean()
        return found

    def _coarse(self, values: jax.Array) -> jax.Array:
        """At the case's points, or in its cells."""
        for axis in range(values.ndim) if self.finer > 1 else ():
            parts = [slice(None)] * values.ndim
            pieces = []
            for k in range(self.finer if build.cells(self.loop.equation) else 1):
                parts[axis] = slice(k, None, self.finer)
                pieces.append(values[tuple(parts)])
            values = sum(pieces[1:], start=pieces[0]) / len(pieces)
        return values
