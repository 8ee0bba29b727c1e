"""The kinds of case, by the word under `kind:`.

A kind is a folder `_<kind>` of this package, which is imported when a case needs it:

- `schema.py` has `Case`, an `AbstractCase`; loading imports no more, and it imports no JAX;
- `run.py` has `Engine`, an `AbstractEngine`;
- `plot.py` has `figures(run)`, which yields pictures and animations by name, and `tables(run)`.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from ._model import AbstractCase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ._engine import AbstractEngine
    from ._folder import RunFolder

# The first is that of a case which does not say.
KINDS = (
    "pinn", "transport", "relax", "family", "bridge", "neural_solver", "simulate", "control",
    "minimise", "experts",
)  # fmt: skip


class Table(NamedTuple):
    """Rows of words for the report."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Animation(NamedTuple):
    """A figure that changes: `draw` makes it show one of its frames."""

    figure: "Figure"
    frames: int
    draw: Callable[[int], None]
    per_second: float


class Plot(Protocol):
    """What a kind's `plot.py` has."""

    def figures(self, run: "RunFolder") -> "Iterator[tuple[str, Figure | Animation]]":
        """The pictures of what `run` has so far, by name."""
        ...

    def tables(self, run: "RunFolder") -> list[Table]:
        """Tables for the report."""
        ...


def model(kind: str) -> type[AbstractCase]:
    """The schema of a kind."""
    return _module(kind, "schema").Case


def engine(kind: str) -> "type[AbstractEngine]":
    """What runs a kind."""
    return _module(kind, "run").Engine


def plot(kind: Any) -> Plot:
    """What draws a kind; a folder that says no known kind is drawn as the first."""
    return cast(Plot, _module(kind if kind in KINDS else KINDS[0], "plot"))


def _module(kind: str, part: str) -> Any:
    assert kind in KINDS
    return import_module(f"._{kind}.{part}", __package__)
