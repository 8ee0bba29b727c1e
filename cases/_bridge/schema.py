"""What a case of a bridge may say: two ends, the reference process, a method, a reference.

The discriminated unions (`type:`) are the registry; their fields are the arguments of the objects
that they make, in `transport.bridge`. No JAX is imported.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from .._measures.schema import Count, Generator, Points
from .._model import AbstractCase, Complaint, Key, Model, NotNegative, Number, Positive

Vector = Annotated[tuple[Number, ...], Field(min_length=1, max_length=10_000)]
# One number, or one for each dimension.
PerCoordinate = Annotated[
    Annotated[Number, Tag("one")] | Annotated[Vector, Tag("each")],
    Discriminator(lambda value: "each" if isinstance(value, list | tuple) else "one"),
]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


# --- ends -----------------------------------------------------------------------------------------


class Gaussian(Model):
    """A normal law."""

    type: Literal["gaussian"]
    mean: Vector
    """A number for each dimension."""
    covariance: Annotated[tuple[Vector, ...], Field(max_length=10_000)] | None = None
    """A row for each dimension; the identity, if null. It may be degenerate."""
    points: Count = 10_000
    """How many draws a method is shown."""
    matched: bool = False
    """Move and scale the draws so that their own moments are the law's to the last digits."""

    @model_validator(mode="after")
    def _is_a_covariance(self) -> Self:
        d = len(self.mean)
        if self.covariance is not None:
            if len(self.covariance) != d or any(len(row) != d for row in self.covariance):
                raise ValueError(f"covariance needs {d} rows of {d} numbers, as `mean` has {d}")
            matrix = np.array(self.covariance)
            if not np.allclose(matrix, matrix.T, rtol=1e-12):
                raise ValueError("covariance is not symmetric")
            if (lowest := np.linalg.eigvalsh(matrix)[0]) < -1e-12 * np.abs(matrix).max():
                raise ValueError(f"covariance has a negative eigenvalue, {lowest:.3g}")
        if self.matched and self.points <= d:
            raise ValueError(f"matched draws in {d} dimensions need more than {d} points")
        return self

    @property
    def dimensions(self) -> int:
        """Of the space."""
        return len(self.mean)

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the covariance as arrays."""
        d = self.dimensions
        return np.array(self.mean), np.array(self.covariance or np.eye(d), float)


class Potential(Model):
    """Where a random potential leads the source (`transport.bridge.MixturePair.random`).

    The bridge is known, whatever the source: the benchmark of Gushchin et al. (2023).
    """

    type: Literal["potential"]
    components: Annotated[int, Field(ge=1, le=1000)] = 5
    """Gaussians that the potential is a mixture of."""
    radius: NotNegative = 5.0
    """Of the sphere on which their means lie."""
    variances: tuple[Positive, Positive] = (0.5, 1.5)
    """Between which theirs are drawn, along random axes."""
    seed: Seed = 0
    """Of the potential."""
    points: Count = 10_000
    """How many draws of the end a method is shown."""

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.variances[0] > self.variances[1]:
            raise ValueError("variances must be ascending")
        return self


class Cells(Model):
    """Simulated cells that mature and choose one of two fates; no measured data.

    Two coordinates: maturity, which grows, and fate, whose one valley splits into two unequal ones.
    A cell is looked at once, so that snapshots of other seeds share no cell.
    """

    type: Literal["cells"]
    time: Annotated[Number, Field(ge=0, le=1)]
    """When it is looked at."""
    points: Annotated[int, Field(ge=2, le=10**6)] = 1000
    """How many cells."""
    seed: Seed = 0
    """Of the cells."""
    dimensions: ClassVar[int] = 2


Source = Annotated[Gaussian | Cells | Points | Generator, Field(discriminator="type")]
Target = Annotated[Gaussian | Cells | Points | Generator | Potential, Field(discriminator="type")]


# --- methods --------------------------------------------------------------------------------------


class ClosedForm(Model):
    """The bridge between Gaussians (`transport.bridge.GaussianBridge`).

    Ends that are no Gaussians are taken to be such, of the same mean and covariance.
    """

    type: Literal["gaussian"]


class Light(Model):
    """A mixture fitted to the points (`transport.bridge.LightSB`).

    By `transport.bridge.ExpectationMaximisation`, or by `sciopt.SSBFGS` where covariances are of
    low rank.
    """

    type: Literal["light"]
    components: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Of the mixture."""
    covariance: Literal["diagonal", "full", "low_rank"] = "diagonal"
    """Of each."""
    rank: Annotated[int, Field(ge=1, le=1000)] = 1
    """Of a `low_rank` covariance, beside its diagonal."""
    centres: Literal["k-means", "random"] = "k-means"
    """Where components begin: at means, or at samples of the target."""
    variance: Positive | None = None
    """With which they begin, in units of epsilon; from the samples, if null."""
    steps: Annotated[int, Field(ge=1, le=10**6)] = 100
    """Of the fit; fewer, where it converges before."""
    tolerance: NotNegative = 1e-5
    """The change of the objective, in nats, at which it has converged."""
    looks: Annotated[int, Field(ge=1, le=1000)] = 12
    """How often the bridge is judged on the way, denser at the start; checkpoints are then, too."""


class Discrete(Model):
    """The bridge between the points themselves (`transport.bridge.DiscreteBridge`)."""

    type: Literal["discrete"]
    threshold: NotNegative = 1e-9
    """Marginal error at which the static solver stops."""
    max_iterations: Annotated[int, Field(ge=1, le=10**6)] = 1000
    """Of it, at most."""
    batch_size: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Compute costs online, in blocks of so many columns, and never hold the matrix."""
    tau_a: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Below 1, weights at the start may differ from the source's, at a price; 1 keeps them."""
    tau_b: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Likewise at the end: an outlier of the target need not be reached."""

    @property
    def balanced(self) -> bool:
        """Whether the ends keep their weights."""
        return self.tau_a == self.tau_b == 1


class Networks(Model):
    """A network for each direction of time (`transport.bridge.NeuralBridge`)."""

    type: Literal["dsbm", "ipf"]
    """By `transport.bridge.markovian_fitting` or by `transport.bridge.proportional_fitting`."""
    width: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Of the networks' layers."""
    depth: Annotated[int, Field(ge=1, le=100)] = 2
    """Of the networks."""
    iterations: Annotated[int, Field(ge=1, le=1000)] = 5
    """Each trains the way back and then the way forth; the bridge is judged after each."""
    steps: Annotated[int, Field(ge=1, le=10**6)] = 1000
    """Of Adam in each half of an iteration."""
    rate: Positive = 3e-3
    """With which a half begins; it falls to zero as a cosine."""
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 256
    """Pairs, or points of paths, in each step."""
    paths: Annotated[int, Field(ge=1, le=10**6)] = 4096
    """Simulated for each half."""
    path_steps: Annotated[int, Field(ge=1, le=10**4)] = 50
    """Of Euler-Maruyama in each path."""
    average: Annotated[Number, Field(ge=0, lt=1)] = 0.99
    """The decay of the average of the parameters, which simulates and is the result."""


Method = Annotated[ClosedForm | Light | Discrete | Networks, Field(discriminator="type")]


# --- what it is judged by, and how it is drawn ----------------------------------------------------


class Exact(Model):
    """The true bridge, where it is known: between two Gaussians, or to a `potential`.

    Between Gaussians also where `tau_a` and `tau_b` of the method let their weights change.
    """

    type: Literal["exact"]
    tolerance: Positive
    """On cBW2^2-UVP, in per cent: what the case promises."""
    starts: Annotated[int, Field(ge=2, le=10**5)] = 500
    """Of which the conditional laws are compared."""


class Snapshot(Model):
    """A population at a time, which the method does not see: the bridge's law then, against it."""

    type: Literal["snapshot"]
    time: Annotated[Number, Field(gt=0, le=1)]
    """When; at 1 it is the target that is met anew."""
    population: Source
    """Half of it is compared with draws of the bridge, and with the other half."""
    tolerance: Positive
    """On the Wasserstein distance W2, in the points' unit: what the case promises."""


Reference = Annotated[Exact | Snapshot, Field(discriminator="type")]


class Between(Model):
    """A law between the ends, which the method is shown, too."""

    time: Annotated[Number, Field(gt=0, lt=1)]
    """When."""
    population: Source
    """What it is."""


class Drawing(Model):
    """What is drawn of the bridge; nothing else depends on it."""

    starts: Annotated[tuple[Vector, ...], Field(min_length=1, max_length=100)] | None = None
    """Where paths begin; at draws of the source, if null."""
    each: Annotated[int, Field(ge=1, le=100)] = 3
    """Paths from each start."""
    particles: Annotated[int, Field(ge=100, le=10**6)] = 10_000
    """Draws that the moving density is made of."""
    frames: Annotated[int, Field(ge=2, le=101)] = 32
    """Of the animation."""


# --- the case -------------------------------------------------------------------------------------


class Case(AbstractCase):
    """Two laws, a reference process, and who finds the bridge that is closest to it."""

    model_config = ConfigDict(title="Schrödinger bridge")

    kind: Literal["bridge"]
    """A Schrödinger bridge."""
    source: Source
    """The law at time 0."""
    target: Target
    """The law at time 1."""
    between: Annotated[tuple[Between, ...], Field(max_length=100)] = ()
    """Laws between them, by ascending time: there is a bridge from each to the next."""
    epsilon: PerCoordinate
    """The reference's diffusivity: dX = rate (centre - X) dt + sqrt(epsilon) dW; or a list."""
    rate: PerCoordinate = 0.0
    """At which the reference returns to its centre; zero is Brownian motion. Or a list."""
    centre: PerCoordinate = 0.0
    """Of the reference; or a list, a number for each dimension, as for the others."""
    method: Method
    """What finds the bridge."""
    reference: Reference | None = None
    """What the bridge is judged by; the method never sees it."""
    draw: Drawing = Drawing()
    """Of the report."""

    @field_validator("epsilon")
    @classmethod
    def _positive(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if min(value if isinstance(value, tuple) else (value,)) <= 0:
            raise ValueError("should be greater than 0")
        return value

    SHRINK: ClassVar[tuple[Key, str]] = (
        ("method",), "take fewer points, components or particles, or raise --memory-limit"
    )  # fmt: skip

    @property
    def balanced(self) -> bool:
        """Whether paths begin and end with the weights of the source and the target."""
        return not isinstance(self.method, Discrete) or self.method.balanced

    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between ends, process, method and reference."""
        from .checks import contradictions

        return contradictions(self)

    def files(self) -> dict[Key, tuple[str, ...]]:
        """Of the populations."""
        from .checks import populations

        return {
            (*key, "file"): part.SUFFIXES
            for key, part in populations(self).items()
            if isinstance(part, Points)
        }

    def contradictions_of_files(self) -> Iterator[Complaint]:
        """Of what the files hold."""
        from .checks import contradictions_of_files

        return contradictions_of_files(self)

    def shape(self) -> tuple[int, int, int]:
        """Points of the source, of the target, and dimensions; those of files by reading them."""
        from .._measures import atoms

        sizes = []
        for end in (self.source, self.target):
            if isinstance(end, Points):
                path: Path = end.file
                assert path.is_absolute()
                sizes.append(atoms.read(end).points.shape)
            else:
                sizes.append((end.points, getattr(end, "dimensions", None)))
        (n, d), (m, _) = sizes
        return n, m, d

    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""
        n, m, d = self.shape()
        size = 8 if self.precision == "float64" else 4
        match self.method:
            case Light():
                k, method = self.method.components, self.method
                wide = {"diagonal": 2, "full": 2 + d, "low_rank": 2 + method.rank}
                numbers = 4 * (n + m) * (k + d) + 60 * k * d * wide[method.covariance]
            case Discrete():
                numbers = 10 * n * (self.method.batch_size or m) + 20 * (n + m) * d
            case Networks():
                method = self.method
                layers = method.width * (2 * d + 1 + method.depth * method.width)
                kept = method.path_steps * method.paths * d if method.type == "ipf" else 0
                numbers = 20 * layers + 3 * kept + 20 * (n + m + method.paths) * (d + method.width)
            case ClosedForm():
                numbers = 20 * d * d
        particles = 101 * self.draw.particles * d
        judged = 6 * self.reference.starts * d * d if isinstance(self.reference, Exact) else 0
        return 300_000_000 + size * (numbers + 3 * particles + judged)

    def size(self) -> str:
        """Points, dimensions and method."""
        n, m, d = self.shape()
        return f"{n} and {m} points in {d} dimensions, {self.method.type} method"
