"""Solve a transport case: a stage for each solver and cost, and what is made of their plans.

A stage is saved once it is done, so that a killed run goes on with the next one; long iterations
are cut into pieces, between which the host looks at errors and at Ctrl-C.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from ott.solvers.linear.acceleration import AndersonAcceleration, Momentum
from ott.solvers.linear.sinkhorn import Sinkhorn

import transport

from .._atomic import replacing
from .._engine import INTERRUPTED, AbstractEngine, Device, Progress
from .._folder import RunFolder
from .._measures.atoms import read
from .._source import CaseError
from .._source import Problem as Wrong
from . import schema
from .outcome import history, iterations_of, outcome, recoloured, shared_arrays, summary
from .problem import pose
from .reference import optimum_by

Arrays = dict[str, Any]

# Iterations of Sinkhorn between two looks of the host.
PIECE = 500
# The first look at the objective of Mirror Sinkhorn is after so small a part of its steps.
REACH = 500


class _Interrupted(Exception):
    """Ctrl-C came; what is done is saved."""


class Engine(AbstractEngine):
    """One run of one transport case."""

    case: schema.Case

    def __init__(self, case: schema.Case, source: str, device: Device, on_progress=None):
        super().__init__(case, source, device, on_progress)
        self.programs: dict[tuple, Callable] = {}
        self.measures = read(case.source), read(case.target)
        with self.settings():
            try:
                self.problems = {
                    label: pose(spec, *self.measures)
                    for label, spec in zip(case.labels, case.costs.values(), strict=True)
                }
            except ValueError as e:
                raise CaseError([Wrong(source, str(e), "cost")]) from None

    def solve(self, folder: RunFolder, interrupted) -> dict[str, Any]:
        """Every stage that `folder` does not have yet; then the arrays, and the summary."""
        self.folder, self.interrupted = folder, interrupted
        self.steps = 0
        folder.checkpoints.mkdir(exist_ok=True)
        if not folder.provenance.exists():
            self.write_provenance(folder)
        try:
            stages = {label: self._stages(label) for label in self.problems}
        except _Interrupted:
            return {"status": INTERRUPTED, "steps": self.steps, "residual": None}
        self.tell(Progress("evaluate", 0, 0))
        found = {
            label: outcome(self.case, self.problems[label], part) for label, part in stages.items()
        }
        arrays = shared_arrays(*self.measures)
        for label, part in found.items():
            arrays |= {f"{label}.{name}": value for name, value in part.arrays.items()}
            pictures = recoloured(self.case, self.problems[label], stages[label]["solver"])
            arrays |= {f"{label}.{name}": value for name, value in pictures.items()}
            self._write_pictures(label, pictures)
        with replacing(folder.arrays) as temporary:
            np.savez_compressed(temporary, **arrays)
        folder.history.truncate(-1)
        for row in history(self.case, stages, found):
            folder.history.append(row)
        return summary(self.case, found) | {"steps": self.steps}

    def _write_pictures(self, label: str, pictures: Arrays) -> None:
        """Pixel for pixel, beside the plots."""
        from PIL import Image

        self.folder.plots.mkdir(exist_ok=True)
        for name, pixels in pictures.items():
            with replacing(self.folder.plots / f"{label}-{name}.png") as temporary:
                Image.fromarray(pixels).save(temporary, format="PNG")

    # --- stages -----------------------------------------------------------------------------------

    def _stages(self, label: str) -> dict[str, Arrays]:
        """What the solver, the comparison and the reference found for one cost."""
        spec = self.case.solver
        stages: dict[str, Arrays] = {}
        match spec:
            case schema.MirrorSinkhorn():
                stages["solver"] = self._mirror(spec, label)
            case schema.Sinkhorn():
                stages["solver"] = self._saved(label, partial(self._sinkhorn, spec, label))
            case schema.SinkhornNewtonSparse():
                stages["solver"] = self._saved(label, partial(self._newton, spec, label))
            case schema.Proximal():
                stages["solver"] = self._saved(label, partial(self._proximal, spec, label))
        self.steps += iterations_of(stages["solver"])
        if self.case.compare is not None:
            make = partial(self._sinkhorn, self.case.compare, label)
            stages["sinkhorn"] = self._saved(f"{label}-sinkhorn", make)
        if (optimum := self._optimum_by(label)) is not None:
            stages["reference"] = self._saved(f"{label}-optimum", optimum)
        return stages

    def _saved(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The stage `name`, from the folder or made now."""
        path = self.folder.checkpoints / f"{name}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as arrays:
                saved = dict(arrays)
            self.seconds_before = float(saved["elapsed"])
            return saved
        if self.interrupted():
            raise _Interrupted
        found = {name: np.asarray(value) for name, value in make().items()}
        found["elapsed"] = np.asarray(self.seconds())
        with replacing(path) as temporary:
            np.savez(temporary, **found)  # pyright: ignore[reportArgumentType]
        return found

    def _compiled(self, name: str, fn: Callable, *arguments: Any) -> Callable:
        """`fn` for arguments such as these, made once for each name and their shapes."""
        key = (name, *(np.shape(leaf) for leaf in jax.tree.leaves(arguments)))
        if key not in self.programs:
            self.tell(Progress("compile", 0, 0))
            before = time.perf_counter()
            made: Any = eqx.filter_jit(fn)
            self.programs[key] = made.lower(*arguments).compile()
            self.compile_seconds += time.perf_counter() - before
        return self.programs[key]

    def _solved(self, solver: Any, label: str, epsilon: float | None) -> tuple[Any, Arrays]:
        """What a solver of `transport` gives, and the record of its iterations."""
        problem = self.problems[label]
        # Costs online are in the program; a matrix is an argument of it.
        name = "solve" if problem.matrix is not None else f"solve {label}"
        run = self._compiled(
            name, lambda *data: solver.run(problem.linear(epsilon, *data)), *problem.data
        )
        self.tell(Progress("solve", 0, 0))
        before = time.perf_counter()
        out, history = jax.block_until_ready(run(*problem.data))
        made = np.asarray(history.error) >= 0
        return out, {
            "f": out.f, "g": out.g, "converged": out.converged,
            "seconds": time.perf_counter() - before, "errors": np.asarray(history.error)[made],
            "epsilons": np.asarray(history.epsilon)[made],
            "newton": np.asarray(history.newton)[made],
        }  # fmt: skip

    def _newton(self, spec: schema.SinkhornNewtonSparse, label: str) -> Arrays:
        solver = transport.SinkhornNewtonSparse(**spec.model_dump(exclude={"type"}))
        out, found = self._solved(solver, label, self.case.epsilon)
        return found | {"regularised": out.reg_ot_cost}

    def _proximal(self, spec: schema.Proximal, label: str) -> Arrays:
        solver = transport.ProximalSinkhornNewton(**spec.model_dump(exclude={"type"}))
        out, found = self._solved(solver, label, None)
        gaps = np.asarray(out.errors)
        return found | {"matrix": out.matrix, "gap": out.gap, "gaps": gaps[gaps >= 0]}

    def _sinkhorn(self, spec: schema.Sinkhorn, label: str) -> Arrays:
        """ott's iterations; without an acceleration, which has a memory, in pieces."""
        problem = self.problems[label]
        plain = spec.momentum is None and spec.anderson is None
        piece = PIECE - PIECE % spec.inner_iterations or spec.inner_iterations
        solver = Sinkhorn(
            threshold=spec.threshold,
            inner_iterations=spec.inner_iterations,
            max_iterations=min(piece, spec.max_iterations) if plain else spec.max_iterations,
            momentum=None if spec.momentum is None else Momentum(value=spec.momentum),
            anderson=None if spec.anderson is None else AndersonAcceleration(spec.anderson),
        )
        potentials = (jnp.zeros_like(problem.a), jnp.zeros_like(problem.b))
        advance = self._compiled(
            "sinkhorn",
            lambda start, *data: solver(problem.linear(self.case.epsilon, *data), init=start),
            potentials, *problem.data,
        )  # fmt: skip
        errors: list[float] = []
        before = time.perf_counter()
        while True:
            out = advance(potentials, *problem.data)
            potentials = (out.f, out.g)
            new = np.asarray(out.errors)
            errors += new[new != -1].tolist()
            done = len(errors) * spec.inner_iterations
            rate = done / (time.perf_counter() - before)
            said = {f"{label} by Sinkhorn": errors[-1]}
            steps = spec.max_iterations
            left = (steps - done) / rate
            self.tell(
                Progress("iterate", done, steps, residual=said, steps_per_second=rate,
                         seconds_left=left)
            )  # fmt: skip
            ended = bool(out.converged) or not np.isfinite(errors[-1])
            if ended or done >= spec.max_iterations:
                break
            if self.interrupted():
                raise _Interrupted
        return {
            "f": out.f, "g": out.g, "regularised": out.reg_ot_cost, "converged": out.converged,
            "seconds": time.perf_counter() - before, "errors": errors,
            "iterations": spec.inner_iterations * np.arange(1, len(errors) + 1),
        }  # fmt: skip

    def _mirror(self, spec: schema.MirrorSinkhorn, label: str) -> Arrays:
        """The plan after some numbers of steps: the same ones, for no step depends on how many."""
        spread = np.geomspace(spec.steps, spec.steps / REACH, spec.looks)
        counts = sorted({round(t) for t in spread} - {0})
        found = []
        for count in counts:
            make = partial(self._mirror_to, spec, label, count)
            found.append(self._saved(f"{label}-{count}", make))
            said = {label: float(found[-1]["marginal_error"])}
            loss = float(found[-1]["objective"])
            self.tell(Progress("iterate", count, spec.steps, loss=loss, residual=said))
        errors = np.array([part["marginal_error"] for part in found])
        return found[-1] | {
            "errors": errors, "iterations": np.array(counts), "converged": np.array(True),
            "objectives": np.array([part["objective"] for part in found]),
            "seconds": sum(part["seconds"] for part in found),
        }  # fmt: skip

    def _mirror_to(self, spec: schema.MirrorSinkhorn, label: str, count: int) -> Arrays:
        problem = self.problems[label]
        cost = jnp.concatenate([block for _, block in problem.blocks()])
        product = jnp.outer(problem.a, problem.b)

        def objective(plan, args):
            cost, product = args
            value = (
                jnp.sum(cost * plan) + spec.objective.squared_norm * jnp.sum(plan**2 / product) / 2
            )
            if spec.objective.entropy:
                divergence = -jnp.sum(entr(plan) + plan * jnp.log(product))
                value += spec.objective.entropy * divergence
            return value

        def seen(plan, key, args):
            cost, product = args
            noise = spec.noise * jax.random.normal(key, cost.shape, cost.dtype)
            return objective(plan, (cost + noise, product))

        key = jax.random.key(self.case.seed) if spec.noise else None
        how = spec.model_dump(include={"rate", "gradient_bound", "extrapolate", "burn_in"})
        solver = transport.MirrorSinkhorn(count, **how)
        minimise = partial(solver, seen if spec.noise else objective, key=key)
        args = (cost, product)
        data = (problem.a, problem.b, args)
        run = self._compiled(f"mirror {count}", lambda a, b, args: minimise(a, b, args=args), *data)
        before = time.perf_counter()
        out = jax.block_until_ready(run(*data))
        return {
            "matrix": out.matrix, "marginal_error": out.marginal_error,
            "objective": objective(out.matrix, args), "seconds": time.perf_counter() - before,
        }  # fmt: skip

    def _optimum_by(self, label: str) -> Callable[[], Arrays] | None:
        """What finds the optimum that the reference names; or the exact one, if it is small."""
        case, problem = self.case, self.problems[label]
        penalised = isinstance(case.solver, schema.MirrorSinkhorn) and (
            case.solver.objective.penalised
        )
        if isinstance(case.reference, schema.Entropic):
            assert isinstance(case.solver, schema.MirrorSinkhorn)
            posed = problem.linear(case.solver.objective.entropy)

            def entropic() -> Arrays:
                solve = transport.SinkhornNewtonSparse()
                return {"optimum": solve(posed).reg_ot_cost, "by": "Newton"}

            return entropic
        dimensions = problem.x.shape[1] if problem.cost_fn is not None else 0
        spec = dict(zip(case.labels, case.costs.values(), strict=True))[label]
        by = optimum_by(case, spec, dimensions)
        if by is None or penalised:
            return None

        def exact() -> Arrays:
            self.tell(Progress("reference", 0, 0))
            return {"optimum": problem.optimum(by), "by": by}

        return exact
