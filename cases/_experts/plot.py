"""Pictures of a network with experts: one of the test's solutions, and how it was trained."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._folder import RunFolder
from .._kinds import Table
from .._plot import draw_convergence, draw_field
from .._solution import open_solution
from .._wording import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(run: RunFolder) -> "Iterator[tuple[str, Figure]]":
    """`u`, of the start whose error is the median, and `convergence`."""
    if run.solution.exists():
        with open_solution(run.solution) as solution:
            yield "u", draw_field(solution, "u")
    if history := run.history.read():
        tolerance = run.read_summary().get("tolerance")
        yield "convergence", draw_convergence(history, tolerance=tolerance)


def tables(run: RunFolder) -> list[Table]:
    """Errors over the test's starts."""
    said = run.read_summary()
    if "worst.u.relative_l2" not in said:
        return []
    rows = [
        ("mean", number(said["error.u.relative_l2"])),
        ("worst", number(said["worst.u.relative_l2"])),
        ("the reference's on half its cells", number(said["reference.relative_l2"])),
    ]
    return [Table("Relative L2 error, of starts that were not trained on", ("", "error"), rows)]
