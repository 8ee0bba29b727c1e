"""`report.html`: a run on one page that stands alone — pictures, styles and all in one file.

It is made from the folder alone, so it can be made again later, and of a run that did not finish.
The page's words come from a case that may be hostile: jinja2 escapes every one, and the page's own
content security policy lets nothing run or load.
"""

import base64
import os
import struct
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from . import _kinds as kinds
from ._folder import RunFolder
from ._plot import plot
from ._wording import MOODS, NOTHING, errors, measure, number, seconds, size, verdict


def report(folder: str | os.PathLike[str]) -> Path:
    """Draw the pictures of the run in `folder` and write its `report.html`; return the path.

    Raises:
        NotARunError: there is no run in `folder`.

    >>> import tempfile
    >>> with RunFolder.create(Path(tempfile.mkdtemp()) / "run") as run:
    ...     _ = run.write_json("summary.json", {"status": "interrupted", "case": "heat"})
    ...     report(run.path).name
    'report.html'
    """
    import jinja2

    run = RunFolder.open(folder)
    pictures = [_picture(path) for path in plot(folder)]
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(files("cases").joinpath("report.html.jinja").read_text(encoding="utf-8"))
    return run.write_text("report.html", template.render(pictures=pictures, **_words(run)))


def _words(run: RunFolder) -> dict[str, Any]:
    summary = run.read_summary()
    provenance = run.read_provenance()
    case = run.case.read_text(encoding="utf-8") if run.case.is_file() else ""
    raw = run.read_case()
    judged = verdict(summary)
    return {
        "title": str(summary.get("case") or run.path.resolve().name),
        "status": run.status,
        "mood": MOODS.get(run.status, "wait"),
        "description": str(raw.get("description") or ""),
        "verdict": judged
        and {"text": judged.text[0].upper() + judged.text[1:] + ".", "mood": _mood(judged.good)},
        "advice": summary.get("advice"),
        "numbers": _numbers(summary),
        "tables": kinds.plot(raw.get("kind")).tables(run),
        "summary": _rows(summary),
        "case": case,
        "provenance": _rows(provenance),
        "version": (provenance.get("versions") or {}).get("sciopt"),
    }


def _mood(good: bool) -> str:
    return "good" if good else "bad"


def _numbers(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few that people look for first."""
    shown = []

    def show(name: str, value: str, note: str = "") -> None:
        shown.append({"name": name, "value": value, "note": note})

    tolerance = summary.get("tolerance")
    for field, error in errors(summary).items():
        note = "" if tolerance is None else f"tolerance {number(tolerance)}"
        show(f"{measure(summary)} of {field}", number(error), note)
    if isinstance(summary.get("residual"), int | float):
        show("residual", number(summary["residual"]))
    if "steps" in summary:
        show("steps", str(summary["steps"]))
    if "wall_seconds" in summary:
        compiling = summary.get("compile_seconds")
        note = "" if compiling is None else f"of it {seconds(compiling)} compiling"
        show("wall time", seconds(summary["wall_seconds"]), note)
    if summary.get("peak_memory_bytes") is not None:
        show("peak memory", size(summary["peak_memory_bytes"]))
    return shown


def _rows(content: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested mappings as dotted names, so that each value has a line."""
    rows = []
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            rows += _rows(value, f"{name}.")
        elif isinstance(value, list):
            rows.append((name, " ".join(map(str, value))))
        else:
            rows.append((name, NOTHING if value is None else str(value)))
    return rows


def _picture(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    kind = path.suffix.removeprefix(".")
    # GIF's head and PNG's first chunk (IHDR) hold the size; given to the browser, the page does
    # not jump.
    form, start = ("<HH", 6) if kind == "gif" else (">II", 16)
    width, height = struct.unpack_from(form, content, start)
    name = path.stem
    alt = "Convergence over the steps" if name == "convergence" else f"A picture of {name}"
    return {
        "kind": kind, "alt": alt, "base64": base64.b64encode(content).decode(),
        "width": width, "height": height,
    }  # fmt: skip
