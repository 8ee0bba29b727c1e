"""Points of the ends: those that a method is shown, and fresh ones to judge and draw it by."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from transport.bridge import GaussianBridge, LightSB, MixturePair, Reference
from transport.gaussian import square_root

from .._measures import atoms
from .._measures.atoms import Atomic
from .._measures.schema import Generator, Points
from .schema import Case, Cells, Gaussian, Potential

Draws = Float[Array, "n d"]
Truth = GaussianBridge | LightSB

# Added to the seed of a population for draws that the method is not shown.
FRESH = 10**9


def truth(case: Case) -> Truth | None:
    """The true bridge, where it is known."""
    source, target = case.source, case.target
    if isinstance(target, Potential):
        key, d = jax.random.key(target.seed), case.shape()[2]
        return MixturePair.random(
            key, d, case.epsilon,
            components=target.components, radius=target.radius, variances=target.variances,
        ).bridge  # fmt: skip
    if isinstance(source, Gaussian) and isinstance(target, Gaussian):
        moments = (jnp.asarray(part) for end in (source, target) for part in end.moments)
        return GaussianBridge(*moments, process(case))
    return None


def process(case: Case) -> Reference:
    """The reference process."""
    return Reference(case.epsilon, case.rate, case.centre)


def shown(case: Case, known: Truth | None, key: Key[Array, ""]) -> tuple[Atomic, Atomic]:
    """The weighted points of both ends that a method is shown."""
    start, end = jax.random.split(key)
    found = []
    for spec, key in ((case.source, start), (case.target, end)):
        if isinstance(spec, Points):
            found.append(atoms.read(spec))
            continue
        if isinstance(spec, Potential):
            assert known is not None
            begin, end = jax.random.split(key)
            points = known.sample(end, fresh(case.source, begin, spec.points))
        elif isinstance(spec, Gaussian):
            points = _normal(spec, key, spec.points, spec.matched)
        else:
            points = _made(spec)
        points = np.asarray(points, float)
        found.append(Atomic(points, np.full(len(points), 1 / len(points))))
    return found[0], found[1]


def fresh(spec: Any, key: Key[Array, ""], n: int) -> Draws:
    """Draws of a population that are not those shown; of a file, its points drawn again."""
    if isinstance(spec, Gaussian):
        return _normal(spec, key, n, matched=False)
    if isinstance(spec, Points):
        found = atoms.read(spec)
        share = jnp.asarray(found.weights / found.weights.sum())
        return jax.random.choice(key, jnp.asarray(found.points, float), (n,), p=share)
    # The seed is the population's own, and the case's.
    seed = int(jax.random.randint(key, (), 0, 10**9)) + FRESH
    return _made(spec.model_copy(update={"seed": seed, "points": n}))


def _made(spec: Cells | Generator) -> Draws:
    points = cells(spec) if isinstance(spec, Cells) else atoms.generate(spec)
    return jnp.asarray(points, float)


def _normal(spec: Gaussian, key: Key[Array, ""], n: int, matched: bool) -> Draws:
    mean, covariance = (jnp.asarray(part, float) for part in spec.moments)
    noise = jax.random.normal(key, (n, spec.dimensions), mean.dtype)
    if matched:
        noise = noise - jnp.mean(noise, axis=0)
        values, vectors = jnp.linalg.eigh(noise.T @ noise / n)
        noise = noise @ (vectors / jnp.sqrt(values)) @ vectors.T
    return mean + noise @ square_root(covariance)


# --- simulated cells ------------------------------------------------------------------------------

# Euler-Maruyama's steps in unit time, and the noise of both coordinates.
STEPS, NOISE = 200, 0.45
# Of the fates' force: what splits the valley, how late, and what makes one of both the likelier.
FORCE, SPLIT, TILT = 7.0, 0.35, 0.25
PACE = 3.0


def cells(spec: Cells) -> atoms.Numbers:
    """Fate and maturity (n, 2) of cells that have lived until `spec.time`.

    Fate x follows the force of a pitchfork, FORCE ((t - SPLIT) x - x^3 / 4 + TILT t / FORCE), and
    maturity y grows at PACE; both with noise. No cell is born, and none dies.

    >>> cells(Cells(type="cells", time=1, points=100)).shape
    (100, 2)
    """
    rng, n = np.random.default_rng(spec.seed), spec.points
    x, y = 0.25 * rng.normal(size=n), 0.25 * rng.normal(size=n)
    step = 1 / STEPS
    for t in np.arange(round(spec.time * STEPS)) * step:
        force = FORCE * ((t - SPLIT) * x - x**3 / 4) + TILT * t
        x = x + step * force + NOISE * np.sqrt(step) * rng.normal(size=n)
        y = y + step * PACE + NOISE * np.sqrt(step) * rng.normal(size=n)
    return np.stack([x, y], axis=1)
