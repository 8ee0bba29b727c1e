"""Solutions to judge others by, in NumPy float64 and by methods that share nothing with training.

A reference is called with the axes of a grid, `reference({"x": ..., "t": ...})`, and gives arrays
with an axis a coordinate, in the order of the axes. How each one is verified is told in
`docs/references.md`. JAX is not imported here.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

Axes = Mapping[str, np.ndarray]


# --- Burgers --------------------------------------------------------------------------------------


def cole_hopf(
    x: Float[np.ndarray, "*n"] | float,
    t: Float[np.ndarray, "*n"] | float,
    *,
    nu: float,
    nodes: int = 160,
) -> Float[np.ndarray, "*n"]:
    r"""Burgers' $u_t + u u_x = \nu u_{xx}$ from $u(0, x) = -\sin \pi x$ on $[-1, 1]$.

    Basdevant et al., *Spectral and finite difference solutions of the Burgers equation*, Computers
    and Fluids 14 (1986), by the Cole-Hopf transformation:

    $$u(t, x) = -\frac{\int \sin(\pi y)\, e^{-\cos(\pi y) / 2 \pi \nu}\, e^{-z^2} dz}
    {\int e^{-\cos(\pi y) / 2 \pi \nu}\, e^{-z^2} dz}, \qquad y = x - \sqrt{4 \nu t}\, z,$$

    each integral by Gauss-Hermite quadrature. The exponents reach $\pm 1 / 2 \pi \nu$ (50 for the
    usual $\nu = 0.01 / \pi$), so the largest is taken out before exponentiating. 160 nodes are
    converged to rounding for that viscosity up to $t = 1$.

    **Arguments:** `x`, `t`, which broadcast; `nu`; `nodes` of the quadrature.

    **Raises:** `ValueError` for a negative time or a viscosity that is not positive.

    ```python
    >>> from pde import reference
    >>> import numpy as np
    >>> float(reference.cole_hopf(-0.5, 0.0, nu=0.01 / np.pi))
    1.0

    ```
    """
    from scipy.special import roots_hermite

    x, t = np.broadcast_arrays(np.asarray(x, float), np.asarray(t, float))
    if nu <= 0 or np.any(t < 0):
        raise ValueError("Cole-Hopf needs a positive viscosity and times that are not negative.")
    z, weights = roots_hermite(nodes)
    out = np.empty(x.shape)
    flat_x, flat_t, flat_out = x.reshape(-1), t.reshape(-1), out.reshape(-1)
    for block in _blocks(flat_x.size, 16_384):
        y = flat_x[block, None] - np.sqrt(4 * nu * flat_t[block, None]) * z
        exponent = np.cos(np.pi * y) / (-2 * np.pi * nu)
        density = weights * np.exp(exponent - exponent.max(axis=1, keepdims=True))
        flat_out[block] = -np.sum(np.sin(np.pi * y) * density, 1) / np.sum(density, 1)
    return np.where(t == 0, -np.sin(np.pi * x), out)


def _blocks(size: int, block: int) -> Iterator[slice]:
    return (slice(i, i + block) for i in range(0, size, block))


# --- semilinear equations in spectral form --------------------------------------------------------


def etdrk4(
    linear: np.ndarray,
    nonlinear: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    times: Sequence[float] | np.ndarray,
    dt: float,
) -> np.ndarray:
    r"""Integrate $\dot v = L v + N(v)$ with diagonal $L$ by exponential time differencing.

    The fourth-order Runge-Kutta scheme of Cox and Matthews, J. Comput. Phys. 176 (2002), equations
    (26)-(29), with its coefficients evaluated as contour integrals, Kassam and Trefethen, SIAM J.
    Sci. Comput. 26 (2005), section 3: the direct formulas cancel where $|h L|$ is small.

    **Arguments:**

    - `linear`: the diagonal of $L$, shape `(modes,)`, real or complex.
    - `nonlinear`: $N$, from `(modes,)` to `(modes,)`.
    - `start`: $v$ at `times[0]`.
    - `times`: when to record, rising.
    - `dt`: the largest step; each interval is divided evenly.

    **Returns:** the states at `times`, shape `(len(times), modes)`.

    **Raises:** `ValueError` for times that do not rise or a step that is not positive.

    ```python
    >>> import numpy as np
    >>> from pde import reference
    >>> v = reference.etdrk4(np.array([-1.0]), lambda v: v**2, np.array([0.5]), [0.0, 1.0], 0.01)
    >>> bool(abs(v[1, 0] - 1 / (1 + np.e)) < 1e-10)
    True

    ```
    """
    times = np.asarray(times, float)
    if dt <= 0 or np.any(np.diff(times) <= 0):
        raise ValueError("ETDRK4 needs a positive step and times that rise.")
    state = np.asarray(start)
    states = [state]
    coefficients: dict[float, tuple[np.ndarray, ...]] = {}
    for begin, end in itertools.pairwise(times):
        steps = math.ceil((end - begin) / dt - 1e-9)
        h = float(np.round((end - begin) / steps, 15))
        if h not in coefficients:
            coefficients[h] = _etdrk4_coefficients(linear, h)
        whole, half, q, f1, f2, f3 = coefficients[h]
        for _ in range(steps):
            n_v = nonlinear(state)
            a = half * state + q * n_v
            n_a = nonlinear(a)
            b = half * state + q * n_a
            n_b = nonlinear(b)
            c = half * a + q * (2 * n_b - n_v)
            n_c = nonlinear(c)
            state = whole * state + f1 * n_v + 2 * f2 * (n_a + n_b) + f3 * n_c
        states.append(state)
    return np.stack(states)


def _etdrk4_coefficients(linear: np.ndarray, h: float, points: int = 64) -> tuple[np.ndarray, ...]:
    circle = np.exp(2j * np.pi * (np.arange(points) + 0.5) / points)
    z = h * linear[:, None] + circle
    e = np.exp(z)

    def mean(values):
        average = h * values.mean(axis=1)
        return average if np.iscomplexobj(linear) else average.real

    q = mean((np.exp(z / 2) - 1) / z)
    f1 = mean((-4 - z + e * (4 - 3 * z + z**2)) / z**3)
    f2 = mean((2 + z + e * (z - 2)) / z**3)
    f3 = mean((-4 - 3 * z - z**2 + e * (4 - z)) / z**3)
    return np.exp(h * linear), np.exp(h * linear / 2), q, f1, f2, f3


def allen_cahn(
    x: Float[np.ndarray, " nx"],
    t: Float[np.ndarray, " nt"],
    *,
    diffusion: float = 1e-4,
    modes: int = 2048,
    dt: float = 1e-3,
) -> Float[np.ndarray, "nx nt"]:
    r"""$u_t = d u_{xx} - 5 u^3 + 5 u$ on $[-1, 1]$, periodic, from $x^2 \cos \pi x$.

    The solution is even, so it is a cosine series; [`etdrk4`][pde.reference.etdrk4] advances its
    coefficients. The start has a kink where the period closes: its coefficients fall only as
    $1/k^2$, and samples of it would alias into all modes at $1/N^2$. They are therefore the exact
    ones: with $I_m = \int_0^1 x^2 \cos m \pi x\,dx = 2 (-1)^m / (m \pi)^2$ and $I_0 = 1/3$,
    $a_k = I_{k+1} + I_{k-1}$ and $a_0 = I_1$. The cubic is formed on a grid twice as fine, which
    frees the kept modes of aliasing.

    **Arguments:** `x`; `t`, rising and not negative; `diffusion` $d$; `modes`; the largest `dt`.

    **Returns:** shape `(len(x), len(t))`; at `t = 0` the start itself.

    ```python
    >>> import numpy as np
    >>> from pde import reference
    >>> u = reference.allen_cahn(np.array([0.5, 1.0]), np.array([0.0, 1.0]), modes=256)
    >>> u.shape, float(u[1, 1].round(3))
    ((2, 2), -1.0)

    ```
    """
    x, t = np.asarray(x, float), np.asarray(t, float)
    k = np.arange(modes)

    def integral(m):
        safe = np.where(m == 0, 1, m)
        return np.where(m == 0, 1 / 3, 2 * (-1.0) ** m / (np.pi * safe) ** 2)

    start = integral(k + 1) + integral(np.abs(k - 1))
    start[0] /= 2
    at_start = x**2 * np.cos(np.pi * x)
    linear = -diffusion * (np.pi * k) ** 2
    return _even_solution(x, t, np.pi * k, linear, lambda u: 5 * (u - u**3), start, at_start, dt)


def schrodinger(
    x: Float[np.ndarray, " nx"],
    t: Float[np.ndarray, " nt"],
    *,
    half_period: float = 5.0,
    modes: int = 512,
    dt: float = 5e-4,
) -> Float[np.ndarray, "nx nt"]:
    r"""$i h_t + \frac12 h_{xx} + |h|^2 h = 0$ of period $2L$, from $h = 2 \,\mathrm{sech}\, x$.

    The benchmark of Raissi, Perdikaris and Karniadakis (2019), for $L = 5$. The solution is even,
    so it is a cosine series; [`etdrk4`][pde.reference.etdrk4] advances its coefficients, and the
    cubic is formed on a grid twice as fine, which frees the kept modes of aliasing.

    The periodic start has a kink where the period closes: its slope jumps by
    $4 \,\mathrm{sech}\, L \tanh L$, which is 0.05. Dispersion does not smooth a kink as diffusion
    would, it spreads it over the whole interval at once. So the coefficients of the *solution* fall
    as $k^{-2}$ at all times, and no scheme converges fast: with $N$ modes the relative $L^2$ error
    falls as $N^{-3/2}$, the largest one as $1/N$. With the defaults it is 2e-6 (4e-5 at the worst
    point), against four times the modes. With a period so large that the kink is negligible, the
    closed form of the two-soliton (Satsuma and Yajima 1974) is met to 2e-9.

    **Arguments:** `x`; `t`, rising and not negative; `half_period` $L$; `modes` $N$; the largest
    `dt`.

    **Returns:** complex, shape `(len(x), len(t))`; at `t = 0` the start itself.

    ```python
    >>> import numpy as np
    >>> from pde import reference
    >>> h = reference.schrodinger(np.array([0.0]), np.array([0.0, np.pi / 4]), modes=128, dt=1e-3)
    >>> np.abs(h).round(3).tolist()  # from 2 to the focus
    [[2.0, 3.999]]

    ```
    """
    x, t = np.asarray(x, float), np.asarray(t, float)
    wavenumbers = np.pi * np.arange(modes) / half_period
    # Samples so fine that the kink's own coefficients, which fall as 1/k^2, do not alias.
    fine = np.linspace(0, half_period, 2**20 + 1)
    start = _cosine_coefficients(2 / np.cosh(fine), modes).astype(complex)

    def cubic(h):
        return 1j * (h.real**2 + h.imag**2) * h

    linear = -0.5j * wavenumbers**2
    return _even_solution(x, t, wavenumbers, linear, cubic, start, 2 / np.cosh(x), dt)


def kuramoto_sivashinsky(
    x: Float[np.ndarray, " nx"],
    t: Float[np.ndarray, " nt"],
    *,
    a: float = 5.0,
    b: float = 0.5,
    d: float = 0.005,
    modes: int = 64,
    dt: float = 1e-4,
) -> Float[np.ndarray, "nx nt"]:
    r"""$u_t + a u u_x + b u_{xx} + d u_{xxxx} = 0$ on $[-1, 1]$, periodic, from $-\sin \pi x$.

    The benchmark of Wang, Sankaran and Perdikaris (2022), section 5.3. The solution is odd, so it
    is a sine series; [`etdrk4`][pde.reference.etdrk4] advances its coefficients, and the square is
    formed on a grid twice as fine, which frees the kept modes of aliasing. With the defaults it
    agrees to 1e-10 with twice the modes and half the step up to $t = 0.1$; small differences grow,
    here by $e^{12}$ at most in a unit of time.

    **Arguments:** `x`; `t`, rising and not negative; `a`, `b`, `d`; `modes`; the largest `dt`.

    **Returns:** shape `(len(x), len(t))`.

    ```python
    >>> import numpy as np
    >>> from pde import reference
    >>> u = reference.kuramoto_sivashinsky(np.array([-0.5]), np.array([0.0, 0.1]), dt=1e-3)
    >>> u.round(4).tolist()
    [[1.0, 0.2777]]

    ```
    """
    from scipy.fft import dst

    x, t = np.asarray(x, float), np.asarray(t, float)
    wavenumbers = np.pi * np.arange(1, modes)
    start = np.zeros(modes - 1)
    start[0] = -1.0

    def rate(s):
        # Values at the inner points of (0, 1) from the sine series: it is odd.
        padded = np.zeros(2 * modes - 1)
        padded[: modes - 1] = s
        values = np.asarray(dst(padded, type=1)) / 2
        # The square is even, vanishes at both ends, and is a cosine series.
        square = _cosine_coefficients(np.concatenate([[0.0], values**2, [0.0]]), modes)
        return a / 2 * wavenumbers * square[1:]

    linear = b * wavenumbers**2 - d * wavenumbers**4
    times = np.concatenate([[0.0], t[t > 0]])
    series = etdrk4(linear, rate, start, times, dt)
    out = np.empty((x.size, t.size))
    out[:, t == 0] = -np.sin(np.pi * x)[:, None]
    out[:, t > 0] = np.sin(x[:, None] * wavenumbers) @ series[1:].T
    return out


def _cosine_coefficients(values: np.ndarray, modes: int) -> np.ndarray:
    """The first coefficients of a cosine series, from evenly spaced values, both ends included."""
    from scipy.fft import dct

    a = np.asarray(dct(values, type=1))[:modes] / (values.size - 1)
    a[0] /= 2
    return a


def _even_solution(x, t, wavenumbers, linear, nonlinear, start, at_start, dt) -> np.ndarray:
    """A cosine series from `start`, advanced by ETDRK4 and evaluated; at `t = 0`, `at_start`.

    `nonlinear` acts on values, on a grid twice as fine as the kept modes.
    """
    from scipy.fft import dct

    modes = start.size

    def rate(a):
        # Coefficients to values by the DCT-I.
        padded = np.zeros(2 * modes + 1, start.dtype)
        padded[0], padded[1:modes] = 2 * a[0], a[1:]
        return _cosine_coefficients(nonlinear(np.asarray(dct(padded, type=1)) / 2), modes)

    times = np.concatenate([[0.0], t[t > 0]])
    series = etdrk4(linear, rate, start, times, dt)
    out = np.empty((x.size, t.size), start.dtype)
    out[:, t == 0] = at_start[:, None]
    out[:, t > 0] = np.cos(x[:, None] * wavenumbers) @ series[1:].T
    return out


# --- references by the axes of a grid -------------------------------------------------------------


@dataclass(frozen=True)
class ColeHopf:
    """[`cole_hopf`][pde.reference.cole_hopf] on a grid of `x` and `t`.

    ```python
    >>> import numpy as np
    >>> from pde import reference
    >>> axes = {"x": np.linspace(-1, 1, 5), "t": np.linspace(0, 1, 3)}
    >>> reference.ColeHopf(0.01 / np.pi)(axes)["u"].shape
    (5, 3)

    ```
    """

    nu: float

    def __call__(self, axes: Axes) -> dict[str, np.ndarray]:
        """Values by unknown, shape: the lengths of the axes."""
        grid = dict(zip(axes, np.meshgrid(*axes.values(), indexing="ij"), strict=True))
        return {"u": cole_hopf(grid["x"], grid["t"], nu=self.nu)}


@dataclass(frozen=True)
class AllenCahn:
    """[`allen_cahn`][pde.reference.allen_cahn] on a grid of `x` and `t`.

    ```python
    >>> import numpy as np
    >>> from pde import reference
    >>> axes = {"x": np.linspace(-1, 1, 5), "t": np.linspace(0, 1, 3)}
    >>> reference.AllenCahn(modes=64)(axes)["u"].shape
    (5, 3)

    ```
    """

    diffusion: float = 1e-4
    modes: int = 2048
    dt: float = 1e-3

    def __call__(self, axes: Axes) -> dict[str, np.ndarray]:
        """Values by unknown, shape: the lengths of the axes."""
        u = allen_cahn(axes["x"], axes["t"], diffusion=self.diffusion, modes=self.modes, dt=self.dt)
        return {"u": u if list(axes) == ["x", "t"] else u.T}


@dataclass(frozen=True)
class KuramotoSivashinsky:
    """[`kuramoto_sivashinsky`][pde.reference.kuramoto_sivashinsky] on a grid of `x` and `t`.

    ```python
    >>> import numpy as np
    >>> from pde import reference
    >>> axes = {"x": np.linspace(-1, 1, 5), "t": np.linspace(0, 0.1, 3)}
    >>> reference.KuramotoSivashinsky(dt=1e-2)(axes)["u"].shape
    (5, 3)

    ```
    """

    a: float = 5.0
    b: float = 0.5
    d: float = 0.005
    modes: int = 64
    dt: float = 1e-4

    def __call__(self, axes: Axes) -> dict[str, np.ndarray]:
        """Values by unknown, shape: the lengths of the axes."""
        given = {name: getattr(self, name) for name in ("a", "b", "d", "modes", "dt")}
        u = kuramoto_sivashinsky(axes["x"], axes["t"], **given)
        return {"u": u if list(axes) == ["x", "t"] else u.T}


@dataclass(frozen=True)
class Schrodinger:
    """[`schrodinger`][pde.reference.schrodinger] on a grid of `x` and `t`, as $h = u + iv$.

    ```python
    >>> import numpy as np
    >>> from pde import reference
    >>> axes = {"x": np.linspace(-5, 5, 5), "t": np.linspace(0, 1, 3)}
    >>> {name: v.shape for name, v in reference.Schrodinger(modes=64, dt=1e-2)(axes).items()}
    {'u': (5, 3), 'v': (5, 3)}

    ```
    """

    modes: int = 512
    dt: float = 5e-4

    def __call__(self, axes: Axes) -> dict[str, np.ndarray]:
        """Values by unknown, shape: the lengths of the axes."""
        h = schrodinger(axes["x"], axes["t"], modes=self.modes, dt=self.dt)
        h = h if list(axes) == ["x", "t"] else h.T
        return {"u": np.real(h).copy(), "v": np.imag(h).copy()}


@dataclass(frozen=True)
class Family:
    """A reference for each value of some parameters, which are axes of the grid.

    **Arguments:** `member`, from values by name to the reference that has them; `names`, which.

    ```python
    >>> import numpy as np
    >>> from pde import reference
    >>> family = reference.Family(lambda given: reference.ColeHopf(given["nu"]), ("nu",))
    >>> axes = {"x": np.linspace(-1, 1, 5), "t": np.array([0.5]), "nu": np.array([0.02, 0.1])}
    >>> family(axes)["u"].shape
    (5, 1, 2)

    ```
    """

    member: Callable[[Mapping[str, float]], Callable[[Axes], dict[str, np.ndarray]]]
    names: tuple[str, ...]

    def __call__(self, axes: Axes) -> dict[str, np.ndarray]:
        """Values by unknown, shape: the lengths of the axes."""
        inner = {name: axis for name, axis in axes.items() if name not in self.names}
        outer = [name for name in axes if name in self.names]
        shape = tuple(len(axes[name]) for name in outer)
        found: dict[str, np.ndarray] = {}
        for place in np.ndindex(shape):
            values = {n: float(axes[n][i]) for n, i in zip(outer, place, strict=True)}
            for name, u in self.member(values)(inner).items():
                found.setdefault(name, np.empty((*shape, *u.shape)))[place] = u
        order = [(*outer, *inner).index(name) for name in axes]
        return {name: np.transpose(u, order) for name, u in found.items()}


@dataclass(frozen=True)
class Exact:
    """Closed forms: unknown to a function of named arrays that broadcast.

    ```python
    >>> import numpy as np
    >>> from pde import reference
    >>> wave = reference.Exact({"u": lambda v: np.sin(v["x"] - v["t"])})
    >>> wave({"x": np.zeros(4), "t": np.zeros(3)})["u"].shape
    (4, 3)

    ```
    """

    values: Mapping[str, Callable[[Mapping[str, np.ndarray]], Any]]

    def __call__(self, axes: Axes) -> dict[str, np.ndarray]:
        """Values by unknown, shape: the lengths of the axes."""
        grid = np.meshgrid(*(np.asarray(a, float) for a in axes.values()), indexing="ij")
        point = dict(zip(axes, grid, strict=True))
        return {
            name: np.array(np.broadcast_to(value(point), grid[0].shape), float)
            for name, value in self.values.items()
        }

    def at(self, coordinates: Axes, count: int) -> dict[str, np.ndarray]:
        """Values by unknown at `count` points, given the coordinates of each by name."""
        return {
            name: np.array(np.broadcast_to(value(coordinates), count), float)
            for name, value in self.values.items()
        }


@dataclass(frozen=True)
class FromFile:
    """Values on a tensor grid from a `.nc` file (xarray) or an `.npz` archive.

    An archive holds the coordinates as one-dimensional arrays by their names, and the unknowns
    with an axis a coordinate, in the order of the domain. Where the grid asked for is another,
    values are interpolated by cubic splines; outside of the file's grid there is none.

    **Raises:** `ValueError` on reading, for what is missing, of the wrong shape or not finite.

    ```python
    >>> import numpy as np, tempfile
    >>> from pde import reference
    >>> x = np.linspace(0, 1, 9)
    >>> path = tempfile.mkdtemp() + "/cube.npz"
    >>> np.savez(path, x=x, u=x**3)
    >>> u = reference.FromFile(path, ["u"])({"x": np.array([0.3])})["u"]
    >>> bool(abs(u[0] - 0.027) < 1e-12)
    True

    ```
    """

    path: str | Path
    unknowns: Sequence[str] = field(default=("u",))
    holes: bool = False

    def __call__(self, axes: Axes) -> dict[str, np.ndarray]:
        """Values by unknown, shape: the lengths of the axes."""
        from scipy.interpolate import RegularGridInterpolator
        from scipy.sparse.linalg import spsolve

        grid, values = self._read(list(axes))
        if all(grid[n].shape == np.shape(a) and np.allclose(grid[n], a) for n, a in axes.items()):
            return values
        if not all(np.isfinite(v).all() for v in values.values()):
            raise ValueError(f"{self.path} has holes, and is then read at its own points alone")
        for name, axis in axes.items():
            slack = 1e-12 * (grid[name][-1] - grid[name][0])
            if np.min(axis) < grid[name][0] - slack or np.max(axis) > grid[name][-1] + slack:
                raise ValueError(
                    f"{self.path} covers {name} from {grid[name][0]} to {grid[name][-1]}, "
                    f"but {np.min(axis)} to {np.max(axis)} is asked for"
                )
        inside = [np.clip(a, grid[n][0], grid[n][-1]) for n, a in axes.items()]
        points = np.stack(np.meshgrid(*inside, indexing="ij"), -1)
        method = "cubic" if min(map(len, grid.values())) >= 4 else "linear"
        # A direct solve for the splines: SciPy's default is iterative and stops at 1e-6.
        return {
            name: RegularGridInterpolator(
                tuple(grid.values()), v, method, solver=spsolve if method == "cubic" else None
            )(points)
            for name, v in values.items()
        }

    def _read(self, coordinates: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        wanted = [*coordinates, *self.unknowns]
        arrays: dict[str, np.ndarray] = {}
        try:
            if str(self.path).endswith(".npz"):
                with np.load(self.path, allow_pickle=False) as archive:
                    arrays = {n: np.asarray(archive[n], float) for n in wanted if n in archive}
            else:
                import xarray as xr

                with xr.open_dataset(self.path, engine="h5netcdf", decode_times=False) as data:
                    arrays = {
                        n: np.asarray(
                            data[n].transpose(*coordinates) if n in self.unknowns else data[n],
                            float,
                        )
                        for n in wanted
                        if n in data
                    }
        except (OSError, ValueError, TypeError, KeyError) as e:
            raise ValueError(f"{self.path} cannot be read: {e}") from e
        if missing := [n for n in wanted if n not in arrays]:
            raise ValueError(f"{self.path} lacks {', '.join(missing)}")
        grid = {n: arrays[n] for n in coordinates}
        shape = tuple(a.size for a in grid.values())
        for name, a in grid.items():
            if a.ndim != 1 or a.size < 2 or not np.all(np.diff(a) > 0):
                raise ValueError(f"{name} in {self.path} must be one-dimensional and rise")
        for name in self.unknowns:
            if arrays[name].shape != shape:
                raise ValueError(
                    f"{name} in {self.path} has shape {arrays[name].shape}; its grid has {shape}"
                )
            if not self.holes and not np.all(np.isfinite(arrays[name])):
                raise ValueError(f"{name} in {self.path} holds values that are not finite")
        return grid, {n: arrays[n] for n in self.unknowns}
