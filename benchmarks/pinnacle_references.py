"""Makes the references of cases after PINNacle (Hao et al. 2023) that have no closed form.

    python benchmarks/pinnacle_references.py [PINNACLE]

`cases/poisson_boltzmann.npz`: a particular solution on the whole square by Chebyshev collocation,
and modified Bessel functions in the holes, whose odd images at the sides keep those at zero, fitted
to the circles by least squares. By the maximum principle the error is at most that on the circles.

`cases/poisson_many_area.npz`: a series in the eigenfunctions of the interval with its conditions of
the third kind, whose coefficients are integrals by Gauss's rule in each of the 25 cells.

`cases/cavity.npz`: the velocity of the steady flow, from its stream function by Chebyshev
collocation and Newton's method; the pressure is infinite in the corners of the lid. The same at a
lid of speed 1 is printed beside Botella and Peyret (1998).

Each is made at two resolutions, whose difference is printed; with a clone of PINNacle, whose
`ref/` has what COMSOL found at the nodes of its mesh, so is the distance from that.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _chebyshev import chebyshev
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.special import kn

ROOT = Path(__file__).resolve().parent.parent
Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


def barycentric(nodes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """From values at Chebyshev points to those at others, a row each."""
    n = len(nodes) - 1
    w = (-1.0) ** np.arange(n + 1)
    w[[0, -1]] /= 2
    away = at[:, None] - nodes[None, :]
    hit = np.abs(away) < 1e-14
    rows = w / np.where(hit, 1.0, away)
    rows /= rows.sum(axis=1, keepdims=True)
    rows[hit.any(axis=1)] = hit[hit.any(axis=1)]
    return rows


# --- Poisson and Boltzmann ------------------------------------------------------------------------

K, AMPLITUDE, MU = 8.0, 10.0, (1.0, 4.0)
HOLES = ((0.5, 0.5, 0.2), (0.4, -0.4, 0.4), (-0.2, -0.7, 0.1), (-0.6, 0.5, 0.3))


def poisson_boltzmann(n: int, order: int) -> tuple[Field, float]:
    """The solution, and its error on the circles."""
    x, d = chebyshev(n, (-1, 1))
    d2, inner = (d @ d)[1:-1, 1:-1], x[1:-1]
    source = AMPLITUDE * (
        (MU[0] ** 2 + inner[:, None] ** 2 + MU[1] ** 2 + inner[None, :] ** 2)
        * np.sin(MU[0] * np.pi * inner[:, None]) * np.sin(MU[1] * np.pi * inner[None, :])
    )  # fmt: skip
    # Less its values on the sides it is a Sylvester equation, diagonal in eigenvectors of d2.
    values, vectors = np.linalg.eig(d2)
    turned = np.linalg.solve(vectors, np.linalg.solve(vectors, (source - K**2 * 0.2).T).T)
    scaled = turned / (K**2 - values[:, None] - values[None, :])
    particular = np.full((n + 1, n + 1), 0.2)
    particular[1:-1, 1:-1] += (vectors @ scaled @ vectors.T).real

    def whole(px, py):
        return np.einsum("pi,ij,pj->p", barycentric(x, px), particular, barycentric(x, py))

    def basis(px, py):
        columns = []
        images = [(1, 4 * k) for k in (-1, 0, 1)] + [(-1, 4 * k + 2) for k in (-1, 0)]
        for cx, cy, radius in HOLES:
            made = np.zeros((2 * order + 1, px.size))
            for sx, tx in images:
                for sy, ty in images:
                    z = (sx * px + tx - cx) + 1j * (sy * py + ty - cy)
                    for m in range(order + 1):
                        radial = sx * sy * kn(m, K * np.abs(z)) / kn(m, K * radius)
                        made[2 * m] += radial * np.cos(m * np.angle(z))
                        if m:
                            made[2 * m - 1] += radial * np.sin(m * np.angle(z))
            columns.append(made.T)
        return np.concatenate(columns, axis=1)

    def circles(count, shift):
        turn = 2 * np.pi * (np.arange(count) + shift) / count
        points = [(cx + r * np.cos(turn), cy + r * np.sin(turn)) for cx, cy, r in HOLES]
        return (np.concatenate(part) for part in zip(*points, strict=True))

    px, py = circles(8 * order, 0.0)
    coefficients = np.linalg.lstsq(basis(px, py), 1 - whole(px, py), rcond=1e-14)[0]

    def solution(px, py):
        return whole(px, py) + basis(px, py) @ coefficients

    px, py = circles(777, 0.3)
    return solution, float(np.max(np.abs(solution(px, py) - 1)))


# --- Poisson, many areas --------------------------------------------------------------------------


def many_area(modes: int, a: np.ndarray, f: np.ndarray) -> Field:
    """From the conductivity of each cell, and the two numbers of its load."""
    length, cells = 20.0, 5
    # On (0, L): phi = cos(k s) + sin(k s)/k has phi' = phi at 0; phi' = -phi at L gives k.
    k = np.zeros(modes)
    for m in range(modes):
        low, high = m * np.pi / length, (m + 1) * np.pi / length
        for _ in range(200):
            middle = (low + high) / 2
            # tan(k L) = 2 k/(k^2 - 1), free of poles; it falls from (-1)^m.
            value = (middle**2 - 1) * np.sin(middle * length) - 2 * middle * np.cos(middle * length)
            low, high = (middle, high) if value * (-1) ** m < 0 else (low, middle)
        k[m] = (low + high) / 2

    def phi(s):
        return np.cos(k * s[:, None]) + np.sin(k * s[:, None]) / k

    nodes, weights = np.polynomial.legendre.leggauss(max(64, 2 * modes // cells))
    size = length / cells
    ones, waves = np.empty((cells, modes)), np.empty((cells, modes))
    norm = np.zeros(modes)
    for c in range(cells):
        s = size * (c + (nodes + 1) / 2)
        at = phi(s)
        ones[c] = size / 2 * weights @ at
        waves[c] = size / 2 * (weights * np.sin(np.pi * (nodes + 1) / 2)) @ at
        norm += size / 2 * weights @ at**2
    load = sum(
        np.einsum("xy,xm,yn->mn", part / a, by, by)
        for part, by in ((f[:, :, 0, 0], ones), (f[:, :, 1, 1], waves))
    )
    series = load / (norm[:, None] * norm[None, :]) / (k[:, None] ** 2 + k[None, :] ** 2)

    def solution(px, py):
        return np.einsum("pm,mn,pn->p", phi(px + 10), series, phi(py + 10), optimize=True)

    return solution


def finite_volumes(n: int, a: np.ndarray, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of n cells a side, n divisible by five, and values there, to second order."""
    h, each = 20 / n, n // 5
    s = -10 + h * (np.arange(n) + 0.5)
    wave = np.abs(np.sin(np.pi * (s + 10) / 4))
    spread = np.ones((each, each))
    load = np.kron(f[:, :, 0, 0] / a, spread)
    load += np.kron(f[:, :, 1, 1] / a, spread) * wave[:, None] * wave
    diagonal = np.full(n, 2.0)
    # The value on the side is that which gives the slope there.
    diagonal[[0, -1]] = 1 + h / (1 + h / 2)
    along = sparse.diags([diagonal, -np.ones(n - 1), -np.ones(n - 1)], [0, 1, -1]) / h**2  # pyright: ignore[reportArgumentType]
    matrix = sparse.kron(along, sparse.eye(n)) + sparse.kron(sparse.eye(n), along)
    return s, np.asarray(spsolve(matrix.tocsc(), load.ravel())).reshape(n, n)


# --- the cavity -----------------------------------------------------------------------------------


def cavity(n: int, lid: Callable[[np.ndarray], np.ndarray], nu: float = 0.01) -> dict[str, Field]:
    """The velocity on the unit square."""
    x, d = chebyshev(n, (0, 1))
    eye = np.eye(n + 1)
    dx, dy = np.kron(d, eye), np.kron(eye, d)
    laplace = np.kron(d @ d, eye) + np.kron(eye, d @ d)
    shape = (n + 1, n + 1)
    place = np.arange((n + 1) ** 2).reshape(shape)
    rim = np.ones(shape, bool)
    rim[1:-1, 1:-1] = False
    # The slopes take the places of the equation one row within.
    slopes: dict[int, np.ndarray] = {}
    wanted: dict[int, float] = {}
    for i in range(1, n):
        slopes[place[1, i]], wanted[place[1, i]] = dx[place[0, i]], 0.0
        slopes[place[-2, i]], wanted[place[-2, i]] = dx[place[-1, i]], 0.0
    for i in range(2, n - 1):
        slopes[place[i, 1]], wanted[place[i, 1]] = dy[place[i, 0]], 0.0
        slopes[place[i, -2]], wanted[place[i, -2]] = dy[place[i, -1]], float(lid(x[i : i + 1])[0])
    rows = np.array(sorted(slopes))
    stacked, values = np.array([slopes[r] for r in rows]), np.array([wanted[r] for r in rows])
    edge = place[rim]
    psi = np.zeros((n + 1) ** 2)
    biharmonic = laplace @ laplace
    for step in range(30):
        w, u, v = laplace @ psi, dy @ psi, -dx @ psi
        residual = nu * biharmonic @ psi - u * (dx @ w) - v * (dy @ w)
        jacobian = (
            nu * biharmonic
            - (u[:, None] * dx + v[:, None] * dy) @ laplace
            - (dx @ w)[:, None] * dy + (dy @ w)[:, None] * dx
        )  # fmt: skip
        jacobian[edge], residual[edge] = np.eye(psi.size)[edge], psi[edge]
        jacobian[rows], residual[rows] = stacked, stacked @ psi - values
        change = np.linalg.solve(jacobian, residual)
        psi -= change
        if step > 2 and np.max(np.abs(change)) < 1e-11:
            break

    def read(values):
        grid = values.reshape(shape)
        return lambda px, py: np.einsum("pi,ij,pj->p", barycentric(x, px), grid, barycentric(x, py))

    return {"u": read(dy @ psi), "v": read(-dx @ psi)}


# --- all of them ----------------------------------------------------------------------------------


def distance(found: np.ndarray, other: np.ndarray) -> str:
    return f"{np.linalg.norm(found - other) / np.linalg.norm(other):.1e}"


def on_grid(fields: dict[str, Field], x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    grid = np.meshgrid(x, y, indexing="ij")
    flat = [g.ravel() for g in grid]
    return {name: field(*flat).reshape(grid[0].shape) for name, field in fields.items()}


def comsol(folder: Path | None, name: str) -> np.ndarray | None:
    path = folder and folder / "ref" / name
    return np.loadtxt(path, comments="%") if path and path.exists() else None


def save(name: str, x: np.ndarray, fields: dict[str, Any]) -> None:
    path = ROOT / "cases" / f"{name}.npz"
    np.savez_compressed(path, x=x, y=x, **fields)
    print(f"  {path.name}: {path.stat().st_size / 1e3:.0f} kB")


def make_poisson_boltzmann(folder: Path | None) -> None:
    coarse, _ = poisson_boltzmann(48, 14)
    fine, error = poisson_boltzmann(72, 20)
    x = np.linspace(-1, 1, 101)
    grid = np.meshgrid(x, x, indexing="ij")
    inside = np.ones(grid[0].shape, bool)
    for cx, cy, radius in HOLES:
        inside &= np.hypot(grid[0] - cx, grid[1] - cy) > radius - 1e-9
    px, py = grid[0][inside], grid[1][inside]
    u = np.full(grid[0].shape, np.nan)
    u[inside] = fine(px, py)
    print(f"Poisson-Boltzmann: on the circles {error:.1e}, "
          f"two resolutions {distance(coarse(px, py), u[inside])}")  # fmt: skip
    if (other := comsol(folder, "poisson_boltzmann2d.dat")) is not None:
        print(f"  from COMSOL {distance(other[:, 2], fine(other[:, 0], other[:, 1]))}")
    save("poisson_boltzmann", x, {"u": u})


def make_many_area(folder: Path | None) -> None:
    a, f = MANY_A, np.zeros((5, 5, 2, 2))
    f[:, :, 0, 0], f[:, :, 1, 1] = MANY_F
    fine, coarse = many_area(400, a, f), many_area(200, a, f)
    x = np.linspace(-10, 10, 101)
    u, other = (on_grid({"u": field}, x, x)["u"] for field in (fine, coarse))
    print(f"Many areas: two resolutions {distance(other, u)}, largest {np.abs(u).max():.3f}")
    for n in (100, 200):
        s, coarse = finite_volumes(n, a, f)
        print(f"  from {n}^2 volumes {distance(coarse, on_grid({'u': fine}, s, s)['u'])}")
    if (other := comsol(folder, "poisson_manyarea.dat")) is not None:
        print(f"  from COMSOL {distance(other[:, 2], fine(other[:, 0], other[:, 1]))}")
    save("poisson_many_area", x, {"u": u})


def make_cavity(folder: Path | None) -> None:
    uniform, middle = cavity(40, lambda x: np.ones_like(x)), np.linspace(0, 1, 4001)
    u = uniform["u"](np.full(4001, 0.5), middle)
    v = uniform["v"](middle, np.full(4001, 0.5))
    print(f"Cavity, a lid of speed 1: u from {u.min():.5f}, v from {v.min():.5f} to {v.max():.5f}; "
          "Botella and Peyret -0.21404, -0.25380 to 0.17957")  # fmt: skip
    fine, coarse = (cavity(n, lambda x: 4 * x * (1 - x)) for n in (44, 32))
    x = np.linspace(0, 1, 101)
    made, other = on_grid(fine, x, x), on_grid(coarse, x, x)
    for name in made:
        print(f"  4x(1 - x), {name}: two resolutions {distance(other[name], made[name])}")
    if (found := comsol(folder, "lid_driven_a4.dat")) is not None:
        for column, name in enumerate(("u", "v"), 2):
            ours = fine[name](found[:, 0], found[:, 1])
            print(f"  {name} from COMSOL {distance(found[:, column], ours)}")
    save("cavity", x, made)


# The conductivities of PINNacle's 25 cells, x first, and the two numbers of the load in each.
MANY_A = np.array([
    [46.117282, 0.59732824, 0.2922707, 1.2627643, 0.14456196],
    [12.718149, 1.4697529, 82.580229, 0.23611764, 0.32125753],
    [0.98706832, 9.0569332, 87.936036, 0.1319132, 66.248478],
    [6.9401304, 1.7143662, 1.8829439, 0.47775481, 12.267758],
    [65.953158, 22.765143, 5.1495063, 10.517297, 6.4850083],
])  # fmt: skip
MANY_F = np.array([
    [[-0.53914513, -0.37767988, 0.95938867, 0.23957923, 0.52985027],
     [-0.87542248, 0.92005859, 0.23021762, 0.1264191, -0.80555258],
     [0.31182539, -0.12397613, 0.75588619, -0.056908056, -0.96849774],
     [-0.40548049, 0.89286094, 0.43945795, -0.80379956, 0.50877999],
     [0.63564598, -0.43481957, -0.83234209, -0.77883861, 0.17857871],],
    [[-0.8293751, 0.1142822, 0.58644374, -0.93709503, 0.42473107],
     [0.47791742, -0.36907941, 0.33962814, 0.3241248, 0.26526502],
     [0.66301599, -0.079720287, -0.76039446, 0.1051315, -0.058647017],
     [0.076138016, -0.18601997, 0.049058027, -0.41341084, 0.22480584],
     [-0.78251242, -0.63584561, 0.88460901, 0.67747406, -0.98483084],],
])  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    make_poisson_boltzmann(folder)
    make_many_area(folder)
    make_cavity(folder)


if __name__ == "__main__":
    main()
