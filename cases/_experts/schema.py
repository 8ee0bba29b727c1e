"""What a case of experts may say: a problem, its random starts, a network and its constraint.

The discriminated unions (`type:`) are the registry; their fields are the arguments of the objects
that they make, in `problem.py` and `pde.operators`. No JAX is imported.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from .._model import AbstractCase, Complaint, Key, Model, NotNegative, Positive
from .._neural_solver.schema import Training


class DiffusionSorption(Model):
    """`u_t = diffusion/R(u)*u_xx` on (0, 1), `u = 1` on the left, `u = diffusion*u_x` right."""

    type: Literal["diffusion_sorption"]
    diffusion: Annotated[Positive, Field(lt=1e-3)] = 5e-4
    """Effective, by Freundlich's isotherm as in PDEBench."""
    end: Positive = 500.0
    """The last time."""


class Grid(Model):
    """Where the network is asked."""

    t: Annotated[int, Field(ge=4, le=1024)] = 32
    """Times after the first."""
    x: Annotated[int, Field(ge=8, le=1024)] = 64
    """Points between the walls."""


class Starts(Model):
    """A constant on the whole interval, drawn between two."""

    lower: NotNegative = 0.0
    """The least."""
    upper: Positive = 0.2
    """The largest."""
    test: Annotated[int, Field(ge=1, le=1000)] = 8
    """How many to judge by."""


class FNO(Model):
    """A Fourier neural operator over space and time (`pde.operators.FNO`)."""

    type: Literal["fno"]
    modes: Annotated[int, Field(ge=1, le=100)] = 8
    """Wave numbers that are kept, in each direction."""
    width: Annotated[int, Field(ge=1, le=2048)] = 24
    """Channels of each layer."""
    depth: Annotated[int, Field(ge=1, le=50)] = 4
    """Layers."""
    projection: Annotated[int, Field(ge=1, le=4096)] = 64
    """Width of the last, pointwise network."""


class Constraint(Model):
    """What the experts solve (`pde.operators.Experts`)."""

    blocks: Annotated[int, Field(ge=1, le=256)] = 1
    """Of the interval, each with an expert."""
    basis: Annotated[int, Field(ge=1, le=1024)] = 16
    """Fields that the network gives, whose weights an expert finds."""
    ridge: NotNegative = 1e-3
    """On the weights themselves."""
    steps: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Of Levenberg and Marquardt's, at most."""


class Evaluate(Model):
    """How the network is judged, on starts that it has not seen."""

    tolerance: Positive | None = None
    """On the mean relative L2 error: what the case promises."""


class Case(AbstractCase):
    """A network from a start to the whole solution, by the equation alone."""

    model_config = ConfigDict(title="Experts")

    kind: Literal["experts"]
    """A network whose basis satisfies an equation by construction."""
    problem: DiffusionSorption
    """Equation, start and boundary."""
    grid: Grid = Grid()
    """In time and space."""
    starts: Starts = Starts()
    """What the network is called with."""
    network: FNO
    """What is trained."""
    constraint: Constraint | None
    """Null for a network that gives the solution itself: a soft penalty."""
    train: Training
    """How, on the residuals alone."""
    evaluate: Evaluate = Evaluate()
    """How it is judged."""

    SHRINK: ClassVar[tuple[Key, str]] = (
        ("grid",), "take fewer points or a smaller train.batch, or raise --memory-limit",
    )  # fmt: skip

    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between starts, grid, blocks and network."""
        if self.starts.lower >= self.starts.upper:
            yield ("starts", "lower"), f"must be below {self.starts.upper:g}", ""
        for key, n in (("t", self.grid.t + 1), ("x", self.grid.x + 2)):
            if n < 2 * self.network.modes - 1:
                message = f"{n} points do not tell a network's {self.network.modes} modes apart"
                yield ("grid", key), message, f"take {2 * self.network.modes - 1} or more"
        if self.constraint and self.grid.x % self.constraint.blocks:
            message = f"{self.grid.x} points are not cut evenly into {self.constraint.blocks}"
            yield ("constraint", "blocks"), message, ""

    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""
        size = 8 if self.precision == "float64" else 4
        cells = (self.grid.t + 1) * (self.grid.x + 2)
        width = self.network.width * self.network.depth
        basis = 8 * self.constraint.basis if self.constraint else 8
        return 400_000_000 + size * 12 * self.train.batch * cells * (width + basis)

    def size(self) -> str:
        """Grid, constraint and training."""
        held = f"{self.constraint.blocks} blocks" if self.constraint else "a soft penalty"
        return (
            f"{self.grid.t} x {self.grid.x} points, {held}, {self.train.steps} steps of "
            f"{self.train.optimizer.type}"
        )
