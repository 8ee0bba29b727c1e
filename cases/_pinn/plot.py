"""Pictures of a case of a network: its fields, and how training went."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .._folder import RunFolder
from .._kinds import Table
from .._plot import draw_convergence, draw_field
from .._solution import ERROR, REFERENCE, field_names, open_solution
from .._wording import NOTHING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(run: RunFolder) -> "Iterator[tuple[str, Figure]]":
    """Each field of `solution.nc`; and `convergence`, where there is a history."""
    if run.solution.exists():
        with open_solution(run.solution) as solution:
            for field in field_names(solution):
                yield field, draw_field(solution, field)
    if history := run.history.read():
        tolerance = run.read_summary().get("tolerance")
        yield "convergence", draw_convergence(history, tolerance=tolerance)


def tables(run: RunFolder) -> list[Table]:
    """The inferred parameters, and the errors over a family, if there are any."""
    return [*_inferred(run), *_family(run)]


def _family(run: RunFolder) -> list[Table]:
    """Of each field the relative L2 error at each value of a parameter that has a range."""
    parameters = run.read_case().get("parameters") or {}
    ranged = [n for n, given in parameters.items() if isinstance(given, dict) and "range" in given]
    made = []
    if run.solution.exists():
        with open_solution(run.solution) as solution:
            fields = [f for f in field_names(solution) if f + REFERENCE in solution]
            for name in [n for n in ranged if fields and n in solution.coords]:
                rest = [d for d in solution.dims if d != name]
                errors = [
                    np.sqrt(
                        (solution[f + ERROR] ** 2).sum(rest)
                        / (solution[f + REFERENCE] ** 2).sum(rest)
                    )
                    for f in fields
                ]
                values = solution[name].to_numpy()
                rows = [
                    (f"{value:.4g}", *(f"{float(e[i]):.1e}" for e in errors))
                    for i, value in enumerate(values)
                ]
                made.append(Table(f"Relative L2 error over {name}", (name, *fields), rows))
    return made


def _inferred(run: RunFolder) -> list[Table]:
    summary, case = run.read_summary(), run.read_case()
    ends = {"value": ".value", "deviation": ".deviation"}
    names = [
        key.removeprefix("inferred.").removesuffix(ends["value"])
        for key in summary
        if key.startswith("inferred.") and key.endswith(ends["value"])
    ]
    rows = []
    for name in names:
        value, deviation = (summary.get(f"inferred.{name}{end}") for end in ends.values())
        truth = ((case.get("parameters") or {}).get(name) or {}).get("truth")
        shown = (value, deviation, truth)
        rows.append((name, *(NOTHING if x is None else f"{float(x):.6g}" for x in shown)))
    head = ("parameter", "value", "standard deviation", "truth")
    return [Table("Inferred parameters", head, rows)] if rows else []
