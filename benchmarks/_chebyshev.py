"""Differentiation at Chebyshev's points."""

import numpy as np


def chebyshev(n: int, ends: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Points, ascending, and the matrix that differentiates: Trefethen (2000), chapter 6."""
    k = np.arange(n + 1)
    x = -np.cos(np.pi * k / n)
    c = np.where((k == 0) | (k == n), 2.0, 1.0) * (-1.0) ** k
    away = x[:, None] - x[None, :] + np.eye(n + 1)
    d = c[:, None] / c[None, :] / away
    d -= np.diag(d.sum(axis=1))
    half = (ends[1] - ends[0]) / 2
    return ends[0] + half * (x + 1), d / half
