"""Run a relaxation case: the loop in pieces, and what its tuner chose and could have chosen."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx

from pde import grid

from .._atomic import replacing
from .._checkpoint import Checkpoints
from .._engine import COMPLETED, DIVERGED, INTERRUPTED, AbstractEngine, Device, Progress
from .._folder import RunFolder
from . import build, schema

Arrays = dict[str, np.ndarray]

# Looks of the host at a run, at least, and the most steps between two.
LOOKS, MOST = 40, 50
# Pictures of the fields, from first to last.
SNAPSHOTS = 4
SAVE_EVERY = 10.0  # seconds between checkpoints
# What is kept of each step.
TOLD = ("iterations", "cost", "choice", "value", "context", "courant")


class Engine(AbstractEngine):
    """One run of one relaxation case."""

    case: schema.Case

    def __init__(self, case: schema.Case, source: str, device: Device, on_progress=None):
        super().__init__(case, source, device, on_progress)
        self.programs: dict[int, Callable] = {}
        with self.settings():
            self.loop = build.loop(case)

    def solve(self, folder: RunFolder, interrupted) -> dict[str, Any]:
        """Go on from the last checkpoint, or start; then the arrays, and the summary."""
        steps = self.case.time.steps
        piece = _piece(steps)
        start = build.start(self.case, self.loop.scheme)
        # A key as plain numbers, and all of it JAX's arrays, as a checkpoint wants them.
        state = self.loop.init(start, jax.random.PRNGKey(self.case.seed))
        state = jax.tree.map(jnp.asarray, state)
        kept = self._empty(start)
        if not folder.provenance.exists():
            self.write_provenance(folder)
        with Checkpoints(folder.checkpoints) as saved:
            done = 0
            if (latest := saved.latest()) is not None:
                state, kept, elapsed = saved.restore(latest, (state, kept, jnp.zeros(())))
                done, self.seconds_before = latest, float(elapsed)
            kept = {name: np.array(value) for name, value in kept.items()}
            folder.history.truncate(done)
            begun, last, first = time.perf_counter(), time.perf_counter(), done
            while done < steps and bool(state.result == optx.RESULTS.successful):
                size = min(piece, steps - done)
                state, record = self._advance(state, size)
                self._keep(kept, record, state, slice(done, done + size))
                done += size
                self._tell(folder, kept, done, size, (done - first), begun)
                if (stop := interrupted()) or time.perf_counter() - last > SAVE_EVERY:
                    arrays = {name: jnp.asarray(value) for name, value in kept.items()}
                    saved.save(done, (state, arrays, jnp.asarray(self.seconds())))
                    last = time.perf_counter()
                if stop and done < steps:
                    return {"status": INTERRUPTED, "steps": done, "residual": None}
        self.tell(Progress("evaluate", 0, 0))
        return self._outcome(folder, state, kept)

    # --- pieces -----------------------------------------------------------------------------------

    def _empty(self, start: Any) -> dict[str, jax.Array]:
        """Room for what all steps tell, and for pictures."""
        steps, dtype = self.case.time.steps, jax.tree.leaves(start)[0].dtype
        whole = {"iterations", "cost", "choice"}
        kept = {name: jnp.zeros(steps, int if name in whole else dtype) for name in TOLD}
        if self.case.hindsight:
            kept["costs"] = jnp.zeros((steps, self.case.omega.count), int)
        kept["times"] = jnp.zeros(SNAPSHOTS, dtype)
        for name, field in _named(start).items():
            kept[name] = jnp.zeros((SNAPSHOTS, *field.shape), dtype).at[:].set(field)
        return kept

    def _advance(self, state: grid.State, size: int) -> tuple[grid.State, grid.Record]:
        if size not in self.programs:
            self.tell(Progress("compile", 0, 0))
            before = time.perf_counter()
            run = partial(self.loop.run, steps=size, hindsight=self.case.hindsight, throw=False)
            made: Any = eqx.filter_jit(run)
            self.programs[size] = made.lower(state).compile()
            self.compile_seconds += time.perf_counter() - before
        return jax.block_until_ready(self.programs[size](state))

    def _keep(self, kept: Arrays, record: grid.Record, state: grid.State, where: slice) -> None:
        for name in TOLD:
            kept[name][where] = getattr(record, name)
        if record.costs is not None:
            kept["costs"][where] = record.costs
        # Each picture is of the first piece that reaches its share of the steps, the first aside.
        share = np.linspace(0, self.case.time.steps, SNAPSHOTS)
        for i in np.flatnonzero((where.start < share) & (share <= where.stop)):
            self._picture(kept, int(i), state)

    def _picture(self, kept: Arrays, i: int, state: grid.State) -> None:
        kept["times"][i] = state.t
        for name, field in _named(state.fields).items():
            kept[name][i] = field

    def _tell(self, folder, kept: Arrays, done: int, size: int, since: int, begun: float) -> None:
        mean = float(kept["iterations"][done - size : done].mean())
        rate = since / (time.perf_counter() - begun)
        steps = self.case.time.steps
        said = {"iterations a step": mean}
        self.tell(
            Progress("iterate", done, steps, residual=said, steps_per_second=rate,
                     seconds_left=(steps - done) / rate)
        )  # fmt: skip
        folder.history.append(
            {"step": done, "residual": said, "error": {}, "seconds": self.seconds()}
        )

    # --- what came of it --------------------------------------------------------------------------

    def _outcome(self, folder: RunFolder, state: grid.State, kept: Arrays) -> dict[str, Any]:
        taken = int(state.step)
        ended = taken < self.case.time.steps
        if ended:
            self._picture(kept, SNAPSHOTS - 1, state)
        said = self._summary(kept, state, taken)
        if ended:
            said |= {"status": DIVERGED, "advice": _advice(state, float(kept["courant"][taken]))}
        # Of the pictures those that were come to.
        come_to = np.r_[True, np.diff(kept["times"]) > 0]
        kept |= {name: kept[name][come_to] for name in ("times", *_named(state.fields))}
        arrays = {n: v[: taken + 1] if n in (*TOLD, "costs") else v for n, v in kept.items()}
        arrays["omega"] = build.omegas(self.case)
        for name, points in build.places(self.case, kept["times"].dtype).items():
            arrays |= {f"{name}.{c}": np.ravel(x) for c, x in zip(self.case.domain, points,
                                                                strict=True)}  # fmt: skip
        if isinstance(self.loop.scheme, grid.NavierStokes):
            arrays["vorticity"] = np.stack([
                np.asarray(self.loop.scheme.vorticity(grid.Flow(u, v, p), t))
                for u, v, p, t in zip(*(jnp.asarray(kept[n]) for n in ("u", "v", "p", "times")),
                                      strict=True)
            ])  # fmt: skip
        for name, exact in self._exact(float(state.t)).items():
            arrays[f"{name}_exact"] = exact
        with replacing(folder.arrays) as temporary:
            np.savez_compressed(temporary, **arrays)  # pyright: ignore[reportArgumentType]
        return said

    def _summary(self, kept: Arrays, state: grid.State, taken: int) -> dict[str, Any]:
        case, costs = self.case, kept["cost"][:taken]
        said: dict[str, Any] = {
            "status": COMPLETED,
            "steps": taken,
            "residual": None,
            "tolerance": case.reference.tolerance if case.reference else None,
            "unknowns": case.unknowns,
            "iterations": int(costs.sum()),
            "courant": float(kept["courant"][: taken + 1].max()),
        }
        fields = _named(state.fields)
        if isinstance(self.loop.scheme, grid.NavierStokes):
            divergence = self.loop.scheme.divergence(state.fields)
            said["residual"] = said["divergence"] = float(jnp.sqrt(jnp.mean(divergence**2)))
        if case.hindsight and taken:
            table = kept["costs"][:taken]
            omega = build.omegas(case)
            best = int(table.sum(axis=0).argmin())
            said |= {
                "iterations.best_fixed": int(table[:, best].sum()),
                "iterations.instance_optimal": int(table.min(axis=1).sum()),
                "iterations.first_omega": int(table[:, 0].sum()),
                "omega.first": float(omega[0]),
                "omega.best_fixed": float(omega[best]),
            }
            excess = said["iterations"] / said["iterations.best_fixed"] - 1
            said["regret"] = said["iterations"] - said["iterations.best_fixed"]
            if isinstance(case.reference, schema.Hindsight):
                said["error.iterations.excess"] = excess
            else:
                said["excess"] = excess
        for name, exact in self._exact(float(state.t)).items():
            error = np.asarray(fields[name]) - exact
            said[f"error.{name}.relative_l2"] = float(
                np.linalg.norm(error) / (np.linalg.norm(exact) or 1.0)
            )
            said[f"error.{name}.max"] = float(np.abs(error).max())
        return said

    def _exact(self, t: float) -> Arrays:
        """The exact fields; pressure is that of the middle of the last step."""
        if not isinstance(self.case.reference, schema.Exact):
            return {}
        values, found = self.case.reference.values, {}
        for name, points in build.places(self.case, float).items():
            if name in values:
                at = t - self.case.time.step / 2 if name == "p" else t
                value = build.expression(self.case, values[name])(at, *points)
                shape = np.broadcast_shapes(*(x.shape for x in points))
                found[name] = np.broadcast_to(np.asarray(value), shape)
        return found


def _named(fields: Any) -> dict[str, Any]:
    """Fields by name."""
    if isinstance(fields, grid.Flow):
        return {"u": fields.u, "v": fields.v, "p": fields.p}
    return {"u": fields}


def _advice(state: grid.State, courant: float) -> str:
    """Which step failed, and what to try."""
    why = optx.RESULTS[state.result].split("\n")[0].split(". ")[0].rstrip(".")
    slow = bool(state.result == optx.RESULTS.max_steps_reached)
    hint = "raise solver.max_steps or solver.rtol" if slow else "try a smaller time.step"
    return f"Step {int(state.step) + 1}, of Courant number {courant:.3g}, failed: {why}; {hint}."


def _piece(steps: int) -> int:
    """Steps between two looks: one program serves them all where they divide the whole."""
    most = min(MOST, max(1, steps // LOOKS))
    even = max(n for n in range(1, most + 1) if steps % n == 0)
    return even if 4 * even > most else most
