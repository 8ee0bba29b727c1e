"""Run a case of a family: train by both losses, then count iterations on unseen instances."""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

from sciopt import relax

from .._atomic import replacing
from .._checkpoint import Checkpoints
from .._engine import COMPLETED, DIVERGED, INTERRUPTED, AbstractEngine, Device, Progress
from .._folder import RunFolder
from . import build, schema

# Looks at each training, at least.
LOOKS = 10
SAVE_EVERY = 10.0  # seconds between checkpoints

Arrays = dict[str, np.ndarray]


class Engine(AbstractEngine):
    """One run of one case of a family."""

    case: schema.Case

    def __init__(self, case: schema.Case, source: str, device: Device, on_progress=None):
        super().__init__(case, source, device, on_progress)
        with self.settings():
            self.dtype = jnp.float64 if case.precision == "float64" else jnp.float32
            self.trainings = build.trainings(case, self.dtype)
            self.parameter = build.built_solver(case.solver)[1]

    def solve(self, folder: RunFolder, interrupted) -> dict[str, Any]:
        """Go on from the last checkpoint, or start; then the arrays, and the summary."""
        steps = self.case.train.steps
        keys = jax.random.split(jax.random.PRNGKey(self.case.seed + 1), 2)
        meta = build.meta_solver(self.case, self.dtype)
        states = {name: made.init(meta, keys[0]) for name, made in self.trainings.items()}
        losses = {name: jnp.zeros(steps, self.dtype) for name in states}
        if not folder.provenance.exists():
            self.write_provenance(folder)
        with Checkpoints(folder.checkpoints) as saved:
            done = 0
            if (latest := saved.latest()) is not None:
                done = latest
                restored = saved.restore(latest, (states, losses, jnp.zeros(())))
                states, losses, elapsed = restored
                self.seconds_before = float(elapsed)
            folder.history.truncate(done)
            begun, last, first = time.perf_counter(), time.perf_counter(), done
            # One after the other; a step is one of either.
            while done < 2 * steps:
                name = list(self.trainings)[done // steps]
                at = done % steps
                size = min(max(1, steps // LOOKS), steps - at)
                states[name], found = self._advance(name, states[name], size)
                losses[name] = losses[name].at[at : at + size].set(found)
                done += size
                self._tell(folder, name, float(found.mean()), done, first, begun)
                if (stop := interrupted()) or time.perf_counter() - last > SAVE_EVERY:
                    saved.save(done, (states, losses, jnp.asarray(self.seconds())))
                    last = time.perf_counter()
                if stop and done < 2 * steps:
                    return {"status": INTERRUPTED, "steps": done, "residual": None}
        self.tell(Progress("evaluate", 0, 0))
        metas = {name: state.meta for name, state in states.items()}
        arrays = self._compared(metas, keys[1])
        arrays |= {f"loss.{name}": np.asarray(values) for name, values in losses.items()}
        with replacing(folder.arrays) as temporary:
            np.savez_compressed(temporary, **arrays)  # pyright: ignore[reportArgumentType]
        return self._summary(arrays, done)

    def _advance(self, name: str, state: relax.MetaState, size: int):
        if state.step == 0:
            self.tell(Progress("compile", 0, 0))
        before = time.perf_counter()
        found = jax.block_until_ready(self.trainings[name].run(state, size))
        if state.step == 0:
            # With the first piece, which is short beside it.
            self.compile_seconds += time.perf_counter() - before
        return found

    def _tell(self, folder, name: str, loss: float, done: int, first: int, begun: float) -> None:
        total, said = 2 * self.case.train.steps, {name: loss}
        rate = (done - first) / (time.perf_counter() - begun)
        left = (total - done) / rate
        self.tell(Progress("train", done, total, loss, said, {}, rate, left))
        folder.history.append(
            {"step": done, "residual": said, "error": {}, "seconds": self.seconds()}
        )

    # --- what came of it --------------------------------------------------------------------------

    def _compared(self, metas: dict[str, relax.MetaSolver], key: jax.Array) -> Arrays:
        """Iterations on unseen instances, by who sets omega, and that omega."""
        keys = jax.random.split(key, self.case.unseen)
        unseen = eqx.filter_jit(eqx.filter_vmap(self.trainings["learned"].family))(keys)
        omega = build.omegas(self.case)
        # Whoever sets them: one program counts for all.
        count = eqx.filter_jit(self._count)
        values = jnp.full((self.case.unseen, 1), 1, self.dtype) * jnp.asarray(omega, self.dtype)
        zero = jnp.zeros_like(unseen.vector)
        costs = np.stack([count(value, zero, unseen) for value in values.T], axis=1)
        arrays = {"omega": omega, "costs": costs}
        for name, meta in metas.items():
            value, start = eqx.filter_vmap(
                lambda one, meta=meta: (self.parameter(meta(one.features)), meta.start(one))
            )(unseen)
            arrays[f"omega.{name}"] = np.asarray(value)
            arrays[f"cost.{name}"] = np.asarray(count(value, start, unseen))
        numbers = build.scaled(self.case, (unseen.features + 1) / 2)
        return arrays | {f"random.{name}": np.asarray(v) for name, v in numbers.items()}

    def _count(self, omegas: jax.Array, starts: jax.Array, instances: relax.Instance) -> jax.Array:
        """Iterations of the solves; where one fails, all that it was allowed."""
        plain = build.built_solver(self.case.solver)[0]

        def count(omega, start, instance):
            solver = eqx.tree_at(self.parameter, plain, omega)
            found = lx.linear_solve(
                instance.operator, instance.vector, solver, options={"y0": start}, throw=False
            )
            solved = found.result == lx.RESULTS.successful
            return jnp.where(solved, found.stats["num_steps"], found.stats["max_steps"])

        return eqx.filter_vmap(count)(omegas, starts, instances)

    def _summary(self, arrays: Arrays, done: int) -> dict[str, Any]:
        costs, omega = arrays["costs"], arrays["omega"]
        best = int(costs.mean(axis=0).argmin())
        optimal = float(costs.min(axis=1).mean())
        said: dict[str, Any] = {
            "status": COMPLETED,
            "steps": done,
            "residual": None,
            "tolerance": self.case.reference.tolerance if self.case.reference else None,
            "unknowns": self.case.unknowns,
            "iterations.learned": float(arrays["cost.learned"].mean()),
            "iterations.classical": float(arrays["cost.classical"].mean()),
            "iterations.first_omega": float(costs[:, 0].mean()),
            "iterations.best_fixed": float(costs[:, best].mean()),
            "iterations.instance_optimal": optimal,
            "omega.first": float(omega[0]),
            "omega.best_fixed": float(omega[best]),
        }
        if not all(np.isfinite(arrays[f"loss.{name}"]).all() for name in self.trainings):
            said |= {
                "status": DIVERGED,
                "advice": "A loss was not finite: lower train.learning_rate.",
            }
        excess = said["iterations.learned"] / max(optimal, 1e-9) - 1
        said["error.iterations.over_optimal" if self.case.reference else "excess"] = excess
        return said
