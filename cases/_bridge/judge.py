"""By what a bridge is judged: the true one, or a population that its method never saw."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from transport.bridge import (
    DiscreteBridge,
    GaussianBridge,
    LightSB,
    bw2_uvp,
    cbw2_uvp,
    path_divergence,
    total_moments,
)

from .populations import Truth, fresh
from .schema import Case, Exact, Snapshot

Bridge = GaussianBridge | LightSB | DiscreteBridge

# Points that are assigned to one another: half a second by SciPy.
ASSIGNED = 1000


class AbstractJudge(abc.ABC):
    """One number that is to be small, and what else there is to say at the end."""

    name: str
    """Of what is judged, and of the number, as the summary has them."""

    @abc.abstractmethod
    def error(self, bridge: Bridge) -> float:
        """What the case's tolerance is about."""

    @abc.abstractmethod
    def remarks(self, bridge: Bridge) -> dict[str, Any]:
        """Of the last bridge, for the summary."""

    def arrays(self, bridge: Bridge) -> dict[str, Any]:
        """Of the last bridge, for the pictures."""
        return {}


class AgainstTruth(AbstractJudge):
    """The conditional laws of the end against the true ones, from the same fresh starts."""

    name = "plan.cbw2_uvp"

    def __init__(self, case: Case, truth: Truth, key: Key[Array, ""]):
        assert isinstance(case.reference, Exact)
        starts, self.key = jax.random.split(key)
        self.truth = truth
        self.x0 = fresh(case.source, starts, case.reference.starts)
        self.true = _conditional(truth, self.x0)

    def error(self, bridge: Bridge) -> float:
        return float(_uvp(bridge, self.x0, self.true)[0])

    def remarks(self, bridge: Bridge) -> dict[str, Any]:
        said: dict[str, Any] = {"bw2_uvp": float(_uvp(bridge, self.x0, self.true)[1])}
        if isinstance(bridge, DiscreteBridge):
            return said  # it ends in points: no law of paths has a finite divergence from it
        for name, values in _divergences(self.truth, bridge, self.x0, self.key).items():
            said[f"path_divergence.{name}"] = float(jnp.mean(values))
            error = float(jnp.std(values) / np.sqrt(len(values)))
            said[f"path_divergence.{name}_standard_error"] = error
        return said


@eqx.filter_jit
def _divergences(truth: Truth, bridge: Bridge, x0, key) -> dict[str, Array]:
    """For each start, what averages to the divergence of the laws of paths: in two ways."""
    ends, paths = jax.random.split(key)
    x1 = truth.sample(ends, x0)
    return {
        "ends": truth.log_prob(x1, x0) - bridge.log_prob(x1, x0),
        "girsanov": path_divergence(paths, truth, bridge.drift, x0),
    }


@eqx.filter_jit
def _conditional(bridge: Bridge, x0):
    return bridge.conditional_moments(x0)


@eqx.filter_jit
def _uvp(bridge: Bridge, x0, true):
    found = bridge.conditional_moments(x0)
    variance = jnp.trace(total_moments(true)[1])
    return cbw2_uvp(found, true, variance), bw2_uvp(total_moments(found), total_moments(true))


class AgainstSnapshot(AbstractJudge):
    """Draws of the bridge at a time against a population then, by the exact assignment."""

    name = "snapshot.w2"

    def __init__(self, case: Case, key: Key[Array, ""]):
        assert isinstance(case.reference, Snapshot)
        spec = case.reference
        self.time = spec.time
        parts = jax.random.split(key, 5)
        held = np.asarray(fresh(spec.population, parts[0], spec.population.points), float)
        n = min(len(held) // 2, ASSIGNED)
        self.held, other = held[:n], held[n : 2 * n]
        self.x0, self.key = fresh(case.source, parts[1], n), parts[2]
        # What the distance would be by chance, and by standing still at either end.
        self.beside = {"floor": wasserstein(other, self.held)}
        for name, key in (("source", parts[3]), ("target", parts[4])):
            spec = getattr(case, name)
            if hasattr(spec, "type") and spec.type != "potential":
                points = np.asarray(fresh(spec, key, n), float)
                self.beside[f"from_{name}"] = wasserstein(points, self.held)

    def _drawn(self, bridge: Bridge) -> np.ndarray:
        return np.asarray(bridge.simulate(self.key, self.x0, jnp.array([self.time]))[0], float)

    def error(self, bridge: Bridge) -> float:
        return wasserstein(self._drawn(bridge), self.held)

    def arrays(self, bridge: Bridge) -> dict[str, Any]:
        drawn = self._drawn(bridge)
        return {"snapshot": self.held, "snapshot.drawn": drawn, "snapshot.time": self.time}

    def remarks(self, bridge: Bridge) -> dict[str, Any]:
        return {f"snapshot.w2_{name}": value for name, value in self.beside.items()}


def wasserstein(x: np.ndarray, y: np.ndarray) -> float:
    """W2 between as many points on either side, all of one mass.

    >>> wasserstein(np.array([[0.0], [3.0]]), np.array([[4.0], [1.0]]))
    1.0
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(x, y, "sqeuclidean")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def judge(case: Case, truth: Truth | None, key: Key[Array, ""]) -> AbstractJudge | None:
    """As the case's reference has it."""
    match case.reference:
        case Exact():
            assert truth is not None
            return AgainstTruth(case, truth, key)
        case Snapshot():
            return AgainstSnapshot(case, key)
    return None
