"""Operators on a grid that couple a point with its nearest neighbours along each axis."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float

from ._tagged import tagged

SYMMETRIC = frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})


@tagged
class Stencil(lx.AbstractLinearOperator):
    r"""A $(2d+1)$-point stencil on the interior points of a box, with Dirichlet's condition.

    $$(Ax)_i = a_i x_i + \sum_{k=1}^d \big(l^k_i\, x_{i - e_k} + u^k_i\, x_{i + e_k}\big)$$

    It takes and returns arrays of the grid's shape. What lies outside the grid counts as zero; the
    coefficients that point there are kept all the same, since they say how the boundary's values
    enter a right-hand side, and multigrid reads the term of order zero from a row's sum.

    **Arguments:**

    - `diagonal`, `lower`, `upper`: the coefficients, the latter two one array an axis. Each has as
        many axes as the grid, of the grid's length or of length one where it does not vary.
    - `shape`: the grid's, without the boundary.
    - `tags`: Lineax's, such as `lx.positive_semidefinite_tag`; they are believed.

    Raises `ValueError` where the shapes do not fit.

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from sciopt import relax
        >>> poisson = relax.Stencil.laplacian((3, 3), spacing=1.0)
        >>> poisson.mv(jnp.ones((3, 3))).tolist()
        [[2.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 2.0]]

        ```
    """

    diagonal: Float[Array, "..."]
    lower: tuple[Float[Array, "..."], ...]
    upper: tuple[Float[Array, "..."], ...]
    shape: tuple[int, ...] = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(
        self,
        diagonal: Float[Array, "..."],
        lower: Sequence[Float[Array, "..."]],
        upper: Sequence[Float[Array, "..."]],
        shape: Sequence[int],
        tags: frozenset[object] = frozenset(),
    ):
        self.diagonal, self.lower, self.upper = diagonal, tuple(lower), tuple(upper)
        self.shape, self.tags = tuple(shape), tags

    def __check_init__(self):
        if not len(self.lower) == len(self.upper) == len(self.shape):
            raise ValueError(f"A grid of shape {self.shape} needs as many `lower` and `upper`.")
        for array in (self.diagonal, *self.lower, *self.upper):
            sizes = zip(array.shape, self.shape, strict=False)
            if array.ndim != len(self.shape) or any(a not in (1, n) for a, n in sizes):
                raise ValueError(f"Coefficients of shape {array.shape} on a grid {self.shape}.")

    @classmethod
    def laplacian(
        cls,
        shape: Sequence[int],
        spacing: float | Sequence[float],
        coefficient: ArrayLike = 1.0,
        shift: ArrayLike = 0.0,
    ) -> "Stencil":
        r"""$-\kappa\Delta + c$ for numbers $\kappa$ (`coefficient`) and $c$ (`shift`).

        `spacing` is the distance of neighbours, one for all axes or one for each.
        """
        dim = len(shape)
        kappa = jnp.reshape(jnp.asarray(coefficient), (1,) * dim)
        return cls._conservative([kappa / h**2 for h in _each(spacing, dim)] * 2, shift, shape)

    @classmethod
    def diffusion(
        cls,
        coefficient: Float[Array, "..."],
        spacing: float | Sequence[float],
        shift: ArrayLike = 0.0,
    ) -> "Stencil":
        r"""$-\nabla\cdot(\kappa\nabla u) + cu$, with $\kappa$ on the grid and its boundary.

        `coefficient` is longer by two along each axis than the grid. Between two points it is
        their mean. `shift` is a number or an array of the grid's shape.
        """
        dim, shape = coefficient.ndim, tuple(n - 2 for n in coefficient.shape)
        sides = []
        for step in (-1, 1):
            for axis, h in enumerate(_each(spacing, dim)):
                centre = coefficient[(slice(1, -1),) * dim]
                there = [slice(1, -1)] * dim
                there[axis] = slice(1 + step, shape[axis] + 1 + step)
                sides.append((centre + coefficient[tuple(there)]) / (2 * h**2))
        return cls._conservative(sides, shift, shape)

    @classmethod
    def _conservative(cls, sides: list[Array], shift: ArrayLike, shape: Sequence[int]) -> "Stencil":
        dim = len(shape)
        shift = jnp.asarray(shift, sides[0].dtype)
        shift = shift if shift.ndim else shift.reshape((1,) * dim)
        off = [-side for side in sides]
        return cls(shift - sum(off), off[:dim], off[dim:], shape, SYMMETRIC)

    def mv(self, vector: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.applied(jnp.pad(vector, 1))

    def applied(self, padded: Float[Array, "..."]) -> Float[Array, "..."]:
        """As `mv`, on an array that has the boundary's values around the grid's.

        `padded` is longer by two along each axis; its edges and corners are not read.
        """
        inside = (slice(1, -1),) * len(self.shape)
        total = self.diagonal * padded[inside]
        for axis, (lower, upper) in enumerate(zip(self.lower, self.upper, strict=True)):
            for coefficients, start in ((lower, 0), (upper, 2)):
                window = list(inside)
                window[axis] = slice(start, start + self.shape[axis])
                total = total + coefficients * padded[tuple(window)]
        return total

    def as_matrix(self) -> Float[Array, "n n"]:
        n = self.in_size()
        basis = jnp.eye(n, dtype=self.diagonal.dtype).reshape(n, *self.shape)
        return jax.vmap(self.mv)(basis).reshape(n, n).T

    def transpose(self) -> "Stencil":
        if lx.symmetric_tag in self.tags:
            return self
        # Row i of the transpose takes from its neighbour what that one takes from i.
        lower = [_shifted(a, axis, 1) for axis, a in enumerate(self.upper)]
        upper = [_shifted(a, axis, -1) for axis, a in enumerate(self.lower)]
        return Stencil(self.diagonal, lower, upper, self.shape, lx.transpose_tags(self.tags))

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape, self.diagonal.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


def _each(value: float | Sequence[float], dim: int) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,) * dim


def _shifted(array: Array, axis: int, by: int) -> Array:
    """Moved by one along an axis; what enters at the end is not read by a Dirichlet stencil."""
    return array if array.shape[axis] == 1 else jnp.roll(array, by, axis)


@lx.diagonal.register(Stencil)
def _(operator: Stencil) -> Float[Array, " n"]:
    return jnp.broadcast_to(operator.diagonal, operator.shape).reshape(-1)
