"""What a case of transport may say: two measures, a cost, epsilon, a solver, a reference.

The discriminated unions (`type:`) are the registry; their fields are the arguments of the objects
that they make, here in `transport` and in ott. No JAX is imported.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from .._measures.schema import READ, Count, FileModel, Measure
from .._model import AbstractCase, Complaint, Key, Model, NotNegative, Number, Positive

SEVERAL = 4


# --- costs ----------------------------------------------------------------------------------------


class CostModel(Model):
    """What every cost takes."""

    scale: Literal["max", "mean", "median", "none"] = "max"
    """Costs are divided by this of theirs, and `epsilon` is in that unit."""


class GroundCost(CostModel):
    """A cost between positions, by ott's name for it."""

    type: Literal["squared_euclidean", "euclidean", "l1", "lp"]
    p: Annotated[Number, Field(ge=1, le=10)] | None = None
    """Of `lp`: the cost is the sum of |x - y|^p / p over coordinates."""
    batch_size: int | None = Field(default=None, ge=1, le=10**6)
    """Compute costs online, in blocks of so many columns, and never hold the matrix."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.type == "lp") != (self.p is not None):
            raise ValueError("'lp' needs 'p'" if self.type == "lp" else "'p' is for 'lp' alone")
        if self.batch_size is not None and self.scale == "median":
            raise ValueError("the median needs all costs at once: scale by max or mean online")
        return self


class RandomCost(CostModel):
    """Independent costs, uniform on [0, 1]: random assignment."""

    type: Literal["random"]
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the draw."""


class CostFile(CostModel, FileModel):
    """A matrix: the array `cost` of an `.npz`, a row for each atom of the source."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".npz",)

    type: Literal["file"]


Cost = Annotated[GroundCost | RandomCost | CostFile, Field(discriminator="type")]

# `cost: [{type: l1}, {type: squared_euclidean}]` is two problems of the same measures.
OneOrSeveral = Annotated[
    Annotated[Cost, Tag("one")]
    | Annotated[tuple[Cost, ...], Field(min_length=2, max_length=SEVERAL), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]


# --- solvers --------------------------------------------------------------------------------------


class SinkhornNewtonSparse(Model):
    """Entropic transport to machine precision (`transport.SinkhornNewtonSparse`)."""

    type: Literal["sinkhorn_newton_sparse"]
    threshold: NotNegative = 1e-9
    """Marginal error at which to stop."""
    max_iterations: Annotated[int, Field(ge=1, le=10**6)] = 1000
    """The most sweeps and Newton steps, together."""
    handover: Positive = 0.5
    """Marginal error below which sweeps give way to Newton steps."""
    min_sweeps: int = Field(default=2, ge=0, le=10**6)
    """At each regularisation."""
    max_sweeps: int = Field(default=50, ge=0, le=10**6)
    """At each regularisation."""
    decay: Annotated[Positive, Field(gt=1)] = 2.0
    """The factor between successive regularisations."""
    density: Annotated[Positive, Field(le=1)] | None = None
    """The fraction of the plan's entries that the sparse Hessian may hold; chosen, if null."""
    direct_below: int = Field(default=100, ge=0, le=10**5)
    """Atoms up to which Newton's system is factorised."""
    coarse: Count = 1024
    """Online, how many points the first potentials come from."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min_sweeps > self.max_sweeps:
            raise ValueError("min_sweeps must not exceed max_sweeps")
        return self


class Sinkhorn(Model):
    """ott's Sinkhorn iterations (`ott.solvers.linear.sinkhorn.Sinkhorn`)."""

    type: Literal["sinkhorn"] = "sinkhorn"
    threshold: Positive = 1e-9
    """Marginal error at which to stop."""
    max_iterations: Annotated[int, Field(ge=1, le=10**7)] = 10_000
    """The most iterations."""
    inner_iterations: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Iterations between two looks at the error."""
    momentum: Annotated[Positive, Field(lt=2)] | None = None
    """Over-relaxation by this factor."""
    anderson: Annotated[int, Field(ge=1, le=100)] | None = None
    """Anderson acceleration with so many past iterates."""

    @model_validator(mode="after")
    def _one_acceleration(self) -> Self:
        if self.momentum is not None and self.anderson is not None:
            raise ValueError("take momentum or anderson, not both")
        return self


class Proximal(Model):
    """The unregularised optimum (`transport.ProximalSinkhornNewton`)."""

    type: Literal["proximal"]
    threshold: NotNegative = 1e-9
    """Duality gap at which to stop, relative to the cost."""
    max_iterations: Annotated[int, Field(ge=1, le=1000)] = 50
    """The most proximal steps."""
    decay: Annotated[Positive, Field(gt=1)] = 4.0
    """The factor between successive steps."""


class Objective(Model):
    """What is minimised over plans: cost + squared_norm |P|^2 / 2 + entropy KL(P | a b)."""

    squared_norm: NotNegative = 0.0
    """Weight of half the squared norm of the plan, relative to the product plan's."""
    entropy: NotNegative = 0.0
    """Weight of the plan's divergence from the product of its marginals."""

    @property
    def penalised(self) -> bool:
        """Whether it is more than the cost."""
        return self.squared_norm > 0 or self.entropy > 0


class MirrorSinkhorn(Model):
    """Convex objectives of the plan, also from a stream of noisy costs."""

    type: Literal["mirror_sinkhorn"]
    steps: Annotated[int, Field(ge=10, le=10**8)] = 10_000
    """How many."""
    looks: int = Field(default=10, ge=1, le=100)
    """How often the objective is looked at, at numbers of steps in proportion; a look compiles."""
    rate: Literal["adaptive", "decreasing"] = "adaptive"
    """Steps by the variance of the gradient under the plan, or the paper's, like 1/sqrt t."""
    gradient_bound: Positive | None = None
    """Of the gradient's entries, for `decreasing`; from the first gradient, if null."""
    extrapolate: bool = True
    """Whether potentials are extrapolated; the paper's are not."""
    burn_in: float = Field(default=0.5, ge=0, lt=1)
    """The fraction of the steps that the average leaves out; the paper's leaves out none."""
    noise: NotNegative = 0.0
    """Each step sees the cost with fresh Gaussian noise of this deviation on every entry."""
    objective: Objective = Objective()
    """What is minimised."""


Solver = Annotated[
    SinkhornNewtonSparse | Sinkhorn | Proximal | MirrorSinkhorn, Field(discriminator="type")
]


class Optimum(Model):
    """The unregularised optimum: sorting on a line, SciPy's assignment, or HiGHS if it is small."""

    type: Literal["optimum"]
    tolerance: Positive
    """On the cost's excess over the optimum, relative to it: what the case promises."""


class ByComparison(Model):
    """The regularised cost that `compare` reaches: the same problem by another road."""

    type: Literal["sinkhorn"]
    tolerance: Positive
    """On the relative difference of the regularised costs: what the case promises."""


class Entropic(Model):
    """The regularised optimum by Newton steps, for Mirror Sinkhorn with an entropy."""

    type: Literal["entropic"]
    tolerance: Positive
    """On the objective's excess over the optimum, relative to it: what the case promises."""


Reference = Annotated[Optimum | ByComparison | Entropic, Field(discriminator="type")]


# --- the case -------------------------------------------------------------------------------------


class Case(AbstractCase):
    """Two measures, the cost of moving one onto the other, and who finds the cheapest way."""

    model_config = ConfigDict(title="Transport")

    kind: Literal["transport"]
    """Optimal transport."""
    source: Measure
    """The measure that is moved."""
    target: Measure
    """The measure that it becomes."""
    cost: OneOrSeveral
    """Of moving a unit of mass; or a list of several, each a problem of its own."""
    epsilon: Positive | None = None
    """Regularisation, in the unit that the cost is scaled to; `1/1200` is a number as well."""
    solver: Solver
    """Who solves it."""
    compare: Sinkhorn | None = None
    """ott's Sinkhorn on the same problem, for the picture of errors and for the reference."""
    reference: Reference | None = None
    """What the cost is compared with; the solver never sees it."""

    SHRINK: ClassVar[tuple[Key, str]] = (
        ("cost",),
        "take fewer atoms, compute the cost online ({type: squared_euclidean, batch_size: 512}), "
        "or raise --memory-limit",
    )

    @property
    def costs(self) -> dict[Key, Cost]:
        """Each cost, by its key."""
        if isinstance(self.cost, tuple):
            return {("cost", i): cost for i, cost in enumerate(self.cost)}
        return {("cost",): self.cost}

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each problem: the type of its cost, numbered where two are alike."""
        types = [cost.type for cost in self.costs.values()]
        return tuple(
            t if types.count(t) == 1 else f"{t}{types[: i + 1].count(t)}"
            for i, t in enumerate(types)
        )

    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between measures, costs, solver and reference."""
        from .checks import contradictions

        return contradictions(self)

    def files(self) -> dict[Key, tuple[str, ...]]:
        """Of measures and costs."""
        parts = {("source",): self.source, ("target",): self.target}
        return {
            (*key, "file"): part.SUFFIXES
            for key, part in (parts | self.costs).items()
            if isinstance(part, READ) and part.file is not None
        }

    def contradictions_of_files(self) -> Iterator[Complaint]:
        """Shapes, values and masses."""
        from .checks import contradictions_of_files

        return contradictions_of_files(self)

    def shape(self) -> tuple[int, int]:
        """Atoms of the source and of the target; those of files are counted by reading them."""
        from .._measures.atoms import count

        return count(self.source), count(self.target)

    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""
        n, m = self.shape()
        size = 8 if self.precision == "float64" else 4
        # Cost, logits, plan and their temporaries; online, a block of each.
        blocks = [getattr(cost, "batch_size", None) or m for cost in self.costs.values()]
        return 300_000_000 + size * (10 * n * max(blocks) + 100 * (n + m))

    def size(self) -> str:
        """Atoms and solver."""
        n, m = self.shape()
        costs = ", ".join(self.labels)
        return f"{n} x {m} atoms, {costs} cost, {self.solver.type}"
