"""Data of a case: columns of a file, or values of its reference with noise. NumPy alone.

A file may come from a stranger: see `_measures/atoms.py`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._measures.atoms import MAX_BYTES, arrays, finite

Columns = dict[str, np.ndarray]


def read(file: Path, names: Sequence[str]) -> Columns:
    """Columns of one length, by name.

    Raises:
        ValueError: it cannot be read, lacks one, or one holds NaN.
    """
    match file.suffix:
        case ".csv":
            found = _csv(file, names)
        case ".npz":
            found = arrays(file, *names)
        case _:
            found = _netcdf(file, names)
    columns = {name: finite(name, values) for name, values in found.items()}
    shapes = {name: values.shape for name, values in columns.items()}
    first = columns[names[0]].shape
    if len(first) != 1 or not first[0]:
        raise ValueError(f"`{names[0]}` has the shape {first}; a vector is expected")
    for name, shape in shapes.items():
        if shape != first:
            raise ValueError(f"`{name}` has the shape {shape}, and `{names[0]}` {first}")
    return columns


def _csv(file: Path, names: Sequence[str]) -> Columns:
    if file.stat().st_size > MAX_BYTES // 8:
        raise ValueError(f"is larger than {MAX_BYTES // 8 / 1e6:.3g} MB; take an .npz")
    try:
        with open(file, encoding="utf-8-sig") as stream:
            head = [name.strip().strip('"') for name in stream.readline().split(",")]
        if missing := [name for name in names if name not in head]:
            shown = ", ".join(head[:8])[:200]
            raise ValueError(f"has no column `{missing[0]}`; its first line is {shown}")
        places = [head.index(name) for name in names]
        table = np.loadtxt(
            file, delimiter=",", ndmin=2, skiprows=1, usecols=places, encoding="utf-8-sig"
        )
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    return dict(zip(names, table.T, strict=True))


def _netcdf(file: Path, names: Sequence[str]) -> Columns:
    import xarray as xr

    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES / 1e6:.3g} MB")
    try:
        with xr.open_dataset(file, engine="h5netcdf", decode_times=False) as held:
            if missing := [name for name in names if name not in held]:
                raise ValueError(f"has no variable `{missing[0]}`")
            if any(held[name].nbytes > MAX_BYTES for name in names):
                raise ValueError(f"holds more than {MAX_BYTES / 1e6:.3g} MB in one variable")
            return {name: held[name].to_numpy() for name in names}
    except (OSError, TypeError, KeyError) as e:
        raise ValueError(f"cannot be read: {e}") from None


def generate(
    points: np.ndarray,
    coordinates: Sequence[str],
    observe: Sequence[str],
    reference: Any,
    noise: float,
    rng: np.random.Generator,
) -> Columns:
    """What the reference says at points, with noise of a standard deviation.

    Raises:
        ValueError: the reference lacks an unknown, or is known on grids alone and not the plane.
    """
    columns: Mapping[str, np.ndarray] = dict(zip(coordinates, points.T, strict=True))
    if hasattr(reference, "at"):
        found = reference.at(columns, len(points))
    elif len(columns) <= 2 and len(points) ** len(columns) <= 4 * 10**6:
        # Of the grid through all points those on its diagonal.
        order = [np.unique(column, return_inverse=True) for column in columns.values()]
        whole = reference(dict(zip(columns, (values for values, _ in order), strict=True)))
        found = {name: u[tuple(place for _, place in order)] for name, u in whole.items()}
    else:
        raise ValueError(
            "this reference is known on grids alone, and cannot be asked at so many points in so "
            "many coordinates"
        )
    if missing := [name for name in observe if name not in found]:
        raise ValueError(f"the reference has no {missing[0]}")
    return {name: found[name] + noise * rng.normal(size=len(points)) for name in observe}
