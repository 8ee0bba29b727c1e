"""What a case of control may say: a simulation, what is sought in it, and what it is to match.

No JAX is imported.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from .._model import Complaint, Formula, Model, NotNegative, Positive
from .._simulate.schema import AbstractMarch, Name


class Initial(Model):
    """The state at first; that of the case is the truth, which observations come from."""

    type: Literal["initial"]
    guess: dict[Name, Formula] = Field(default_factory=dict)
    """Field to an expression of coordinates and parameters, where the search starts; or zero."""


class Force(Model):
    """A force on the first field, linear in time between nodes; the search starts at none."""

    type: Literal["force"]
    nodes: Annotated[int, Field(ge=2, le=1000)] = 11
    """Times at which it is sought at all points, the first and the last included."""


class Observations(Model):
    """What the truth shows now and then, here and there."""

    type: Literal["observations"]
    after: Annotated[int, Field(ge=0)]
    """From the frame after this one on."""
    every: Annotated[int, Field(ge=1)] = 1
    """Along each axis, of so many points one is seen."""
    noise: NotNegative = 0.0
    """Standard deviation of what is added to each."""


class Target(Model):
    """A state at the last time."""

    type: Literal["target"]
    values: dict[Name, Formula] = Field(min_length=1)
    """Field to an expression of coordinates and parameters; zero where it is left out."""


class Search(Model):
    """Limited-memory BFGS with a line search."""

    steps: Annotated[int, Field(ge=1, le=10**5)] = 100
    """How many, at most."""
    memory: Annotated[int, Field(ge=1, le=100)] = 20
    """Pairs that are kept."""
    gradient: NotNegative = 0.0
    """It ends where the largest slope is below."""


class Case(AbstractMarch):
    """A search through a simulation."""

    model_config = ConfigDict(title="Control")

    kind: Literal["control"]
    """Gradients through the steps of a simulation."""
    seek: Annotated[Initial | Force, Field(discriminator="type")]
    """What is sought."""
    match: Annotated[Observations | Target, Field(discriminator="type")]
    """What the simulation is to do."""
    weight: NotNegative = 0.0
    """Of the mean square of what is sought, beside that of the mismatch."""
    search: Search = Search()
    """How."""
    tolerance: Positive
    """On the relative L2 error of the first state, or of the last: what the case promises."""

    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between simulation, search and match."""
        from .checks import contradictions

        return contradictions(self)

    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""
        stored = self.time.frames + self.time.steps // self.time.frames
        return 400_000_000 + self.field_bytes * (40 * stored + 2 * self.search.memory)

    @property
    def reference(self) -> "Case":
        """What it is judged by: itself has the tolerance."""
        return self
