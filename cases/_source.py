"""YAML text to plain data that knows where each key was written, and how a mistake is said.

YAML 1.2 through ruamel. The parser's events are counted before anything is composed, so text that
nests without end or repeats itself by aliases is refused while it is still small; scalars become
numbers, booleans, null or text here, and no other object can be made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ._model import Key

MAX_BYTES = 256 * 1024
MAX_NESTING = 30
MAX_EVENTS = 20_000


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a case. Lines and columns count from 1."""

    file: str
    message: str
    key: str = ""
    line: int | None = None
    column: int | None = None
    hint: str = ""

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        key = f" {self.key}:" if self.key else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{where}:{key} {self.message}{hint}"


class CaseError(Exception):
    """A case that cannot be run; `problems` lists all that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass
class Source:
    """Where each key of the raw case was written."""

    name: str
    marks: dict[Key, tuple[int, int]] = field(default_factory=dict)
    overridden: dict[Key, str] = field(default_factory=dict)

    def problem(self, key: Key, message: str, hint: str = "") -> Problem:
        shown = ".".join(map(str, key))
        for n in range(len(key), -1, -1):
            if key[:n] in self.overridden:
                return Problem(f"--set {self.overridden[key[:n]]}", message, shown, hint=hint)
            if key[:n] in self.marks:
                line, column = self.marks[key[:n]]
                return Problem(self.name, message, shown, line, column, hint)
        return Problem(self.name, message, shown, hint=hint)

    def error(self, key: Key, message: str, hint: str = "") -> CaseError:
        return CaseError([self.problem(key, message, hint)])

    def construct(self, node: Any, key: Key) -> Any:
        """Plain data from a composed node, remembering positions."""
        from ruamel.yaml.nodes import MappingNode, SequenceNode

        self.marks.setdefault(key, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, MappingNode):
            out: dict[str, Any] = {}
            for name, value in node.value:
                mark = name.start_mark
                if not name.tag.endswith(":str") and not isinstance(name.value, str):
                    raise self.error(key, "keys must be words")
                inner = (*key, str(name.value))
                if name.value in out:
                    raise self.error(inner, "this key is given twice")
                self.marks[inner] = (mark.line + 1, mark.column + 1)
                out[str(name.value)] = self.construct(value, inner)
            return out
        if isinstance(node, SequenceNode):
            return [self.construct(item, (*key, i)) for i, item in enumerate(node.value)]
        return _scalar(node.tag.rpartition(":")[2], node.value)


def _scalar(tag: str, text: str) -> Any:
    try:
        match tag:
            case "int":
                # Long digit strings take quadratic time; nothing in a case is that large.
                return int(text.replace("_", ""), 0) if len(text) < 40 else float(text)
            case "float":
                return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
            case "bool":
                return text.lower() == "true"
            case "null":
                return None
    except (ValueError, OverflowError):
        pass
    return text


def read(file: Path, name: str, known: Iterable[str] = ()) -> str:
    """The text of a case file; `known` are the names that may have been meant if there is none.

    Raises:
        CaseError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        close = get_close_matches(file.stem, known, n=1)
        hint = f"did you mean the shipped case {close[0]!r}?" if close else ""
        raise CaseError([Problem(name, f"cannot be read: {reason}", hint=hint)]) from None
    if len(content) > MAX_BYTES:
        raise CaseError([Problem(name, f"is larger than {MAX_BYTES // 1024} KiB")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = content[: e.start].count(b"\n") + 1
        raise CaseError([Problem(name, "is not UTF-8 text", line=line)]) from None


def compose(text: str, source: Source) -> Any:
    """The root of the text's tree of nodes.

    Raises:
        CaseError: it is not YAML, or more of it than a case may be.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    try:
        _count_events(yaml.parse(text), source)
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        raise CaseError(
            [
                Problem(
                    source.name,
                    f"is not YAML: {e.problem or e.context}",
                    line=mark.line + 1 if mark else None,
                    column=mark.column + 1 if mark else None,
                )
            ]
        ) from None
    except (YAMLError, ValueError, TypeError, AttributeError, KeyError, IndexError) as e:
        # The scanner has corners where malformed text trips it up in other ways.
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise CaseError([Problem(source.name, f"is not YAML: {reason}")]) from None
    if node is None:
        raise CaseError([Problem(source.name, "is empty")])
    return node


def _count_events(events: Any, source: Source) -> None:
    depth = documents = 0
    for count, event in enumerate(events):
        kind, mark = type(event).__name__, event.start_mark
        documents += kind == "DocumentStartEvent"
        if kind in ("MappingStartEvent", "SequenceStartEvent"):
            depth += 1
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            depth -= 1
        refused = {
            f"nests deeper than {MAX_NESTING}": depth > MAX_NESTING,
            f"has more than {MAX_EVENTS} parts": count > MAX_EVENTS,
            "holds more than one document": documents > 1,
            "uses an anchor or alias, which a case may not": bool(getattr(event, "anchor", None)),
            "uses a tag, which a case may not": bool(getattr(event, "tag", None)),
        }
        for message, is_so in refused.items():
            if is_so:
                raise CaseError([Problem(source.name, message, "", mark.line + 1, mark.column + 1)])


def override(raw: dict[str, Any], setting: str, source: Source) -> None:
    """Set the key of `raw` that `setting` names, as in `train.steps=50`.

    Raises:
        CaseError: it is no such setting, or there is no place for it.
    """
    path, equals, text = setting.partition("=")
    keys = tuple(part.strip() for part in path.split("."))
    inner = Source(f"--set {setting}")
    if not equals or not all(keys):
        raise CaseError([Problem(inner.name, "expected KEY=VALUE, such as train.steps=50")])
    try:
        value = inner.construct(compose(text, inner), ()) if text.strip() else None
    except RecursionError:
        raise CaseError([Problem(inner.name, "nests too deeply")]) from None
    target: Any = raw
    for i, key in enumerate(keys[:-1]):
        if target.get(key) is None:
            target[key] = {}
        target = target[key]
        if not isinstance(target, dict):
            raise CaseError([Problem(inner.name, "has no keys below it", ".".join(keys[: i + 1]))])
    target[keys[-1]] = value
    source.overridden[keys] = setting
