"""Points of the ends: those that a method is shown, and fresh ones to judge and draw it by.

All but what a potential leads to is drawn by NumPy, so that nothing is compiled for a number of
points; a `seed` here is a tuple of the case's own and of the use.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from transport.bridge import GaussianBridge, LightSB, MixturePair, Reference

from .._measures import atoms
from .._measures.atoms import Atomic, Numbers
from .._measures.schema import Generator, Points
from .schema import Case, Cells, Discrete, Gaussian, Potential

Truth = GaussianBridge | LightSB
Seed = tuple[int, ...]
# Of the case's randomness, the part of the laws between the ends.
BETWEEN = 4


def truth(case: Case) -> Truth | None:
    """The true bridge, where it is known."""
    source, target = case.source, case.target
    if isinstance(target, Potential):
        assert isinstance(case.epsilon, float)
        return MixturePair.random(
            jax.random.key(target.seed), case.shape()[2], case.epsilon,
            components=target.components, radius=target.radius, variances=target.variances,
        ).bridge  # fmt: skip
    if isinstance(source, Gaussian) and isinstance(target, Gaussian):
        return between_gaussians(case, source.moments, target.moments)
    return None


def process(case: Case) -> Reference:
    """The reference process."""
    parts = (case.epsilon, case.rate, case.centre)
    return Reference(*(jnp.asarray(p, float) if isinstance(p, tuple) else p for p in parts))


def between_gaussians(
    case: Case, start: tuple[Numbers, Numbers], end: tuple[Numbers, Numbers]
) -> GaussianBridge:
    """The bridge between two means and covariances."""
    m0, c0, m1, c1 = (jnp.asarray(part, float) for part in (*start, *end))
    if case.balanced:
        return _gaussian(m0, c0, m1, c1, process(case))
    assert isinstance(case.method, Discrete)
    return _unbalanced(m0, c0, m1, c1, process(case), case.method.tau_a, case.method.tau_b)


# One program for all of the algebra.
@eqx.filter_jit
def _gaussian(mean0, covariance0, mean1, covariance1, process: Reference) -> GaussianBridge:
    return GaussianBridge(mean0, covariance0, mean1, covariance1, process)


@eqx.filter_jit
def _unbalanced(mean0, covariance0, mean1, covariance1, process, tau_a, tau_b) -> GaussianBridge:
    return GaussianBridge.unbalanced(
        mean0, covariance0, mean1, covariance1, process, tau_a=tau_a, tau_b=tau_b
    )


def shown(case: Case, known: Truth | None) -> tuple[Atomic, Atomic]:
    """The weighted points of both ends that a method is shown."""
    found = []
    for use, spec in enumerate((case.source, case.target)):
        seed = (case.seed, use)
        match spec:
            case Points():
                found.append(atoms.read(spec))
                continue
            case Potential():
                assert known is not None
                x0 = jnp.asarray(fresh(case.source, seed, spec.points), float)
                points = np.asarray(known.sample(jax.random.key(case.seed), x0), float)
            case _:
                points = _drawn(spec, seed)
        found.append(Atomic(points, np.full(len(points), 1 / len(points))))
    return found[0], found[1]


def shown_between(case: Case) -> list[Atomic]:
    """The weighted points of the laws between the ends."""
    found = []
    for use, law in enumerate(case.between):
        spec = law.population
        if isinstance(spec, Points):
            found.append(atoms.read(spec))
            continue
        points = _drawn(spec, (case.seed, BETWEEN, use))
        found.append(Atomic(points, np.full(len(points), 1 / len(points))))
    return found


def population(spec: Any, seed: Seed) -> Numbers:
    """A population as it is, in an order of chance."""
    found = atoms.read(spec).points if isinstance(spec, Points) else fresh(spec, seed, spec.points)
    return np.random.default_rng(seed).permutation(found)


def _drawn(spec: Gaussian | Cells | Generator, seed: Seed) -> Numbers:
    """The points that a method is shown of a population."""
    match spec:
        case Gaussian():
            return _normal(spec, np.random.default_rng(seed), spec.points, spec.matched)
        case Cells():
            return cells(spec)
    return atoms.generate(spec)


def fresh(spec: Any, seed: Seed, n: int) -> Numbers:
    """Draws of a population that are not those shown; of a file, its points drawn again."""
    rng = np.random.default_rng((*seed, 1))
    if isinstance(spec, Gaussian):
        return _normal(spec, rng, n, matched=False)
    if isinstance(spec, Points):
        found = atoms.read(spec)
        share = found.weights / found.weights.sum()
        return found.points[rng.choice(len(share), n, p=share)]
    # Beyond the seeds that a case may name.
    other = int(rng.integers(2**31, 2**62))
    if isinstance(spec, Cells):
        return cells(spec.model_copy(update={"seed": other, "points": n}))
    return atoms.generate(spec, (other, n))


def starts(case: Case, bridge: Any, seed: Seed, n: int) -> Numbers:
    """Where paths begin: fresh draws of the source, or what an unbalanced bridge takes of it."""
    if case.balanced:
        return fresh(case.source, seed, n)
    key = jax.random.key(int(np.random.default_rng(seed).integers(2**31)))
    return np.asarray(bridge.sample_start(key, n), float)


def _normal(spec: Gaussian, rng: np.random.Generator, n: int, matched: bool) -> Numbers:
    mean, covariance = spec.moments
    noise = rng.normal(size=(n, spec.dimensions))
    if matched:
        noise = noise - noise.mean(axis=0)
        values, vectors = np.linalg.eigh(noise.T @ noise / n)
        noise = noise @ (vectors / np.sqrt(values)) @ vectors.T
    values, vectors = np.linalg.eigh(covariance)
    return mean + noise @ (vectors * np.sqrt(np.maximum(values, 0))).T


# --- simulated cells ------------------------------------------------------------------------------

# Euler-Maruyama's steps in unit time, and the noise of both coordinates.
STEPS, NOISE = 200, 0.4
# Of the fates' force: what splits the valley, when, and what makes one of both the likelier.
FORCE, SPLIT, TILT = 14.0, 0.3, 0.8
PACE = 3.0


def cells(spec: Cells) -> Numbers:
    """Maturity and fate (n, 2) of cells that have lived until `spec.time`.

    Maturity x grows at PACE, and fate y follows the force of a pitchfork,
    FORCE ((t - SPLIT) y - y^3 / 4) + TILT t; both with noise. No cell is born, and none dies.

    >>> cells(Cells(type="cells", time=1, points=100)).shape
    (100, 2)
    """
    rng, n = np.random.default_rng(spec.seed), spec.points
    x, y = 0.25 * rng.normal(size=n), 0.25 * rng.normal(size=n)
    step = 1 / STEPS
    for t in np.arange(round(spec.time * STEPS)) * step:
        force = FORCE * ((t - SPLIT) * y - y**3 / 4) + TILT * t
        x = x + step * PACE + NOISE * np.sqrt(step) * rng.normal(size=n)
        y = y + step * force + NOISE * np.sqrt(step) * rng.normal(size=n)
    return np.stack([x, y], axis=1)
