"""Least-squares problems of More, Garbow and Hillstrom, *Testing Unconstrained Optimization
Software* (ACM TOMS 7, 1981): residuals, standard starts, and the minima published there.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# fmt: off
BARD_Y = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
GAUSS_Y = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521]
KOWALIK_Y = [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
KOWALIK_U = [4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]
MEYER_Y = [
    34780.0, 28610, 23650, 19630, 16370, 13720, 11540, 9744,
    8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872,
]
OSBORNE_1_Y = [
    0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751,
    0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490,
    0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406,
]
OSBORNE_2_Y = [
    1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608,
    0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661,
    0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428,
    0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559,
    0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054,
]
# fmt: on


def rosenbrock(x):  # 1
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def freudenstein_roth(x):  # 2
    return jnp.stack(
        [
            -13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1],
            -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1],
        ]
    )


def powell_badly_scaled(x):  # 3
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x):  # 4
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x):  # 5
    powers = x[1] ** jnp.arange(1, 4)
    return jnp.array([1.5, 2.25, 2.625]) - x[0] * (1 - powers)


def jennrich_sampson(x):  # 6
    i = jnp.arange(1.0, 11)
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley(x):  # 7
    angle = jnp.arctan2(x[1], x[0]) / (2 * jnp.pi)
    return jnp.stack([10 * (x[2] - 10 * angle), 10 * (jnp.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


def bard(x):  # 8
    u = jnp.arange(1.0, 16)
    v = 16 - u
    return jnp.array(BARD_Y) - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2]))


def gaussian(x):  # 9
    t = (8 - jnp.arange(1.0, 16)) / 2
    y = jnp.array([*GAUSS_Y, 0.3989, *reversed(GAUSS_Y)])
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - y


def meyer(x):  # 10
    t = 45 + 5 * jnp.arange(1.0, 17)
    return x[0] * jnp.exp(x[1] / (t + x[2])) - jnp.array(MEYER_Y)


def box_3d(x):  # 12
    t = jnp.arange(1, 11) / 10
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (jnp.exp(-t) - jnp.exp(-10 * t))


def powell_singular(x):  # 13
    return jnp.stack(
        [
            x[0] + 10 * x[1],
            jnp.sqrt(5.0) * (x[2] - x[3]),
            (x[1] - 2 * x[2]) ** 2,
            jnp.sqrt(10.0) * (x[0] - x[3]) ** 2,
        ]
    )


def wood(x):  # 14
    return jnp.stack(
        [
            10 * (x[1] - x[0] ** 2),
            1 - x[0],
            jnp.sqrt(90.0) * (x[3] - x[2] ** 2),
            1 - x[2],
            jnp.sqrt(10.0) * (x[1] + x[3] - 2),
            (x[1] - x[3]) / jnp.sqrt(10.0),
        ]
    )


def kowalik_osborne(x):  # 15
    u = jnp.array(KOWALIK_U)
    return jnp.array(KOWALIK_Y) - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x):  # 16
    t = jnp.arange(1, 21) / 5
    return (x[0] + t * x[1] - jnp.exp(t)) ** 2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2


def osborne_1(x):  # 17
    t = 10 * jnp.arange(33.0)
    model = x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4])
    return jnp.array(OSBORNE_1_Y) - model


def biggs_exp6(x):  # 18
    t = jnp.arange(1, 14) / 10
    y = jnp.exp(-t) - 5 * jnp.exp(-10 * t) + 3 * jnp.exp(-4 * t)
    return x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4]) - y


def osborne_2(x):  # 19
    t = jnp.arange(65) / 10
    peaks = x[1:4] * jnp.exp(-((t[:, None] - x[8:11]) ** 2) * x[5:8])
    return jnp.array(OSBORNE_2_Y) - (x[0] * jnp.exp(-t * x[4]) + jnp.sum(peaks, axis=1))


def watson(x):  # 20
    t, j = jnp.arange(1, 30)[:, None] / 29, jnp.arange(x.size)
    slope, value = (j[1:] * t ** (j[1:] - 1)) @ x[1:], (t**j) @ x
    return jnp.concatenate([slope - value**2 - 1, jnp.stack([x[0], x[1] - x[0] ** 2 - 1])])


def variably_dimensioned(x):  # 25
    total = jnp.arange(1, x.size + 1) @ (x - 1)
    return jnp.concatenate([x - 1, jnp.stack([total, total**2])])


def brown_almost_linear(x):  # 27
    return jnp.append(x[:-1] + jnp.sum(x) - x.size - 1, jnp.prod(x) - 1)


def broyden_tridiagonal(x):  # 30
    left, right = jnp.pad(x[:-1], (1, 0)), jnp.pad(x[1:], (0, 1))
    return (3 - 2 * x) * x - left - 2 * right + 1


def linear_full_rank(x):  # 32
    return jnp.pad(x, (0, 5)) - 2 / (x.size + 5) * jnp.sum(x) - 1


def linear_rank_1(x):  # 33
    return jnp.arange(1, 11) * (jnp.arange(1, x.size + 1) @ x) - 1


class Problem(NamedTuple):
    """Residuals, the start, and the published minima of the sum of squares."""

    residual: Callable[[jax.Array], jax.Array]
    start: list[float]
    minima: list[float]

    @property
    def name(self) -> str:
        return self.residual.__name__


PROBLEMS = [
    Problem(rosenbrock, [-1.2, 1], [0]),
    Problem(freudenstein_roth, [0.5, -2], [0, 48.9842]),
    Problem(powell_badly_scaled, [0, 1], [0]),
    Problem(brown_badly_scaled, [1, 1], [0]),
    Problem(beale, [1, 1], [0]),
    Problem(jennrich_sampson, [0.3, 0.4], [124.362]),
    Problem(helical_valley, [-1, 0, 0], [0]),
    Problem(bard, [1, 1, 1], [8.21487e-3, 17.4286]),
    Problem(gaussian, [0.4, 1, 0], [1.12793e-8]),
    Problem(meyer, [0.02, 4000, 250], [87.9458]),
    Problem(box_3d, [0, 10, 20], [0]),
    Problem(powell_singular, [3, -1, 0, 1], [0]),
    Problem(wood, [-3, -1, -3, -1], [0]),
    Problem(kowalik_osborne, [0.25, 0.39, 0.415, 0.39], [3.07505e-4, 1.02734e-3]),
    Problem(brown_dennis, [25, 5, -5, -1], [85822.2]),
    Problem(osborne_1, [0.5, 1.5, -1, 0.01, 0.02], [5.46489e-5]),
    Problem(biggs_exp6, [1, 2, 1, 1, 1, 1], [5.65565e-3, 0]),
    Problem(osborne_2, [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5], [4.01377e-2]),
    Problem(watson, [0] * 6, [2.28767e-3]),
    Problem(variably_dimensioned, [1 - j / 10 for j in range(1, 11)], [0]),
    Problem(brown_almost_linear, [0.5] * 4, [0, 1]),
    Problem(broyden_tridiagonal, [-1] * 10, [0]),
    Problem(linear_full_rank, [1] * 5, [5]),
    Problem(linear_rank_1, [1] * 5, [15 / 7]),
]


def one_of(problems: list[Problem]):
    """`residuals(x, number)` of every problem, padded to one size: one program solves them all."""
    like = [jax.ShapeDtypeStruct((len(p.start),), float) for p in problems]
    most = max(jax.eval_shape(p.residual, x).size for p, x in zip(problems, like, strict=True))

    def padded(problem):
        def residuals(x):
            r = problem.residual(x[: len(problem.start)])
            return jnp.pad(r, (0, most - r.size))

        return residuals

    branches = [padded(p) for p in problems]
    return lambda x, number: jax.lax.switch(number, branches, x)


def starts(problems: list[Problem]) -> jax.Array:
    """Of the same size, by zeros: variables that no residual knows."""
    most = max(len(p.start) for p in problems)
    return jnp.array([[*p.start, *[0] * (most - len(p.start))] for p in problems], float)
