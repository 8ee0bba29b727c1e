r"""How hard a problem is for gradient descent, and what makes it easier.

De Ryck, Bonnet, Mishra and de Bézenac, *An operator preconditioning perspective on training in
physics-informed machine learning* (ICLR 2024). Near its parameters a model is linear, and gradient
descent on residuals converges at the rate of the condition number of

$$A_{ij} = \langle \mathcal D \phi_i, \mathcal D \phi_j \rangle_\Omega
         + \lambda \langle \phi_i, \phi_j \rangle_{\partial \Omega},
  \qquad \phi_i = \partial u / \partial \theta_i$$

(after the paper as others quote it; its text was not at hand). Its eigenvalues are those of the
Hermitian square $\mathcal D^* \mathcal D$ composed with the kernel operator $T T^*$ of the model.
With means over points for the integrals, $A = J^\top J$ with the Jacobian $J$ of the scaled
residuals, as [`sciopt.Residuals`][] has it: a
block is one summand, and the weights of the loss are in it.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sciopt import Residuals

from ._domain import Box
from ._fourier_series import FourierSeries
from ._pinn import PINN, Points
from ._problem import EQUATIONS
from ._sample import Grid

ALL = "all"
"""The name of the sum of all blocks, in a spectrum."""


class Spectrum(eqx.Module):
    """Eigenvalues of a positive semi-definite matrix, in descending order.

    `size` is that of the matrix. `complete` is false where Lanczos ended before it had them all:
    the largest are then eigenvalues, and the smallest is an upper bound of one.
    """

    eigenvalues: Float[Array, " n"]
    size: int = eqx.field(static=True)
    complete: bool = eqx.field(static=True, default=True)

    @property
    def rank(self) -> int:
        """How many eigenvalues are not zero, to rounding."""
        values = np.asarray(self.eigenvalues)
        # Eigenvalues are squares of singular values, and rounding is relative to the latter.
        floor = (self.size * np.finfo(values.dtype).eps) ** 2 * values[0]
        return int(np.sum(values > floor))

    @property
    def condition(self) -> float:
        """The largest eigenvalue over the smallest that is not zero."""
        values = np.asarray(self.eigenvalues)
        return float(values[0] / values[self.rank - 1]) if self.rank else math.inf

    def learned(self, steps: int) -> int:
        """Of how many eigenvectors gradient descent removes the error, to 1/e, in some steps.

        With the step size 1/λ₁, that of λ shrinks by 1 - λ/λ₁ a step.
        """
        values = np.asarray(self.eigenvalues)
        return int(np.sum(values * steps >= values[0])) if values[0] > 0 else 0


def spectrum(
    residuals: Residuals,
    params: PyTree,
    points: Mapping[str, PyTree],
    *,
    method: Literal["dense", "lanczos"] = "dense",
    steps: int | None = None,
    key: Key[Array, ""] | None = None,
) -> dict[str, Spectrum]:
    """The spectrum of A at some parameters: of each block, and under `"all"` of their sum.

    **Arguments:**

    - `residuals`, `params`, `points`: as of a [`pde.PINN`][], or of any other
        [`sciopt.Residuals`][].
    - `method`: `"dense"`, the squares of the singular values of the Jacobian, so that condition
        numbers far beyond the reciprocal of the precision are resolved; or `"lanczos"`, by products
        with the Jacobian alone.
    - `steps`: of Lanczos; by default as many as there are eigenvalues, at most 300.
    - `key`: for the vector that Lanczos starts from.

    ```python
    >>> import jax, pde
    >>> problem = pde.Problem(
    ...     pde.Box(x=(0, 1)), ["u"], {"load": lambda v: v.u_xx + 1},
    ...     {"ends": pde.Dirichlet({"x": (0, 1)}, {"u": 0.0}, points=2)},
    ... )
    >>> pinn = pde.PINN(problem, pde.FourierSeries(1, 1, modes=4), points=16, sampler=pde.Grid())
    >>> points = pinn.sample(jax.random.key(0), pinn.params)
    >>> found = pde.preconditioning.spectrum(pinn.residuals, pinn.params, points)
    >>> {name: (s.rank, round(s.condition)) for name, s in found.items()}
    {'ends': (1, 1), 'load': (8, 256), 'all': (9, 399542)}

    ```
    """
    if method == "dense":
        return _dense(residuals, params, dict(points))
    return _lanczos(residuals, params, dict(points), steps, key)


def model(pinn: PINN) -> Residuals:
    """The residuals of fitting the solution itself: A without the operator, the model's own part.

    Its points are those of the equations.

    ```python
    >>> import jax, pde
    >>> problem = pde.Problem(pde.Box(x=(0, 1)), ["u"], {"load": lambda v: v.u_xx + 1}, {})
    >>> pinn = pde.PINN(problem, pde.FourierSeries(1, 1, modes=4), points=16, sampler=pde.Grid())
    >>> points = pinn.sample(jax.random.key(0), pinn.params)
    >>> own = pde.preconditioning.spectrum(pde.preconditioning.model(pinn), pinn.params, points)
    >>> round(own["all"].condition, 6)
    1.0

    ```
    """

    def fit(params, point):
        return pinn.field(params)(point["x"])

    return Residuals({EQUATIONS: fit})


def diagonal(pinn: PINN, points: Points) -> Float[Array, " waves"]:
    r"""The factors that precondition a model that is linear in its parameters.

    As the paper does it: a wave $\phi_i$ is divided by $\|\mathcal D \phi_i\|$ ($1 / k^2$ for
    Poisson's equation), so that the Hermitian square is the identity on what the operator sees.
    A wave that it does not see gets the paper's $\gamma$, where $\gamma^2$ times the boundary's
    part of its diagonal is one (their $\lambda \gamma^2 = 2 \pi$): the condition number is then
    $1 + O(1 / \gamma)$, the smaller the less the boundary weighs.

    Use: `pde.PINN(problem, series.rescaled(diagonal(pinn, points)), ...)`.

    **Raises:** `ValueError` for more than one unknown, or a network that is no
    [`pde.FourierSeries`][].

    ```python
    >>> import jax, numpy as np, pde
    >>> problem = pde.Problem(
    ...     pde.Box(x=(-np.pi, np.pi)), ["u"], {"load": lambda v: v.u_xx + 1},
    ...     {"ends": pde.Dirichlet({"x": (-np.pi, np.pi)}, {"u": 0.0}, points=2)},
    ... )
    >>> pinn = pde.PINN(problem, pde.FourierSeries(1, 1, modes=3), points=16, sampler=pde.Grid())
    >>> points = pinn.sample(jax.random.key(0), pinn.params)
    >>> [round(float(p), 3) for p in pde.preconditioning.diagonal(pinn, points)]
    [1.0, 1.0, 0.25, 0.111, 1.0, 0.25, 0.111]

    ```
    """
    network = pinn.static.network
    if not isinstance(network, FourierSeries) or len(pinn.problem.unknowns) != 1:
        raise ValueError("Only a FourierSeries of one unknown can be rescaled.")
    coefficients = jax.tree.leaves(pinn.params)[0]
    # A wave that the equations do not see, seen through rounding.
    unseen = pinn.points * jnp.finfo(coefficients.dtype).eps
    seen = jnp.zeros_like(coefficients[0])
    everything = seen
    for name, rows in _rows(pinn.residuals, pinn.params, points).items():
        squares = jnp.sum(rows**2, 0)
        everything += squares
        if name in pinn.problem.equations:
            seen += squares
    square = jnp.where(seen > unseen**2 * jnp.max(seen), seen, everything)
    return jnp.where(square > 0, 1 / jnp.sqrt(jnp.where(square > 0, square, 1)), 1.0)


class InverseLaplacian(eqx.Module):
    r"""$(-\Delta)^{-s}$ on what has values at the midpoints of a grid: a left preconditioner.

    The discrete inverse of an operator's principal part, applied to the residuals of an equation
    before they are squared: of $\mathcal D = -\Delta + \ldots$ what gradient descent then sees is
    the identity and what is compact beside it, so that its condition number is the model's own. It
    is diagonal in waves that satisfy the boundary conditions, which fast transforms lead to. For
    means, which the Laplacian does not see, it does what it does for the longest wave.

    **Arguments:**

    - `box`: whose coordinates are all of space.
    - `points`: of the [`pde.Grid`][] that the equation is sampled on.
    - `boundary`: coordinate to `"dirichlet"`, `"neumann"` or `"periodic"`, the condition on both of
        its ends; `"dirichlet"` where not named.
    - `power`: $s$. With 1/2 the loss is the energy norm of the error, with 1 its $L^2$ norm.

    **Raises:** `ValueError` where it is called with values that are not on such a grid.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> box = pde.Box(x=(0, 1))
    >>> x = box.draw(pde.Grid(), jax.random.key(0), 8)[:, 0]
    >>> solve = pde.preconditioning.InverseLaplacian(box, 8)
    >>> bool(jnp.allclose(solve(jnp.pi**2 * jnp.sin(jnp.pi * x)), jnp.sin(jnp.pi * x)))
    True

    ```
    """

    lengths: tuple[float, ...] = eqx.field(static=True)
    kinds: tuple[str, ...] = eqx.field(static=True)
    cells: int = eqx.field(static=True)
    power: float = eqx.field(static=True)

    def __init__(
        self,
        box: Box,
        points: int,
        boundary: Mapping[str, Literal["dirichlet", "neumann", "periodic"]] | None = None,
        power: float = 1.0,
    ):
        kinds = dict.fromkeys(box.names, "dirichlet") | dict(boundary or {})
        if unknown := sorted(set(kinds) - set(box.names)):
            raise ValueError(f"There is no coordinate {', '.join(unknown)} in this box.")
        if wrong := sorted(set(kinds.values()) - {"dirichlet", "neumann", "periodic"}):
            raise ValueError(f"A boundary is dirichlet, neumann or periodic, not {wrong[0]}.")
        self.lengths = tuple(b - a for a, b in zip(box.lower, box.upper, strict=True))
        self.kinds = tuple(kinds[name] for name in box.names)
        self.cells = round(Grid()(jax.random.key(0), points, box.ndim).shape[0] ** (1 / box.ndim))
        self.power = power

    @property
    def eigenvalues(self) -> Float[Array, "..."]:
        """Of the negative Laplacian, an axis a coordinate; the mean's is that of the longest."""
        index = np.arange(self.cells)
        waves = {
            "dirichlet": np.pi * (index + 1),
            "neumann": np.pi * index,
            "periodic": 2 * np.pi * np.minimum(index, self.cells - index),
        }
        found = np.zeros((self.cells,) * len(self.kinds))
        for axis, (kind, length) in enumerate(zip(self.kinds, self.lengths, strict=True)):
            shape = [1] * found.ndim
            shape[axis] = -1
            found = found + (waves[kind] / length).reshape(shape) ** 2
        return jnp.asarray(np.where(found > 0, found, np.min(found[found > 0])))

    def __call__(self, values: Float[Array, "n *rest"]) -> Float[Array, "n *rest"]:
        """The map, along the leading axis."""
        grid = (self.cells,) * len(self.kinds)
        if values.shape[0] != math.prod(grid):
            raise ValueError(
                f"{values.shape[0]} residuals are not on a grid of {' x '.join(map(str, grid))}: "
                "sample the equation with pde.Grid()."
            )
        found = values.reshape(*grid, *values.shape[1:])
        for axis, kind in enumerate(self.kinds):
            found = _transformed(found, axis, kind)
        factor = self.eigenvalues.astype(values.dtype) ** -self.power
        found = found * factor.reshape(*grid, *[1] * (values.ndim - 1))
        for axis, kind in enumerate(self.kinds):
            found = _restored(found, axis, kind)
        return found.real.reshape(values.shape)


def _transformed(values: Array, axis: int, kind: str) -> Array:
    """Coefficients of waves on midpoints: orthonormal."""
    if kind == "periodic":
        return jnp.fft.fft(values, axis=axis, norm="ortho")
    if kind == "neumann":
        return _cosines(values, axis)
    # Of type II: sin(k x) at midpoints is cos((n - k) x) there with alternating signs.
    return jnp.flip(_cosines(values * _signs(values, axis), axis), axis)


def _restored(values: Array, axis: int, kind: str) -> Array:
    if kind == "periodic":
        return jnp.fft.ifft(values, axis=axis, norm="ortho")
    if kind == "neumann":
        return _cosines(values, axis, inverse=True)
    return _cosines(jnp.flip(values, axis), axis, inverse=True) * _signs(values, axis)


def _cosines(values: Array, axis: int, inverse: bool = False) -> Array:
    transform = jax.scipy.fft.idct if inverse else jax.scipy.fft.dct
    if not jnp.iscomplexobj(values):
        return transform(values, axis=axis, norm="ortho")
    parts = (transform(part, axis=axis, norm="ortho") for part in (values.real, values.imag))
    return jax.lax.complex(*parts)


def _signs(values: Array, axis: int) -> Array:
    shape = [1] * values.ndim
    shape[axis] = -1
    return jnp.asarray((-1.0) ** np.arange(values.shape[axis]), values.real.dtype).reshape(shape)


def _rows(
    residuals: Residuals, params: PyTree, points: Mapping[str, PyTree]
) -> dict[str, Float[Array, "rows parameters"]]:
    """The Jacobian's rows by the residual's name."""
    scaled, jacobian = eqx.filter_jit(residuals.jacobian)(params, points)
    return {name: jacobian[rows] for name, rows in _slices(scaled).items()}


def _slices(scaled: Mapping[str, Array]) -> dict[str, slice]:
    # `jacobian` lists residuals by their sorted names.
    names = sorted(scaled)
    ends = list(itertools.accumulate(scaled[name].size for name in names))
    return dict(zip(names, map(slice, [0, *ends[:-1]], ends), strict=True))


def _dense(residuals: Residuals, params: PyTree, points: dict[str, PyTree]) -> dict[str, Spectrum]:
    rows = _rows(residuals, params, points)
    everything = jnp.concatenate(list(rows.values()))
    found = {}
    for name, matrix in (rows | {ALL: everything}).items():
        size = matrix.shape[1]
        values = jnp.linalg.svd(matrix, compute_uv=False) ** 2
        found[name] = Spectrum(jnp.zeros(size, values.dtype).at[: values.size].set(values), size)
    return found


def _lanczos(
    residuals: Residuals,
    params: PyTree,
    points: dict[str, PyTree],
    steps: int | None,
    key: Key[Array, ""] | None,
) -> dict[str, Spectrum]:
    scaled, operator = residuals.operator(params, points)
    size = operator.in_size()
    key = jax.random.key(0) if key is None else key
    slices = _slices(scaled)
    if len(slices) > 1:
        slices[ALL] = slice(0, operator.out_size())
    found = {}
    for name, rows in slices.items():
        whole = min(rows.stop - rows.start, size)
        count = min(whole, 300 if steps is None else steps)
        values = _ritz(operator, rows.start, rows.stop, count, key) ** 2
        if count == whole:
            values = jnp.zeros(size, values.dtype).at[:count].set(values)
        found[name] = Spectrum(values, size, complete=count == whole)
    # Of a single block the sum is itself.
    return found if ALL in found else found | {ALL: next(iter(found.values()))}


@eqx.filter_jit
def _ritz(operator, start: int, stop: int, steps: int, key) -> Float[Array, " steps"]:
    """Singular values of some rows of an operator."""
    structure = operator.out_structure()

    def forward(v):
        return operator.mv(v)[start:stop]

    def backward(u):
        return operator.transpose().mv(
            jnp.zeros(structure.shape, structure.dtype).at[start:stop].set(u)
        )

    shape = (stop - start, operator.in_size())
    return singular_values(forward, backward, shape, steps, key, structure.dtype)


def singular_values(
    forward: Callable[[Array], Array],
    backward: Callable[[Array], Array],
    shape: tuple[int, int],
    steps: int,
    key: Key[Array, ""],
    dtype=None,
) -> Float[Array, " steps"]:
    r"""Approximations of the singular values of a matrix, from products with it and its transpose.

    Golub and Kahan's Lanczos bidiagonalisation (1965), with each new vector made orthogonal to all
    the earlier ones: its bidiagonal matrix has the extreme singular values first, and after
    `min(shape)` steps all of them, to rounding times the largest.

    **Arguments:** `forward`, `backward`, the products; `shape` of the matrix; `steps`, at most
    `min(shape)`; `key`, for the vectors from which it starts, anew where the space is invariant.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from pde.preconditioning import singular_values
    >>> a = jnp.array([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    >>> s = singular_values(lambda v: a @ v, lambda u: a.T @ u, (3, 2), 2, jax.random.key(0))
    >>> [round(float(x), 5) for x in s]
    [3.0, 2.0]

    ```
    """
    m, n = shape
    if not 1 <= steps <= min(shape):
        raise ValueError(f"A matrix of shape {shape} takes 1 to {min(shape)} steps, not {steps}.")
    left_key, right_key = jax.random.split(key)
    lefts, rights = (
        jax.random.normal(k, (steps + 1, size), dtype)
        for k, size in ((left_key, m), (right_key, n))
    )
    first = rights[0] / jnp.linalg.norm(rights[0])

    def step(carry, i):
        left, right, v, beta, largest = carry
        u, alpha = _orthonormal(left, forward(v), lefts[i], largest)
        largest = jnp.maximum(largest, alpha)
        left = left.at[i].set(u)
        v, beta = _orthonormal(right, backward(u), rights[i + 1], largest)
        largest = jnp.maximum(largest, beta)
        right = right.at[i + 1].set(v)
        return (left, right, v, beta, largest), (alpha, beta)

    zero = jnp.zeros((), first.dtype)
    left = jnp.zeros((steps, m), first.dtype)
    right = jnp.zeros((steps + 1, n), first.dtype).at[0].set(first)
    _, (alpha, beta) = jax.lax.scan(step, (left, right, first, zero, zero), jnp.arange(steps))
    # The last superdiagonal too: it is part of the matrix where that has more columns than rows.
    bidiagonal = jnp.zeros((steps, steps + 1), first.dtype)
    index = jnp.arange(steps)
    bidiagonal = bidiagonal.at[index, index].set(alpha).at[index, index + 1].set(beta)
    return jnp.linalg.svd(bidiagonal, compute_uv=False)


def _orthonormal(
    basis: Float[Array, "k n"], vector: Float[Array, " n"], another: Float[Array, " n"], scale
) -> tuple[Float[Array, " n"], Array]:
    """A vector's part that is orthogonal to a basis, as direction and length; where there is none,
    the direction of `another` vector's, and length zero."""

    def project(v):
        # Twice is enough (Kahan, in Parlett's book).
        for _ in range(2):
            v = v - basis.T @ (basis @ v)
        return v

    vector, another = project(vector), project(another)
    length = jnp.linalg.norm(vector)
    vanishes = length <= jnp.sqrt(vector.size) * jnp.finfo(vector.dtype).eps * scale
    chosen = jnp.where(vanishes, another, vector)
    norm = jnp.linalg.norm(chosen)
    # No direction is left once the basis is the whole space.
    direction = chosen / jnp.where(norm > 0, norm, 1)
    return direction, jnp.where(vanishes, 0, length)
