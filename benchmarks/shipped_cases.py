"""Run every shipped case as it ships, most for three seeds, and write the README's table.

    python benchmarks/shipped_cases.py [CASE...]

Each run is a process of its own, so that wall time is what a person waits for after Python has
started, and compilation is paid by each. Results: `benchmarks/results/shipped_cases.json`, and the
table between the marks in `README.md`. With names, only those cases are run anew.
"""

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from _machine import publish, write

import cases
from cases._wording import errors

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "shipped_cases.json"
# One seed is enough for what only shows a method, or takes minutes and promises little.
ONE_SEED = {"burgers_config", "kovasznay_config", "schrodinger_nls", "poisson_quick"}
ONE_SEED |= {name for name in cases.shipped() if name.startswith("ot_")}
BEGIN, END = "<!-- table: shipped cases -->\n", "<!-- end -->"


def measure(name: str, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(ROOT / "cli.py"), "run", name,
            "--set", f"seed={seed}", "--out", f"{folder}/run",
        ]  # fmt: skip
        subprocess.run(command, check=True)
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
    return summary | {"date": datetime.now(UTC).date().isoformat()}


def row(summary: dict) -> str:
    worst = max(errors(summary).values())
    case = cases.load(summary["case"])
    return (
        f"| `{summary['case']}` | {case.description} | {summary['seed']} | {worst:.1e} "
        f"| {summary['tolerance']:.0e} | {summary['wall_seconds']:.0f} s "
        f"| {summary['compile_seconds']:.0f} s |\n"
    )


def main() -> None:
    old = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    wanted = sys.argv[1:] or list(cases.shipped())
    runs = [run for run in old if run["case"] not in wanted and run["case"] in cases.shipped()]
    for name in wanted:
        for seed in (0,) if name in ONE_SEED else (0, 1, 2):
            runs.append(measure(name, seed))
            # At once, so that a run that is stopped keeps what it has.
            keep(sorted(runs, key=lambda run: (run["case"], run["seed"])))


def keep(runs: list[dict]) -> None:
    write(RESULTS, {"runs": runs})
    head = "| case | | seed | relative error | tolerance | wall | of it compiling |\n"
    table = head + "|---|---|---|---|---|---|---|\n" + "".join(map(row, runs))
    publish(ROOT / "README.md", BEGIN, "\n" + table + "\n", END)


if __name__ == "__main__":
    main()
