"""What every case has, whatever its kind, and the types that its keys are made of.

A kind of case is a folder `_<kind>` beside this file (see `_kinds.py`). No JAX is imported.
"""

import abc
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from ._expression import Expression

Key = tuple[str | int, ...]
# A key, what is wrong with it, and what to do about it (or nothing).
Complaint = tuple[Key, str, str]

TEXT_OR_NUMBER = {"anyOf": [{"type": "number"}, {"type": "string"}]}


def _expression(value: Any) -> Expression:
    return value if isinstance(value, Expression) else Expression(value)


def _number(value: Any) -> float:
    return _expression(value).constant()


Formula = Annotated[
    Expression,
    BeforeValidator(_expression),
    PlainSerializer(lambda e: e.text, return_type=str),
    WithJsonSchema(TEXT_OR_NUMBER),
]
Number = Annotated[float, BeforeValidator(_number), WithJsonSchema(TEXT_OR_NUMBER)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0), WithJsonSchema(TEXT_OR_NUMBER)]
NotNegative = Annotated[
    float, BeforeValidator(_number), Field(ge=0), WithJsonSchema(TEXT_OR_NUMBER)
]
Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0, lt=1)]


class Model(BaseModel):
    """Frozen, and strict about keys: a key that is not known is a mistake of the author's."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True
    )


class AbstractCase(Model, abc.ABC):
    """The keys of every case, and what loading and running ask of it."""

    kind: Any
    """What is solved."""
    name: str = Field(default="case", pattern=r"^[\w][\w .-]{0,79}$")
    """By default the file's name."""
    description: str = Field(default="", max_length=500)
    """One line, for lists and titles."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """All randomness comes from it."""
    precision: Literal["float64", "float32"] = "float64"
    """Of everything that is computed."""

    SHRINK: ClassVar[tuple[Key, str]]
    """Where to say that a case needs too much memory, and what to do about it."""
    SHORTHANDS: ClassVar[frozenset[str]] = frozenset()
    """Keys that are never written out: others stand for them."""

    @abc.abstractmethod
    def contradictions(self) -> Iterator[Complaint]:
        """What is wrong between the parts of a case, each of them valid."""

    def files(self) -> dict[Key, tuple[str, ...]]:
        """The keys that hold a file's path, and how its name may end."""
        return {}

    def contradictions_of_files(self) -> Iterator[Complaint]:
        """What shows only once the case's files are read; their paths are full by now."""
        yield from ()

    @abc.abstractmethod
    def memory_estimate(self) -> int:
        """Bytes at the peak of a run, from sizes alone, to within a factor of about two."""

    @abc.abstractmethod
    def size(self) -> str:
        """What the case resolves to, in a few words."""

    @classmethod
    def follows_from(cls, key: Key, raw: dict[str, Any]) -> bool:
        """Whether a missing key is only the consequence of another mistake in `raw`."""
        return False

    def get(self, key: Key) -> Any:
        """The value at a dotted key."""
        at: Any = self
        for part in key:
            inside: Any = part
            at = at[inside] if isinstance(at, tuple | dict) else getattr(at, str(part))
        return at

    def with_value(self, key: Key, value: Any) -> Self:
        """A copy with another value at a dotted key, which is not checked again."""
        return _replaced(self, key, value)


def _replaced(at: Any, key: Key, value: Any) -> Any:
    if not key:
        return value
    head, *rest = key
    if isinstance(head, int):
        changed = list(at)
        changed[head] = _replaced(at[head], tuple(rest), value)
        return tuple(changed)
    if isinstance(at, dict):
        return {**at, head: _replaced(at[head], tuple(rest), value)}
    return at.model_copy(update={head: _replaced(getattr(at, head), tuple(rest), value)})


def located(folder: Path, path: Path, suffixes: tuple[str, ...]) -> Path:
    """The full path of a case's file, links followed.

    Raises:
        ValueError: it lies outside of the case's folder, is not there, or ends in another way.
    """
    try:
        root = folder.resolve()
        full = (root / path).resolve()
        inside, exists = full.is_relative_to(root), full.is_file()
    except (OSError, ValueError, RuntimeError) as e:
        raise ValueError(f"cannot be looked up: {e}") from None
    if not inside:
        raise ValueError("lies outside the case's folder")
    if full.suffix not in suffixes:
        raise ValueError(f"must end in {' or '.join(suffixes)}")
    if not exists:
        raise ValueError("there is no such file")
    return full
