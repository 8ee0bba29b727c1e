import numpy as np
import pytest
import xarray as xr

from cases._solution import field_names, open_solution, write_solution

X, T = np.linspace(-1, 1, 5), np.linspace(0, 1, 3)
U = np.add.outer(X, T)


def write(path, **extra):
    return write_solution(path, {"x": X, "t": T}, {"u": U}, **extra)


def test_xarray_reads_coordinates_units_and_attributes(tmp_path):
    path = write(
        tmp_path / "solution.nc",
        reference={"u": U - 0.25},
        units={"x": "m", "t": "seconds", "u": "m/s"},
        attrs={"title": "burgers", "case": "burgers.yaml", "sciopt_version": "0.1.0"},
    )
    with xr.open_dataset(path) as solution:
        assert dict(solution.sizes) == {"x": 5, "t": 3}
        assert solution["u"].dims == ("x", "t")
        assert set(solution) == {"u", "u_reference", "u_error"}
        np.testing.assert_array_equal(solution["x"], X)
        np.testing.assert_array_equal(solution["u"], U)
        np.testing.assert_array_equal(solution["u_error"], U - (U - 0.25))
        assert {name: solution[name].attrs["units"] for name in ("x", "u", "u_error")} == {
            "x": "m", "u": "m/s", "u_error": "m/s",
        }  # fmt: skip
        assert solution["u_reference"].attrs["long_name"] == "reference of u"
        assert solution.attrs["title"] == "burgers"
        assert solution.attrs["Conventions"].startswith("CF-")
        assert "written by sciopt" in solution.attrs["history"]
    with open_solution(path) as solution:
        assert solution["t"].dtype == np.float64  # a clock, not a calendar
        assert field_names(solution) == ["u"]


def test_units_default_to_one_and_the_reference_may_be_absent(tmp_path):
    with xr.open_dataset(write(tmp_path / "solution.nc")) as solution:
        assert set(solution) == {"u"}
        assert solution["u"].attrs["units"] == "1"


def test_precision_is_kept(tmp_path):
    path = write_solution(
        tmp_path / "s.nc", {"x": X.astype(np.float32)}, {"u": X.astype(np.float32)}
    )
    with xr.open_dataset(path) as solution:
        assert solution["u"].dtype == np.float32


def test_a_wrong_shape_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"u has shape \(3, 5\), but the grid has \(5, 3\)"):
        write_solution(tmp_path / "s.nc", {"x": X, "t": T}, {"u": U.T})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_solution_is_replaced_whole(tmp_path):
    write(tmp_path / "s.nc")
    write_solution(tmp_path / "s.nc", {"x": X}, {"v": X})
    with xr.open_dataset(tmp_path / "s.nc") as solution:
        assert set(solution) == {"v"}
    assert [path.name for path in tmp_path.iterdir()] == ["s.nc"]
