"""Diffusion with sorption, and the network that solves it by itself or through its experts.

The problem of Chalapathi, Du and Krishnapriyan, *Scaling physics-informed hard constraints with
mixture-of-experts* (ICLR 2024), and of PDEBench: $u_t = D/R(u)\\, u_{xx}$ on (0, 1), $u = 1$ on the
left, $u = D u_x$ on the right, a constant start. Time is scaled to [0, 1].
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.integrate import solve_ivp

from pde.operators import FNO, Experts

POROSITY, DENSITY, FREUNDLICH, POWER = 0.29, 2880.0, 3.5e-4, 0.874


def retardation(u: Any, xp: Any = jnp) -> Any:
    """$R(u)$, by Freundlich's isotherm."""
    share = (1 - POROSITY) / POROSITY * DENSITY * FREUNDLICH * POWER
    return 1 + share * (xp.maximum(u, 0) + 1e-6) ** (POWER - 1)


def passage(
    x: Float[np.ndarray, " points"], count: int, periodic: bool = False
) -> Float[np.ndarray, "points count"]:
    """How much of each of `count` equal parts of (0, 1) a point takes: they add up to one."""
    x = x * count - 0.5
    x = x % count if periodic else np.clip(x, 0, count - 1)
    left = np.minimum(x.astype(int), count - 1)
    share = x - left
    share = share**3 * (10 - 15 * share + 6 * share**2)
    found, rows = np.zeros((len(x), count)), np.arange(len(x))
    found[rows, left] += 1 - share
    found[rows, (left + 1) % count if periodic else np.minimum(left + 1, count - 1)] += share
    return found


class DiffusionSorption(eqx.Module):
    """On a grid of `times` after the first and `points` between the walls."""

    times: int = eqx.field(static=True)
    points: int = eqx.field(static=True)
    diffusion: float = eqx.field(static=True, default=5e-4)
    end: float = eqx.field(static=True, default=500.0)

    @property
    def x(self) -> np.ndarray:
        """The points between the walls."""
        return np.arange(1, self.points + 1) / (self.points + 1)

    def truth(self, start: float, cells: int = 512) -> Float[np.ndarray, "times points"]:
        """By finite volumes and SciPy's BDF."""
        h = 1 / cells
        x = (np.arange(cells) + 0.5) * h
        # The value half a cell beyond the right end for which u = D u_x there, if D < h / 2.
        beyond = (self.diffusion / h + 0.5) / (self.diffusion / h - 0.5)

        def slope(t, u):
            wide = np.concatenate([[2 - u[0]], u, [beyond * u[-1]]])
            change = (wide[2:] - 2 * u + wide[:-2]) / h**2
            return self.diffusion / retardation(u, np) * change

        times = self.end * np.arange(1, self.times + 1) / self.times
        path = solve_ivp(
            slope, (0, self.end), np.full(cells, start), "BDF", times, rtol=1e-7, atol=1e-9,
            jac_sparsity=np.eye(cells) + np.eye(cells, k=1) + np.eye(cells, k=-1),
        )  # fmt: skip
        return np.stack([np.interp(self.x, x, u) for u in path.y.T])

    def splits(self, blocks: int) -> list[int]:
        """Blocks lie side by side."""
        return [1, blocks]

    def basis(self, network: Any, start: Any) -> Float[Array, "rows columns basis"]:
        """With the start and the walls."""
        shape = self.times + 1, self.points + 2
        return jnp.moveaxis(network(jnp.full((1, *shape), start)), 0, -1)

    def mixed(
        self, b: Float[Array, "rows columns basis"], weights: Float[Array, "blocks basis"]
    ) -> Float[Array, "rows columns"]:
        """With the weights of a column's expert in the middle of its block, and from there to the
        next middle a smooth passage."""
        across = passage(np.linspace(0, 1, self.points + 2), len(weights))
        return jnp.einsum("txn,xk,kn->tx", b, jnp.asarray(across, b.dtype), weights)

    def fields(self, start: Any) -> dict[str, Array]:
        """What has no weights: nothing."""
        return {}

    def terms(self, b: Float[Array, "rows columns basis"]) -> tuple[dict, dict]:
        """What is linear in the basis: at the inner points; at the start and on both sides."""
        dt, dx = 1 / self.times, 1 / (self.points + 1)
        rate = jnp.concatenate([(b[2:] - b[:-2]) / (2 * dt), (b[-1:] - b[-2:-1]) / dt])
        local = {
            "u": b[1:, 1:-1],
            "u_t": rate[:, 1:-1],
            "u_xx": (b[1:, 2:] - 2 * b[1:, 1:-1] + b[1:, :-2]) / dx**2,
        }
        slope = (3 * b[1:, -1] - 4 * b[1:, -2] + b[1:, -3]) / (2 * dx)
        right = b[1:, -1] - self.diffusion * slope
        return local, {"start": b[0, 1:], "left": b[1:, 0], "right": right}

    def solution(self, local: dict, start: Any) -> Float[Array, "times points"]:
        """Between the walls."""
        return local["u"]

    def residuals(self, local: dict, common: dict, start: Any) -> dict[str, Array]:
        """Of the equation, the start, and both sides."""
        slowed = self.end * self.diffusion / retardation(local["u"])
        return {
            "equation": local["u_t"] - slowed * local["u_xx"],
            "start": common["start"] - start,
            "left": common["left"] - 1,
            "right": common["right"],
        }


def experts(problem: Any, blocks: int, solver: Any, steps: int) -> Experts:
    """Each minimises every part's mean, and a little of its weights: `common["ridge"]`."""

    def weighed(local, common, start):
        parts = problem.residuals(local, common, start)
        return *(p / jnp.sqrt(p.size) for p in parts.values()), common["ridge"]

    return Experts(weighed, problem.splits(blocks), solver, steps)


class Solver(eqx.Module):
    """From a start to the solution: the network's own, or its basis by the experts' weights."""

    problem: Any
    network: FNO
    experts: Experts | None
    ridge: float = eqx.field(static=True, default=1e-3)

    @classmethod
    def of(
        cls, problem: Any, network: FNO, blocks: int, solver: Any, steps: int, ridge: float
    ) -> "Solver":
        """With experts, each of which minimises every part's mean, and a little of its weights."""
        return cls(problem, network, experts(problem, blocks, solver, steps), ridge)

    def __call__(self, start: Any) -> tuple[Float[Array, "times *points"], dict[str, Array]]:
        """The solution at the inner points, and the residuals of the whole: across blocks too."""
        basis, fields = self.problem.basis(self.network, start), self.problem.fields(start)
        if self.experts is not None:
            local, common = self.problem.terms(basis)
            common["ridge"] = self.ridge * jnp.eye(basis.shape[-1], dtype=basis.dtype)
            weights = self.experts(local, common, start, fields).weights
            basis = self.problem.mixed(basis, weights)[..., None]
        local, common = self.problem.terms(basis)
        local, common = jax.tree.map(lambda t: t[..., 0], (local, common))
        return self.problem.solution(local, start), self.problem.residuals(
            local | fields, common, start
        )
