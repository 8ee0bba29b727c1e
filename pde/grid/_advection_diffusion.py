"""Advection and diffusion of a conserved quantity, by finite volumes."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Scalar

from sciopt.relax import Stencil

from ._mesh import Mesh
from ._scheme import AbstractScheme, Coefficient, System, evaluated, theta_system


class AdvectionDiffusion(AbstractScheme[Float[Array, "..."]]):
    r"""$u_t + \nabla\cdot(a u - \kappa\nabla u) = f$ in a box that nothing flows out of.

    In any number of dimensions, of means over the cells, by the flux $a u - \kappa\nabla u$ through
    their faces, which is zero on the boundary: $\sum u$ changes by $f$ alone, up to the linear
    solver's tolerance, whatever $a$ is. Of second order in space with $\theta = 1/2$, $u$ on a face
    being the mean of both sides; with `upwind` it is that of the side the flow comes from, of first
    order, and makes no new extrema with $\theta = 1$. Time as in [`pde.grid.Heat`][]. The system is
    not symmetric.

    The context for a tuner is the Courant number.

    **Arguments:**

    - `mesh`: its cells are the unknowns.
    - `velocity`: $a$, a function of `t, x, y, …` that gives a component an axis, numbers or arrays.
    - `diffusivity`, `source`: $\kappa \ge 0$ and $f$, numbers or functions of `t, x, y, …`.
    - `theta`: from a half to one; another raises `ValueError`.
    - `upwind`: for flows so fast, above $2\kappa/h$, that the mean of both sides oscillates.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from pde import grid
        >>> mesh = grid.Mesh((0, 1, 16), (0, 1, 16))
        >>> x, y = mesh.centres()
        >>> moving = grid.AdvectionDiffusion(mesh, lambda t, x, y: (jnp.sin(t), 0.0), 0.01)
        >>> loop = grid.TimeLoop(moving, dt=0.1, solver=lx.LU())
        >>> state, _ = loop.run(loop.init(jnp.exp(-20 * (x**2 + y**2))), steps=5)
        >>> change = state.fields.sum() / jnp.exp(-20 * (x**2 + y**2)).sum() - 1
        >>> bool(abs(change) < 1e-12)
        True

        ```
    """

    mesh: Mesh
    velocity: Callable[..., tuple[ArrayLike, ...]]
    diffusivity: Coefficient = 0.0
    source: Coefficient = 0.0
    theta: float = eqx.field(static=True, default=0.5)
    upwind: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if not 0.5 <= self.theta <= 1:
            raise ValueError(f"theta must be from 0.5 to 1 for any step to be stable: {self.theta}")

    def prepare(self, carried: Float[Array, "..."], t: Scalar, dt: Scalar) -> tuple[System, None]:
        u, between = carried, t + self.theta * dt
        if u.shape != self.mesh.cells:
            raise ValueError(
                f"The field has shape {u.shape}, and the mesh {self.mesh.cells} cells."
            )
        fluxes = self._fluxes(between, dt, u.dtype)
        source = dt * evaluated(self.source, between, self.mesh.centres(u.dtype))
        now, after = jnp.pad(u, 1), jnp.zeros([n + 2 for n in u.shape], u.dtype)
        context = self.courant(u, between, dt)
        return theta_system(fluxes, self.theta, now, after, source, context), None

    def complete(self, pending: None, solution: Float[Array, "..."], dt: Scalar):
        return solution

    def courant(self, carried, t, dt):
        return dt * sum(
            jnp.max(jnp.abs(self._normal(axis, t, carried.dtype))) / h
            for axis, h in enumerate(self.mesh.spacing)
        )

    def _normal(self, axis: int, t: Scalar, dtype) -> Float[Array, "..."]:
        """The velocity across the faces of an axis."""
        points = self.mesh.faces(axis, dtype)
        value = evaluated(lambda *at: self.velocity(*at)[axis], t, points)
        return jnp.broadcast_to(value, [x.shape[k] for k, x in enumerate(points)])

    def _fluxes(self, t: Scalar, dt: Scalar, dtype) -> Stencil:
        """The step times the net flux out of a cell over its volume."""
        diagonal, lower, upper = jnp.zeros(self.mesh.cells, dtype), [], []
        for axis, h in enumerate(self.mesh.spacing):
            normal = self._normal(axis, t, dtype)
            kappa = evaluated(self.diffusivity, t, self.mesh.faces(axis, dtype))
            spread = kappa / h + (jnp.abs(normal) / 2 if self.upwind else 0)
            # Times the value below a face, and times the one above.
            below, above = (_closed(dt / h * (normal / 2 + s * spread), axis) for s in (1, -1))
            inflow, outflow = (
                jax.lax.slice_in_dim(side, start, start + self.mesh.cells[axis], axis=axis)
                for side, start in ((below, 0), (above, 1))
            )
            lower.append(-inflow)
            upper.append(outflow)
            diagonal += jax.lax.slice_in_dim(below, 1, None, axis=axis)
            diagonal -= jax.lax.slice_in_dim(above, 0, -1, axis=axis)
        return Stencil(diagonal, lower, upper, self.mesh.cells)


def _closed(flux: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Without what crosses the boundary."""
    pads = [(int(k == axis),) * 2 for k in range(flux.ndim)]
    return jnp.pad(jax.lax.slice_in_dim(flux, 1, -1, axis=axis), pads)
