"""`solution.nc`: the fields on a grid with their reference and error, as CF-style NetCDF-4.

xarray is imported inside the functions: it costs most of a second, and `cli.py check` has one.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ._atomic import replacing

if TYPE_CHECKING:
    import xarray as xr

REFERENCE, ERROR = "_reference", "_error"


def write_solution(
    path: str | os.PathLike[str],
    axes: Mapping[str, ArrayLike],
    fields: Mapping[str, ArrayLike],
    reference: Mapping[str, ArrayLike] | None = None,
    units: Mapping[str, str] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Path:
    """Write the solution's Dataset to `path` atomically, through h5netcdf.

    Parameters:
        axes: coordinate -> points (n_i,), in the order of the domain; they become the dimensions.
        fields: unknown -> values (n_1, n_2, ...).
        reference: unknown -> values of the same shape, for the unknowns that have a reference;
            each adds `<u>_reference` and `<u>_error` (computed minus reference).
        units: name -> unit, for coordinates and unknowns; `"1"` where it says nothing.
        attrs: global attributes, over the defaults (`Conventions`, `history`).

    Raises:
        ValueError: an array's shape is not the grid's.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "solution.nc"
    >>> x = np.linspace(0, 1, 3)
    >>> _ = write_solution(path, {"x": x}, {"u": x**2}, {"u": x**2 + 1e-6}, {"x": "m"})
    >>> with open_solution(path) as solution:
    ...     sorted(map(str, solution)), solution["x"].attrs["units"]
    (['u', 'u_error', 'u_reference'], 'm')
    """
    import xarray as xr

    units = units or {}
    grid = {name: np.asarray(points) for name, points in axes.items()}
    shape = tuple(len(points) for points in grid.values())

    def variable(values: ArrayLike, unit: str, long_name: str):
        values = np.asarray(values)
        if values.shape != shape:
            raise ValueError(f"{long_name} has shape {values.shape}, but the grid has {shape}")
        return (tuple(grid), values, {"units": unit, "long_name": long_name})

    variables = {}
    for name, values in fields.items():
        unit = units.get(name, "1")
        variables[name] = variable(values, unit, name)
        if reference is not None and name in reference:
            exact = np.asarray(reference[name])
            error = np.asarray(values) - exact
            variables[name + REFERENCE] = variable(exact, unit, f"reference of {name}")
            variables[name + ERROR] = variable(
                error, unit, f"error of {name}, computed minus reference"
            )
    coordinates = {
        name: (name, points, {"units": units.get(name, "1"), "long_name": name})
        for name, points in grid.items()
    }
    defaults = {
        "Conventions": "CF-1.11",
        "history": f"{datetime.now(UTC).isoformat(timespec='seconds')} written by sciopt",
    }
    dataset = xr.Dataset(variables, coordinates, {**defaults, **(attrs or {})})
    with replacing(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf")
    return Path(path)


def open_solution(path: str | os.PathLike[str]) -> "xr.Dataset":
    """The Dataset at `path`, read lazily; close it, or use it as a context manager.

    A time in `seconds` stays a number: a model's clock is not a calendar.

    Raises:
        FileNotFoundError: there is no such file.
    """
    import xarray as xr

    return xr.open_dataset(path, engine="h5netcdf", decode_times=False)


def field_names(solution: "xr.Dataset") -> list[str]:
    """The unknowns in a solution: its variables, without the references and errors of others."""
    derived = {f"{name}{suffix}" for name in solution for suffix in (REFERENCE, ERROR)}
    return [str(name) for name in solution if name not in derived]
