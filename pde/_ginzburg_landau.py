"""The Ginzburg-Landau functional on tori and graphs, and what makes steps on it half-implicit."""

import abc
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar
from scipy.spatial import KDTree

CONVEXITY = 2.0  # the least c for which (u^2 - 1)^2/4 - c u^2/2 is concave on [-1, 1]


class AbstractDiffusion(eqx.Module):
    r"""A positive semidefinite operator $L$, in the place of $-\Delta$, and the measure of a point.

    Inner products are $\langle u, v \rangle = \mu \sum_i u_i v_i$.
    """

    @property
    @abc.abstractmethod
    def measure(self) -> float:
        r"""$\mu$, of each point."""

    @abc.abstractmethod
    def apply(self, u: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        """$Lu$."""

    @abc.abstractmethod
    def resolvent(self, a: Any, b: Any, g: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        """$(a + bL)^{-1} g$, for positive `a` and `b` not below zero."""


class Torus(AbstractDiffusion):
    r"""$-\Delta$ on a periodic box, by the Fourier series of values on a grid.

    **Arguments:** `lengths` of the box and `grid`, its points, one a direction.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> torus = pde.Torus([2 * jnp.pi], [16])
    >>> x = 2 * jnp.pi * jnp.arange(16) / 16
    >>> bool(jnp.allclose(torus.apply(jnp.sin(3 * x)), 9 * jnp.sin(3 * x), atol=1e-4))
    True

    ```
    """

    lengths: tuple[float, ...] = eqx.field(static=True, converter=lambda x: tuple(map(float, x)))
    grid: tuple[int, ...] = eqx.field(static=True, converter=tuple)

    @property
    def measure(self) -> float:
        return math.prod(self.lengths) / math.prod(self.grid)

    @property
    def symbol(self) -> np.ndarray:
        """The eigenvalues of the waves of a real transform."""
        halves = [*[np.fft.fftfreq] * (len(self.grid) - 1), np.fft.rfftfreq]
        k = [
            2 * np.pi * freq(n, length / n)
            for freq, n, length in zip(halves, self.grid, self.lengths, strict=True)
        ]
        return sum((np.square(m) for m in np.meshgrid(*k, indexing="ij")), start=np.zeros(()))

    def _multiplied(self, factor: Any, u: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        spectrum = jnp.fft.rfftn(u)
        return jnp.fft.irfftn(spectrum * jnp.asarray(factor, u.dtype), s=self.grid)

    def apply(self, u: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        return self._multiplied(self.symbol, u)

    def resolvent(self, a: Any, b: Any, g: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        return self._multiplied(1 / (a + b * self.symbol), g)


class Graph(AbstractDiffusion):
    r"""The normalised Laplacian $I - D^{-1/2} W D^{-1/2}$ of a weighted graph.

    Bertozzi and Flenner, *Diffuse interface models on graphs* (2012), section 2.2. It is taken
    apart into its eigenvectors once, or into the `modes` of the lowest ones, on which fields then
    lie: as there, and a step is cheap.

    **Arguments:** `weights`, symmetric, not negative, with a neighbour for each point; `modes`, all
    by default.

    **Raises:** `ValueError` for weights that are none of that.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> path = pde.Graph(jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    >>> path.values.round(6).tolist()
    [0.0, 1.0, 2.0]

    ```
    """

    values: Float[Array, " k"]
    vectors: Float[Array, "n k"]

    def __init__(self, weights: Float[Array, "n n"], modes: int | None = None):
        known = np.asarray(weights, float)
        if known.ndim != 2 or not np.allclose(known, known.T) or not (known >= 0).all():
            raise ValueError("A Graph needs a symmetric matrix of weights that are not negative.")
        degrees = known.sum(axis=1)
        if not (degrees > 0).all():
            raise ValueError(f"Point {int(degrees.argmin())} of the graph has no neighbour.")
        scale = 1 / np.sqrt(degrees)
        values, vectors = np.linalg.eigh(np.eye(len(known)) - scale[:, None] * known * scale)
        dtype = jnp.result_type(weights, jnp.float32)
        # The first is zero, but for rounding.
        self.values = jnp.asarray(np.maximum(values[:modes], 0), dtype)
        self.vectors = jnp.asarray(vectors[:, :modes], dtype)

    @classmethod
    def of_points(
        cls, points: Float[Any, "n d"], neighbours: int = 10, modes: int | None = None
    ) -> "Graph":
        r"""Of the `neighbours` nearest of each point, with weights
        $\exp(-|x_i - x_j|^2 / (s_i s_j))$, $s_i$ the distance of the last of them: Zelnik-Manor and
        Perona, *Self-tuning spectral clustering* (2004). Points are neighbours if one of them says
        so.

        **Raises:** `ValueError` for as many neighbours as points, or fewer than one.

        ```python
        >>> import numpy as np, pde
        >>> pde.Graph.of_points(np.array([[0.0], [0.1], [5.0], [5.1]]), 1).values.round(6).tolist()
        [0.0, 0.0, 2.0, 2.0]

        ```
        """
        points = np.asarray(points, float)
        if not 1 <= neighbours < len(points):
            raise ValueError(f"{len(points)} points do not have {neighbours} neighbours each.")
        away, which = KDTree(points).query(points, neighbours + 1)
        scale = away[:, -1]
        weights = np.zeros((len(points), len(points)))
        rows = np.arange(len(points))[:, None]
        weights[rows, which] = np.exp(-(away**2) / (scale[:, None] * scale[which]))
        np.fill_diagonal(weights, 0)
        return cls(jnp.asarray(np.maximum(weights, weights.T)), modes)

    @property
    def measure(self) -> float:
        return 1.0

    def apply(self, u: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.vectors @ (self.values * (self.vectors.T @ u))

    def resolvent(self, a: Any, b: Any, g: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.vectors @ ((self.vectors.T @ g) / (a + b * self.values))


class GinzburgLandau(eqx.Module):
    r"""$E(u) = \frac\varepsilon2 \langle u, Lu \rangle + \frac1\varepsilon \int W(u)
    + \frac12 \int \lambda (u - g)^2$ with the double well $W(u) = \frac14 (u^2 - 1)^2$.

    As $\varepsilon \to 0$ the first two are $\frac{2\sqrt2}{3}$ times the length, or area, of what
    lies between the phases $u = \pm 1$ (Modica and Mortola 1977). Minimise it by
    [`sciopt.nesterov`][] with `precondition`, whose steps are implicit in all that is convex and
    explicit in the rest: with momentum, the method of Akande, Dondl, Gupta, Onwunta and
    Wojtowytsch, *Momentum-based minimization of the Ginzburg-Landau functional on Euclidean spaces
    and graphs* (2025); without, Eyre's gradient flow, along which the energy does not rise,
    whatever the step.

    **Arguments:**

    - `diffusion`: [`pde.Torus`][] or [`pde.Graph`][].
    - `width`: $\varepsilon$, of the interfaces.
    - `labels`, `fidelity`: $g$ and $\lambda$, where something is known of some points; $\lambda$ is
        zero for the others.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, optax, pde, sciopt
        >>> energy = pde.GinzburgLandau(pde.Torus([1.0, 1.0], [32, 32]), width=0.05)
        >>> optimizer = sciopt.nesterov(0.5, energy.precondition(0.5))
        >>> u = 0.1 * jax.random.normal(jax.random.key(0), (32, 32))
        >>> state = optimizer.init(u)
        >>> @jax.jit
        ... def step(u, state):
        ...     updates, state = optimizer.update(energy.gradient(u), state, u)
        ...     return optax.apply_updates(u, updates), state
        >>> before = energy(u)
        >>> for _ in range(20):
        ...     u, state = step(u, state)
        >>> bool(energy(u) < 0.8 * before)
        True

        ```
    """

    diffusion: AbstractDiffusion
    width: float
    labels: Float[Array, "*grid"] | None = None
    fidelity: Float[Array, "*grid"] | None = None

    def __call__(self, u: Float[Array, "*grid"]) -> Scalar:
        spread = self.width / 2 * jnp.sum(u * self.diffusion.apply(u))
        well = jnp.sum((u**2 - 1) ** 2) / (4 * self.width)
        return self.diffusion.measure * (spread + well + self._misfit(u))

    def gradient(self, u: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        r"""In the inner product of the measure: $\varepsilon Lu + W'(u)/\varepsilon + \dots$."""
        slope = self.width * self.diffusion.apply(u) + (u**3 - u) / self.width
        if self.labels is None or self.fidelity is None:
            return slope
        return slope + self.fidelity * (u - self.labels)

    def precondition(self, step: float):
        r"""$(I + \tau A)^{-1}$ for a step $\tau$, where $A = \varepsilon L + c/\varepsilon +
        \max\lambda$ has all that is convex, with $c = 2$."""
        convex = CONVEXITY / self.width
        if self.fidelity is not None:
            convex = convex + jnp.max(self.fidelity)

        def resolved(g: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
            return self.diffusion.resolvent(1 + step * convex, step * self.width, g)

        return resolved

    def _misfit(self, u: Float[Array, "*grid"]) -> Scalar | float:
        if self.labels is None or self.fidelity is None:
            return 0.0
        return jnp.sum(self.fidelity * (u - self.labels) ** 2) / 2
