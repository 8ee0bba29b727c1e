"""By what a bridge is judged: the true one, or a population that its method never saw."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from transport.bridge import (
    BridgeChain,
    DiscreteBridge,
    GaussianBridge,
    LightSB,
    NeuralBridge,
    bw2_uvp,
    cbw2_uvp,
    path_divergence,
    sample_moments,
    total_moments,
)

from .._measures.atoms import Numbers
from .populations import Truth, fresh, population, starts
from .schema import Case, Exact, Snapshot

Bridge = GaussianBridge | LightSB | DiscreteBridge | BridgeChain | NeuralBridge

# Of the case's randomness, the part that judges.
JUDGING = 2
# Points that are assigned to one another: half a second by SciPy.
ASSIGNED = 1000
# Of a bridge without moments in closed form, from each start. The published code takes 1000.
DRAWS = 200


class AbstractJudge(abc.ABC):
    """One number that is to be small, and what else there is to say at the end."""

    label: str
    measure: str
    """What is judged, and by what number: `error.<label>.<measure>` of the summary."""

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

    label, measure = "plan", "cbw2_uvp"

    def __init__(self, case: Case, truth: Truth):
        assert isinstance(case.reference, Exact)
        self.truth, self.key = truth, jax.random.fold_in(jax.random.key(case.seed), JUDGING)
        x0 = starts(case, truth, (case.seed, JUDGING), case.reference.starts)
        self.x0 = jnp.asarray(x0, float)
        self.true = _conditional(truth, self.key, self.x0)

    def error(self, bridge: Bridge) -> float:
        return float(_uvp(bridge, self.key, self.x0, self.true)[0])

    def remarks(self, bridge: Bridge) -> dict[str, Any]:
        said: dict[str, Any] = {"bw2_uvp": float(_uvp(bridge, self.key, self.x0, self.true)[1])}
        if isinstance(bridge, DiscreteBridge):
            if isinstance(self.truth, GaussianBridge):
                said["true_mass"] = float(self.truth.mass)
            return said  # it ends in points: no law of paths has a finite divergence from it
        assert not isinstance(bridge, BridgeChain)
        paths = path_divergence(self.key, self.truth, bridge.drift, self.x0)
        said["path_divergence"] = float(jnp.mean(paths))
        said["path_divergence_standard_error"] = float(jnp.std(paths) / np.sqrt(len(paths)))
        return said


@eqx.filter_jit
def _conditional(bridge: Bridge, key, x0):
    """Moments of the end given each start: in closed form, or of draws."""
    if isinstance(bridge, GaussianBridge | LightSB | DiscreteBridge):
        return bridge.conditional_moments(x0)
    n, d = x0.shape
    draws = bridge.sample(key, jnp.repeat(x0, DRAWS, axis=0))
    return sample_moments(draws.reshape(n, DRAWS, d))


@eqx.filter_jit
def _uvp(bridge: Bridge, key, x0, true):
    found = _conditional(bridge, key, x0)
    variance = jnp.trace(total_moments(true)[1])
    return cbw2_uvp(found, true, variance), bw2_uvp(total_moments(found), total_moments(true))


class AgainstSnapshot(AbstractJudge):
    """Draws of the bridge at a time against a population then, by the exact assignment."""

    label, measure = "snapshot", "w2"

    def __init__(self, case: Case, target: Numbers):
        assert isinstance(case.reference, Snapshot)
        spec, seed = case.reference, (case.seed, JUDGING)
        self.time, self.key = spec.time, jax.random.fold_in(jax.random.key(case.seed), JUDGING)
        held = population(spec.population, seed)
        n = min(len(held) // 2, ASSIGNED)
        self.held, other = held[:n], held[n : 2 * n]
        self.case, self.seed = case, (*seed, 0)
        x0 = fresh(case.source, self.seed, n)
        self.x0 = jnp.asarray(x0, float)
        # What the distance would be by chance, and of either end in the snapshot's place.
        chosen = np.random.default_rng(seed).choice(len(target), n, replace=len(target) < n)
        self.beside = {
            "floor": wasserstein(other, self.held), "from_source": wasserstein(x0, self.held),
            "from_target": wasserstein(target[chosen], self.held),
        }  # fmt: skip

    def _drawn(self, bridge: Bridge) -> np.ndarray:
        x0 = self.x0
        if not self.case.balanced:  # each bridge takes of the source what it will
            x0 = jnp.asarray(starts(self.case, bridge, self.seed, len(x0)), float)
        return np.asarray(bridge.simulate(self.key, x0, jnp.array([self.time]))[0], float)

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


def judge(case: Case, truth: Truth | None, target: Numbers) -> AbstractJudge | None:
    """As the case's reference has it; `target` is what the method is shown of the end."""
    match case.reference:
        case Exact():
            assert truth is not None
            return AgainstTruth(case, truth)
        case Snapshot():
            return AgainstSnapshot(case, target)
    return None
