"""The paper's test problems, generated: costs scaled to a maximum of 1."""

import jax.numpy as jnp
import numpy as np
from ott.geometry.costs import PNormP, SqEuclidean
from ott.geometry.grid import Grid
from scipy.optimize import linprog
from scipy.sparse import eye_array as eye
from scipy.sparse import kron, vstack


def assignment(n, seed=0):
    """Random assignment: independent uniform costs, uniform weights."""
    uniform = np.full(n, 1 / n)
    return np.random.default_rng(seed).uniform(size=(n, n)), uniform, uniform


def image(seed, side, ground):
    """Four Gaussian blobs; on a `ground` of 0 about half of the pixels carry no mass."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / (side - 1)
    pixels = np.zeros((side, side))
    for _ in range(4):
        centre, width = rng.uniform(0.2, 0.8, 2), rng.uniform(0.04, 0.12)
        pixels += np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
    pixels[pixels < 0.05] = 0
    pixels += ground
    return (pixels / pixels.sum()).ravel()


def images(power, side=28, ground=0.0):
    """Two images under L1 (`power=1`) or squared L2 (`power=2`) cost between pixels."""
    y, x = np.mgrid[:side, :side]
    at = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    cost = np.sum(np.abs(at[:, None] - at) ** power, axis=-1)
    return cost / cost.max(), image(1, side, ground), image(2, side, ground)


def pixels(power, side=28, epsilon=None):
    """The grid of such images, for ott, with that cost."""
    t = jnp.linspace(0, 2 ** (-1 / power), side)
    cost_fn = PNormP(1.0) if power == 1 else SqEuclidean()
    return Grid([t, t], cost_fns=[cost_fn], epsilon=epsilon)


def densities(power, n=500):
    """Two densities on the unit interval, for W1 and W2."""
    t = np.linspace(0, 1, n)
    a = np.exp(-((t - 0.3) ** 2) / 0.01) + 0.3 * np.exp(-((t - 0.8) ** 2) / 0.005) + 1e-3
    b = np.exp(-((t - 0.6) ** 2) / 0.02) + 1e-3
    return np.abs(t[:, None] - t) ** power, a / a.sum(), b / b.sum()


def clouds(n=500, m=500, seed=0):
    """Weighted points of two Gaussians in the plane under squared L2 cost."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    y = rng.normal(size=(m, 2)) @ np.array([[1, 0.5], [0, 0.6]]) + 1
    cost = np.sum((x[:, None] - y) ** 2, axis=-1)
    a, b = rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, m)
    return cost / cost.max(), a / a.sum(), b / b.sum()


def optimum(cost, a, b):
    """The unregularised optimum, by HiGHS' simplex."""
    n, m = cost.shape
    marginals = vstack([kron(eye(n), np.ones((1, m))), kron(np.ones((1, n)), eye(m))])
    scale = np.abs(cost).max()  # HiGHS has absolute tolerances
    weights = np.concatenate([a, b])
    return scale * linprog(cost.ravel() / scale, A_eq=marginals, b_eq=weights).fun
