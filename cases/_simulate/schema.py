"""What a case of simulation may say: an equation on a periodic box, or a law in cells; its start.

The discriminated unions (`type:`) are the registry; their fields are the arguments of the objects
that they make, in `pde.spectral` and `pde.grid`. No JAX is imported.
"""

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints

from .._model import AbstractCase, Complaint, Formula, Key, Model, NotNegative, Number, Positive

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=20)]
Points = Annotated[int, Field(ge=4, le=10**6)]


# --- equations ------------------------------------------------------------------------------------


class AbstractEquation(Model):
    """Fields that it has, coordinates that it may have, and the degree of its products."""

    FIELDS: ClassVar[tuple[str, ...]] = ("u",)
    DIMENSIONS: ClassVar[tuple[int, ...]] = (1,)
    DEGREE: ClassVar[int] = 2


class Burgers(AbstractEquation):
    """Burgers' equation (`pde.spectral.Burgers`)."""

    type: Literal["burgers"]
    viscosity: Positive
    """Of the second derivative."""


class KortewegDeVries(AbstractEquation):
    """Waves in shallow water that keep their form (`pde.spectral.KortewegDeVries`)."""

    type: Literal["korteweg_de_vries"]


class KuramotoSivashinsky(AbstractEquation):
    """Flame fronts, chaotic (`pde.spectral.KuramotoSivashinsky`)."""

    type: Literal["kuramoto_sivashinsky"]


class AllenCahn(AbstractEquation):
    """Phases that part (`pde.spectral.AllenCahn`)."""

    DIMENSIONS = (1, 2, 3)
    DEGREE = 3

    type: Literal["allen_cahn"]
    diffusion: Positive
    """Of the Laplacian."""
    rate: Positive = 1.0
    """Of the reaction."""


class GrayScott(AbstractEquation):
    """Two substances that react, and make patterns (`pde.spectral.GrayScott`)."""

    FIELDS = ("u", "v")
    DIMENSIONS = (1, 2, 3)
    DEGREE = 3

    type: Literal["gray_scott"]
    feed: Positive
    """Of the first."""
    kill: NotNegative
    """Of the second, besides `feed`."""
    diffusion: tuple[Positive, Positive] = (2e-5, 1e-5)
    """Of both."""


class Vorticity(AbstractEquation):
    """Incompressible flow in a plane (`pde.spectral.Vorticity`)."""

    FIELDS = ("vorticity",)
    DIMENSIONS = (2,)

    type: Literal["vorticity"]
    viscosity: NotNegative
    """Kinematic."""
    drag: NotNegative = 0.0
    """Linear friction."""
    force: Formula | None = None
    """The curl of a force, of the coordinates and parameters."""


class Flow(AbstractEquation):
    """Incompressible flow in space (`pde.spectral.IncompressibleFlow`)."""

    FIELDS = ("u", "v", "w")
    DIMENSIONS = (3,)

    type: Literal["flow"]
    viscosity: NotNegative
    """Kinematic."""


class Wave(AbstractEquation):
    """The wave equation, stepped exactly (`pde.spectral.Wave`); v is the rate of u."""

    FIELDS = ("u", "v")
    DIMENSIONS = (1, 2, 3)
    DEGREE = 1

    type: Literal["wave"]
    speed: Positive = 1.0
    """Of waves."""


class ShallowWater(AbstractEquation):
    """Depth and discharge, by finite volumes (`pde.grid.FiniteVolume`, `pde.grid.ShallowWater`)."""

    FIELDS = ("h", "hu", "hv")
    DIMENSIONS = (1, 2)

    type: Literal["shallow_water"]
    gravity: Positive = 9.81
    """Its acceleration."""
    ends: Literal["periodic", "wall", "open"] = "periodic"
    """Of the domain."""
    limiter: Literal["van_leer", "minmod", "none"] = "van_leer"
    """Of slopes in cells."""


Equation = Annotated[
    Burgers | KortewegDeVries | KuramotoSivashinsky | AllenCahn | GrayScott | Vorticity | Flow
    | Wave | ShallowWater,
    Field(discriminator="type"),
]  # fmt: skip


class Time(Model):
    """The march."""

    step: Positive
    """Its length."""
    steps: Annotated[int, Field(ge=1, le=10**8)]
    """How many."""
    frames: Annotated[int, Field(ge=1, le=1000)] = 50
    """How many fields are kept after the first; they must divide the steps."""


# --- references -----------------------------------------------------------------------------------


class Exact(Model):
    """The solution."""

    type: Literal["exact"]
    values: dict[Name, Formula] = Field(min_length=1)
    """Field to an expression of coordinates, `t` and parameters."""
    tolerance: Positive
    """On the relative L2 error over all frames: what the case promises."""


class ColeHopf(Model):
    """Cole and Hopf's, of Burgers' equation on [-1, 1] from `-sin(pi*x)`."""

    type: Literal["cole_hopf"]
    tolerance: Positive
    """On the relative L2 error over all frames: what the case promises."""


class Refined(Model):
    """The same by twice the points along each axis and half the step."""

    type: Literal["refined"]
    tolerance: Positive
    """On the relative L2 difference over all frames: what the case promises."""


Reference = Annotated[Exact | ColeHopf | Refined, Field(discriminator="type")]


# --- the case -------------------------------------------------------------------------------------


class AbstractMarch(AbstractCase):
    """The keys of all that marches."""

    parameters: dict[Name, Number] = Field(default_factory=dict)
    """Named numbers for the expressions."""
    domain: dict[Name, tuple[Number, Number]] = Field(min_length=1, max_length=3)
    """Coordinate to its interval, which is periodic: `{x: [0, 2*pi]}`."""
    points: dict[Name, Points]
    """Coordinate to the number of points, or cells, along it."""
    equation: Equation
    """What is simulated."""
    initial: dict[Name, Formula]
    """Field to an expression of coordinates and parameters; zero where it is left out."""
    time: Time
    """The steps."""
    order: Literal[1, 2, 3, 4] = 4
    """Of exponential steps; finite volumes take steps of third order."""

    SHRINK: ClassVar[tuple[Key, str]] = (
        ("points",), "take fewer points or time.frames, or raise --memory-limit",
    )  # fmt: skip

    @property
    def fields(self) -> tuple[str, ...]:
        """Their names, of which discharge has one a coordinate."""
        names = self.equation.FIELDS
        return names[: 1 + len(self.domain)] if isinstance(self.equation, ShallowWater) else names

    @property
    def field_bytes(self) -> int:
        """Of all fields at one time."""
        size = 8 if self.precision == "float64" else 4
        return size * math.prod(self.points.values()) * len(self.fields)

    def size(self) -> str:
        """Points, steps, and equation."""
        n = " x ".join(str(n) for n in self.points.values())
        return f"{n} points, {self.time.steps} steps of {self.equation.type}"


class Case(AbstractMarch):
    """An equation marched in time from a start."""

    model_config = ConfigDict(title="Simulate")

    kind: Literal["simulate"]
    """Time steps of one length on a grid."""
    reference: Reference | None = None
    """What the run is compared with."""

    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between coordinates, expressions and reference."""
        from .checks import contradictions

        return contradictions(self)

    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""
        finer = 2 ** len(self.points) if isinstance(self.reference, Refined) else 1
        return 400_000_000 + self.field_bytes * (40 * finer + 4 * (self.time.frames + 1))
