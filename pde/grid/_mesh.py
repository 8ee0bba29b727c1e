"""A box cut into equal cells, and where its nodes, centres and faces lie."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float


class Mesh(eqx.Module):
    """A box cut into equal cells, an axis at a time: `Mesh((0, 1, 64), (0, 2, 128))`.

    Coordinates come as arrays that broadcast against each other, one an axis.

    **Arguments:**

    - `axes`: lower end, upper end and number of cells of each.

    **Raises:** `ValueError` for an axis that is empty or not finite, or has fewer than two cells.

    !!! Example

        ```python
        >>> from pde import grid
        >>> mesh = grid.Mesh((0, 1, 4), (0, 2, 4))
        >>> mesh.spacing, [x.ravel().tolist() for x in mesh.centres()]
        ((0.25, 0.5), [[0.125, 0.375, 0.625, 0.875], [0.25, 0.75, 1.25, 1.75]])
        >>> [x.shape for x in mesh.nodes()], [x.shape for x in mesh.faces(0)]
        ([(3, 1), (1, 3)], [(5, 1), (1, 4)])

        ```
    """

    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    cells: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, *axes: tuple[float, float, int]):
        for low, high, cells in axes:
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"An axis must be finite and rise, got ({low}, {high}).")
            if cells < 2:
                raise ValueError(f"An axis needs two cells at least, got {cells}.")
        if not axes:
            raise ValueError("A Mesh needs at least one axis, such as (0, 1, 64).")
        self.lower = tuple(float(low) for low, _, _ in axes)
        self.upper = tuple(float(high) for _, high, _ in axes)
        self.cells = tuple(int(cells) for _, _, cells in axes)

    @property
    def dim(self) -> int:
        """The number of axes."""
        return len(self.cells)

    @property
    def spacing(self) -> tuple[float, ...]:
        """The cells' sides."""
        ends = zip(self.lower, self.upper, self.cells, strict=True)
        return tuple((high - low) / n for low, high, n in ends)

    def nodes(
        self, boundary: bool = False, dtype: DTypeLike = float
    ) -> tuple[Float[Array, "..."], ...]:
        """The cells' corners, those inside of the box or all."""
        points = (
            self._on(axis, 0.0, n + 1)[slice(None) if boundary else slice(1, -1)]
            for axis, n in enumerate(self.cells)
        )
        return self._broadcastable(points, dtype)

    def centres(self, dtype: DTypeLike = float) -> tuple[Float[Array, "..."], ...]:
        """The cells' middles."""
        points = (self._on(axis, 0.5, n) for axis, n in enumerate(self.cells))
        return self._broadcastable(points, dtype)

    def faces(self, axis: int, dtype: DTypeLike = float) -> tuple[Float[Array, "..."], ...]:
        """The middles of the faces across an axis, those on the boundary included."""
        points = (
            self._on(k, 0.0, n + 1) if k == axis else self._on(k, 0.5, n)
            for k, n in enumerate(self.cells)
        )
        return self._broadcastable(points, dtype)

    def _on(self, axis: int, offset: float, count: int) -> np.ndarray:
        return self.lower[axis] + self.spacing[axis] * (np.arange(count) + offset)

    def _broadcastable(self, points, dtype: DTypeLike) -> tuple[Array, ...]:
        return tuple(
            jnp.asarray(x.reshape([-1 if k == axis else 1 for k in range(self.dim)]), dtype)
            for axis, x in enumerate(points)
        )
