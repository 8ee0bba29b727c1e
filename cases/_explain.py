"""Pydantic's errors, said in the words of the person who wrote the case."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ._model import AbstractCase, Key
from ._source import Problem, Source


def explain(
    e: ValidationError, model: type[AbstractCase], raw: dict[str, Any], source: Source
) -> list[Problem]:
    """All that is wrong with the raw case that `model` refused."""
    problems: dict[tuple[str, str], Problem] = {}
    for detail in e.errors(include_url=False):
        # Where no member of a union fits, the path ends in tags alone.
        tagged = detail["type"].startswith("union_tag")
        key = _plain_key(detail["loc"], raw, keep_last=not tagged)
        if detail["type"] == "missing" and model.follows_from(key, raw):
            continue
        message, hint = _in_words(detail, key, model, raw)
        problem = source.problem(key, message, hint)
        # A union reports each alternative that failed; the first is enough.
        problems.setdefault((problem.key, problem.message.partition(",")[0]), problem)
    return list(problems.values())


def _plain_key(loc: tuple[str | int, ...], raw: Any, keep_last: bool) -> Key:
    """The path as the author wrote it: without the tags that pydantic puts in for unions."""
    key: list[str | int] = []
    at = raw
    for i, part in enumerate(loc):
        if isinstance(at, dict):
            if part in at:
                at = at[part]
            elif not keep_last or i < len(loc) - 1 or part == at.get("type") or part == "[key]":
                continue
            else:
                at = None
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
        else:
            continue
        key.append(part)
    return tuple(key)


def _in_words(
    detail: ErrorDetails, key: Key, model: type[AbstractCase], raw: Any
) -> tuple[str, str]:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    if kind == "missing":
        return "is required", ""
    if kind == "extra_forbidden":
        known = _keys_at(key[:-1], model, raw)
        return "unknown key", did_you_mean(str(key[-1]), known)
    if kind in ("literal_error", "union_tag_invalid"):
        options = re.findall(
            r"'([^']+)'", str(context.get("expected", context.get("expected_tags")))
        )
        tag = context.get("tag", value)
        return f"expected one of {', '.join(options)}, got {tag!r}"[:400], did_you_mean(
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


def did_you_mean(word: str, options: Sequence[str]) -> str:
    """The option nearest to a word, or what the options are; nothing where they are many.

    >>> did_you_mean("adma", ["adam", "lion"]), did_you_mean("x", ["adam", "lion"])
    ("did you mean 'adam'?", 'known are adam, lion')
    """
    close = get_close_matches(word, options, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(options)}" if 0 < len(options) <= 15 else ""


def _keys_at(key: Key, case: type[AbstractCase], raw: Any) -> list[str]:
    """The keys that the model at a path knows."""
    annotation: Any = case
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
