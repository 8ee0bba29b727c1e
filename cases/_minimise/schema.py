"""What a case of minimisation may say: a functional on a box or a graph, a start, and the steps.

The discriminated unions (`type:`) are the registry; their fields are the arguments of the objects
that they make, in `pde` and `sciopt`. No JAX is imported.
"""

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints

from .._box import of_formula, of_mesh
from .._model import (
    AbstractCase,
    Complaint,
    Formula,
    Fraction,
    Key,
    Model,
    NotNegative,
    Number,
    Positive,
)

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=20)]
Points = Annotated[int, Field(ge=4, le=10**6)]
FIELD = "u"
METHODS: tuple[str, ...] = ("momentum", "gradient_flow")
"""Both, by the names that summary and pictures have them under."""


class Moons(Model):
    """Two half circles in the plane that reach into each other."""

    type: Literal["moons"]
    each: Annotated[int, Field(ge=8, le=2000)] = 200
    """Points on one of them."""
    noise: NotNegative = 0.1
    """Standard deviation from it."""


class Graph(Model):
    """Points that are joined to their nearest (`pde.Graph.of_points`); a few have labels."""

    points: Moons
    """Drawn by the case's seed; which are of which is known, and the steps see the labels alone."""
    neighbours: Annotated[int, Field(ge=1, le=200)] = 10
    """Of each."""
    labels: Annotated[int, Field(ge=1)] = 4
    """On each side."""
    fidelity: Positive = 30.0
    """How strongly labels hold."""


class GinzburgLandau(Model):
    """Two phases and what lies between them (`pde.GinzburgLandau`)."""

    type: Literal["ginzburg_landau"]
    width: Positive
    """Of the interfaces."""


class Nesterov(Model):
    """Half-implicit steps with momentum (`sciopt.nesterov`)."""

    type: Literal["nesterov"] = "nesterov"
    step: Positive
    """Its length."""
    momentum: Fraction | None = None
    """A constant; FISTA's, restarted, if null."""


class Energy(Model):
    """What the functional is where it is least, or least nearby."""

    type: Literal["energy"]
    value: Positive
    """A number, such as the interfaces' length times `2*sqrt(2)/3`."""
    tolerance: Positive
    """On the relative error of the energy at the end: what the case promises."""


class Exact(Model):
    """The minimiser."""

    type: Literal["exact"]
    values: dict[Literal["u"], Formula] = Field(min_length=1)
    """An expression of the coordinates."""
    tolerance: Positive
    """On the relative L2 error at the end: what the case promises."""


class Sides(Model):
    """Which side a graph's points are of, and the least energy by SciPy's L-BFGS."""

    type: Literal["sides"]
    tolerance: Positive
    """On the share of wrong points and the relative error of the energy: what the case promises."""


Reference = Annotated[Energy | Exact | Sides, Field(discriminator="type")]


class Case(AbstractCase):
    """A functional of a field on a periodic box or a graph, and steps that make it smaller."""

    model_config = ConfigDict(title="Minimise")

    kind: Literal["minimise"]
    """A functional of a field."""
    domain: dict[Name, tuple[Number, Number]] = Field(default={}, max_length=3)
    """Coordinate to its interval, which is periodic: `{x: [0, 1]}`."""
    points: dict[Name, Points] = Field(default={})
    """Coordinate to the number of points along it."""
    graph: Graph | None = None
    """In the place of `domain` and `points`."""
    functional: GinzburgLandau
    """What is minimised."""
    initial: Formula | None = None
    """The first field, an expression of the coordinates; if null, a graph's labels, and on a box
    uniform noise in [-1, 1]."""
    method: Nesterov
    """The steps; the same without momentum, gradient flow, are taken beside them."""
    steps: Annotated[int, Field(ge=1, le=10**7)]
    """How many."""
    frames: Annotated[int, Field(ge=1, le=1000)] = 50
    """How many fields are kept after the first; they must divide the steps."""
    reference: Reference | None = None
    """What the run is compared with; the steps never see it."""

    SHRINK: ClassVar[tuple[Key, str]] = (
        ("points",), "take fewer points or frames, or raise --memory-limit",
    )  # fmt: skip

    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between coordinates, expressions and steps."""
        if bool(self.domain) == bool(self.graph):
            yield ("domain",), "a field lies on a domain or on a graph", "give one of them"
        if isinstance(self.reference, Sides) != (self.graph is not None) and self.reference:
            yield ("reference", "type"), "sides are a graph's, and a graph has no other", ""
        if self.graph is not None:
            yield from self._of_graph(self.graph)
        yield from of_mesh(self.domain, self.points, "points")
        if self.initial is not None:
            yield from of_formula(("initial",), self.initial, list(self.domain))
        if isinstance(self.reference, Exact):
            for name, text in self.reference.values.items():
                yield from of_formula(("reference", "values", name), text, list(self.domain))
        if self.steps % self.frames:
            message = f"must divide the {self.steps} steps"
            yield ("frames",), message, "such as 1, which keeps the last alone"

    def _of_graph(self, graph: Graph) -> Iterator[Complaint]:
        for name, given, most in (
            ("labels", graph.labels, graph.points.each),
            ("neighbours", graph.neighbours, self.count - 1),
        ):
            if given > most:
                yield ("graph", name), f"{given} are more than {most}", ""
        if self.initial is not None:
            yield ("initial",), "a graph has no coordinates to start from", "leave it out"

    @property
    def count(self) -> int:
        """Of all points."""
        return 2 * self.graph.points.each if self.graph else math.prod(self.points.values())

    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""
        size = 8 if self.precision == "float64" else 4
        dense = 5 * 8 * self.count**2 if self.graph else 0
        return 400_000_000 + size * self.count * (40 + 4 * self.frames) + dense

    def size(self) -> str:
        """Points and steps."""
        n = " x ".join(str(n) for n in self.points.values()) or str(self.count)
        return f"{n} points, {self.steps} steps of {self.method.type}"
