import io

import numpy as np
import pytest

from cases._compare import compare, draw_comparison, print_comparison
from cases._folder import NotARunError, RunFolder


def test_runs_are_set_side_by_side_with_their_differing_keys(make_run):
    result = compare([make_run("narrow"), make_run("wide", width=40, seed=1, scale=2.0)])
    assert result.names == ("narrow", "wide")
    assert result.rows["relative L2 error of u"] == ("1.0e-04", "2.0e-04")
    assert result.rows["wall time"] == ("12.0 s", "12.0 s")
    assert result.differing == {"seed": ("0", "1"), "network.width": ("20", "40")}
    assert result.plot is not None
    assert result.plot.name == "compare-narrow-wide.png"
    assert result.plot.stat().st_size > 10_000


def test_the_picture_goes_where_it_is_asked_to(make_run, tmp_path):
    assert compare([make_run()], tmp_path / "a.png").plot == tmp_path / "a.png"
    assert (tmp_path / "a.png").exists()


def test_runs_of_the_same_name_are_told_apart(make_run):
    result = compare([make_run("x/run"), make_run("y/run")])
    assert result.names == ("x/run", "y/run")
    assert result.plot is not None
    assert result.plot.name == "compare-x-run-y-run.png"


def test_one_run_twice_is_still_two_columns(make_run):
    path = make_run()
    assert compare([path, path]).names == ("run (1)", "run (2)")


def test_an_unfinished_run_takes_part_with_what_it_has(make_run, tmp_path):
    with RunFolder.create(tmp_path / "dead") as run:
        run.write_text("case.yaml", "description: [unclosed\n")
    result = compare([make_run(), tmp_path / "dead"])
    assert result.rows["status"] == ("completed", "unfinished")
    assert result.rows["residual"][1] == "—"
    assert result.differing == {}


def test_runs_without_a_history_have_no_picture(tmp_path):
    with RunFolder.create(tmp_path / "dead") as run:
        run.write_text("case.yaml", "seed: 0\n")
    assert compare([tmp_path / "dead"]).plot is None


def test_every_folder_that_is_no_run_is_named(make_run, tmp_path):
    with pytest.raises(NotARunError, match=r"one.*two"):
        compare([tmp_path / "one", make_run(), tmp_path / "two"])
    with pytest.raises(ValueError, match="no run to compare"):
        compare([])


def test_histories_are_laid_over_step_and_over_seconds():
    histories = [
        [
            {"step": s, "loss": 1.0, "error": {"u": 0.1, "v": 0.3}, "seconds": 5.0 * s}
            for s in (1, 2)
        ],
        [{"step": s, "loss": 2.0, "error": {}, "seconds": 1.0 * s} for s in (1, 2)],
    ]
    axes = draw_comparison(["a", "b"], histories, tolerance=1e-3).axes
    assert [ax.get_xlabel() for ax in axes] == ["step", "seconds"] * 2
    assert np.asarray(axes[1].lines[0].get_xdata()).tolist() == [5.0, 10.0]
    assert np.asarray(axes[2].lines[0].get_ydata()).tolist() == [0.3, 0.3]  # the worst field


def test_the_table_is_plain_and_unfolded_off_a_terminal(make_run):
    out = io.StringIO()
    names = [f"a-run-with-a-rather-long-name-{number}[red]" for number in range(6)]
    print_comparison(compare([make_run(name, seed=i) for i, name in enumerate(names)]), out)
    header = out.getvalue().splitlines()[1]
    assert all(name in header for name in names)
    assert "\x1b" not in out.getvalue()
    assert "plot  " in out.getvalue()
