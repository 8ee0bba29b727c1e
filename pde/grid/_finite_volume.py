r"""Conservation laws by finite volumes: means of cells, and what flows through their faces.

Van Leer's MUSCL, J. Comput. Phys. 32 (1979): slopes in cells, limited where there are fronts, give
the values on both sides of a face. The flux between them is Rusanov's, $\frac12 (f(u_-) + f(u_+)) -
\frac12 s (u_+ - u_-)$ with the larger of both speeds s. What leaves one cell enters the next, so
sums are kept to rounding. Shu and Osher, J. Comput. Phys. 77 (1988), for the steps: convex
combinations of Euler's, by which no step of Courant number below a half makes new extrema in one
coordinate where slopes are limited.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from ._mesh import Mesh

GHOSTS = 2  # cells beyond each end, of which slopes are made


class AbstractConservationLaw(eqx.Module):
    r"""$u_t + \sum_k \partial_k f_k(u) = 0$ for fields along the first axis."""

    @abc.abstractmethod
    def flux(self, u: Float[Array, "fields ..."], axis: int) -> Float[Array, "fields ..."]:
        """$f_k$."""

    @abc.abstractmethod
    def speed(self, u: Float[Array, "fields ..."], axis: int) -> Float[Array, "..."]:
        """The largest with which anything moves along an axis."""

    def mirrored(self, u: Float[Array, "fields ..."], axis: int) -> Float[Array, "fields ..."]:
        """What a wall across an axis shows of the flow before it."""
        return u


class InviscidBurgers(AbstractConservationLaw):
    r"""$u_t + \sum_k \partial_k \frac{u^2}{2} = 0$.

    ```python
    >>> import jax.numpy as jnp
    >>> from pde import grid
    >>> grid.InviscidBurgers().flux(jnp.array([[2.0, -1.0]]), 0).tolist()
    [[2.0, 0.5]]

    ```
    """

    def flux(self, u, axis):
        return u**2 / 2

    def speed(self, u, axis):
        return jnp.abs(u[0])


class ShallowWater(AbstractConservationLaw):
    r"""Depth h and discharge $hu_k$ along each axis: $f_k = (hu_k, hu_k u + \frac g2 h^2 e_k)$.

    Depth must be above zero everywhere.

    **Arguments:** `gravity` $g$.

    ```python
    >>> import jax.numpy as jnp
    >>> from pde import grid
    >>> water = grid.ShallowWater(gravity=10.0)
    >>> water.flux(jnp.array([[2.0], [4.0]]), 0).tolist()
    [[4.0], [28.0]]

    ```
    """

    gravity: float | Scalar = 9.81

    def flux(self, u, axis):
        h, along = u[0], u[1 + axis]
        moved = u * (along / h)
        return moved.at[1 + axis].add(self.gravity * h**2 / 2)

    def speed(self, u, axis):
        return jnp.abs(u[1 + axis] / u[0]) + jnp.sqrt(self.gravity * u[0])

    def mirrored(self, u, axis):
        return u.at[1 + axis].multiply(-1)


def _minmod(a: Array, b: Array) -> Array:
    return (jnp.sign(a) + jnp.sign(b)) / 2 * jnp.minimum(jnp.abs(a), jnp.abs(b))


def _van_leer(a: Array, b: Array) -> Array:
    product = a * b
    rises = product > 0
    return jnp.where(rises, 2 * product / jnp.where(rises, a + b, 1), 0)


def _mean(a: Array, b: Array) -> Array:
    return (a + b) / 2


LIMITERS: dict[str, Callable[[Array, Array], Array]] = {
    "van_leer": _van_leer, "minmod": _minmod, "none": _mean,
}  # fmt: skip


class FiniteVolume(eqx.Module):
    """A conservation law on a mesh, of second order where it is smooth.

    Fields along the first axis, then the cells.

    **Arguments:**

    - `mesh`: [`pde.grid.Mesh`][].
    - `law`: [`pde.grid.ShallowWater`][], [`pde.grid.InviscidBurgers`][], or one's own.
    - `ends`: `periodic`, `wall` or `open`, of all axes.
    - `limiter`: of slopes: `van_leer`, `minmod`, or `none`, which oscillates at fronts.

    **Raises:** `ValueError` for ends or a limiter that there are not.

    !!! Example

        ```python
        >>> import jax, numpy as np
        >>> from pde import grid
        >>> mesh = grid.Mesh((0, 1, 8))
        >>> dam = grid.FiniteVolume(mesh, grid.ShallowWater(gravity=1.0), ends="wall")
        >>> start = np.array([[2.0] * 4 + [1.0] * 4, [0.0] * 8])
        >>> rate = np.asarray(jax.jit(dam.rate)(0.0, start))
        >>> rate[0].round(1).tolist()
        [0.0, 0.0, 0.0, -5.7, 5.7, 0.0, 0.0, 0.0]

        ```
    """

    mesh: Mesh
    law: AbstractConservationLaw
    ends: str = eqx.field(static=True, default="periodic")
    limiter: str = eqx.field(static=True, default="van_leer")

    def __check_init__(self):
        if self.ends not in ("periodic", "wall", "open"):
            raise ValueError(f"Ends are periodic, wall or open, not {self.ends!r}.")
        if self.limiter not in LIMITERS:
            raise ValueError(f"Limiters are {', '.join(LIMITERS)}, not {self.limiter!r}.")

    @property
    def term(self) -> diffrax.ODETerm:
        """For a solver."""
        return diffrax.ODETerm(self.rate)

    def rate(self, t: Any, u: Float[Array, "fields ..."], args: Any = None) -> Array:
        """Of the means."""
        return sum(
            (self._through(u, axis) for axis in range(self.mesh.dim)), start=jnp.zeros_like(u)
        )

    def courant(self, t: Scalar, u: Float[Array, "fields ..."], dt: Scalar) -> Scalar:
        """How many cells the fastest wave moves in a step."""
        speeds = (jnp.max(self.law.speed(u, k)) / h for k, h in enumerate(self.mesh.spacing))
        return dt * sum(speeds, start=jnp.zeros((), u.dtype))

    def _through(self, u: Array, axis: int) -> Array:
        """What the faces across an axis let in."""
        at = axis + 1
        wide = self._with_ghosts(u, axis)
        n = u.shape[at]

        def part(a: Array, first: int, count: int) -> Array:
            return jax.lax.slice_in_dim(a, first, first + count, axis=at)

        step = part(wide, 1, n + 3) - part(wide, 0, n + 3)
        half = LIMITERS[self.limiter](part(step, 0, n + 2), part(step, 1, n + 2)) / 2
        inner = part(wide, 1, n + 2)
        left, right = part(inner + half, 0, n + 1), part(inner - half, 1, n + 1)
        law = self.law
        speed = jnp.maximum(law.speed(left, axis), law.speed(right, axis))
        mean = law.flux(left, axis) + law.flux(right, axis) - speed * (right - left)
        return (part(mean, 0, n) - part(mean, 1, n)) / (2 * self.mesh.spacing[axis])

    def _with_ghosts(self, u: Array, axis: int) -> Array:
        at = axis + 1
        widths = [(GHOSTS, GHOSTS) if k == at else (0, 0) for k in range(u.ndim)]
        if self.ends != "wall":
            return jnp.pad(u, widths, mode="wrap" if self.ends == "periodic" else "edge")
        image = self.law.mirrored(u, axis)

        def seen(first: int) -> Array:
            return jnp.flip(jax.lax.slice_in_dim(image, first, first + GHOSTS, axis=at), at)

        return jnp.concatenate([seen(0), u, seen(u.shape[at] - GHOSTS)], axis=at)


class SSPRK3(diffrax.AbstractSolver):
    r"""Shu and Osher's third-order steps, convex combinations of Euler's.

    $u_1 = E(u)$, $u_2 = \frac34 u + \frac14 E(u_1)$, $u_+ = \frac13 u + \frac23 E(u_2)$ with
    $E(u) = u + hf(u)$.

    ```python
    >>> import diffrax
    >>> from pde import grid
    >>> decay = diffrax.ODETerm(lambda t, y, args: -y)
    >>> solution = diffrax.diffeqsolve(decay, grid.SSPRK3(), 0.0, 1.0, 0.1, 1.0)
    >>> round(float(solution.ys[0]), 3)
    0.368

    ```
    """

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., diffrax.LocalLinearInterpolation]] = (
        diffrax.LocalLinearInterpolation
    )

    def order(self, terms) -> int:
        return 3

    def init(self, terms, t0, t1, y0, args) -> None:
        return None

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        def mixed(new: float, t: Any, y: Any) -> Any:
            rates = terms.vf_prod(t, y, args, terms.contr(t0, t1))
            return jax.tree.map(
                lambda old, y, rate: (1 - new) * old + new * (y + rate), y0, y, rates
            )

        y = mixed(1.0, t0, y0)
        y = mixed(1 / 4, t1, y)
        y1 = mixed(2 / 3, t0 + (t1 - t0) / 2, y)
        return y1, None, {"y0": y0, "y1": y1}, None, diffrax.RESULTS.successful
