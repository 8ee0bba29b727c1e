"""The heat equation, by finite differences at the nodes of a mesh."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from sciopt.relax import Stencil

from ._mesh import Mesh
from ._scheme import AbstractScheme, Coefficient, System, evaluated, theta_system


class Heat(AbstractScheme[Float[Array, "..."]]):
    r"""$u_t = \nabla\cdot(\kappa\nabla u) + f$ on a box, $u = g$ on its boundary.

    In any number of dimensions, at the inner nodes of the mesh. Of second order in space, and in
    time with $\theta = 1/2$ (Crank and Nicolson), where $\kappa$ and $f$ are taken in the middle of
    the step; of first order with $\theta = 1$ (backward Euler), which damps what a step cannot
    resolve. Stable for any step. The system is symmetric positive definite.

    The context for a tuner is the mean of $\kappa$.

    **Arguments:**

    - `mesh`: its inner nodes are the unknowns, `mesh.cells` less one along each axis.
    - `diffusivity`: $\kappa > 0$, a number or a function of `t, x, y, …`, where coordinates
        broadcast; one that returns a number does not vary in space.
    - `source`, `boundary`: $f$ and $g$, likewise.
    - `theta`: $\theta$, from a half to one; below a half raises `ValueError`.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from pde import grid
        >>> mesh = grid.Mesh((0, 1, 32))
        >>> (x,) = mesh.nodes()
        >>> loop = grid.TimeLoop(grid.Heat(mesh), dt=0.01, solver=lx.Cholesky())
        >>> state, _ = loop.run(loop.init(jnp.sin(jnp.pi * x)), steps=10)
        >>> bool(abs(state.fields.max() - jnp.exp(-0.1 * jnp.pi**2)) < 1e-3)
        True

        ```
    """

    mesh: Mesh
    diffusivity: Coefficient = 1.0
    source: Coefficient = 0.0
    boundary: Coefficient = 0.0
    theta: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        if not 0.5 <= self.theta <= 1:
            raise ValueError(f"theta must be from 0.5 to 1 for any step to be stable: {self.theta}")

    def prepare(self, carried: Float[Array, "..."], t: Scalar, dt: Scalar) -> tuple[System, None]:
        u, dtype = carried, carried.dtype
        inner, all_nodes = self.mesh.nodes(dtype=dtype), self.mesh.nodes(True, dtype)
        if u.shape != (shape := tuple(n - 1 for n in self.mesh.cells)):
            raise ValueError(f"The field has shape {u.shape}, and the inner nodes {shape}.")
        between = t + self.theta * dt
        kappa = evaluated(self.diffusivity, between, all_nodes)
        if kappa.ndim:
            sizes = tuple(n + 1 for n in self.mesh.cells)
            laplacian = Stencil.diffusion(dt * jnp.broadcast_to(kappa, sizes), self.mesh.spacing)
        else:
            laplacian = Stencil.laplacian(shape, self.mesh.spacing, dt * kappa)
        now, after = (self._with_boundary(u, time) for time in (t, t + dt))
        source = dt * evaluated(self.source, between, inner)
        return theta_system(laplacian, self.theta, now, after, source, jnp.mean(kappa)), None

    def complete(self, pending: None, solution: Float[Array, "..."], dt: Scalar):
        return solution

    def courant(self, carried, t, dt):
        kappa = evaluated(self.diffusivity, t, self.mesh.nodes(True, carried.dtype))
        return 2 * dt * jnp.max(kappa) * sum(1 / h**2 for h in self.mesh.spacing)

    def _with_boundary(self, u: Float[Array, "..."], t: Scalar) -> Float[Array, "..."]:
        values = evaluated(self.boundary, t, self.mesh.nodes(True, u.dtype))
        around = jnp.broadcast_to(values, [n + 1 for n in self.mesh.cells])
        return around.at[(slice(1, -1),) * u.ndim].set(u)
