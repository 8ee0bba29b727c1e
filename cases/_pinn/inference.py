"""What a case may say of numbers that are not known or not fixed, and of data. No JAX is
imported."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from .._model import Model, NotNegative, Number, Positive
from .names import Name

SUFFIXES = (".csv", ".npz", ".nc")


class Prior(Model):
    """The law that a parameter is drawn from."""

    normal: tuple[Number, Positive]
    """Mean and standard deviation."""


class Inferred(Model):
    """A parameter that is trained beside the network."""

    infer: Literal[True]
    """What sets it apart from a number."""
    initial: Number
    """Where training starts."""
    positive: bool = False
    """It never reaches zero."""
    bounds: tuple[Number, Number] | None = None
    """It never reaches either."""
    prior: Prior | None = None
    """It weighs as much as the noise of the first data says."""
    truth: Number | None = None
    """What it is compared with; reference and generated data have it. Training never sees it."""

    @model_validator(mode="before")
    @classmethod
    def _one_of_both(cls, data: Any) -> Any:
        if isinstance(data, dict) and "range" in data:
            raise ValueError("is inferred or has a range: give 'infer' or 'range'")
        return data

    @property
    def interval(self) -> tuple[float, float]:
        """What it never leaves."""
        if self.bounds is not None:
            return self.bounds
        return (0.0 if self.positive else -float("inf")), float("inf")

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.positive and self.bounds is not None:
            raise ValueError("give either 'positive' or 'bounds'")
        lower, upper = self.interval
        if not lower < self.initial < upper:
            raise ValueError(f"initial is {self.initial:g}, and the bounds are {lower}, {upper}")
        return self


class Ranged(Model):
    """A parameter that the problem is solved for all values of, by one network."""

    range: tuple[Number, Number]
    """From which to which."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        lower, upper = self.range
        if not lower < upper:
            raise ValueError(f"the range {lower:g} to {upper:g} is empty")
        return self


def _tag(value: Any) -> str:
    match value:
        case Ranged():
            return "ranged"
        case dict() if "range" in value and "infer" not in value:
            return "ranged"
        case dict() | Inferred():
            return "inferred"
    return "number"


Parameter = Annotated[
    Annotated[Number, Tag("number")]
    | Annotated[Inferred, Tag("inferred")]
    | Annotated[Ranged, Tag("ranged")],
    Discriminator(_tag),
]


class Generated(Model):
    """Data made from the case's reference."""

    points: int = Field(ge=1, le=100_000)
    """How many, uniformly at random in the domain."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of places and noise."""


class Data(Model):
    """Measured values of unknowns at points: a residual block."""

    file: Path | None = None
    """A `.csv` with a row of names, or an `.npz` or `.nc` of vectors: a column for each coordinate
    and each unknown that is observed."""
    generate: Generated | None = None
    """Make them, instead of reading a file."""
    observe: tuple[Name, ...] = Field(min_length=1)
    """The unknowns that are measured."""
    noise: NotNegative | None = None
    """Its standard deviation: what is added to data that are generated, and what inferred
    parameters are believed by. If null it is what training leaves of the data."""
    weight: NotNegative = 1.0
    """Of the residual block."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file is None) == (self.generate is None):
            raise ValueError("give either 'file' or 'generate'")
        return self


class Laplace(Model):
    """Laplace's approximation, from the Gauss-Newton matrix where training ends."""

    type: Literal["laplace"] = "laplace"


class Ensemble(Model):
    """Networks of their own, trained on data and priors that are perturbed anew."""

    type: Literal["ensemble"]
    members: int = Field(default=8, ge=2, le=1000)
    """How many, all trained at once."""


Uncertainty = Annotated[Laplace | Ensemble, Field(discriminator="type")]


def values(parameters: dict[str, Any], truth: bool) -> dict[str, float]:
    """Parameters that are one number: inferred ones as they are in truth, where that is known, or
    as they are at first."""
    return {
        name: (given.truth if truth and given.truth is not None else given.initial)
        if isinstance(given, Inferred)
        else given
        for name, given in parameters.items()
        if not isinstance(given, Ranged)
    }
