"""What a case may say of a measure: where its atoms come from. No JAX is imported."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .._model import Fraction, Model, Number, Positive

Count = Annotated[int, Field(ge=1, le=10**9)]


class FileModel(Model):
    """What is read from a file in the case's folder."""

    SUFFIXES: ClassVar[tuple[str, ...]]

    file: Path
    """Its path within the case's folder."""


class Points(FileModel):
    """Points from a file: the array `points` of an `.npz`, or a `.csv` with a row for each."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".npz", ".csv")

    type: Literal["points"]
    weighted: bool = False
    """Their mass is the array `weights` of the `.npz`, or the last column of the `.csv`."""
    normalise: bool = False
    """Divide the mass by its sum."""


class Histogram(Model):
    """A density on an interval, in cells of equal width."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".npz", ".csv")

    type: Literal["histogram"]
    file: Path | None = None
    """The array `values` of an `.npz`, or a `.csv` of one number a line."""
    values: tuple[Number, ...] | None = Field(default=None, min_length=1, max_length=10_000)
    """The mass of each cell, in place of a file."""
    support: tuple[Number, Number] = (0.0, 1.0)
    """The interval; the atoms are at the cells' middles."""
    normalise: bool = False
    """Divide the mass by its sum."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file is None) == (self.values is None):
            raise ValueError("give either 'file' or 'values'")
        if not self.support[0] < self.support[1]:
            raise ValueError("the support is an empty interval")
        return self


class Image(FileModel):
    """The brightness of a picture as mass, normalised; positions in pixels, y upwards."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".png",)

    type: Literal["image"]
    invert: bool = False
    """Take the darkness instead, for ink on white."""
    ground: Fraction = 0.0
    """Mass that every pixel has beside its own, as a fraction of the brightest one's."""


class Digit(Model):
    """A digit as a pen draws it, on a square of pixels; as an `image`, but generated."""

    type: Literal["digit"]
    number: Annotated[int, Field(ge=0, le=9)]
    """Which one."""
    side: int = Field(default=28, ge=4, le=1024)
    """Pixels along a side."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the hand: slant, size and the pen's width."""
    ground: Fraction = 0.0
    """Mass that every pixel has beside its own, as a fraction of the brightest one's."""


class Colours(FileModel):
    """The colours of a picture's pixels, as points (red, green, blue) in the unit cube."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".png",)

    type: Literal["colours"]
    points: Count = 1000
    """How many pixels are drawn, or all if there are fewer; the map recolours every pixel."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the choice of pixels."""


class Generator(Model):
    """Points of a known law, all of one mass."""

    type: Literal["generator"]
    name: Literal["gaussian", "mixture", "moons", "ring", "spiral", "swiss_roll", "uniform"]
    """The law; `mixture` is of five Gaussians, `uniform` on a cube of side 2."""
    points: Count = 500
    """How many."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the draw."""
    dimensions: int = Field(default=2, ge=1, le=10_000)
    """Of the space; moons, ring, spiral and swiss_roll are in the plane."""
    centre: tuple[Number, ...] | None = None
    """Where the law is centred, a number for each dimension; at the origin, if null."""
    scale: Positive = 1.0
    """What the points are multiplied by, before they are moved to the centre."""

    @model_validator(mode="after")
    def _in_the_plane(self) -> Self:
        if self.name in ("moons", "ring", "spiral", "swiss_roll") and self.dimensions != 2:
            raise ValueError(f"{self.name} lies in the plane: dimensions is 2")
        if self.centre is not None and len(self.centre) != self.dimensions:
            raise ValueError(f"centre needs {self.dimensions} numbers, got {len(self.centre)}")
        return self


class Atoms(Model):
    """Atoms of one mass that have no position: the cost is random, or a matrix from a file."""

    type: Literal["atoms"]
    points: Count
    """How many."""


# Measures that are read, or could be wrong in their values.
READ = (FileModel, Histogram)

Measure = Annotated[
    Points | Histogram | Image | Digit | Colours | Generator | Atoms, Field(discriminator="type")
]
