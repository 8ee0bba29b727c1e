"""The problem that a case poses for one of its costs: arrays, the cost in its unit, plans."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ott.geometry import costs
from ott.geometry.geometry import Geometry
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem

from .._measures.atoms import Atomic
from . import reference
from .costs import cost_matrix
from .schema import Cost, CostFile, GroundCost, RandomCost

# Entries of the cost that are made at once where it is not held.
BLOCK = 2**22


class Problem(NamedTuple):
    """Two measures and a cost, divided by `scale`.

    - `matrix`: the scaled costs, or None where they are computed online, in blocks.
    - `cost_fn`: between positions; None where the matrix was given.
    """

    x: Float[Array, "n d"]
    y: Float[Array, "m d"]
    a: Float[Array, " n"]
    b: Float[Array, " m"]
    scale: float
    matrix: Float[Array, "n m"] | None
    cost_fn: costs.CostFn | None
    batch_size: int | None

    @property
    def data(self) -> tuple[Array, ...]:
        """What a program that solves the problem is given."""
        if self.matrix is not None:
            return self.matrix, self.a, self.b
        return self.x, self.y, self.a, self.b

    def linear(self, epsilon: float | None, *data: Array) -> LinearProblem:
        """As ott's solvers take it; of `data` of these shapes, where a program is traced."""
        *where, a, b = data or self.data
        if self.matrix is not None:
            return LinearProblem(Geometry(where[0], epsilon=epsilon), a, b)
        x, y = where
        cloud = PointCloud(x, y, self.cost_fn, self.batch_size, self.scale, epsilon=epsilon)
        return LinearProblem(cloud, a, b)

    def costs(self, x: Float[Array, "k d"]) -> Float[Array, "k m"]:
        """Scaled costs from other positions to the target."""
        assert self.cost_fn is not None
        return self.cost_fn.all_pairs(x, self.y) / self.scale

    def blocks(self) -> Iterator[tuple[slice, Float[Array, "k m"]]]:
        """Rows and their scaled costs, a few at a time."""
        n, m = len(self.a), len(self.b)
        step = max(1, BLOCK // m)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            yield rows, self.costs(self.x[rows]) if self.matrix is None else self.matrix[rows]

    def optimum(self, by: str) -> float:
        """The unregularised optimum, found as [`reference.optimum_by`][] has chosen."""
        if by == "sorting":
            import transport

            assert self.cost_fn is not None
            _, (i, j, mass) = transport.sorted_transport(self.x[:, 0], self.y[:, 0], self.a, self.b)
            return float(jnp.sum(mass * jax.vmap(self.cost_fn)(self.x[i], self.y[j])) / self.scale)
        matrix = np.concatenate([np.asarray(cost, float) for _, cost in self.blocks()])
        return reference.SOLVERS[by](matrix, np.asarray(self.a, float), np.asarray(self.b, float))


def pose(spec: Cost, source: Atomic, target: Atomic) -> Problem:
    """The problem of one cost.

    Raises:
        ValueError: all costs are zero, so that nothing can be scaled by them.
    """
    x, y, a, b = (
        jnp.asarray(part) for part in (source.points, target.points, source.weights, target.weights)
    )
    a, b = a.astype(float), b.astype(float)
    if isinstance(spec, RandomCost | CostFile):
        shape = (len(a), len(b))
        matrix = (
            np.random.default_rng(spec.seed).uniform(size=shape)
            if isinstance(spec, RandomCost)
            else cost_matrix(spec, shape)
        )
        cost_fn, batch_size, matrix = None, None, jnp.asarray(matrix, a.dtype)
    else:
        cost_fn, batch_size = _cost_fn(spec), spec.batch_size
        matrix = None if batch_size else cost_fn.all_pairs(x, y)
    posed = Problem(x, y, a, b, 1.0, matrix, cost_fn, batch_size)
    scale = _scale(posed, spec.scale)
    if not scale > 0:
        raise ValueError(f"the {spec.scale} of the costs is {scale:g}, and cannot be their unit")
    return posed._replace(scale=scale, matrix=None if matrix is None else matrix / scale)


def _cost_fn(spec: GroundCost) -> costs.CostFn:
    match spec.type:
        case "squared_euclidean":
            return costs.SqEuclidean()
        case "euclidean":
            return costs.Euclidean()
        case "l1":
            return costs.PNormP(1.0)
        case "lp":
            assert spec.p is not None
            return costs.PNormP(spec.p)


def _scale(problem: Problem, by: str) -> float:
    if by == "none":
        return 1.0
    if by == "median":
        assert problem.matrix is not None
        return float(jnp.median(problem.matrix))
    parts = [(jnp.max(jnp.abs(cost)), jnp.sum(cost)) for _, cost in problem.blocks()]
    if by == "max":
        return float(max(most for most, _ in parts))
    return float(sum(total for _, total in parts)) / (len(problem.a) * len(problem.b))


class Looks(NamedTuple):
    """What is looked at of a plan, found a block of rows at a time.

    - `cost`: of the plan, in the cost's unit.
    - `rows`, `columns`: its marginals.
    - `forward`: barycentre of where each atom of the source goes (n, d); `back`, of where each of
      the target comes from (m, d). NaN where nothing goes.
    - `matrix`: the plan itself, where it is small.
    """

    cost: float
    rows: np.ndarray
    columns: np.ndarray
    forward: np.ndarray
    back: np.ndarray
    matrix: np.ndarray | None


# Entries of a plan up to which it is kept.
KEPT = 2_000_000


def look(problem: Problem, plan_rows) -> Looks:
    """Look at a plan by its rows: `plan_rows(rows, cost)` gives those of a slice."""
    n, m = len(problem.a), len(problem.b)
    total, rows, columns = 0.0, np.zeros(n), np.zeros(m)
    x, y = np.asarray(problem.x, float), np.asarray(problem.y, float)
    forward, back = np.zeros((n, y.shape[1])), np.zeros((m, x.shape[1]))
    kept = np.zeros((n, m)) if n * m <= KEPT else None
    for chosen, cost in problem.blocks():
        plan = np.asarray(plan_rows(chosen, cost), float)
        total += float(np.sum(plan * np.asarray(cost, float)))
        rows[chosen] = plan.sum(axis=1)
        columns += plan.sum(axis=0)
        forward[chosen] = plan @ y
        back += plan.T @ x[chosen]
        if kept is not None:
            kept[chosen] = plan
    with np.errstate(invalid="ignore", divide="ignore"):
        forward, back = forward / rows[:, None], back / columns[:, None]
    return Looks(total, rows, columns, forward, back, kept)


def entropic_map(
    problem: Problem, g: Float[Array, " m"], epsilon: float, points: Float[Array, "k d"]
) -> np.ndarray:
    """Where the plan with target potential `g` sends positions that need be no atoms: (k, d)."""

    @jax.jit
    def send(x):
        weights = jax.nn.softmax((g - problem.costs(x)) / epsilon, axis=1)
        return weights @ problem.y

    step = max(1, BLOCK // len(problem.b))
    parts = [send(points[i : i + step]) for i in range(0, len(points), step)]
    return np.concatenate([np.asarray(part, float) for part in parts])
