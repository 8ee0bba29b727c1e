"""What a case of a network may say: models whose fields are the arguments of what they make.

The discriminated unions (`type:`) are the registry. A known equation is a shorthand that expands
to unknowns, parameters and equations, so there is one road from here on. No JAX is imported.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from pde._names import components

from .._expression import LAPLACIAN, Expression, ExpressionError
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
from . import inference, shapes
from .names import BlockName, Name

# The boundary of a shape goes by the name of its parts; left to right, so that `pi` is a number.
Places = Annotated[
    Number | tuple[Number, Number] | BlockName | tuple[BlockName, ...],
    Field(union_mode="left_to_right"),
]


class VectorInterval(Model):
    """A vector coordinate, all of whose components have one interval."""

    dimensions: int = Field(ge=1, le=10_000)
    """How many components."""
    interval: tuple[Number, Number]
    """Of each of them."""


class ConditionModel(Model):
    """What every condition takes."""

    weight: NotNegative = 1.0
    """Weight of the residual block, where soft."""
    points: int = Field(default=256, ge=1, le=10**7)
    """Points on the boundary, where soft."""


class ValueCondition(ConditionModel):
    """What a condition on values or slopes takes."""

    hard: bool | Literal["subtract"] = False
    """Build the condition into the ansatz, instead of adding a residual block: by a factor that
    vanishes there, or by subtracting what the network says there."""


class DirichletCondition(ValueCondition):
    """Values on faces of the box."""

    type: Literal["dirichlet"]
    at: dict[Name, Places] = Field(min_length=1)
    """Coordinate to the face's position, or to both: `{x: [-1, 1]}`; where there is a shape,
    `boundary` to the names of parts of it, or to `all`."""
    values: dict[Name, Formula] = Field(min_length=1)
    """Unknown to an expression of the coordinates and parameters."""


class NeumannCondition(ValueCondition):
    """Derivatives along the outward normal on faces of the box."""

    type: Literal["neumann"]
    at: dict[Name, Places] = Field(min_length=1)
    """Coordinate to the face's position, or to both: `{x: [-1, 1]}`; where there is a shape,
    `boundary` to the names of parts of it, or to `all`."""
    values: dict[Name, Formula] = Field(min_length=1)
    """Unknown to an expression of the coordinates and parameters."""


class RobinCondition(ConditionModel):
    """The slope along the outward normal and a multiple of the value, on faces: always soft."""

    type: Literal["robin"]
    hard: Literal[False] = False
    """It cannot be built into the ansatz."""
    at: dict[Name, Places] = Field(min_length=1)
    """Coordinate to the face's position, or to both: `{x: [-1, 1]}`; where there is a shape,
    `boundary` to the names of parts of it, or to `all`."""
    values: dict[Name, Formula] = Field(min_length=1)
    """Unknown to what its slope and `coefficient` times its value add up to."""
    coefficient: Formula = Field(default=Expression("1"))
    """Of the values."""


class InitialCondition(ValueCondition):
    """Values (and rates) at the first time."""

    type: Literal["initial"]
    values: dict[Name, Formula] = Field(min_length=1)
    """Unknown to its value at the lower end of `t`."""
    rates: dict[Name, Formula] = Field(default_factory=dict)
    """Unknown to its derivative by `t` there, for equations of second order in time."""


class PeriodicCondition(ConditionModel):
    """All unknowns are periodic over a coordinate."""

    type: Literal["periodic"]
    hard: bool = False
    """Show the network only the phase of the coordinate, instead of adding a residual block."""
    over: Name
    """The coordinate."""
    derivatives: int = Field(default=1, ge=0, le=4)
    """Where soft: match derivatives up to this order."""
    harmonics: int = Field(default=1, ge=1, le=64)
    """Where hard: sines and cosines of the phase that the network sees."""


Condition = Annotated[
    DirichletCondition | NeumannCondition | RobinCondition | InitialCondition | PeriodicCondition,
    Field(discriminator="type"),
]


class ExactReference(Model):
    """A solution in closed form."""

    type: Literal["exact"]
    values: dict[Name, Formula] = Field(min_length=1)
    """Unknown to an expression of the coordinates and parameters."""


class ColeHopfReference(Model):
    """Burgers from -sin(pi x) on [-1, 1], by the Cole-Hopf transformation."""

    type: Literal["cole_hopf"]


class ETDRK4Reference(Model):
    """Allen-Cahn from x^2 cos(pi x), periodic on [-1, 1], by a spectral solve in time."""

    type: Literal["etdrk4"]
    modes: int | None = Field(default=None, ge=16, le=2**16)
    """Fourier modes; the default is converged to 1e-10."""
    dt: Positive | None = None
    """Time step; the default is converged to 1e-10."""


class SchrodingerReference(Model):
    """The cubic Schrodinger equation from 2 sech x, periodic on [-5, 5], by a spectral solve."""

    type: Literal["schrodinger"]


class KuramotoSivashinskyReference(Model):
    """Kuramoto-Sivashinsky from -sin(pi x), periodic on [-1, 1], by a spectral solve in time."""

    type: Literal["kuramoto_sivashinsky"]


class FileReference(Model):
    """Values on a grid, read from a file beside the case."""

    type: Literal["file"]
    path: Path
    """A `.nc` or `.npz` file within the case's folder."""
    unknowns: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """Those that it has; all, if null."""


Reference = Annotated[
    ExactReference
    | ColeHopfReference
    | ETDRK4Reference
    | KuramotoSivashinskyReference
    | SchrodingerReference
    | FileReference,
    Field(discriminator="type"),
]


class FourierEmbedding(Model):
    """Random Fourier features in front of a network (Tancik et al. 2020)."""

    type: Literal["fourier"] = "fourier"
    features: int = Field(default=64, ge=2, le=10_000, multiple_of=2)
    """How many; half of them are cosines."""
    scale: Positive = 1.0
    """Standard deviation of the frequencies, in cycles per half of the domain."""


Activation = Literal["tanh", "sin", "gelu", "silu", "softplus"]


class MLP(Model):
    """A multilayer perceptron."""

    type: Literal["mlp"]
    width: int = Field(default=20, ge=1, le=100_000)
    """Neurons in a hidden layer."""
    depth: int = Field(default=3, ge=1, le=100)
    """Hidden layers."""
    activation: Activation = "tanh"
    """Between the layers."""
    embedding: FourierEmbedding | None = None
    """What comes before the first layer."""
    features: dict[Name, Formula] = Field(default_factory=dict)
    """What the network sees beside the coordinates: name to an expression of them."""


class PirateNet(Model):
    """Adaptive residual blocks that start as a linear model (Wang et al. 2024)."""

    type: Literal["pirate"]
    width: int = Field(default=64, ge=2, le=100_000, multiple_of=2)
    """Neurons in a layer; also the number of Fourier features."""
    depth: int = Field(default=3, ge=1, le=100)
    """Blocks, of three layers each."""
    activation: Activation = "tanh"
    """Within the blocks."""
    embedding: FourierEmbedding = FourierEmbedding()
    """Its features must be as many as the width."""
    features: dict[Name, Formula] = Field(default_factory=dict)
    """What the network sees beside the coordinates: name to an expression of them."""

    @model_validator(mode="before")
    @classmethod
    def _embedding_of_the_width(cls, data: Any) -> Any:
        if isinstance(data, dict) and "embedding" not in data:
            return {**data, "embedding": {"features": data.get("width", 64)}}
        return data


class FilterNet(Model):
    """A multiplicative filter network: sinusoids with trained frequencies (Fathony et al. 2021)."""

    type: Literal["filter"]
    width: int = Field(default=24, ge=1, le=100_000)
    """Sinusoids in a filter."""
    depth: int = Field(default=1, ge=1, le=100)
    """Products of a linear layer and a filter."""
    scale: Positive | dict[Name, Positive] = 1.0
    """Standard deviation of the frequencies, in radians per half of the domain; of those of each
    coordinate and feature, by name, 1 where not named."""
    features: dict[Name, Formula] = Field(default_factory=dict)
    """What the network sees beside the coordinates: name to an expression of them."""


class FourierSeries(Model):
    """A Fourier series over the box, linear in its coefficients (De Ryck et al. 2024)."""

    type: Literal["fourier"]
    modes: int | dict[Name, Annotated[int, Field(ge=1, le=10_000)]] = Field(default=8)
    """Largest wave number; of each coordinate, by name, 8 where not named."""
    preconditioned: bool = True
    """Rescale each wave by what the equations make of it, the paper's diagonal."""
    features: dict[Name, Formula] = Field(default_factory=dict, max_length=0)
    """None: the waves are those of the coordinates."""

    def orders(self, coordinates: Iterable[str]) -> list[int]:
        """The largest wave number of each coordinate."""
        modes = self.modes
        return [modes if isinstance(modes, int) else modes.get(name, 8) for name in coordinates]


class Lagrangian(Model):
    """Two branches, of which one follows the flow (Mojgani et al. 2023)."""

    type: Literal["lagrangian"]
    velocity: dict[Name, Formula] = Field(min_length=1)
    """Coordinate to the rate at which it moves: an expression, in which unknowns may stand."""
    width: int = Field(default=20, ge=1, le=100_000)
    """Neurons in a hidden layer of each branch."""
    depth: int = Field(default=2, ge=1, le=100)
    """Hidden layers of each branch."""
    activation: Activation = "tanh"
    """Between the layers."""
    features: dict[Name, Formula] = Field(default_factory=dict)
    """What the network sees beside the labels: name to an expression of them."""


Network = Annotated[
    MLP | PirateNet | FilterNet | FourierSeries | Lagrangian, Field(discriminator="type")
]


class RAD(Model):
    """Residual-based adaptive distribution of points (Wu et al. 2023, eq. 2)."""

    type: Literal["rad"] = "rad"
    every: int = Field(default=50, ge=1)
    """Choose points anew after so many steps."""
    candidates: int = Field(default=20_000, ge=1, le=10**9)
    """Points to choose among."""
    exponent: NotNegative = 1.0
    """k: how strongly large residuals attract points."""
    offset: Positive = 1.0
    """c: how many points stay uniform."""
    unbiased: bool = False
    """Weigh points by the inverse of their probability, so that the loss stays the mean square."""


class Causal(Model):
    """Late times wait for early ones (Wang, Sankaran and Perdikaris 2022, eq. 3.7)."""

    tolerance: Positive = 1.0
    """How much an early residual weighs late ones down."""
    chunks: int = Field(default=32, ge=2, le=10_000)
    """Of time, each with one weight."""


class Sampler(Model):
    """Collocation points in the interior, for each equation."""

    type: Literal["sobol", "uniform", "grid"]
    points: int = Field(default=4096, ge=1, le=10**9)
    """How many."""
    resample_every: int | None = Field(default=None, ge=1)
    """Draw anew after so many steps; never, if null. RAD has its own `every`."""
    adapt: RAD | None = None
    """Choose points by their residual."""
    causal: Causal | None = None
    """Weigh points by the residuals before them, whenever points are drawn."""


class OptimizerModel(Model):
    """What every optimizer takes."""

    steps: int | None = Field(default=None, ge=1, le=10**9)
    """In a list of optimizers, how many steps before the next; the last has the rest."""


class GaussNewton(OptimizerModel):
    """Levenberg-damped Gauss-Newton (`sciopt.GaussNewton`); `lm` is another name for it."""

    type: Literal["gauss_newton", "lm"]
    damping: Positive = 1e-2
    """Initial damping, which then follows the gain of each step."""
    radius: Positive | None = None
    """Initial radius of a trust region, whose bound on the steps takes the damping's place."""
    acceleration: Positive | None = 0.75
    """Largest geodesic acceleration per step; none, if null."""
    scaled: bool = False
    """Measure steps in units of the Jacobian's columns, after Marquardt and Moré."""
    linear_solver: Literal["cholesky", "qr", "svd", "auto"] = "cholesky"
    """Of the damped systems (`sciopt.damped`)."""


class EGN(OptimizerModel):
    """Exact Gauss-Newton with line search and adaptive damping (`sciopt.EGN`)."""

    type: Literal["egn"]
    damping: Positive = 1.0
    """Initial damping."""
    momentum: Fraction = 0.0
    """Share of the old direction that a step keeps."""


class ENGD(OptimizerModel):
    """Energy natural gradient descent, with a line search (`sciopt.ENGD`)."""

    type: Literal["engd"]
    damping: Positive = 1e-8
    """Added to the metric."""
    rank: int | None = Field(default=None, ge=1, le=100_000)
    """Of a randomised Nyström approximation of the metric; the metric itself, if null."""


class SPRING(OptimizerModel):
    """Natural gradient with a projected momentum (`sciopt.SPRING`)."""

    type: Literal["spring"]
    damping: Positive = 1e-9
    """Added to the metric."""
    momentum: Fraction = 0.83
    """Share of the old direction that a step keeps, where the new points say nothing."""
    step_size: Positive | None = 0.06
    """Of every step; the best on a grid, if null."""
    norm_constraint: Positive | None = 1e-3
    """Largest square of a step's norm; any, if null."""


class TNGD(OptimizerModel):
    """Thermodynamic natural gradient descent, by its exact transition (`sciopt.TNGD`)."""

    type: Literal["tngd"]
    time: Positive
    """For which each step's linear system relaxes."""
    damping: Positive = 1e-8
    """Added to the metric."""
    temperature: NotNegative = 0.0
    """Of the noise."""


class BFGS(OptimizerModel):
    """`optimistix.BFGS`: dense quasi-Newton with backtracking."""

    type: Literal["bfgs"]


class SelfScaled(OptimizerModel):
    """Self-scaled quasi-Newton (`sciopt.SSBFGS`, `sciopt.SSBroyden`)."""

    type: Literal["ssbfgs", "ssbroyden"]
    history_length: int | None = Field(default=None, ge=1, le=1000)
    """How many updates a limited memory keeps; if null, the inverse Hessian is a matrix."""


class Optax(OptimizerModel):
    """A first-order optimizer of optax, by its name there; or `sciopt.soap`, `sciopt.fadam`."""

    type: Literal[
        "adabelief", "adagrad", "adam", "adamax", "adamw", "fadam", "lamb", "lion", "nadam",
        "novograd", "radam", "rmsprop", "sgd", "soap", "yogi",
    ]  # fmt: skip
    learning_rate: Positive = 1e-3
    """At the first step."""
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    """Over its steps: to zero along a cosine, or exponentially down to a hundredth."""


# These make the whole Jacobian of the residuals.
WithJacobian = GaussNewton | EGN | ENGD | SPRING | TNGD

Optimizer = Annotated[WithJacobian | BFGS | SelfScaled | Optax, Field(discriminator="type")]

# `optimizer: [{type: adam, steps: 500}, {type: ssbroyden}]` is one after the other.
OneOrSeveral = Annotated[
    Annotated[Optimizer, Tag("one")]
    | Annotated[tuple[Optimizer, ...], Field(min_length=2, max_length=16), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]


class Aggregator(Model):
    """Reduces the gradients of the residual blocks to one update (`sciopt.aggregate`)."""

    type: Literal[
        "aligned_mtl", "config", "dcgd", "dualproj", "excess_mtl", "graddrop", "gradvac", "imtl_g",
        "mean", "mgda", "nash_mtl", "pcgrad", "random", "sum", "upgrad",
    ]  # fmt: skip


class MConFIG(Model):
    """ConFIG of momenta, one block's gradient a step, scaled as in Adam: for `sgd` alone."""

    type: Literal["m_config"]


class LRA(Model):
    """Weighs each condition by learning-rate annealing (Wang et al. 2021)."""

    type: Literal["lra"]
    decay: Fraction = 0.9
    """Share of the old weights that a step keeps."""


def _named(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


AGGREGATORS = [
    name for kind in (Aggregator, LRA, MConFIG) for name in get_args(kind.__annotations__["type"])
]

AnyAggregator = Annotated[
    Annotated[Aggregator | LRA | MConFIG, Field(discriminator="type")],
    # `aggregator: config` is short for `aggregator: {type: config}`.
    BeforeValidator(_named),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": AGGREGATORS},
                {"type": "object", "properties": {"type": {"enum": AGGREGATORS}}},
            ]
        }
    ),
]


class Train(Model):
    """The training loop."""

    steps: int = Field(ge=0, le=10**9)
    """How many steps of the optimizer, in each window."""
    windows: int = Field(default=1, ge=1, le=1000)
    """Of time, trained one after the other: each begins where the one before it ends."""
    optimizer: OneOrSeveral
    """Which one; or a list of them, each but the last with its `steps`."""
    aggregator: AnyAggregator | None = None
    """Of the gradients of the residual blocks, for a first-order optimizer; their sum, if null."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of history and progress."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between checkpoints."""

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """One after the other."""
        return self.optimizer if isinstance(self.optimizer, tuple) else (self.optimizer,)

    @property
    def ends(self) -> tuple[int, ...]:
        """The steps after which one optimizer gives way to the next."""
        return tuple(accumulate(o.steps or 0 for o in self.optimizers[:-1]))


class Evaluate(Model):
    """Where the solution is written and compared with the reference."""

    grid: dict[Name, Annotated[int, Field(ge=2, le=10**6)]]
    """Points along each coordinate; by default 101, or 41 in three dimensions and more, and 9 of a
    parameter's range. Where
    `points` are given it may leave coordinates out, which are then at the middle of the domain."""
    points: int | None = Field(default=None, ge=1, le=10**9)
    """Judge the error on so many Sobol' points of the domain, and not on the grid."""
    tolerance: Positive | None = None
    """On the relative L2 error: what the case promises. Training never sees it."""


EQUATIONS: dict[str, dict[str, Any]] = {
    # Bateman (1915), Burgers (1948).
    "burgers": {
        "unknowns": ["u"],
        "parameters": {"nu": "0.01/pi"},
        "equations": {"momentum": "u_t + u*u_x - nu*u_xx"},
    },
    # Fourier (1822).
    "heat": {
        "unknowns": ["u"],
        "parameters": {"alpha": 1.0},
        "equations": {"diffusion": "u_t - alpha*u_xx"},
    },
    "advection": {
        "unknowns": ["u"],
        "parameters": {"c": 30.0},
        "equations": {"transport": "u_t + c*u_x"},
    },
    # Allen and Cahn (1979), with the coefficients of the PINN benchmark (Raissi et al. 2019).
    "allen_cahn": {
        "unknowns": ["u"],
        "parameters": {"d": 1e-4},
        "equations": {"phase": "u_t - d*u_xx + 5*u^3 - 5*u"},
    },
    # Kuramoto (1978), Sivashinsky (1977), with the coefficients of Wang et al. (2022), section 5.3.
    "kuramoto_sivashinsky": {
        "unknowns": ["u"],
        "parameters": {"a": 5.0, "b": 0.5, "d": 0.005},
        "equations": {"flame": "u_t + a*u*u_x + b*u_xx + d*u_xxxx"},
    },
    # i h_t + h_xx/2 + |h|^2 h = 0 for h = u + iv: Raissi et al. (2019), section 3.1.1.
    "schrodinger": {
        "unknowns": ["u", "v"],
        "parameters": {},
        "equations": {
            "real": "-v_t + 0.5*u_xx + (u^2 + v^2)*u",
            "imaginary": "u_t + 0.5*v_xx + (u^2 + v^2)*v",
        },
    },
}


def _either_way(made: dict[str, Any]) -> None:
    """A known equation stands for what is required otherwise, and the grid has a default."""
    made["required"] = ["train"]
    made["allOf"] = [
        {"anyOf": [{"required": ["equation"]}, {"required": ["unknowns", "equations"]}]},
        {"anyOf": [{"required": ["domain"]}, {"required": ["shape"]}]},
    ]


class InverseLaplacian(Model):
    """The inverse Laplacian on the points of a grid, as a left preconditioner of residuals."""

    type: Literal["inverse_laplacian"]
    boundary: dict[Name, Literal["dirichlet", "neumann", "periodic"]] = Field(default_factory=dict)
    """Coordinate to what holds at both of its ends, `dirichlet` where not named."""
    power: Positive = 1.0
    """Of the inverse: 1 trains the error itself, 1/2 its energy."""


class Case(AbstractCase):
    """A problem, a network, points, an optimizer, and what to compare with."""

    model_config = ConfigDict(json_schema_extra=_either_way)

    kind: Literal["pinn"] = "pinn"
    """A physics-informed network; what a case is that does not say."""
    equation: (
        Literal["burgers", "heat", "advection", "allen_cahn", "kuramoto_sivashinsky", "schrodinger"]
        | None
    ) = None
    """A known equation, in place of `unknowns` and `equations`."""
    unknowns: tuple[Name, ...] = Field(min_length=1)
    """Names of the fields."""
    parameters: dict[Name, inference.Parameter] = Field(default_factory=dict)
    """Names to numbers, or to constant expressions such as `0.01/pi`; or to what is inferred, or
    varies over a range."""
    equations: dict[BlockName, Formula] = Field(min_length=1)
    """Name to an expression that is zero for a solution; `u_xx` is a derivative."""
    domain: dict[Name, VectorInterval | tuple[Number, Number]] = Field(default_factory=dict)
    """Coordinate to its interval; `t` is time. `x: {dimensions: 3, interval: [0, 1]}` stands for
    `x1`, `x2` and `x3`."""
    shape: shapes.Shape | None = None
    """A region of space, whose coordinates come before those of the domain."""
    conditions: dict[BlockName, Condition] = Field(default_factory=dict)
    """Name to condition."""
    data: dict[BlockName, inference.Data] = Field(default_factory=dict)
    """Name to measurements, which are residual blocks as conditions are."""
    uncertainty: inference.Uncertainty = inference.Laplace()
    """How the standard deviations of inferred parameters are found."""
    weights: dict[BlockName, NotNegative] = Field(default_factory=dict)
    """Equation to its weight in the loss."""
    left: dict[BlockName, InverseLaplacian] = Field(default_factory=dict)
    """Equation to a left preconditioner of its residuals, which need `sampler: {type: grid}`."""
    reference: Reference | None = None
    """What the solution is compared with; training never sees it."""
    units: dict[Name, str] = Field(default_factory=dict)
    """Coordinate or unknown to its unit, `1` where not named."""
    network: Network = MLP(type="mlp")
    """What is trained."""
    sampler: Sampler = Sampler(type="sobol")
    """Where residuals are measured."""
    train: Train
    """How."""
    evaluate: Evaluate
    """Where the result is written and judged."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        """Expand a known equation, and the grid that is not given."""
        if not isinstance(data, dict):
            return data
        known = EQUATIONS.get(data.get("equation") or "")
        if known is not None and not {"unknowns", "equations"} & set(data):
            given = data.get("parameters") or {}
            parameters = {**known["parameters"], **given} if isinstance(given, dict) else given
            data = {**data, **known, "parameters": parameters, "equation": None}
        domain = data.get("domain") or {}
        evaluate = data.get("evaluate") or {}
        if isinstance(domain, dict) and isinstance(evaluate, dict) and not evaluate.get("grid"):
            names = list(shapes.coordinates(data.get("shape")))
            for name, given in domain.items():
                size = given.get("dimensions") if isinstance(given, dict) else None
                # A plane through a vector is enough to look at.
                parts = components(name, min(size, 2)) if isinstance(size, int) else (name,)
                names += parts
            count = 101 if len(names) < 3 else 41
            grid = dict.fromkeys(names, count)
            if isinstance(parameters := data.get("parameters"), dict):
                ranged = (n for n, p in parameters.items() if isinstance(p, dict) and "range" in p)
                grid |= dict.fromkeys(ranged, 9)
            data = {**data, "evaluate": {**evaluate, "grid": grid}}
        return data

    @model_validator(mode="after")
    def _one_road(self) -> Self:
        if self.equation is not None:
            raise ValueError("give either 'equation' or 'unknowns' and 'equations', not both")
        return self

    @property
    def coordinates(self) -> dict[str, tuple[float, float]]:
        """Each coordinate and its interval; those of vectors one by one, and the parameters that
        have a range last."""
        found = {} if self.shape is None else shapes.bounds(self.shape)
        for name, given in self.domain.items():
            if isinstance(given, VectorInterval):
                found |= dict.fromkeys(components(name, given.dimensions), given.interval)
            else:
                found[name] = given
        return found | self.family

    @property
    def family(self) -> dict[str, tuple[float, float]]:
        """Each parameter that has a range, and the range."""
        ranged = inference.Ranged
        return {n: p.range for n, p in self.parameters.items() if isinstance(p, ranged)}

    @property
    def space(self) -> list[str]:
        """The coordinates that are neither time nor a parameter."""
        return [name for name in self.coordinates if name != "t" and name not in self.family]

    @property
    def vectors(self) -> dict[str, int]:
        """Each vector and how many components it has."""
        return {n: v.dimensions for n, v in self.domain.items() if isinstance(v, VectorInterval)}

    SHRINK: ClassVar[tuple[Key, str]] = (
        ("sampler", "points"),
        "lower sampler.points, network.width or evaluate.grid, or raise --memory-limit",
    )
    SHORTHANDS: ClassVar[frozenset[str]] = frozenset({"equation"})

    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between the parts of a case, each of them valid."""
        from .checks import contradictions

        return contradictions(self)

    def files(self) -> dict[Key, tuple[str, ...]]:
        """The reference's file, and those of data."""
        named = isinstance(self.reference, FileReference)
        found: dict[Key, tuple[str, ...]] = (
            {("reference", "path"): (".nc", ".npz")} if named else {}
        )
        for name, data in self.data.items():
            if data.file is not None:
                found["data", name, "file"] = inference.SUFFIXES
        return found

    def contradictions_of_files(self) -> Iterator[Complaint]:
        """What is wrong with the data."""
        from .wellposed import of_data

        return of_data(self)

    @classmethod
    def follows_from(cls, key: Key, raw: dict[str, Any]) -> bool:
        """Unknowns and equations are missing where the equation that was to bring them is wrong."""
        return "equation" in raw and key[-1] in ("unknowns", "equations")

    def size(self) -> str:
        """Parameters, points and steps."""
        names = ", ".join(o.type for o in self.train.optimizers)
        windows = f" in each of {self.train.windows} windows" if self.train.windows > 1 else ""
        return (
            f"{self.parameter_count()} parameters, {self.sampler.points} points, "
            f"{self.train.steps} steps of {names}{windows}"
        )

    def parameter_count(self) -> int:
        """How many numbers the network trains."""
        spec = self.network
        harmonics = {
            c.over: 2 * c.harmonics
            for c in self.conditions.values()
            if isinstance(c, PeriodicCondition) and c.hard
        }
        features = sum(harmonics.get(name, 1) for name in self.coordinates) + len(spec.features)
        outputs = len(self.unknowns)
        if isinstance(spec, FourierSeries):
            return outputs * math.prod(2 * k + 1 for k in spec.orders(self.coordinates))
        width = spec.width
        if isinstance(spec, Lagrangian):
            inner = (features + 1) * width + (spec.depth - 1) * width * (width + 1)
            return 2 * inner + (outputs + len(spec.velocity)) * (width + 1)
        if isinstance(spec, FilterNet):
            filters = (spec.depth + 1) * width * (features + 1)
            return filters + spec.depth * width * (width + 1) + outputs * (width + 1)
        if isinstance(spec, PirateNet):
            return (2 + 3 * spec.depth) * width * (width + 1) + spec.depth + outputs * (width + 1)
        first = features if spec.embedding is None else spec.embedding.features
        return (first + 1) * width + (spec.depth - 1) * width * (width + 1) + outputs * (width + 1)

    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""
        size = 8 if self.precision == "float64" else 4
        parameters, spec = self.parameter_count(), self.network
        rows = self.sampler.points * len(self.equations)
        rows += sum(c.points for c in self.conditions.values() if not c.hard)
        rows += sum(d.generate.points for d in self.data.values() if d.generate)
        # Activations of a point, for the value and some derivatives, forward and backward.
        derivatives = 4
        if any(
            name.startswith(LAPLACIAN + "(") for e in self.equations.values() for name in e.names
        ):
            derivatives += len(self.coordinates)
        if isinstance(spec, FourierSeries):
            point = 3 * derivatives * parameters
        else:
            layers = 3 * spec.depth if isinstance(spec, PirateNet) else spec.depth
            point = 3 * derivatives * spec.width * layers
        candidates = self.sampler.adapt.candidates if self.sampler.adapt else 0
        grid = 1
        for count in self.evaluate.grid.values():
            grid *= count
        judged = grid + (self.evaluate.points or 0) * len(self.coordinates)
        numbers = (rows + candidates) * point + 8 * judged * len(self.unknowns)
        kinds = {type(o) for o in self.train.optimizers}
        if any(isinstance(o, WithJacobian) for o in self.train.optimizers):
            numbers += 2 * rows * parameters + 4 * min(rows, parameters) ** 2
        histories = [o.history_length for o in self.train.optimizers if isinstance(o, SelfScaled)]
        if BFGS in kinds or None in histories:
            numbers += 4 * parameters**2
        # Members have all but the grid for their own.
        if isinstance(self.uncertainty, inference.Ensemble):
            numbers *= self.uncertainty.members
        # Three vectors an update, before, after and in between.
        numbers += 9 * parameters * max((h for h in histories if h is not None), default=0)
        return size * (numbers + 10 * parameters) + 300_000_000


__all__ = [
    "BFGS", "EGN", "ENGD", "EQUATIONS", "MLP", "RAD", "SPRING", "TNGD", "Case",
    "ColeHopfReference", "DirichletCondition",
    "ETDRK4Reference", "Evaluate", "ExactReference", "ExpressionError", "FileReference",
    "FilterNet", "FourierEmbedding", "FourierSeries", "GaussNewton",
    "InitialCondition", "KuramotoSivashinskyReference", "Lagrangian", "NeumannCondition", "Optax",
    "PeriodicCondition", "PirateNet", "RobinCondition", "Sampler", "SchrodingerReference",
    "SelfScaled", "Train", "VectorInterval",
]  # fmt: skip
