"""Makes `cases/poisson_holes.npz`: Laplace on a square with four holes, as PINNacle has it.

The solution is sought as harmonic polynomials and multipoles in the holes and in their images
beyond the sides, by least squares on the boundary. It satisfies the equation, so the error within
is at most the one on the boundary, by the maximum principle; that is measured between the points of
the fit and printed.

    python benchmarks/harmonic_references.py
"""

from pathlib import Path

import numpy as np

HALF, CENTRE, RADIUS = 0.5, 0.3, 0.1
ORDER, DEGREE = 24, 40


def basis(z: np.ndarray) -> np.ndarray:
    """One column a harmonic function."""
    columns = [np.ones(z.shape)]
    for n in range(1, DEGREE + 1):
        power = (z / 0.75) ** n
        columns += [power.real, power.imag]
    # The holes and, by Schwarz's reflection, those beyond each side and corner.
    places = [-1.3, -0.7, -0.3, 0.3, 0.7, 1.3]
    for c in (a + 1j * b for a in places for b in places):
        away = z - c
        columns.append(np.log(np.abs(away)))
        for n in range(1, ORDER + 1):
            power = (RADIUS / away) ** n
            columns += [power.real, power.imag]
    return np.stack(columns, -1)


def boundary(count: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Points, and the value there: 1 on the sides and 0 on the circles."""
    s = (np.arange(count) + shift) / count
    side = np.cos(np.pi * s) * HALF + 1j * HALF
    circle = RADIUS * np.exp(2j * np.pi * s)
    sides = [side * turn for turn in (1, 1j, -1, -1j)]
    circles = [circle + a + 1j * b for a in (-CENTRE, CENTRE) for b in (-CENTRE, CENTRE)]
    z = np.concatenate(sides + circles)
    return z, np.repeat([1.0, 0.0], 4 * count)


def main() -> None:
    z, wanted = boundary(400, 0.5)
    matrix = basis(z)
    scale = np.linalg.norm(matrix, axis=0)
    coefficients = np.linalg.lstsq(matrix / scale, wanted, rcond=1e-15)[0] / scale
    z, wanted = boundary(1777, 0.25)
    print(f"error on the boundary {np.max(np.abs(basis(z) @ coefficients - wanted)):.1e}")
    x = np.linspace(-HALF, HALF, 101)
    grid = x[:, None] + 1j * x[None, :]
    hole = np.abs(np.abs(grid.real) - CENTRE + 1j * (np.abs(grid.imag) - CENTRE)) < RADIUS - 1e-9
    u = np.full(grid.shape, np.nan)
    u[~hole] = basis(grid[~hole]) @ coefficients
    path = Path(__file__).resolve().parent.parent / "cases" / "poisson_holes.npz"
    np.savez_compressed(path, x=x, y=x, u=u)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, centre {u[50, 50]:.15f}")


if __name__ == "__main__":
    main()
