"""From YAML text to a checked `Case`; whatever is wrong is said with file, line, column and key.

YAML 1.2 through ruamel. The parser's events are counted before anything is composed, so text that
nests without end or repeats itself by aliases is refused while it is still small; scalars become
numbers, booleans, null or text here, and no other object can be made.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pde._names import components, laplacian_of, split_derivative

from . import _schema as schema
from ._expression import CONSTANTS, LAPLACIAN, Expression
from ._schema import Case

MAX_BYTES = 256 * 1024
MAX_NESTING = 30
MAX_EVENTS = 20_000
MAX_GRID = 10**9

Key = tuple[str | int, ...]


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


def shipped() -> dict[str, Path]:
    """The cases that ship, by name."""
    folder = Path(__file__).resolve().parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(
    path: str | os.PathLike[str], sets: Sequence[str] = (), memory_limit: int | None = None
) -> Case:
    """Read and check a case.

    **Arguments:**

    - `path`: a YAML file, or the name of a case that ships.
    - `sets`: overrides such as `"train.steps=50"`; the values are YAML.
    - `memory_limit`: bytes above which the case is refused; 80 % of the machine's memory if not
        given.

    **Raises:** `CaseError`, with all that is wrong.

    ```python
    >>> import cases
    >>> cases.load("burgers", ["train.steps=7"]).train.steps
    7
    >>> cases.load("burgers", ["train.stepz=7"])
    Traceback (most recent call last):
    ...
    cases._load.CaseError: --set train.stepz=7: train.stepz: unknown key; did you mean 'steps'?

    ```
    """
    file = Path(path)
    if not file.exists() and str(path) in shipped():
        file = shipped()[str(path)]
    source = _Source(str(file))
    node = _compose(_read(file, source.name), source)
    raw = source.construct(node, ())
    if not isinstance(raw, dict):
        raise source.error((), "expected a mapping of keys such as 'equation' and 'domain'")
    raw.setdefault("name", file.stem)
    for override in sets:
        _override(raw, override, source)
    try:
        case = Case.model_validate(raw)
    except ValidationError as e:
        raise CaseError(_translate(e, raw, source)) from None
    # What follows from another mistake is not said beside it.
    found = list(contradictions(case)) or list(_of_reference(case))
    if found:
        raise CaseError([source.problem(*p) for p in found])
    if isinstance(case.reference, schema.FileReference):
        case = _resolve_reference(case, case.reference, file.parent, source)
    limit = _physical_memory() * 4 // 5 if memory_limit is None else memory_limit
    if (estimate := case.memory_estimate()) > limit:
        raise source.error(
            ("sampler", "points"),
            f"the run would need about {estimate / 1e9:.3g} GB of memory; the limit is "
            f"{limit / 1e9:.3g} GB",
            "lower sampler.points, network.width or evaluate.grid, or raise --memory-limit",
        )
    return case


def dump(case: Case) -> str:
    """A case as YAML with everything spelled out; it loads to an equal case.

    ```python
    >>> import cases
    >>> "momentum: u_t + u*u_x - nu*u_xx" in cases.dump(cases.load("burgers"))
    True

    ```
    """
    import io

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    yaml.width = 1000
    out = io.StringIO()
    yaml.dump(case.model_dump(mode="json", exclude={"equation"}), out)
    return out.getvalue()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a case, for editors that complete keys.

    ```python
    >>> import cases
    >>> sorted(cases.json_schema()["required"])
    ['domain', 'train']

    ```
    """
    made = Case.model_json_schema()
    # A known equation stands for what is required otherwise, and the grid has a default.
    made["required"] = ["domain", "train"]
    made["anyOf"] = [{"required": ["equation"]}, {"required": ["unknowns", "equations"]}]
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return made


# --- text -----------------------------------------------------------------------------------------


@dataclass
class _Source:
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


def _read(file: Path, name: str) -> str:
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        close = get_close_matches(file.stem, shipped(), n=1)
        hint = f"did you mean the shipped case {close[0]!r}?" if close else ""
        raise CaseError([Problem(name, f"cannot be read: {reason}", hint=hint)]) from None
    if len(content) > MAX_BYTES:
        raise CaseError([Problem(name, f"is larger than {MAX_BYTES // 1024} KiB")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = content[: e.start].count(b"\n") + 1
        raise CaseError([Problem(name, "is not UTF-8 text", line=line)]) from None


def _compose(text: str, source: _Source) -> Any:
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


def _count_events(events: Any, source: _Source) -> None:
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


def _override(raw: dict[str, Any], override: str, source: _Source) -> None:
    path, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in path.split("."))
    inner = _Source(f"--set {override}")
    if not equals or not all(keys):
        raise CaseError([Problem(inner.name, "expected KEY=VALUE, such as train.steps=50")])
    try:
        value = inner.construct(_compose(text, inner), ()) if text.strip() else None
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
    source.overridden[keys] = override


# --- pydantic's errors, in words ------------------------------------------------------------------


def _translate(e: ValidationError, raw: dict[str, Any], source: _Source) -> list[Problem]:
    problems: dict[tuple[str, str], Problem] = {}
    for detail in e.errors(include_url=False):
        key = _plain_key(detail["loc"], raw)
        if (
            detail["type"] == "missing"
            and "equation" in raw
            and key[-1] in ("unknowns", "equations")
        ):
            continue  # the equation that was to bring them is what is wrong
        message, hint = _in_words(detail, key, raw)
        problem = source.problem(key, message, hint)
        # A union reports each alternative that failed; the first is enough.
        problems.setdefault((problem.key, problem.message.partition(",")[0]), problem)
    return list(problems.values())


def _plain_key(loc: tuple[str | int, ...], raw: Any) -> Key:
    """The path as the author wrote it: without the tags that pydantic puts in for unions."""
    key: list[str | int] = []
    at = raw
    for i, part in enumerate(loc):
        if isinstance(at, dict):
            if part in at:
                at = at[part]
            elif i < len(loc) - 1 or part == at.get("type") or part == "[key]":
                continue
            else:
                at = None
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
        else:
            continue
        key.append(part)
    return tuple(key)


def _in_words(detail: ErrorDetails, key: Key, raw: Any) -> tuple[str, str]:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    if kind == "missing":
        return "is required", ""
    if kind == "extra_forbidden":
        known = _keys_at(key[:-1], raw)
        return "unknown key", _did_you_mean(str(key[-1]), known)
    if kind in ("literal_error", "union_tag_invalid"):
        options = re.findall(
            r"'([^']+)'", str(context.get("expected", context.get("expected_tags")))
        )
        tag = context.get("tag", value)
        return f"expected one of {', '.join(options)}, got {tag!r}"[:400], _did_you_mean(
            str(tag), options
        )
    if kind == "union_tag_not_found":
        return "needs a 'type'", ""
    if kind == "value_error":
        error = context.get("error")
        return str(error), ""
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"expected a mapping, got {shown}", ""
    if kind == "string_pattern_mismatch":
        return f"{shown} is no name: letters and digits, beginning with a letter", ""
    if kind.startswith(("int_", "float_")) and kind.endswith(("parsing", "type", "from_float")):
        whole = "whole " if kind.startswith("int") else ""
        return f"expected a {whole}number, got {shown}", ""
    return f"{detail['msg'].removeprefix('Input ')}, got {shown}", ""


def _did_you_mean(word: str, options: Sequence[str]) -> str:
    close = get_close_matches(word, options, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(options)}" if 0 < len(options) <= 15 else ""


def _keys_at(key: Key, raw: Any) -> list[str]:
    """The keys that the model at a path knows."""
    annotation: Any = Case
    at: Any = raw
    for part in map(str, key):
        if isinstance(at, list):  # all its items are alike
            at = at[int(part)]
            continue
        model = _model(annotation, at)
        if model is not None:
            if part not in model.model_fields:
                return []
            annotation = model.model_fields[part].annotation
        else:  # a dictionary: its values
            annotation = next(get_args(a)[1] for a in _parts(annotation) if get_origin(a) is dict)
        at = at.get(part) if isinstance(at, dict) else None
    model = _model(annotation, at)
    return [] if model is None else list(model.model_fields)


def _parts(annotation: Any) -> Iterator[Any]:
    """The members of a union, through `Annotated` and `| None`."""
    arguments = get_args(annotation)
    if get_origin(annotation) is dict or not arguments:
        yield annotation
    elif hasattr(annotation, "__metadata__"):
        yield from _parts(arguments[0])
    else:
        for argument in arguments:
            yield from _parts(argument)


def _model(annotation: Any, at: Any) -> type[BaseModel] | None:
    models = [a for a in _parts(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
    tag = at.get("type") if isinstance(at, dict) else None
    for model in models:
        if "type" in model.model_fields:
            allowed = get_args(model.model_fields["type"].annotation)
            if tag in allowed:
                return model
    return models[0] if len(models) == 1 else None


# --- what a schema cannot say ---------------------------------------------------------------------


def contradictions(case: Case) -> Iterator[tuple[Key, str, str]]:
    """What is wrong between the parts of a case, each of them valid: key, message and hint."""
    unknowns = list(case.unknowns)
    names = [*_coordinates(case), *unknowns, *case.parameters]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield ("unknowns",), f"{name!r} is used twice among coordinates, unknowns, parameters", ""
    for name in sorted(set(names) & set(CONSTANTS)):
        yield ("parameters",), f"{name!r} is the constant; give it another name", ""
    for name in [n for v in case.vectors for n in _components(case, v) if n in case.domain]:
        yield ("domain", name), f"the coordinate {name!r} is given twice", "one is in a vector"
    for name, given in case.domain.items():
        lower, upper = given.interval if isinstance(given, schema.VectorInterval) else given
        if lower >= upper:
            yield ("domain", name), f"the interval [{lower}, {upper}] is empty", ""
    for name, equation in case.equations.items():
        yield from _unknown_names(("equations", name), equation, case, names, derivatives=True)
        if name in case.conditions:
            yield ("conditions", name), "an equation has the same name", ""
    for name, condition in case.conditions.items():
        yield from _of_condition(case, name, condition, names)
    for name, feature in case.network.features.items():
        yield from _unknown_names(("network", "features", name), feature, case, names, False)
    yield from _on_one_face(case)
    for name in set(case.weights) - set(case.equations):
        yield (
            ("weights", name),
            "no equation has this name",
            _did_you_mean(name, list(case.equations)),
        )
    for name in set(case.units) - set(_coordinates(case)) - set(unknowns):
        yield ("units", name), "no coordinate or unknown has this name", ""
    yield from _of_grid(case)
    spec = case.network
    if isinstance(spec, schema.PirateNet) and spec.embedding.features != spec.width:
        message = f"must be the network's width, {spec.width}"
        yield ("network", "embedding", "features"), message, ""
    yield from _of_optimizers(case)
    yield from _of_aggregator(case)


def _of_grid(case: Case) -> Iterator[tuple[Key, str, str]]:
    key, coordinates = ("evaluate", "grid"), list(case.coordinates)
    for name in [n for n in case.evaluate.grid if n not in coordinates]:
        yield (*key, name), "there is no such coordinate", _did_you_mean(name, coordinates)
    if not case.evaluate.points and set(coordinates) - set(case.evaluate.grid):
        shown = coordinates if len(coordinates) <= 8 else [*coordinates[:8], "..."]
        message = f"must name each coordinate once: {', '.join(shown)}"
        hint = "or give evaluate.points, and the grid is only what is drawn"
        yield key, message, hint
    size = math.prod(case.evaluate.grid.values())
    if size > MAX_GRID:
        yield key, f"has {size:.3g} points; {MAX_GRID:.0e} are allowed", "name fewer coordinates"


def _components(case: Case, name: str) -> tuple[str, ...]:
    return components(name, case.vectors[name]) if name in case.vectors else (name,)


def _of_optimizers(case: Case) -> Iterator[tuple[Key, str, str]]:
    key, (*before, last) = ("train", "optimizer"), case.train.optimizers
    if any(o.steps is None for o in before):
        message = "each optimizer of a list but the last needs its steps"
        yield key, message, "for example {type: adam, steps: 500}"
    if last.steps is not None:
        message = "the last optimizer, or the only one, takes what train.steps leaves it"
        yield key, message, "leave its steps out"


def _of_aggregator(case: Case) -> Iterator[tuple[Key, str, str]]:
    key, optimizers = ("train", "aggregator"), case.train.optimizers
    if case.train.aggregator is None:
        return
    if others := [o.type for o in optimizers if not isinstance(o, schema.Optax)]:
        message = (
            f"makes one gradient of several, and the optimizer {others[0]} does not descend "
            "along a gradient"
        )
        yield key, message, "take a first-order optimizer, such as adam, or leave it out"
    elif isinstance(case.train.aggregator, schema.MConFIG) and {o.type for o in optimizers} != {
        "sgd"
    }:
        message = "scales its steps as Adam does, and is an optimizer itself"
        yield key, message, "take the optimizer sgd, with the learning rate that Adam would have"
    if len(case.equations) + sum(not c.hard for c in case.conditions.values()) < 2:
        message = "has one residual block alone, and needs several gradients"
        yield key, message, "make a condition soft, or leave it out"


def _coordinates(case: Case) -> list[str]:
    """All coordinates and the vectors of some of them."""
    return [*case.coordinates, *case.vectors]


def _unknown_names(
    key: Key, text: Expression, case: Case, names: list[str], derivatives: bool
) -> Iterator[tuple[Key, str, str]]:
    unknowns, coordinates = list(case.unknowns), list(case.coordinates)
    if message := text.misuse_of_vectors(case.vectors):
        yield key, message, ""
    for name in sorted(text.names - set(names)):
        if name.startswith(LAPLACIAN + "("):
            if laplacian_of(name, unknowns) is None:
                yield (
                    key,
                    f"{name} is of no unknown",
                    _did_you_mean(name[len(LAPLACIAN) + 1 : -1], unknowns),
                )
            elif not derivatives:
                yield key, f"{name} is a derivative, which cannot stand here", ""
            continue
        split = split_derivative(name, unknowns, coordinates)
        if split is None:
            yield key, f"{name!r} is not known here", _did_you_mean(name, names)
        elif not derivatives:
            yield key, f"{name!r} is a derivative, which cannot stand here", ""
        elif len(split[1]) > 8:
            yield key, f"{name!r} is a derivative of an order above 8", ""
    if not derivatives:
        for name in sorted(text.names & set(unknowns)):
            yield key, f"{name!r} is an unknown, which cannot stand here", ""


def _of_condition(case: Case, name: str, condition: Any, names) -> Iterator[tuple[Key, str, str]]:
    key: Key = ("conditions", name)
    coordinates, unknowns = _coordinates(case), list(case.unknowns)
    stated = {"values": getattr(condition, "values", {}), "rates": getattr(condition, "rates", {})}
    for part, values in stated.items():
        for unknown, text in values.items():
            if unknown not in unknowns:
                hint = _did_you_mean(unknown, unknowns)
                yield (*key, part, unknown), "there is no such unknown", hint
            yield from _unknown_names((*key, part, unknown), text, case, names, derivatives=False)
    for coordinate, positions in getattr(condition, "at", {}).items():
        if coordinate not in coordinates:
            hint = _did_you_mean(coordinate, coordinates)
            yield (*key, "at", coordinate), "there is no such coordinate", hint
            continue
        faces = case.coordinates[_components(case, coordinate)[0]]
        for position in positions if isinstance(positions, tuple) else (positions,):
            if position not in faces:
                message = f"{position:g} is no face of the domain"
                yield (
                    (*key, "at", coordinate),
                    message,
                    f"faces are at {faces[0]:g} and {faces[1]:g}",
                )
    if isinstance(condition, schema.InitialCondition) and "t" not in case.coordinates:
        yield key, "an initial condition needs the coordinate t", ""
    if isinstance(condition, schema.PeriodicCondition) and condition.over not in case.coordinates:
        yield (
            (*key, "over"),
            "there is no such coordinate",
            _did_you_mean(condition.over, coordinates),
        )


def _on_one_face(case: Case) -> Iterator[tuple[Key, str, str]]:
    """Hard conditions that prescribe the same thing on the same face."""
    first: dict[tuple, str] = {}
    for name, condition in case.conditions.items():
        if not condition.hard:
            continue
        if isinstance(condition, schema.InitialCondition):
            places = [("t", "lower", 0, unknown) for unknown in condition.values]
            places += [("t", "lower", 1, unknown) for unknown in condition.rates]
        elif isinstance(condition, schema.PeriodicCondition):
            places = [
                (condition.over, side, 0, u) for side in ("lower", "upper") for u in case.unknowns
            ]
        else:
            order = int(isinstance(condition, schema.NeumannCondition))
            places = [
                (
                    coordinate,
                    "upper" if position == case.coordinates[coordinate][1] else "lower",
                    order,
                    u,
                )
                for named, positions in condition.at.items()
                for coordinate in _components(case, named)
                if coordinate in case.coordinates
                for position in (positions if isinstance(positions, tuple) else (positions,))
                for u in condition.values
            ]
        for place in places:
            if place in first:
                message = f"states the same as the hard condition {first[place]!r}, for {place[3]}"
                yield ("conditions", name), message, ""
                break
            first[place] = name


def _of_reference(case: Case) -> Iterator[tuple[Key, str, str]]:
    spec = case.reference
    unknowns = list(case.unknowns)
    names = [*_coordinates(case), *unknowns, *case.parameters]
    if case.evaluate.points and not isinstance(spec, schema.ExactReference | None):
        message = f"{spec.type} is known on grids alone, and cannot judge random points"
        yield ("evaluate", "points"), message, "leave it out, or give an exact reference"
    if isinstance(spec, schema.ExactReference):
        for unknown, text in spec.values.items():
            key: Key = ("reference", "values", unknown)
            if unknown not in unknowns:
                yield key, "there is no such unknown", _did_you_mean(unknown, unknowns)
            yield from _unknown_names(key, text, case, names, derivatives=False)
    elif isinstance(
        spec, schema.ColeHopfReference | schema.ETDRK4Reference | schema.SchrodingerReference
    ):
        of, end, start = {
            "cole_hopf": ("burgers", 1.0, {"u": "-sin(pi*x)"}),
            "etdrk4": ("allen_cahn", 1.0, {"u": "x^2*cos(pi*x)"}),
            "schrodinger": ("schrodinger", 5.0, {"u": "2/cosh(x)", "v": "0"}),
        }[spec.type]
        known = schema.EQUATIONS[of]
        formulas = {name: Expression(text) for name, text in known["equations"].items()}
        starts = [
            {n: e.text.replace(" ", "").replace("**", "^") for n, e in c.values.items()}
            for c in case.conditions.values()
            if isinstance(c, schema.InitialCondition)
        ]
        same = (
            dict(case.equations) == formulas
            and case.coordinates.get("x") == (-end, end)
            and case.coordinates.get("t", (None,))[0] == 0.0
            and starts == [start]
        )
        if not same:
            message = (
                f"{spec.type} is the solution of 'equation: {of}' for x in [{-end:g}, {end:g}] "
                f"from t = 0, {', '.join(f'{n} = {text}' for n, text in start.items())}, and this "
                "case is another"
            )
            yield ("reference", "type"), message, ""


def _resolve_reference(
    case: Case, spec: schema.FileReference, folder: Path, source: _Source
) -> Case:
    """The file's full path, if it lies in the case's folder, links followed."""
    key: Key = ("reference", "path")
    try:
        root = folder.resolve()
        path = (root / spec.path).resolve()
        inside, exists = path.is_relative_to(root), path.is_file()
    except (OSError, ValueError, RuntimeError) as e:
        raise source.error(key, f"cannot be looked up: {e}") from None
    if not inside:
        raise source.error(key, "lies outside the case's folder")
    if path.suffix not in (".nc", ".npz"):
        raise source.error(key, "must end in .nc or .npz")
    if not exists:
        raise source.error(key, "there is no such file")
    return case.model_copy(update={"reference": spec.model_copy(update={"path": path})})


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 8 * 10**9
