"""Makes `cases/inverse_diffusion_reaction.npz`: two species that diffuse and react.

    a_t = 1e-3 D a_xx - k a b^2,   b_t = 1e-3 D b_xx - 2 k a b^2,   D = 2, k = 0.1,

both exp(-20 x) at first and 1 - x at the ends, as in DeepXDE's pinn_inverse/reaction_inverse.py.
Chebyshev collocation in space and SciPy's Radau in time, at two resolutions whose difference is
printed.

    python benchmarks/reaction_reference.py
"""

from pathlib import Path

import numpy as np
from _chebyshev import chebyshev
from scipy.integrate import solve_ivp
from scipy.interpolate import BarycentricInterpolator

DIFFUSION, RATE, END = 2e-3, 0.1, 10.0
X, T = np.linspace(0, 1, 101), np.linspace(0, END, 101)


def solve(n: int, tolerance: float) -> dict[str, np.ndarray]:
    x, d = chebyshev(n, (0, 1))
    second, start = DIFFUSION * d @ d, np.exp(-20 * x)
    ends = 1 - x[[0, -1]]

    def rate(_, y):
        a, b = y.reshape(2, -1)
        reaction = RATE * a * b**2
        out = np.stack([second @ a - reaction, second @ b - 2 * reaction])
        out[:, [0, -1]] = 0
        return out.ravel()

    def jacobian(_, y):
        a, b = y.reshape(2, -1)
        inside = np.ones(n + 1)
        inside[[0, -1]] = 0
        by_a, by_b = RATE * b**2, 2 * RATE * a * b
        blocks = [
            [second - np.diag(by_a), -np.diag(by_b)],
            [-2 * np.diag(by_a), second - 2 * np.diag(by_b)],
        ]
        return np.tile(inside, 2)[:, None] * np.block(blocks)

    start[[0, -1]] = ends
    found = solve_ivp(
        rate, (0, END), np.tile(start, 2), "Radau", T, jac=jacobian, rtol=tolerance, atol=tolerance
    )
    values = found.y.reshape(2, n + 1, T.size)
    return {name: BarycentricInterpolator(x, u)(X) for name, u in zip("ab", values, strict=True)}


def main() -> None:
    coarse, fine = solve(64, 1e-9), solve(96, 1e-11)
    gap = max(np.max(np.abs(fine[n] - coarse[n])) for n in fine)
    print(f"between two resolutions {gap:.1e}")
    path = Path(__file__).resolve().parent.parent / "cases" / "inverse_diffusion_reaction.npz"
    np.savez_compressed(path, x=X, t=T, **fine)  # pyright: ignore[reportArgumentType]
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
