"""Atoms of measures: read from files, or made from their law. NumPy alone.

A file may come from a stranger. Nothing is unpickled; how much a file holds is looked up before it
is read, and all that is wrong is said as `what; remedy`.
"""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .schema import (
    Atoms,
    Colours,
    Digit,
    Generator,
    Histogram,
    Image,
    Points,
)

# What a file may hold once it is unpacked.
MAX_BYTES = 512 * 2**20
MAX_PIXELS = 4 * 10**6

Numbers = NDArray[np.float64]


class Atomic(NamedTuple):
    """A measure on finitely many points; those without mass are left out.

    - `points`: (n, d); d is 0 where atoms have no position.
    - `weights`: (n,), all positive.
    - `grid`, `cells`: where the atoms are cells of a grid, its shape, and their places in it.
    """

    points: Numbers
    weights: Numbers
    grid: tuple[int, ...] = ()
    cells: NDArray[np.intp] = np.zeros(0, np.intp)


def count(spec: Any) -> int:
    """How many atoms a measure has. What is generated is counted without making it."""
    if isinstance(spec, Generator | Atoms):
        return spec.points
    return len(read(spec).weights)


def read(spec: Any) -> Atomic:
    """The measure that `spec` describes.

    Raises:
        ValueError: its file cannot be read, or holds no measure.
    """
    match spec:
        case Points():
            return _of_points(spec)
        case Histogram():
            return _of_histogram(spec)
        case Image():
            brightness = grey(pixels(spec.file))
            return on_grid(1 - brightness if spec.invert else brightness, spec.ground)
        case Digit():
            return on_grid(draw_digit(spec.number, spec.side, spec.seed), spec.ground)
        case Colours():
            colours = pixels(spec.file).reshape(-1, 3)
            chosen = np.random.default_rng(spec.seed).permutation(len(colours))[: spec.points]
            return _uniform(colours[chosen])
        case Generator():
            return _uniform(generate(spec))
        case Atoms():
            return _uniform(np.zeros((spec.points, 0)))
    raise AssertionError(spec)


# --- files ----------------------------------------------------------------------------------------


def _of_points(spec: Points) -> Atomic:
    if spec.file.suffix == ".npz":
        found = arrays(spec.file, "points", *(["weights"] if spec.weighted else []))
        points, weights = found["points"], found.get("weights")
    else:
        points, weights = _table(spec.file), None
        if spec.weighted:
            if points.shape[1] < 2:
                raise ValueError("has one column, which cannot be both points and weights")
            points, weights = points[:, :-1], points[:, -1]
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"the points have shape {points.shape}; a row for each is expected")
    points = finite("points", points)
    if weights is None:
        return _uniform(points)
    if weights.shape != points.shape[:1]:
        raise ValueError(f"there are {len(points)} points and weights of shape {weights.shape}")
    weights = masses("weights", weights, spec.normalise)
    return Atomic(points[weights > 0], weights[weights > 0])


def _of_histogram(spec: Histogram) -> Atomic:
    if spec.values is not None:
        values = np.asarray(spec.values, float)
    elif spec.file is not None and spec.file.suffix == ".npz":
        values = arrays(spec.file, "values")["values"]
    else:
        assert spec.file is not None
        values = _table(spec.file)
        values = values[:, 0] if values.shape[1] == 1 else values
    if values.ndim != 1:
        raise ValueError(f"the values have shape {values.shape}; one number a cell is expected")
    weights = masses("values", values, spec.normalise)
    low, high = spec.support
    middles = low + (high - low) * (np.arange(len(weights)) + 0.5) / len(weights)
    cells = np.flatnonzero(weights)
    return Atomic(middles[cells, None], weights[cells], weights.shape, cells)


def masses(name: str, values: NDArray[Any], normalise: bool) -> Numbers:
    """Weights that are finite, not negative, and not all zero."""
    weights = finite(name, values)
    if (weights < 0).any():
        raise ValueError(f"`{name}` holds negative mass ({weights.min():.3g} is the least)")
    if not weights.sum() > 0:
        raise ValueError(f"`{name}` holds no mass")
    return weights / weights.sum() if normalise else weights


def finite(name: str, values: NDArray[Any]) -> Numbers:
    """Values as real numbers.

    Raises:
        ValueError: they are none, or some are not finite.
    """
    if values.dtype.kind not in "fiub":
        raise ValueError(f"`{name}` holds no real numbers, but {values.dtype}")
    values = values.astype(float)
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"`{name}` holds NaN or infinity, in {bad} of {values.size} places")
    return values


def arrays(file: Path, *names: str) -> dict[str, NDArray[Any]]:
    """The arrays of these names in an `.npz`.

    Raises:
        ValueError: it cannot be read, holds more than it may, or lacks one.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            held = sum(entry.file_size for entry in archive.infolist())
        if held > MAX_BYTES:
            raise ValueError(f"holds {held / 1e6:.3g} MB; {MAX_BYTES / 1e6:.3g} MB are allowed")
        with np.load(file, allow_pickle=False) as archive:
            if missing := [name for name in names if name not in archive]:
                there = ", ".join(archive.files[:8]) or "nothing"
                raise ValueError(f"has no array `{missing[0]}`; it holds {there}")
            return {name: archive[name] for name in names}
    except zipfile.BadZipFile:
        raise ValueError("is no .npz archive") from None
    except (OSError, EOFError, KeyError, MemoryError, NotImplementedError, RuntimeError) as e:
        raise ValueError(f"cannot be read: {e}") from None
    except ValueError as e:
        if "allow_pickle" in str(e):
            message = "holds pickled objects, which are never read; save plain arrays of numbers"
            raise ValueError(message) from None
        raise


def _table(file: Path) -> Numbers:
    if file.stat().st_size > MAX_BYTES // 8:
        raise ValueError(f"is larger than {MAX_BYTES // 8 / 1e6:.3g} MB; take an .npz")
    try:
        with open(file, encoding="utf-8-sig") as stream:
            first = stream.readline()
        if not first:
            raise ValueError("there is nothing in it")
        titled = any(c.isalpha() for c in first.lower().replace("nan", "").replace("e", ""))
        return np.loadtxt(file, delimiter=",", ndmin=2, skiprows=int(titled), encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except ValueError as e:
        raise ValueError(f"is no table of numbers with commas: {e}".replace(";", ",")) from None


def pixels(file: Path) -> Numbers:
    """A picture as red, green and blue in [0, 1]: (height, width, 3); white where transparent.

    Raises:
        ValueError: it is no PNG, or a very large one.
    """
    from PIL import Image as pillow

    try:
        with pillow.open(file, formats=["PNG"]) as picture:
            # The size is known from the header; nothing is unpacked yet.
            if picture.width * picture.height > MAX_PIXELS:
                size = f"{picture.width} x {picture.height}"
                raise ValueError(f"has {size} pixels; {MAX_PIXELS:.0e} are allowed")
            if picture.mode.startswith("I"):  # 16 bits
                grey_levels = np.asarray(picture, float) / 65535
                return np.repeat(grey_levels[..., None], 3, axis=2)
            layers = np.asarray(picture.convert("RGBA"), float) / 255
    except (OSError, SyntaxError, pillow.DecompressionBombError) as e:
        raise ValueError(f"is no PNG that can be read: {e}".replace(";", ",")) from None
    opacity = layers[..., 3:]
    return layers[..., :3] * opacity + 1 - opacity


def grey(colours: Numbers) -> Numbers:
    """Luminance, by the weights of ITU-R BT.601."""
    return colours @ np.array([0.299, 0.587, 0.114])


# --- laws -----------------------------------------------------------------------------------------


def on_grid(brightness: Numbers, ground: float) -> Atomic:
    """Brightness (height, width) as a measure of mass 1; the first row is the highest.

    Raises:
        ValueError: nothing is bright.
    """
    weights = brightness + ground * brightness.max()
    # Eight-bit pictures know no less.
    weights = np.where(weights > 0.5 / 255 * weights.max(), weights, 0).ravel()
    if not weights.sum() > 0:
        raise ValueError("has no bright pixel, hence no mass; invert: true takes the dark ones")
    cells = np.flatnonzero(weights)
    row, column = np.divmod(cells, brightness.shape[1])
    points = np.stack([column, brightness.shape[0] - 1 - row], axis=1).astype(float)
    return Atomic(points, weights[cells] / weights.sum(), brightness.shape, cells)


def _uniform(points: Numbers) -> Atomic:
    return Atomic(points, np.full(len(points), 1 / len(points)))


# What a pen does for each digit: strokes of points in the unit square, y upwards, as arcs
# (centre x, y, radii, from, to in turns) or straight lines.
STROKES: dict[int, list[tuple[float, ...]]] = {
    0: [(0.5, 0.5, 0.26, 0.38, 0.0, 1.0)],
    1: [(0.36, 0.72, 0.54, 0.9), (0.54, 0.9, 0.54, 0.1)],
    2: [(0.5, 0.66, 0.24, 0.22, 0.45, -0.12), (0.71, 0.55, 0.26, 0.12), (0.26, 0.12, 0.76, 0.12)],
    3: [(0.47, 0.69, 0.22, 0.19, 0.4, -0.25), (0.47, 0.31, 0.25, 0.2, 0.25, -0.4)],
    4: [(0.58, 0.9, 0.22, 0.36), (0.22, 0.36, 0.8, 0.36), (0.62, 0.62, 0.62, 0.1)],
    5: [(0.72, 0.88, 0.34, 0.88), (0.34, 0.88, 0.31, 0.54),
        (0.47, 0.36, 0.26, 0.25, 0.35, -0.38)],
    6: [(0.62, 0.42, 0.36, 0.5, 0.25, 0.5), (0.49, 0.33, 0.22, 0.22, 0.0, 1.0)],
    7: [(0.24, 0.88, 0.76, 0.88), (0.76, 0.88, 0.42, 0.1)],
    8: [(0.5, 0.69, 0.19, 0.19, 0.0, 1.0), (0.5, 0.3, 0.23, 0.21, 0.0, 1.0)],
    9: [(0.51, 0.66, 0.22, 0.22, 0.0, 1.0), (0.38, 0.58, 0.36, 0.5, 0.0, -0.25)],
}  # fmt: skip


def draw_digit(digit: int, side: int = 28, seed: int = 0) -> Numbers:
    """A digit in ink of brightness up to 1 on a dark square (side, side).

    >>> draw_digit(7).shape, float(draw_digit(7).max()) <= 1.0
    ((28, 28), True)
    """
    rng = np.random.default_rng(seed)
    slant, size, pen = rng.uniform(-0.15, 0.2), rng.uniform(0.82, 0.95), rng.uniform(0.05, 0.065)
    y, x = np.mgrid[side - 1 : -1 : -1, :side] / (side - 1)
    distance = np.full((side, side), np.inf)
    for stroke in STROKES[digit]:
        t = np.linspace(0, 1, 48)[:, None]
        if len(stroke) == 4:
            path = np.array(stroke[:2]) * (1 - t) + np.array(stroke[2:]) * t
        else:
            centre, radii, (start, end) = stroke[:2], stroke[2:4], stroke[4:]
            turn = 2 * np.pi * (start + (end - start) * t)
            path = np.array(centre) + np.array(radii) * np.hstack([np.cos(turn), np.sin(turn)])
        path = 0.5 + size * (path - 0.5)
        path[:, 0] += slant * (path[:, 1] - 0.5)
        squares = (x[..., None] - path[:, 0]) ** 2 + (y[..., None] - path[:, 1]) ** 2
        distance = np.minimum(distance, np.sqrt(squares.min(axis=-1)))
    # The pen's edge is a pixel wide.
    return np.clip(0.5 + (pen - distance) * side / 2, 0, 1)


def generate(spec: Generator, others: tuple[int, int] | None = None) -> Numbers:
    """Points (n, d) of the law that `spec` names.

    `others` are a seed and a number: points of the same law that are not those of `spec`.
    """
    rng, n, d = np.random.default_rng(spec.seed), spec.points, spec.dimensions
    turn = 2 * np.pi * rng.uniform(size=n)
    # Where they lie is part of the law.
    centres = rng.uniform(-1, 1, (5, d)) if spec.name == "mixture" else np.zeros((1, d))
    if others is not None:
        seed, n = others
        rng = np.random.default_rng(seed)
        turn = 2 * np.pi * rng.uniform(size=n)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    match spec.name:
        case "gaussian":
            points = rng.normal(size=(n, d))
        case "uniform":
            points = rng.uniform(-1, 1, (n, d))
        case "mixture":
            points = centres[rng.integers(5, size=n)] + 0.12 * rng.normal(size=(n, d))
        case "ring":
            points = circle * (1 + 0.06 * rng.normal(size=(n, 1)))
        case "spiral":
            along = np.sqrt(rng.uniform(size=(n, 1)))
            angle = 4 * np.pi * along
            points = along * np.hstack([np.cos(angle), np.sin(angle)])
            points = points + 0.03 * rng.normal(size=(n, 2))
        case "swiss_roll":
            # In the plane, with the noise and the scale of Korotin et al. (2024).
            angle = 1.5 * np.pi * (1 + 2 * rng.uniform(size=(n, 1)))
            points = angle * np.hstack([np.cos(angle), np.sin(angle)])
            points = (points + 0.8 * rng.normal(size=(n, 2))) / 7.5
        case "moons":
            upper = np.stack([np.cos(turn / 2) - 0.5, np.sin(turn / 2) - 0.25], axis=1)
            side = np.where(rng.uniform(size=(n, 1)) < 0.5, 1, -1)
            points = side * upper + 0.06 * rng.normal(size=(n, 2))
    return spec.scale * points + (0 if spec.centre is None else np.asarray(spec.centre))
