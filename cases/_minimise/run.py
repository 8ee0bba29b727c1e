"""Run a minimisation: the steps from frame to frame, and gradient flow's beside them."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import pde
import sciopt

from .._atomic import replacing
from .._checkpoint import Checkpoints
from .._engine import COMPLETED, DIVERGED, INTERRUPTED, AbstractEngine, Device, Progress
from .._expression import Expression
from .._folder import RunFolder
from .._solution import write_solution
from . import schema
from .points import Points

SAVE_EVERY = 10.0  # seconds between checkpoints
NEAR = 1.05  # times the least energy: what both are asked how many steps they take to


class State(NamedTuple):
    """Of both methods: where they are, what they remember, and what they have been through."""

    fields: tuple[Float[Array, "*grid"], ...]
    inner: tuple[Any, ...]
    frames: Float[Array, "frames *grid"]
    energies: Float[Array, "2 steps"]


class Engine(AbstractEngine):
    """One run of one minimisation."""

    case: schema.Case

    def __init__(self, case: schema.Case, source: str, device: Device, on_progress=None):
        super().__init__(case, source, device, on_progress)
        with self.settings():
            self.dtype = jnp.float64 if case.precision == "float64" else jnp.float32
            self.graph = Points.drawn(case.graph, case.seed) if case.graph else None
            self.energy = self._energy()
            step = case.method.step
            smoothing = self.energy.precondition(step)
            momenta = case.method.momentum, 0.0
            self.optimizers = [sciopt.nesterov(step, smoothing, m) for m in momenta]
            self.axes = {
                name: np.linspace(a, b, case.points[name], endpoint=False)
                for name, (a, b) in case.domain.items()
            }
            if self.graph is not None:
                self.axes = {"point": np.arange(len(self.graph.sides))}

    def solve(self, folder: RunFolder, interrupted) -> dict[str, Any]:
        """Go on from the last checkpoint, or start; then the summary."""
        case, size = self.case, self.case.steps // self.case.frames
        state, done = self._start(), 0
        if not folder.provenance.exists():
            self.write_provenance(folder)
        self.tell(Progress("compile", 0, 0))
        before = time.perf_counter()
        advance = jax.jit(self._advance).lower(state, jnp.asarray(0)).compile()
        self.compile_seconds = time.perf_counter() - before
        with Checkpoints(folder.checkpoints) as saved:
            if (latest := saved.latest()) is not None:
                state, elapsed = saved.restore(latest, (state, jnp.zeros(())))
                done, self.seconds_before = latest // size, float(elapsed)
            folder.history.truncate(done * size)
            begun, last, first = time.perf_counter(), time.perf_counter(), done
            while done < case.frames:
                state, done = jax.block_until_ready(advance(state, jnp.asarray(done))), done + 1
                rate = (done - first) * size / (time.perf_counter() - begun)
                self._tell(folder, np.asarray(state.energies)[:, done * size], done * size, rate)
                if (stop := interrupted()) or time.perf_counter() - last > SAVE_EVERY:
                    saved.save(done * size, (state, jnp.asarray(self.seconds())))
                    last = time.perf_counter()
                if stop and done < case.frames:
                    return {"status": INTERRUPTED, "steps": done * size, "residual": None}
        self.tell(Progress("evaluate", 0, 0))
        return self._outcome(folder, state)

    # --- the steps --------------------------------------------------------------------------------

    def _energy(self) -> pde.GinzburgLandau:
        case, width = self.case, self.case.functional.width
        if case.graph is None or self.graph is None:
            lengths = [b - a for a, b in case.domain.values()]
            torus = pde.Torus(lengths, [case.points[name] for name in case.domain])
            return pde.GinzburgLandau(torus, width)
        at = jnp.asarray(self.graph.places, self.dtype)
        diffusion = pde.Graph.of_points(at, case.graph.neighbours)
        labels = jnp.asarray(self.graph.labels, self.dtype)
        return pde.GinzburgLandau(diffusion, width, labels, case.graph.fidelity * labels**2)

    def _start(self) -> State:
        case, grid = self.case, tuple(len(axis) for axis in self.axes.values())
        if self.graph is not None:
            assert isinstance(self.energy.diffusion, pde.Graph)
            vectors = self.energy.diffusion.vectors
            u = vectors @ (vectors.T @ jnp.asarray(self.graph.labels, self.dtype))
        elif case.initial is None:
            key = jax.random.key(case.seed)
            u = jax.random.uniform(key, grid, self.dtype, minval=-1.0)
        else:
            u = self._evaluated(case.initial)
        energies = jnp.full((2, case.steps + 1), jnp.nan, self.dtype).at[:, 0].set(self.energy(u))
        frames = jnp.zeros((case.frames + 1, *grid), self.dtype).at[0].set(u)
        return State((u, u), tuple(o.init(u) for o in self.optimizers), frames, energies)

    def _advance(self, state: State, frame: Array) -> State:
        """To the next frame."""
        size = self.case.steps // self.case.frames

        def step(both, _):
            fields, inner, energies = [], [], []
            for optimizer, u, own in zip(self.optimizers, *both, strict=True):
                changes, own = optimizer.update(self.energy.gradient(u), own, u)
                u = jnp.asarray(optax.apply_updates(u, changes))
                fields.append(u)
                inner.append(own)
                energies.append(self.energy(u))
            return (tuple(fields), tuple(inner)), jnp.stack(energies)

        (fields, inner), told = jax.lax.scan(step, (state.fields, state.inner), length=size)
        energies = jax.lax.dynamic_update_slice(state.energies, told.T, (0, frame * size + 1))
        return State(fields, inner, state.frames.at[frame + 1].set(fields[0]), energies)

    def _tell(self, folder: RunFolder, energies: np.ndarray, step: int, rate: float) -> None:
        said = dict(zip(schema.METHODS, map(float, energies), strict=True))
        steps, loss = self.case.steps, said["momentum"]
        error = {}
        if isinstance(self.case.reference, schema.Energy):
            error = {"energy": self._off(loss)}
        self.tell(Progress("iterate", step, steps, loss, said, error, rate, (steps - step) / rate))
        folder.history.append(
            {"step": step, "loss": loss, "residual": said, "error": error,
             "seconds": self.seconds()}
        )  # fmt: skip

    # --- what came of it --------------------------------------------------------------------------

    def _outcome(self, folder: RunFolder, state: State) -> dict[str, Any]:
        case, spec = self.case, self.case.reference
        energies, last = np.asarray(state.energies), np.asarray(state.fields[0])
        said: dict[str, Any] = {
            "status": COMPLETED, "steps": case.steps, "tolerance": spec.tolerance if spec else None,
            "residual": float(np.sqrt(np.mean(np.square(self.energy.gradient(state.fields[0]))))),
        }  # fmt: skip
        if not np.isfinite(energies).all():
            advice = f"Try a smaller method.step than {case.method.step:g}."
            return said | {"status": DIVERGED, "residual": None, "advice": advice}
        least = NEAR * energies.min(axis=1).max()
        for name, own in zip(schema.METHODS, energies, strict=True):
            said |= {f"{name}.energy": float(own[-1]), f"{name}.steps": int(np.argmax(own < least))}
        if isinstance(spec, schema.Energy):
            said["error.energy.relative"] = self._off(energies[0, -1])
        if isinstance(spec, schema.Exact):
            exact = np.asarray(self._evaluated(spec.values[schema.FIELD]))
            apart = np.linalg.norm(last - exact) / np.linalg.norm(exact)
            said |= {"error.u.relative_l2": float(apart), "error.u.max": np.abs(last - exact).max()}
        arrays: dict[str, Any] = {"energies": energies}
        if self.graph is not None:
            arrays |= self.graph._asdict()
        if self.graph is not None and isinstance(spec, schema.Sides):
            least = self.graph.least_energy(case)
            said |= {
                "error.u.wrong": float(np.mean(np.sign(last) != self.graph.sides)),
                "error.energy.relative": abs(float(energies[0, -1]) / least - 1),
                "reference.energy": least, "nearest.wrong": self.graph.by_nearest(),
            }  # fmt: skip
        with replacing(folder.arrays) as temporary:
            np.savez_compressed(temporary, **arrays)
        t = case.method.step * np.linspace(0, case.steps, case.frames + 1)
        frames = np.moveaxis(np.asarray(state.frames), 0, -1)
        write_solution(folder.solution, {**self.axes, "t": t}, {schema.FIELD: frames})
        return said

    def _off(self, energy: float) -> float:
        """The relative error of an energy."""
        assert isinstance(self.case.reference, schema.Energy)
        return abs(float(energy) / self.case.reference.value - 1)

    def _evaluated(self, text: Expression) -> Float[Array, "*grid"]:
        at = np.meshgrid(*self.axes.values(), indexing="ij")
        value = text(dict(zip(self.axes, at, strict=True)), np)
        return jnp.broadcast_to(jnp.asarray(value, self.dtype), at[0].shape)
