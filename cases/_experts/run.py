"""Train a network through its experts, and judge it on starts that it has not seen."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from jaxtyping import Array, Key

import sciopt
from pde.operators import FNO

from .._checkpoint import Checkpoints
from .._engine import COMPLETED, Device, Progress
from .._folder import RunFolder
from .._pinn.build import first_order
from .._solution import write_solution
from .._training import AbstractTraining
from . import schema
from .problem import DiffusionSorption, Solver

PADDING = 0.15  # of the network's grid, which is not periodic
BAD = 20  # gradients in a row that are not finite, of a constraint that is nearly singular


class Engine(AbstractTraining):
    """One run of one case of experts."""

    case: schema.Case

    def __init__(self, case: schema.Case, source: str, device: Device, on_progress=None):
        super().__init__(case, source, device, on_progress)
        with self.settings():
            network_key, self.train_key = jax.random.split(jax.random.key(case.seed))
            self.dtype = jnp.float64 if case.precision == "float64" else jnp.float32
            self.made = self._made(network_key)
            params, self.static = eqx.partition(self.made, eqx.is_inexact_array)
            self.params = jax.tree.map(lambda x: x.astype(self.dtype), params)
            self.called = jax.jit(lambda params, s: eqx.combine(params, self.static)(s)[0])

    def solve(self, folder: RunFolder, interrupted: Callable[[], bool]) -> dict[str, Any]:
        """Solve the test's problems, train from the last checkpoint or the start, and judge."""
        case = self.case
        if not folder.provenance.exists():
            self.write_provenance(folder)
        self.tell(Progress("reference", 0, 0))
        spec = case.starts
        tested = np.random.default_rng(case.seed).uniform(spec.lower, spec.upper, spec.test)
        truth = np.stack([self.made.problem.truth(float(start)) for start in tested])

        def error(params: Any) -> dict[str, float]:
            return {"u": float(relative(self._given(params, tested), truth).mean())}

        self.fit = self._fit()
        with Checkpoints(folder.checkpoints) as saved:
            status, state = self.train(folder, saved, self.params, error, interrupted)
        said = self.trained(status, state)
        if status != COMPLETED:
            return said
        self.tell(Progress("evaluate", 0, 0))
        return said | self._judge(folder, state.params, tested, truth)

    # --- what is trained --------------------------------------------------------------------------

    def _made(self, key: Key[Array, ""]) -> Solver:
        case, spec, held = self.case, self.case.network, self.case.constraint
        problem = DiffusionSorption(
            case.grid.t, case.grid.x, case.problem.diffusion, case.problem.end
        )
        network = FNO(
            1, held.basis if held else 1, modes=[spec.modes] * 2, width=spec.width,
            depth=spec.depth, projection=spec.projection, padding=PADDING, key=key,
        )  # fmt: skip
        if held is None:
            return Solver(problem, network, None)
        solver = optx.LevenbergMarquardt(rtol=1e-6, atol=1e-6)
        return Solver.of(problem, network, held.blocks, solver, held.steps, held.ridge)

    def _fit(self) -> sciopt.Fit:
        spec, train = self.case.starts, self.case.train

        def parts(params: Any, start: Array) -> dict[str, Array]:
            return eqx.combine(params, self.static)(start)[1]

        def drawn(key: Key[Array, ""], params: Any) -> dict[str, Array]:
            return {"parts": jax.random.uniform(
                key, (train.batch,), self.dtype, spec.lower, spec.upper)}  # fmt: skip

        optimizer = first_order(train.optimizer, max(train.steps, 1))
        # By their means: there are far more points than of the start and the walls.
        shapes = jax.eval_shape(parts, self.params, jnp.zeros((), self.dtype))
        residuals = sciopt.Residuals({"parts": parts}, {n: 1 / p.size for n, p in shapes.items()})
        careful = optax.apply_if_finite(optimizer, BAD)
        return sciopt.Fit(residuals, careful, drawn, self.train_key, redraw=True)

    # --- judgement --------------------------------------------------------------------------------

    def _given(self, params: Any, starts: np.ndarray) -> np.ndarray:
        return np.stack([self.called(params, jnp.asarray(s, self.dtype)) for s in starts])

    def _judge(
        self, folder: RunFolder, params: Any, tested: np.ndarray, truth: np.ndarray
    ) -> dict[str, Any]:
        given, made = self._given(params, tested), self.made
        errors = relative(given, truth)
        coarse = made.problem.truth(float(tested[0]), 256)[None]
        middle = int(np.argsort(errors)[len(errors) // 2])
        times = made.problem.end * np.arange(1, made.problem.times + 1) / made.problem.times
        write_solution(
            folder.solution, {"x": made.problem.x, "t": times}, {"u": given[middle].T},
            {"u": truth[middle].T}, attrs={"start": float(tested[middle])},
        )  # fmt: skip
        return {
            "error.u.relative_l2": float(errors.mean()),
            "error.u.max": float(np.abs(given - truth).max()),
            "worst.u.relative_l2": float(errors.max()),
            # The reference against itself on half the cells.
            "reference.relative_l2": float(relative(coarse, truth[:1])[0]),
        }


def relative(given: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """The relative L2 error of each."""
    axes = tuple(range(1, aim.ndim))
    return np.sqrt(np.sum((given - aim) ** 2, axes) / np.sum(aim**2, axes))
