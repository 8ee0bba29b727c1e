"""What a case of a family may say: systems with random numbers, and networks that learn of them.

No JAX is imported.
"""

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from .._box import of_formula, of_mesh
from .._model import AbstractCase, Complaint, Formula, Key, Model, Number, Positive
from .._relax.schema import Cells, Name, Omega, Solver


class Random(Model):
    """A number that each instance draws anew; the networks are told of it."""

    lower: Number
    """The least."""
    upper: Number
    """The largest."""
    scale: Literal["linear", "log"] = "linear"
    """What it is uniform in."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError("lower must be below upper")
        if self.scale == "log" and self.lower <= 0:
            raise ValueError("a logarithm needs a lower end above zero")
        return self


class Poisson(Model):
    """Diffusion with a source between walls of value zero: -div(k grad u) + c u = f."""

    type: Literal["poisson"]
    source: Formula
    """f, of the coordinates and the random numbers, like all that follows."""
    diffusivity: Formula = Field(default=1, validate_default=True)
    """k, above zero."""
    shift: Formula = Field(default=0, validate_default=True)
    """c, not below zero."""


class Network(Model):
    """A multilayer perceptron of the random numbers, each of them scaled to [-1, 1]."""

    width: Annotated[int, Field(ge=1, le=4096)] = 32
    """Of its hidden layers."""
    depth: Annotated[int, Field(ge=0, le=20)] = 2
    """How many of them."""


class Train(Model):
    """By Adam, on instances that are drawn anew at each step."""

    steps: Annotated[int, Field(ge=1, le=10**6)] = 400
    """How many."""
    batch: Annotated[int, Field(ge=1, le=10**5)] = 32
    """Instances a step."""
    learning_rate: Positive = 3e-3
    """Adam's."""
    iterations: Annotated[int, Field(ge=1, le=10**5)] = 60
    """Of the solver that are differentiated through; should exceed what the best omega needs."""
    fixed_steps: Annotated[int, Field(ge=1, le=10**5)] = 10
    """Of the classical loss, the residual after so many iterations, which is trained beside."""


class InstanceOptimal(Model):
    """For each instance the best omega of the grid, which only trying all of them tells."""

    type: Literal["instance_optimal"]
    tolerance: Positive
    """On what the learned solver needs above it, relative to it: what the case promises."""


class Case(AbstractCase):
    """A family of linear systems, a solver, and networks that learn to set it."""

    model_config = ConfigDict(title="Learned relaxation")

    kind: Literal["family"]
    """A solver that is learned on a family of systems."""
    random: dict[Name, Random] = Field(min_length=1)
    """What differs between instances."""
    domain: dict[Name, tuple[Number, Number]] = Field(min_length=1, max_length=3)
    """Coordinate to its interval: `{x: [0, 1], y: [0, 1]}`."""
    cells: dict[Name, Cells]
    """Coordinate to the number of cells along it."""
    problem: Poisson
    """An instance."""
    solver: Solver
    """Whose innermost omega is learned."""
    omega: Omega = Omega()
    """The range of the network's omega, and the grid of fixed ones that it is compared with."""
    network: Network = Network()
    """From the random numbers to omega."""
    guess: Network | None = None
    """From the random numbers to where the solver starts; at zero, if null."""
    train: Train = Train()
    """Of all networks."""
    unseen: Annotated[int, Field(ge=1, le=10**5)] = 500
    """Instances that all are compared on."""
    reference: InstanceOptimal | None = None
    """What the run is compared with; the networks never see it."""

    SHRINK: ClassVar[tuple[Key, str]] = (
        ("cells",), "take fewer cells, train.iterations or unseen, or raise --memory-limit"
    )  # fmt: skip

    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between coordinates, random numbers, expressions and training."""
        yield from of_mesh(self.domain, self.cells, "cells")
        for name in self.random:
            if name in self.domain:
                yield ("random", name), "is taken by a coordinate", "rename it"
        known = [*self.domain, *self.random]
        for key in ("source", "diffusivity", "shift"):
            yield from of_formula(("problem", key), getattr(self.problem, key), known)
        if self.train.fixed_steps > self.train.iterations:
            yield ("train", "fixed_steps"), "must not exceed train.iterations", ""
        if self.omega.count < 2:
            yield ("omega", "count"), "needs two values at least, to compare with", ""

    @property
    def unknowns(self) -> int:
        """Of each linear system."""
        return math.prod(n - 1 for n in self.cells.values())

    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""
        size = 8 if self.precision == "float64" else 4
        differentiated = 6 * self.train.batch * self.train.iterations
        compared = self.unseen * (60 + self.solver.max_steps // self.unknowns)
        weights = 0 if self.guess is None else 8 * self.guess.width
        return 400_000_000 + size * self.unknowns * (differentiated + compared + weights)

    def size(self) -> str:
        """Unknowns, solver and training."""
        n = " x ".join(str(n) for n in self.cells.values())
        return f"{n} cells, {self.solver.type}, {self.train.steps} steps of {self.train.batch}"
