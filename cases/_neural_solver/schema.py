"""What a case of a neural solver may say: an equation, its random starts, a network, its training.

The discriminated unions (`type:`) are the registry; their fields are the arguments of the objects
that they make, in `pde.spectral` and `pde.operators`. No JAX is imported.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints

from .._box import of_dimensions, of_formula, of_intervals
from .._model import AbstractCase, Complaint, Formula, Key, Model, NotNegative, Number, Positive
from .._pinn.schema import Activation, Optax

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=20)]
Count = Annotated[int, Field(ge=1, le=10**6)]
Points = Annotated[int, Field(ge=8, le=4096)]


class Burgers(Model):
    """`u_t + u*u_x = viscosity*u_xx` (`pde.spectral.Burgers`)."""

    DIMENSIONS: ClassVar[tuple[int, ...]] = (1,)
    DEGREE: ClassVar[int] = 2

    type: Literal["burgers"]
    viscosity: Positive
    """Of the fluid."""


class KuramotoSivashinsky(Model):
    """`u_t + u*u_x + u_xx + u_xxxx = 0` (`pde.spectral.KuramotoSivashinsky`)."""

    DIMENSIONS: ClassVar[tuple[int, ...]] = (1,)
    DEGREE: ClassVar[int] = 2

    type: Literal["kuramoto_sivashinsky"]


class AllenCahn(Model):
    """`u_t = diffusion*laplacian(u) + rate*(u - u^3)` (`pde.spectral.AllenCahn`)."""

    DIMENSIONS: ClassVar[tuple[int, ...]] = (1, 2)
    DEGREE: ClassVar[int] = 3

    type: Literal["allen_cahn"]
    diffusion: Positive
    """Width of the interfaces, squared, by the rate."""
    rate: Positive = 1.0
    """How fast phases part."""


class Vorticity(Model):
    """Incompressible flow in a plane, by its vorticity (`pde.spectral.Vorticity`)."""

    DIMENSIONS: ClassVar[tuple[int, ...]] = (2,)
    DEGREE: ClassVar[int] = 2

    type: Literal["vorticity"]
    viscosity: Positive
    """Kinematic."""
    drag: NotNegative = 0.0
    """Linear friction."""
    force: Formula | None = None
    """The curl of a force, of the coordinates; the network is given it as a field."""


Equation = Annotated[
    Burgers | KuramotoSivashinsky | AllenCahn | Vorticity, Field(discriminator="type")
]


class Starts(Model):
    """`N(0, scale^2 (-laplacian + shift^2)^-power)` (`pde.operators.RandomField`)."""

    modes: Annotated[int, Field(ge=1, le=500)]
    """Wave numbers that occur, in each direction."""
    scale: Positive = 1.0
    """Of all of them."""
    shift: NotNegative = 1.0
    """Where the spectrum bends."""
    power: Positive = 2.0
    """How fast it falls."""
    mean_free: bool = False
    """Leave out the mean."""
    train: Count = 1000
    """How many to train on; without them, where there is no loss on data."""
    test: Annotated[int, Field(ge=1, le=10_000)] = 200
    """How many to judge by."""


class FNO(Model):
    """A Fourier neural operator (`pde.operators.FNO`)."""

    type: Literal["fno"]
    modes: Annotated[int, Field(ge=1, le=500)]
    """Wave numbers that are kept, in each direction."""
    width: Annotated[int, Field(ge=1, le=2048)] = 32
    """Channels of each layer."""
    depth: Annotated[int, Field(ge=1, le=50)] = 4
    """Layers."""
    projection: Annotated[int, Field(ge=1, le=4096)] = 128
    """Width of the last, pointwise network."""
    activation: Activation = "gelu"
    """Between layers."""
    coordinates: bool = False
    """Give each point its place as an input; an equation on a torus does not ask where it is."""


class NeuralStagger(FNO):
    """Fourier neural operators on coarse grids side by side (`pde.operators.NeuralStagger`).

    They give the states at all of `time.looks` at once.
    """

    type: Literal["neural_stagger"]  # pyright: ignore[reportIncompatibleVariableOverride]
    space: Annotated[int, Field(ge=1, le=64)]
    """By how much their grids are coarser, in each direction."""
    shared: bool = True
    """One network for all pieces."""


class DeepONet(Model):
    """A DeepONet of two perceptrons (`pde.operators.DeepONet`)."""

    type: Literal["deeponet"]
    width: Annotated[int, Field(ge=1, le=4096)] = 100
    """Of the hidden layers."""
    depth: Annotated[int, Field(ge=1, le=50)] = 3
    """Hidden layers of branch and trunk."""
    basis: Annotated[int, Field(ge=1, le=4096)] = 100
    """Functions that the trunk gives."""
    activation: Activation = "tanh"
    """Between layers."""


Network = Annotated[FNO | NeuralStagger | DeepONet, Field(discriminator="type")]


class Time(Model):
    """What the network leaps over, and how the simulation it is judged by gets there."""

    end: Positive
    """The time at which the network is asked."""
    step: Positive
    """Of the simulation, by ETDRK4."""
    looks: Annotated[int, Field(ge=1, le=100)] = 1
    """Times up to the end, at equal distances, that data are kept of, and that a staggered network
    gives."""


class Training(Model):
    """The training loop."""

    batch: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Starts in a step."""
    steps: Annotated[int, Field(ge=0, le=10**9)]
    """How many."""
    optimizer: Optax
    """A first-order one."""
    log_every: Annotated[int, Field(ge=1)] = 100
    """Steps between lines of history and progress."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1000
    """Steps between checkpoints."""


class Train(Training):
    """The training loop, and what is trained on."""

    loss: Literal["data", "physics", "both"] = "data"
    """The simulation's states, or the equation's residual alone, which needs no simulation."""
    physics_weight: Positive = 1.0
    """Of the residual, beside data."""


class Evaluate(Model):
    """How the network is judged, on starts that it has not seen."""

    points: tuple[Points, ...] = ()
    """Other grids to be called on than the one it is trained on."""
    rollout: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often it is applied to what it gave."""
    tolerance: Positive | None = None
    """On the mean relative L2 error at the end: what the case promises."""


class Case(AbstractCase):
    """A network that takes an equation's start to its state later on."""

    model_config = ConfigDict(title="Neural solver")

    kind: Literal["neural_solver"]
    """A network between functions."""
    equation: Equation
    """On a torus."""
    domain: dict[Name, tuple[Number, Number]] = Field(min_length=1, max_length=2)
    """Coordinate to its period: `{x: [0, 1]}`."""
    points: Points
    """Along each direction of the grid that the network is trained on."""
    starts: Starts
    """What it is called with."""
    time: Time
    """How far it leaps."""
    network: Network
    """What is trained."""
    train: Train
    """How."""
    evaluate: Evaluate = Evaluate()
    """How it is judged."""

    SHRINK: ClassVar[tuple[Key, str]] = (
        ("starts", "train"), "take fewer starts or points, or raise --memory-limit",
    )  # fmt: skip

    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between equation, domain, grids and network."""
        yield from of_intervals(self.domain)
        yield from of_dimensions(self.domain, self.equation)
        for where, n in ((("points",), self.points), *self._others()):
            if n < 2 * self.starts.modes + 1:
                yield (
                    where, f"{n} points do not hold starts of {self.starts.modes} modes",
                    f"take {2 * self.starts.modes + 1} or more",
                )  # fmt: skip
            elif n % self.coarser:
                yield where, f"{n} points do not part into grids {self.coarser} times as coarse", ""
            elif isinstance(self.network, FNO) and n < self.coarser * (2 * self.network.modes - 1):
                yield (
                    where, f"{n} points do not tell a network's {self.network.modes} modes apart",
                    f"take {self.coarser * (2 * self.network.modes - 1)} or more",
                )  # fmt: skip
            elif self.finest % n:
                yield (
                    where, f"{n} does not divide {self.finest}, the simulation's points",
                    "take grids that divide the finest",
                )  # fmt: skip
        if self.train.batch > self.starts.train and self.train.loss != "physics":
            yield (
                ("train", "batch"), f"{self.train.batch} is more than the {self.starts.train} "
                "starts there are", "",
            )  # fmt: skip
        if self.starts.shift == 0 and not self.starts.mean_free:
            yield (("starts", "shift"), "0 leaves the mean without a variance",
                   "say mean_free: true")  # fmt: skip
        if isinstance(self.equation, Vorticity):
            if not self.starts.mean_free:
                yield (("starts", "mean_free"), "vorticity has no mean on a torus", "say true")
            if self.equation.force is not None:
                known = list(self.domain)
                yield from of_formula(("equation", "force"), self.equation.force, known)
        steps = self.time.end / self.time.step
        if abs(steps - round(steps)) > 1e-6 * steps or round(steps) % self.time.looks:
            yield (
                ("time", "step"), f"{self.time.looks} looks at equal distances up to "
                f"{self.time.end:g} are no whole numbers of steps of {self.time.step:g}", "",
            )  # fmt: skip

    def _others(self) -> Iterator[tuple[Key, int]]:
        for i, n in enumerate(self.evaluate.points):
            yield ("evaluate", "points", i), n

    @property
    def finest(self) -> int:
        """Points of the simulation, along each direction."""
        return max(self.points, *self.evaluate.points, 0)

    @property
    def coarser(self) -> int:
        """By how much the networks' grids are coarser, along each direction."""
        return self.network.space if isinstance(self.network, NeuralStagger) else 1

    @property
    def simulated(self) -> int:
        """Starts whose later states are simulated."""
        return self.starts.test + (self.starts.train if self.train.loss != "physics" else 0)

    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""
        size = 8 if self.precision == "float64" else 4
        cells = self.points ** len(self.domain)
        width = self.network.width * self.network.depth
        data = self.simulated * self.finest ** len(self.domain) * (self.time.looks + 1) * 2
        return 400_000_000 + size * (data + 12 * self.train.batch * cells * width)

    def size(self) -> str:
        """Grid, network and training."""
        grid = " x ".join([str(self.points)] * len(self.domain))
        return (
            f"{grid} points, {self.network.type} on {self.train.loss}, {self.train.steps} steps of "
            f"{self.train.optimizer.type}"
        )
