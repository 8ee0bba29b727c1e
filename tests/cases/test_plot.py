import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from cases._folder import NotARunError, RunFolder
from cases._plot import MAGNITUDE, SIGNED, draw_convergence, draw_field, plot, save
from cases._solution import open_solution, write_solution

ROOT = Path(__file__).resolve().parents[2]


def meshes(figure):
    return [mesh for ax in figure.axes for mesh in ax.collections if mesh.get_array() is not None]


def texts(figure):
    return [ax.get_title(loc) for ax in figure.axes for loc in ("left", "center")]


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
@pytest.mark.parametrize("reference", [True, False])
def test_every_number_of_coordinates_is_drawn(make_run, dims, reference):
    pictures = plot(make_run(dims=dims, reference=reference))
    assert [path.name for path in pictures] == ["u.png", "convergence.png"]
    for path in pictures:
        image = imread(path)
        assert min(image.shape[:2]) >= 400
        assert image[..., :3].std() > 0.05  # something is on it


def test_axes_carry_names_and_units_with_time_to_the_right(make_run):
    with open_solution(make_run() / "solution.nc") as solution:
        ax = draw_field(solution, "u").axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t [s]", "x [m]")


def test_solution_and_reference_share_one_colour_scale_and_the_error_is_symmetric(make_run):
    with open_solution(make_run() / "solution.nc") as solution:
        figure = draw_field(solution, "u")
    drawn, exact, error = meshes(figure)[:3]
    assert drawn.get_clim() == exact.get_clim()
    low, high = error.get_clim()
    assert low == -high
    assert high == pytest.approx(1e-4, rel=1e-6)
    assert error.get_cmap().name == SIGNED


def test_a_concentrated_error_is_drawn_in_decades(tmp_path):
    x, t = np.linspace(-1, 1, 101), np.linspace(0, 1, 11)
    exact = np.add.outer(x, t)
    error = np.outer(1e-3 * np.exp(-((x / 0.02) ** 2)), np.ones(11))
    path = write_solution(tmp_path / "s.nc", {"x": x, "t": t}, {"u": exact + error}, {"u": exact})
    with open_solution(path) as solution:
        mesh = meshes(draw_field(solution, "u"))[2]
    assert mesh.get_cmap().name == MAGNITUDE
    assert mesh.get_clim() == pytest.approx((-8, -3))


def test_missing_and_constant_values_are_drawn_all_the_same(tmp_path):
    x = np.linspace(0, 1, 8)
    exact = np.zeros((8, 8))
    u = exact.copy()
    u[2, 3], u[4, 4] = np.nan, np.inf
    path = write_solution(tmp_path / "s.nc", {"x": x, "y": x}, {"u": u}, {"u": exact})
    with open_solution(path) as solution:
        save(draw_field(solution, "u"), tmp_path / "u.png")
    assert (tmp_path / "u.png").stat().st_size > 10_000


def test_names_from_a_case_are_not_read_as_tex(tmp_path):
    x = np.linspace(0, 1, 8)
    units = {"x": r"$\frac{", "u": "$$"}
    path = write_solution(tmp_path / "s.nc", {"x": x}, {"u": x}, {"u": x + 1}, units)
    with open_solution(path) as solution:
        save(draw_field(solution, "u"), tmp_path / "u.png")
    save(draw_convergence([{"step": 0, "loss": 1.0, "residual": {"$_{": 1.0}}]), tmp_path / "c.png")


def test_convergence_shows_every_block_the_error_and_the_tolerance():
    history = [
        {"step": step, "loss": 10.0**-step, "residual": {"momentum": 0.1, "walls": 0.2},
         "error": {"u": 0.01}}
        for step in range(3)
    ]  # fmt: skip
    left, right = draw_convergence(history, tolerance=1e-4).axes
    assert [line.get_label() for line in left.lines] == ["loss", "momentum", "walls"]
    assert [line.get_label() for line in right.lines] == ["u", "tolerance 0.0001"]
    assert {left.get_yscale(), right.get_yscale()} == {"log"}
    np.testing.assert_array_equal(right.lines[1].get_ydata(), [1e-4, 1e-4])


def test_convergence_of_a_diverged_run_leaves_gaps():
    history = [
        {"step": 0, "loss": 1.0, "residual": {"a": 1.0}, "error": {"u": 1.0}},
        {"step": 1, "loss": None, "residual": {"a": None}},
    ]
    left, _ = draw_convergence(history).axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), [1.0, np.nan])


def test_a_run_with_nothing_to_draw_has_no_pictures(tmp_path):
    with RunFolder.create(tmp_path / "run") as run:
        run.write_text("case.yaml", "seed: 0\n")
    assert plot(tmp_path / "run") == []
    with pytest.raises(NotARunError):
        plot(tmp_path)


def test_drawing_leaves_pyplot_and_the_callers_settings_alone(make_run):
    code = f"""
import sys, matplotlib
settings = lambda: [matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"]
before = settings()  # to ask for the backend would choose one, and import pyplot for it
from cases._plot import plot
plot({str(make_run())!r})
assert settings() == before
print("matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
