"""Train a neural solver, and judge it on starts that it has not seen."""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._atomic import replacing
from .._checkpoint import Checkpoints
from .._engine import COMPLETED, DIVERGED, Device, Progress
from .._folder import RunFolder
from .._training import AbstractTraining
from . import build, schema

Arrays = dict[str, np.ndarray]

BATCH = 25  # starts that are simulated at once
SHOWN = 3  # starts that are drawn
CHECKED = 4  # starts whose simulation is repeated more finely


class Engine(AbstractTraining):
    """One run of one neural solver's case."""

    case: schema.Case

    def __init__(self, case: schema.Case, source: str, device: Device, on_progress=None):
        super().__init__(case, source, device, on_progress)
        with self.settings():
            keys = jax.random.split(jax.random.key(case.seed), 4)
            self.network_key, self.train_key, self.test_key, self.draw_key = keys
            self.made = build.network(case, self.network_key)
            self.dtype = build.params_dtype(eqx.filter(self.made, eqx.is_inexact_array))

    def solve(self, folder: RunFolder, interrupted: Callable[[], bool]) -> dict[str, Any]:
        """Simulate, train from the last checkpoint or from the start, and judge."""
        if not folder.provenance.exists():
            self.write_provenance(folder)
        try:
            return self._solve(folder, interrupted)
        except FloatingPointError as e:
            return {"status": DIVERGED, "steps": 0, "residual": None, "advice": str(e)}

    def _solve(self, folder: RunFolder, interrupted: Callable[[], bool]) -> dict[str, Any]:
        case = self.case
        self.tell(Progress("reference", 0, 0))
        tested = self._starts(self.test_key, case.starts.test, case.finest)
        truth = self._simulated(tested, case.finest)
        starts = states = jnp.zeros((0,))
        if case.train.loss != "physics":
            fine = self._starts(self.train_key, case.starts.train, case.finest)
            starts = self._coarse(fine, case.points)
            states = self._coarse(self._simulated(fine, case.finest), case.points)
        self.fit, params = build.fit(case, self.made, starts, states, self.draw_key)
        # Judged on the way by a few, on the grid that it is trained on.
        few = self._coarse(tested, case.points)[:BATCH]
        aim = self._coarse(truth, case.points)[:BATCH, -1]

        def error(params: Any) -> dict[str, float]:
            given = self._leap(self._network(params), few)
            return {"u": float(_relative(given, aim).mean())}

        with Checkpoints(folder.checkpoints) as saved:
            status, state = self.train(folder, saved, params, error, interrupted)
        said = self.trained(status, state)
        if status != COMPLETED:
            return said
        self.tell(Progress("evaluate", 0, 0))
        return said | self._judge(folder, self._network(state.params), tested, truth)

    # --- data -------------------------------------------------------------------------------------

    def _starts(self, key: Array, count: int, points: int) -> Array:
        law, grid = build.law(self.case), (points,) * len(self.case.domain)
        drawn = jax.lax.map(lambda k: law(k, grid), jax.random.split(key, count), batch_size=BATCH)
        return drawn.astype(self.dtype)

    def _simulated(self, starts: Array, points: int, step: float | None = None) -> Array:
        """States at the looks, of shape `(starts, looks, *grid)`."""
        run = build.simulation(self.case, points, step or self.case.time.step)
        states, sound = jax.jit(lambda s: jax.lax.map(run, s, batch_size=BATCH))(starts)
        if not bool(sound.all()):
            raise FloatingPointError(
                f"The simulation of {int((~sound).sum())} of {len(starts)} starts is not finite: "
                f"try a smaller time.step than {self.case.time.step:g}, or a finer grid."
            )
        return states

    def _coarse(self, fields: Array, points: int) -> Array:
        """Every so many points of a finer grid."""
        every = self.case.finest // points
        return fields[(..., *[slice(None, None, every)] * len(self.case.domain))]

    def _network(self, params: Any) -> build.Solver:
        return eqx.combine(params, eqx.filter(self.made, eqx.is_inexact_array, inverse=True))

    # --- judgement --------------------------------------------------------------------------------

    def _judge(
        self, folder: RunFolder, made: build.Solver, tested: Array, truth: Array
    ) -> dict[str, Any]:
        case, end = self.case, self.case.time.end
        starts, aim = self._coarse(tested, case.points), self._coarse(truth, case.points)[:, -1]
        given = self._leap(made, starts)
        errors = np.asarray(_relative(given, aim))
        said: dict[str, Any] = {
            "error.u.relative_l2": float(errors.mean()),
            "error.u.max": float(np.abs(given - aim).max()),
            "worst.u.relative_l2": float(errors.max()),
            # What it would be to say that nothing happens.
            "unchanged.u.relative_l2": float(_relative(starts, aim).mean()),
        }
        for n in case.evaluate.points:
            other = self._leap(made, self._coarse(tested, n))
            found = _relative(other, self._coarse(truth, n)[:, -1])
            said[f"at_{n}_points.u.relative_l2"] = float(found.mean())
        rollout, exact = self._rolled(made, starts, tested)
        said |= self._timed(made, starts) | {"simulation.relative_l2": self._checked(tested, truth)}
        order = np.argsort(errors)
        shown = order[[len(order) // 2, -1, 0][: min(SHOWN, len(order))]]
        arrays = {
            "errors": errors, "rollout": rollout, "times": end * np.arange(1, len(rollout) + 1),
            "start": starts[shown], "given": given[shown], "aim": aim[shown],
            "shown": errors[shown], "far": exact,
        }  # fmt: skip
        for name, (a, b) in case.domain.items():
            arrays[f"u.{name}"] = a + (b - a) * np.arange(case.points) / case.points
        with replacing(folder.arrays) as temporary:
            np.savez_compressed(temporary, **{n: np.asarray(a) for n, a in arrays.items()})  # pyright: ignore[reportArgumentType]
        return said

    def _leap(self, made: build.Solver, starts: Array) -> Array:
        """From starts on a grid to the end."""
        end = jnp.asarray([self.case.time.end], self.dtype)
        return _leap(made, starts, end, build.given(self.case, starts.shape[-1]))

    def _rolled(self, made: build.Solver, starts: Array, tested: Array) -> tuple[np.ndarray, Array]:
        """Mean errors of a network that is applied to what it gave, and the last states."""
        found, fine = [], tested
        for _ in range(self.case.evaluate.rollout):
            starts = self._leap(made, starts)
            fine = self._simulated(fine, self.case.finest)[:, -1]
            aim = self._coarse(fine, self.case.points)
            found.append(float(_relative(starts, aim).mean()))
        return np.asarray(found), starts[:SHOWN]

    def _timed(self, made: build.Solver, starts: Array) -> dict[str, float]:
        """Seconds for all starts, of the network and of the simulation on the same grid."""
        run = build.simulation(self.case, self.case.points, self.case.time.step)
        simulate = jax.jit(lambda s: jax.lax.map(run, s, batch_size=BATCH))
        return {
            "seconds.network": _seconds(lambda: self._leap(made, starts)),
            "seconds.simulation": _seconds(lambda: simulate(starts)),
        }

    def _checked(self, tested: Array, truth: Array) -> float:
        """How far the simulation is from one with half the step on twice the points."""
        law, grid = build.law(self.case), (2 * self.case.finest,) * len(self.case.domain)
        keys = jax.random.split(self.test_key, self.case.starts.test)[:CHECKED]
        starts = jax.vmap(lambda k: law(k, grid))(keys).astype(self.dtype)
        finer = self._simulated(starts, grid[0], self.case.time.step / 2)[:, -1]
        finer = finer[(..., *[slice(None, None, 2)] * len(self.case.domain))]
        return float(_relative(truth[: len(finer), -1], finer).max())


@eqx.filter_jit
def _leap(made: build.Solver, starts: Array, ends: Array, given: Array | None) -> Array:
    return jax.lax.map(lambda s: build.states(made, s, ends, given)[-1], starts, batch_size=BATCH)


def _relative(given: Array, aim: Array) -> Array:
    """The relative L2 error of each."""
    norm = jax.vmap(lambda x: jnp.linalg.norm(x.ravel()))
    return norm(given - aim) / norm(aim)


def _seconds(call: Callable[[], Any]) -> float:
    """The median of five, after one that may compile."""
    jax.block_until_ready(call())
    spent = []
    for _ in range(5):
        before = time.perf_counter()
        jax.block_until_ready(call())
        spent.append(time.perf_counter() - before)
    return float(np.median(spent))
