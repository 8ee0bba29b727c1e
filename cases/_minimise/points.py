"""Points in the plane of which it is known who belongs together, and the least energy by SciPy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import laplacian
from scipy.spatial import KDTree

from . import schema


class Points(NamedTuple):
    """Where they are, on which side, and the side again of the few that are labelled, or zero."""

    places: Float[np.ndarray, "n 2"]
    sides: Float[np.ndarray, " n"]
    labels: Float[np.ndarray, " n"]

    @classmethod
    def drawn(cls, spec: schema.Graph, seed: int) -> "Points":
        """By NumPy's generator of that seed."""
        each, rng = spec.points.each, np.random.default_rng(seed)
        angle = np.pi * rng.uniform(size=(2, each))
        upper = np.stack([np.cos(angle[0]), np.sin(angle[0])], 1)
        lower = np.stack([1 - np.cos(angle[1]), 0.5 - np.sin(angle[1])], 1)
        places = np.concatenate([upper, lower])
        places += spec.points.noise * rng.normal(size=places.shape)
        sides = np.repeat([1.0, -1.0], each)
        labels = np.zeros(2 * each)
        for first in (0, each):
            given = first + rng.choice(each, spec.labels, replace=False)
            labels[given] = sides[given]
        return cls(places, sides, labels)

    def by_nearest(self) -> float:
        """The share of points whose nearest label is of the other side."""
        given = np.flatnonzero(self.labels)
        _, nearest = KDTree(self.places[given]).query(self.places)
        return float(np.mean(self.labels[given][nearest] != self.sides))

    def least_energy(self, case: schema.Case) -> float:
        """By L-BFGS from the labels, with weights and Laplacian of SciPy's sparse matrices."""
        assert case.graph is not None
        n, width, fidelity = len(self.sides), case.functional.width, case.graph.fidelity
        near = KDTree(self.places).query(self.places, case.graph.neighbours + 1)
        away, which = map(np.asarray, near)
        rows, columns = np.repeat(np.arange(n), case.graph.neighbours), which[:, 1:].ravel()
        reach = away[:, -1]
        weights = np.exp(-(away[:, 1:].ravel() ** 2) / (reach[rows] * reach[columns]))
        one_way = csr_matrix((weights, (rows, columns)), (n, n))
        operator = laplacian(one_way.maximum(one_way.T), normed=True)
        held = fidelity * self.labels**2

        def energy(u):
            spread, off = operator @ u, held * (u - self.labels)
            value = width / 2 * u @ spread + np.sum((u**2 - 1) ** 2) / (4 * width)
            return value + off @ (u - self.labels) / 2, width * spread + (u**3 - u) / width + off

        options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-10}
        return float(
            minimize(energy, self.labels, jac=True, method="L-BFGS-B", options=options).fun
        )
