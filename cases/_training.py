"""Train by `sciopt.Fit` from the last checkpoint: what kinds that train networks share."""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import sciopt

from ._checkpoint import Checkpoints
from ._engine import COMPLETED, DIVERGED, INTERRUPTED, AbstractEngine, Progress
from ._folder import RunFolder


class AbstractTraining(AbstractEngine):
    """An engine whose case has `train` and `evaluate`.

    `train` with an `optimizer`, `steps`, `log_every` and `checkpoint_every`; `evaluate` with a
    `tolerance`.
    """

    fit: sciopt.Fit

    def train(
        self, folder: RunFolder, saved: Checkpoints, params: Any,
        error: Callable[[Any], dict[str, float]], interrupted: Callable[[], bool],
    ) -> tuple[str, sciopt.FitState]:  # fmt: skip
        """How it ended, and the last state that is finite; `error` judges on the way."""
        train = self.case.train
        self.tell(Progress("compile", 0, 0))
        before = time.perf_counter()
        state = self.fit.advance(self.fit.init(params), 0)
        self.compile_seconds = time.perf_counter() - before
        if (latest := saved.latest()) is not None:
            state = saved.restore(latest, state)
        folder.history.truncate(int(state.step) if latest is not None else -1)
        rows = folder.history.read()
        self.seconds_before = rows[-1]["seconds"] if rows else 0.0
        step, began, first = int(state.step), time.perf_counter(), int(state.step)
        while step < train.steps:
            if interrupted():
                saved.save(step, state)
                return INTERRUPTED, state
            stop = min(train.steps, *(n * (step // n + 1) for n in
                                      (train.log_every, train.checkpoint_every)))  # fmt: skip
            after = self.fit.advance(state, stop - step)
            if not finite(after):
                return DIVERGED, state
            state, step = after, stop
            if step % train.log_every == 0 or step == train.steps:
                rate = (step - first) / (time.perf_counter() - began)
                self._log(folder, state, error(state.params), rate)
            if step % train.checkpoint_every == 0 or step == train.steps:
                folder.history.sync()
                saved.save(step, state)
        return COMPLETED, state

    def trained(self, status: str, state: sciopt.FitState) -> dict[str, Any]:
        """What a summary says of a training, before it is judged."""
        said = {
            "status": status, "steps": int(state.step), "residual": float(jnp.sqrt(state.loss)),
            "tolerance": self.case.evaluate.tolerance,
        }  # fmt: skip
        if status == DIVERGED:
            rate = self.case.train.optimizer.learning_rate
            said["advice"] = f"Try a smaller train.optimizer.learning_rate than {rate:g}."
        return said

    def _log(
        self, folder: RunFolder, state: sciopt.FitState, error: dict[str, float], rate: float
    ) -> None:
        assert isinstance(self.fit.residuals, sciopt.Residuals)
        rms = self.fit.residuals.rms(state.params, state.points)
        residual = {name: float(r) for name, r in rms.items()}
        step, steps, loss = int(state.step), self.case.train.steps, float(state.loss)
        folder.history.append(
            {"step": step, "loss": loss, "residual": residual, "error": error,
             "seconds": self.seconds()}
        )  # fmt: skip
        left = (steps - step) / rate
        self.tell(Progress("train", step, steps, loss, residual, error, rate, left))


def finite(state: sciopt.FitState) -> bool:
    """Whether loss and parameters are."""
    arrays = jax.tree.leaves(eqx.filter((state.params, state.loss), eqx.is_array))
    return all(bool(jnp.isfinite(a).all()) for a in arrays)
