"""Where residuals are measured: points in the unit cube, and residual-adaptive selection."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy.stats import qmc


class AbstractSampler(eqx.Module):
    """Draws points of the unit cube: `sampler(key, count, ndim)`, shape `(count, ndim)`."""

    def __call__(self, key: Key[Array, ""], count: int, ndim: int) -> Float[Array, "n d"]:
        raise NotImplementedError


class Uniform(AbstractSampler):
    """Independent uniform points.

    ```python
    >>> import jax, pde
    >>> pde.Uniform()(jax.random.key(0), 4, 2).shape
    (4, 2)

    ```
    """

    def __call__(self, key, count, ndim):
        return jax.random.uniform(key, (count, ndim))


_SOBOL_BITS = 30


@functools.lru_cache(maxsize=32)
def _sobol_integers(count: int, ndim: int) -> np.ndarray:
    # A count that is no power of two takes the first points of the next one: balance is then
    # approximate, which scipy warns of and a collocation method does not need.
    engine = qmc.Sobol(ndim, scramble=False, bits=_SOBOL_BITS)
    points = engine.random_base2(max(count - 1, 1).bit_length())[:count]
    return (points * 2**_SOBOL_BITS).astype(np.uint32)


def sobol_points(count: int, ndim: int) -> np.ndarray:
    """The first Sobol' points, in the middle of their cells, without JAX."""
    return (_sobol_integers(count, ndim) + 0.5) / 2.0**_SOBOL_BITS


class Sobol(AbstractSampler):
    """Sobol' points under a random digital shift, which keeps them a net.

    Owen, *Randomly permuted (t,m,s)-nets and (t,s)-sequences* (1995) discusses the shift; the
    direction numbers are those of Joe and Kuo, through SciPy.

    ```python
    >>> import jax, numpy as np, pde
    >>> x = pde.Sobol()(jax.random.key(0), 64, 1)[:, 0]
    >>> bool((np.bincount((np.asarray(x) * 64).astype(int)) == 1).all())
    True

    ```
    """

    def __call__(self, key, count, ndim):
        shift = jax.random.bits(key, (ndim,), jnp.uint32) >> (32 - _SOBOL_BITS)
        integers = jnp.asarray(_sobol_integers(count, ndim)) ^ shift
        return (integers + 0.5) / 2.0**_SOBOL_BITS


class Grid(AbstractSampler):
    """The midpoints of a uniform grid with about `count` cells: the key is not used.

    The number of cells along each axis is the same and their product does not exceed `count`.

    ```python
    >>> import jax, pde
    >>> pde.Grid()(jax.random.key(0), 4, 2).tolist()
    [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]

    ```
    """

    def __call__(self, key, count, ndim):
        cells = max(int(np.floor(count ** (1 / ndim) + 1e-9)), 1)
        axis = (jnp.arange(cells) + 0.5) / cells
        return jnp.stack(jnp.meshgrid(*[axis] * ndim, indexing="ij"), -1).reshape(-1, ndim)


def _morton(x: Float[Array, "n d"]) -> Array:
    """The place of each point of the unit cube along Morton's curve: bits of the coordinates in
    turn, so that points that are close along the curve are close in the cube."""
    leading = x[:, :_MORTON_BITS]
    ndim = leading.shape[1]
    bits = _MORTON_BITS // ndim
    cells = (jnp.clip(leading, 0, 1 - 2.0**-bits) * 2**bits).astype(jnp.uint32)
    code = jnp.zeros(x.shape[0], jnp.uint32)
    for bit in range(bits):
        for axis in range(ndim):
            code |= ((cells[:, axis] >> bit) & 1) << (bit * ndim + axis)
    return code


_MORTON_BITS = 30


class RAD(eqx.Module):
    r"""Residual-based adaptive distribution: keep points of a large draw where residuals are large.

    Wu, Zhu, Tan, Kartha and Lu, *A comprehensive study of non-adaptive and residual-based adaptive
    sampling for physics-informed neural networks* (2023), equation (2): a candidate is kept with
    probability proportional to $|r|^k / \operatorname{mean} |r|^k + c$ (at most one), without
    replacement. The draw is systematic along a space-filling curve (Madow 1949; Stevens and Olsen,
    *Spatially balanced sampling of natural resources*, 2004), so that points follow the density
    without the clusters and holes of independent draws.

    With `unbiased`, a kept point weighs the inverse of its probability. Plain RAD weighs the square
    of the residual by its own density, so it is a norm near $L^3$ that training minimises;
    unbiased, it stays the mean square over the domain, and the density only makes its quadrature
    good where the residual varies. On the Burgers front that is worth a factor of two in the error
    (`docs/decisions.md`).

    **Arguments:** `candidates`, how many to choose among; `exponent` $k$; `offset` $c$;
    `unbiased`.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> rad, key = pde.RAD(candidates=100), jax.random.key(0)
    >>> index, weight = rad.choose(key, jax.random.uniform(key, (100, 2)), jnp.arange(100.0), 10)
    >>> index.shape, weight.shape
    ((10,), (10,))

    ```
    """

    candidates: int = eqx.field(static=True, default=20_000)
    exponent: float = 1.0
    offset: float = 1.0
    unbiased: bool = eqx.field(static=True, default=False)

    def choose(
        self,
        key: Key[Array, ""],
        points: Float[Array, "candidates d"],
        size: Float[Array, " candidates"],
        count: int,
    ) -> tuple[Int[Array, " count"], Float[Array, " count"]]:
        """Indices of the candidates to keep, and weights.

        **Arguments:** `points`, the candidates, in the unit cube; `size` of their residuals;
        `count`, how many to keep, fewer than there are.
        """
        power = size**self.exponent
        # A residual that vanishes everywhere asks for no preference.
        density = power / jnp.maximum(jnp.mean(power), jnp.finfo(size.dtype).tiny) + self.offset
        inclusion = _inclusion(density, count)
        order = jnp.argsort(_morton(points))
        passed = jnp.cumsum(inclusion[order])
        # One tick a unit of probability, all shifted by the same random number.
        ticks = (jnp.arange(count) + jax.random.uniform(key, (), size.dtype)) / count
        place = jnp.searchsorted(passed, ticks * passed[-1])
        index = order[jnp.minimum(place, size.shape[0] - 1)]
        if not self.unbiased:
            return index, jnp.ones(count, size.dtype)
        # Horvitz and Thompson's weight.
        return index, count / size.shape[0] / inclusion[index]


def _inclusion(density: Float[Array, " n"], count: int) -> Float[Array, " n"]:
    """Probabilities `min(1, c density)` that add up to `count`."""

    # Each round takes the factor that would do if no more of them reached one.
    def scale(probability, _):
        certain = probability >= 1
        free = jnp.sum(jnp.where(certain, 0, density))
        factor = (count - jnp.sum(certain)) / jnp.maximum(free, jnp.finfo(density.dtype).tiny)
        return jnp.where(certain, 1, jnp.minimum(factor * density, 1)), None

    return jax.lax.scan(scale, jnp.zeros_like(density), length=30)[0]


class Causal(eqx.Module):
    r"""Weights that let late times wait for early ones.

    Wang, Sankaran and Perdikaris, *Respecting causality is all you need for training
    physics-informed neural networks* (2022), equation (3.7): time is cut into chunks, and that of
    the mean square residual $L_i$ weighs $w_i = \exp(-\epsilon \sum_{k<i} L_k)$. The weights are
    made when points are drawn, and stay until they are drawn again, so that what an optimizer
    minimises in between is one function (the paper makes them in every step).

    **Arguments:** `tolerance` $\epsilon$; `chunks` of time.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> weights = pde.Causal(tolerance=1.0, chunks=2)(jnp.array([0.2, 0.7]), jnp.array([3.0, 1.0]))
    >>> [round(float(w), 4) for w in weights]
    [1.0, 0.0498]

    ```
    """

    tolerance: float = 1.0
    chunks: int = eqx.field(static=True, default=32)

    def __call__(
        self, times: Float[Array, " n"], squares: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """The weight of each point, from its time in the unit interval and its square residual."""
        chunk = jnp.clip((times * self.chunks).astype(int), 0, self.chunks - 1)
        total = jax.ops.segment_sum(squares, chunk, self.chunks)
        number = jax.ops.segment_sum(jnp.ones_like(squares), chunk, self.chunks)
        means = total / jnp.maximum(number, 1)
        before = jnp.cumsum(means) - means
        return jnp.exp(-self.tolerance * before)[chunk]
