"""From a file to a checked case; whatever is wrong is said with file, line, column and key."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from . import _kinds as kinds
from ._explain import did_you_mean, explain
from ._model import AbstractCase, Complaint, located
from ._source import CaseError, Source, compose, override, read


def shipped() -> dict[str, Path]:
    """The cases that ship, by name."""
    folder = Path(__file__).resolve().parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(
    path: str | os.PathLike[str], sets: Sequence[str] = (), memory_limit: int | None = None
) -> Any:
    """Read and check a case, which comes as a model of its kind, such as [`cases.Case`][].

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
    cases._source.CaseError: --set train.stepz=7: train.stepz: unknown key; did you mean 'steps'?

    ```
    """
    file = Path(path)
    if not file.exists() and str(path) in shipped():
        file = shipped()[str(path)]
    source = Source(str(file))
    raw = source.construct(compose(read(file, source.name, shipped()), source), ())
    if not isinstance(raw, dict):
        raise source.error((), "expected a mapping of keys such as 'equation' and 'domain'")
    raw.setdefault("name", file.stem)
    for setting in sets:
        override(raw, setting, source)
    model = kinds.model(_kind(raw, source))
    try:
        case = model.model_validate(raw)
    except ValidationError as e:
        raise CaseError(explain(e, model, raw, source)) from None
    _refuse(case.contradictions(), source)
    for key, suffixes in case.files().items():
        try:
            case = case.with_value(key, located(file.parent, case.get(key), suffixes))
        except ValueError as e:
            raise source.error(key, str(e)) from None
    _refuse(case.contradictions_of_files(), source)
    limit = _physical_memory() * 4 // 5 if memory_limit is None else memory_limit
    if (estimate := case.memory_estimate()) > limit:
        key, hint = case.SHRINK
        raise source.error(
            key,
            f"the run would need about {estimate / 1e9:.3g} GB of memory; the limit is "
            f"{limit / 1e9:.3g} GB",
            hint,
        )
    return case


def _kind(raw: dict[str, Any], source: Source) -> str:
    kind = raw.get("kind", kinds.KINDS[0])
    if kind not in kinds.KINDS:
        message = f"expected one of {', '.join(kinds.KINDS)}, got {str(kind)[:40]!r}"
        raise source.error(("kind",), message, did_you_mean(str(kind), kinds.KINDS))
    return kind


def _refuse(complaints: Iterable[Complaint], source: Source) -> None:
    if found := [source.problem(*complaint) for complaint in complaints]:
        raise CaseError(found)


def dump(case: AbstractCase) -> str:
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
    yaml.dump(case.model_dump(mode="json", exclude=set(case.SHORTHANDS)), out)
    return out.getvalue()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a case of any kind, for editors that complete keys.

    ```python
    >>> import cases
    >>> kinds = [kind["$ref"].removeprefix("#/$defs/") for kind in cases.json_schema()["oneOf"]]
    >>> kinds[:5]
    ['pinn', 'transport', 'relax', 'family', 'bridge']
    >>> kinds[5:]
    ['neural_solver', 'simulate', 'control', 'minimise', 'experts']

    ```
    """
    definitions: dict[str, Any] = {}
    for kind in kinds.KINDS:
        made = kinds.model(kind).model_json_schema(ref_template=f"#/$defs/{kind}.{{model}}")
        definitions |= {f"{kind}.{name}": d for name, d in made.pop("$defs").items()}
        definitions[kind] = made
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds.KINDS],
        "$defs": definitions,
    }


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 8 * 10**9
