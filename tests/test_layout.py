"""Claims about the house: imports point one way, and importing does nothing."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("sciopt", "pde", "transport", "cases", "cli")
MAY_IMPORT = {
    "sciopt": set(),
    "pde": {"sciopt"},
    "transport": {"sciopt"},
    "cases": {"sciopt", "pde", "transport"},
    "cli": {"cases"},
}

PACKAGES = [
    "cases", "pde", "pde.grid", "pde.operators", "pde.spectral", "sciopt", "sciopt.aggregate",
    "sciopt.damped", "sciopt.losses", "sciopt.relax", "transport", "transport.bridge",
]  # fmt: skip


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    files = [ROOT / "cli.py"] if room == "cli" else sorted((ROOT / room).rglob("*.py*"))
    files = [file for file in files if file.suffix in (".py", ".pyi")]
    assert files
    for file in files:
        others = imported(file) & set(ROOMS) - {room}
        assert others <= MAY_IMPORT[room], f"{file.name} imports {others - MAY_IMPORT[room]}"


def test_importing_compiles_nothing_and_touches_no_device():
    script = f"""
import importlib, jax
events = []
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.append(event))
import cli
for name in {PACKAGES}:
    package = importlib.import_module(name)
    for public in package.__all__:
        getattr(package, public)     # lazy exports become real
from jax._src import xla_bridge
print([e for e in events if "compile" in e], xla_bridge.backends_are_initialized())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[] False", done.stderr


@pytest.mark.parametrize("room", PACKAGES)
def test_every_public_name_has_a_docstring(room):
    package = importlib.import_module(room)
    assert package.__all__
    for name in package.__all__:
        documented = getattr(package, name).__doc__
        assert documented, f"{room}.{name}"
        assert len(documented) > 20, f"{room}.{name}"


def test_no_room_is_called_utils():
    for room in ROOMS[:-1]:
        for path in (ROOT / room).rglob("*.py"):
            assert path.stem.strip("_") not in {"utils", "helpers", "common", "misc", "base"}


def test_nothing_evaluates_or_pickles_text():
    for room in ROOMS[:-1]:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in {"eval", "exec", "compile", "__import__"}, path
            assert not imported(path) & {"pickle", "dill", "cloudpickle", "sympy", "shelve"}, path


def test_ci_runs_the_readme_s_test_command():
    readme = (ROOT / "README.md").read_text().splitlines()
    (command,) = [line for line in readme if line.endswith("-m pytest -n auto")]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_what_the_pages_link_to_is_there():
    """Pages and pictures inside of the repository, and that the gallery has what was measured."""
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
    shown = set(re.findall(r"### `(\w+)`", (ROOT / "docs" / "gallery.md").read_text()))
    stored = json.loads((ROOT / "benchmarks/results/shipped_cases.json").read_text())["runs"]
    assert shown == {run["case"] for run in stored}
