"""What a case of relaxation may say: an equation on a grid, a solver, and who sets its omega.

The discriminated unions (`type:`) are the registry; their fields are the arguments of the objects
that they make, in `pde.grid` and `sciopt.relax`. No JAX is imported.
"""

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from .._model import (
    AbstractCase,
    Complaint,
    Formula,
    Key,
    Model,
    NotNegative,
    Number,
    Positive,
)

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=20)]
Cells = Annotated[int, Field(ge=2, le=10**5)]
Theta = Annotated[Number, Field(ge=0.5, le=1)]

ZERO = "0"


# --- equations ------------------------------------------------------------------------------------


class Heat(Model):
    """The heat equation between walls of given temperature (`pde.grid.Heat`)."""

    FIELDS: ClassVar[tuple[str, ...]] = ("u",)
    DIMENSIONS: ClassVar[tuple[int, ...]] = (1, 2, 3)

    type: Literal["heat"]
    initial: Formula
    """Of the coordinates and parameters, like all that follows; that also of `t`."""
    diffusivity: Formula = Field(default=1, validate_default=True)
    """Above zero."""
    source: Formula = Field(default=0, validate_default=True)
    """What heats."""
    boundary: Formula = Field(default=0, validate_default=True)
    """The temperature of the walls."""
    theta: Theta = 0.5
    """A half is Crank and Nicolson's rule, one is backward Euler's."""

    def formulas(self) -> dict[Key, tuple[Formula, bool]]:
        """By key, and whether `t` may stand in them."""
        timed = {(n,): (getattr(self, n), True) for n in ("diffusivity", "source", "boundary")}
        return {("initial",): (self.initial, False), **timed}


class AdvectionDiffusion(Model):
    """Advection and diffusion in a closed box (`pde.grid.AdvectionDiffusion`)."""

    FIELDS: ClassVar[tuple[str, ...]] = ("u",)
    DIMENSIONS: ClassVar[tuple[int, ...]] = (1, 2, 3)

    type: Literal["advection_diffusion"]
    initial: Formula
    """Of the coordinates and parameters, like all that follows; that also of `t`."""
    velocity: dict[Name, Formula]
    """A component for each coordinate."""
    diffusivity: Formula = Field(default=0, validate_default=True)
    """Not below zero."""
    source: Formula = Field(default=0, validate_default=True)
    """What is added."""
    theta: Theta = 0.5
    """A half is Crank and Nicolson's rule, one is backward Euler's."""
    upwind: bool = False
    """For flows so fast that the mean of both sides oscillates."""

    def formulas(self) -> dict[Key, tuple[Formula, bool]]:
        """By key, and whether `t` may stand in them."""
        return {
            ("initial",): (self.initial, False),
            **{("velocity", name): (text, True) for name, text in self.velocity.items()},
            **{(n,): (getattr(self, n), True) for n in ("diffusivity", "source")},
        }


class NavierStokes(Model):
    """Incompressible flow in a closed rectangle, by projection (`pde.grid.NavierStokes`)."""

    FIELDS: ClassVar[tuple[str, ...]] = ("u", "v", "p")
    DIMENSIONS: ClassVar[tuple[int, ...]] = (2,)

    type: Literal["navier_stokes"]
    initial: dict[Literal["u", "v"], Formula] = Field(default_factory=dict)
    """Velocity at first, of the coordinates and parameters; at rest where it is left out."""
    viscosity: Formula
    """Of parameters alone."""
    force: dict[Literal["u", "v"], Formula] = Field(default_factory=dict)
    """By component; also of `t`."""
    walls: Literal["slip"] | dict[Literal["u", "v"], Formula] = Field(default_factory=dict)
    """Their velocity, of which what lies along them counts; or `slip`, that they hold nothing."""

    def formulas(self) -> dict[Key, tuple[Formula, bool]]:
        """By key, and whether `t` may stand in them."""
        walls = {} if self.walls == "slip" else self.walls
        return {
            **{("initial", name): (text, False) for name, text in self.initial.items()},
            **{("force", name): (text, True) for name, text in self.force.items()},
            **{("walls", name): (text, True) for name, text in walls.items()},
        }


Problem = Annotated[Heat | AdvectionDiffusion | NavierStokes, Field(discriminator="type")]


class Time(Model):
    """The loop."""

    step: Positive
    """Its length."""
    steps: Annotated[int, Field(ge=1, le=10**7)]
    """How many."""


# --- solvers --------------------------------------------------------------------------------------


class Stopping(Model):
    """When an iteration stops."""

    rtol: Positive = 1e-8
    """Of the residual, relative to the right-hand side."""
    max_steps: Annotated[int, Field(ge=1, le=10**6)] = 2000
    """After so many steps without that the simulation ends."""


class Relaxation(Stopping):
    """A relaxation alone (`sciopt.relax.SOR`, `SSOR`, `Jacobi`)."""

    type: Literal["sor", "ssor", "jacobi"]
    ordering: Literal["red_black", "natural"] = "red_black"
    """In which a sweep goes through the grid."""


class SSORPreconditioner(Model):
    """A sweep forward and one backward (`sciopt.relax.SSOR`)."""

    type: Literal["ssor"]
    ordering: Literal["red_black", "natural"] = "natural"
    """In which a sweep goes through the grid."""


class MultigridPreconditioner(Model):
    """A cycle (`sciopt.relax.Multigrid`)."""

    type: Literal["multigrid"]
    smoother: Literal["sor", "jacobi"] = "sor"
    """Whose omega is tuned."""


class CG(Stopping):
    """Preconditioned conjugate gradients (`sciopt.relax.CG`)."""

    type: Literal["cg"]
    preconditioner: Annotated[
        SSORPreconditioner | MultigridPreconditioner, Field(discriminator="type")
    ] = SSORPreconditioner(type="ssor")
    """Whose omega is tuned."""


class Multigrid(Stopping):
    """Cycles of multigrid (`sciopt.relax.Multigrid`)."""

    type: Literal["multigrid"]
    smoother: Literal["sor", "jacobi"] = "sor"
    """Whose omega is tuned."""


Solver = Annotated[Relaxation | CG | Multigrid, Field(discriminator="type")]


# --- tuners ---------------------------------------------------------------------------------------


class Omega(Model):
    """The values to choose from, at equal distances."""

    lower: Annotated[Number, Field(gt=0, lt=2)] = 1.0
    """The least."""
    upper: Annotated[Number, Field(gt=0, lt=2)] = 1.95
    """The largest."""
    count: Annotated[int, Field(ge=1, le=200)] = 20
    """How many."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.lower > self.upper:
            raise ValueError("lower must not exceed upper")
        return self


class Contexts(Model):
    """A tuner of its own in each of equal bins of a context (`sciopt.relax.Binned`)."""

    bins: Annotated[int, Field(ge=1, le=1000)]
    """How many."""
    lower: Number
    """The least context: of heat the mean diffusivity, of advection the Courant number."""
    upper: Number
    """The largest."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError("lower must be below upper")
        return self


class Bandit(Model):
    """Chooses omega before each step, and learns from what the step took."""

    type: Literal["tsallis_inf", "exp3", "ucb1", "thompson"] = "tsallis_inf"
    """The bandit's name in `sciopt.relax`."""
    contexts: Contexts | None = None
    """Bins of what is known of a system before it is solved."""


class EpsilonGreedy(Model):
    """The best so far, but any now and then (`sciopt.relax.EpsilonGreedy`)."""

    type: Literal["epsilon_greedy"]
    exploration: NotNegative = 5.0
    """Step t tries any of d values with probability exploration * d / t."""
    contexts: Contexts | None = None
    """Bins of what is known of a system before it is solved."""


class ChebCB(Model):
    """What each omega takes, regressed on a context (`sciopt.relax.ChebCB`)."""

    type: Literal["cheb_cb"]
    lower: Number
    """The least context: of heat the mean diffusivity, of advection the Courant number."""
    upper: Number
    """The largest."""
    terms: Annotated[int, Field(ge=1, le=30)] = 6
    """Of a Chebyshev series in the context."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError("lower must be below upper")
        return self


class Constant(Model):
    """Always the same omega, to compare with (`sciopt.relax.Constant`)."""

    type: Literal["constant"]
    choice: Annotated[int, Field(ge=0, lt=200)] = 0
    """Which of the values, from zero."""


Tuner = Annotated[Bandit | EpsilonGreedy | ChebCB | Constant, Field(discriminator="type")]


# --- references -----------------------------------------------------------------------------------


class Hindsight(Model):
    """The one omega that would have taken the fewest iterations in all."""

    type: Literal["hindsight"]
    tolerance: Positive
    """On the tuner's excess over it, relative to it: what the case promises."""


class Exact(Model):
    """The solution."""

    type: Literal["exact"]
    values: dict[Name, Formula] = Field(min_length=1)
    """Field to an expression of coordinates, `t` and parameters; a pressure is of mean zero."""
    tolerance: Positive
    """On the relative L2 error at the last time: what the case promises."""


Reference = Annotated[Hindsight | Exact, Field(discriminator="type")]


# --- the case -------------------------------------------------------------------------------------


class Case(AbstractCase):
    """An equation on a grid, stepped by solves whose omega is chosen anew each time."""

    model_config = ConfigDict(title="Relax")

    kind: Literal["relax"]
    """A time loop of linear solves, tuned as it goes."""
    parameters: dict[Name, Number] = Field(default_factory=dict)
    """Named numbers for the expressions."""
    domain: dict[Name, tuple[Number, Number]] = Field(min_length=1, max_length=3)
    """Coordinate to its interval: `{x: [0, 1], y: [0, 1]}`."""
    cells: dict[Name, Cells]
    """Coordinate to the number of cells along it."""
    problem: Problem
    """What is simulated."""
    time: Time
    """The steps."""
    solver: Solver
    """Of each step's linear system."""
    omega: Omega = Omega()
    """What the tuner chooses from."""
    tuner: Tuner = Bandit()
    """Who chooses."""
    hindsight: bool = True
    """Try all values on each system, to know what they would have cost; most of a run's time."""
    reference: Reference | None = None
    """What the run is compared with; the tuner never sees it."""

    SHRINK: ClassVar[tuple[Key, str]] = (
        ("cells",),
        "take fewer cells, or hindsight: false, which tries one omega at a time; or raise "
        "--memory-limit",
    )

    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between coordinates, expressions, solver and reference."""
        from .checks import contradictions

        return contradictions(self)

    @property
    def unknowns(self) -> int:
        """Of each linear system."""
        less = isinstance(self.problem, Heat)
        return math.prod(n - less for n in self.cells.values())

    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""
        size = 8 if self.precision == "float64" else 4
        tried = self.omega.count if self.hindsight else 1
        fields = size * self.unknowns * (60 + 10 * tried)
        return 400_000_000 + fields + 16 * self.time.steps * (self.omega.count + 10)

    def size(self) -> str:
        """Unknowns, steps, solver and tuner."""
        n = " x ".join(str(n) for n in self.cells.values())
        return f"{n} cells, {self.time.steps} steps, {self.solver.type} by {self.tuner.type}"
