r"""Incompressible flow in a rectangle, by projection on a staggered mesh.

Harlow and Welch, Phys. Fluids 8 (1965), for the mesh: each velocity component on the faces that it
crosses, pressure in the cells. Chorin, Math. Comp. 22 (1968), for the projection; Adams and
Bashforth's second rule for advection and viscosity before it. The flux form with means on both
sides conserves momentum and, where the divergence is zero, changes kinetic energy by viscosity
alone but for the error of time stepping.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, Scalar

from sciopt.relax import Stencil

from ._mesh import Mesh
from ._scheme import AbstractScheme, System

# The tag allows for the constant that the pressure's operator is singular by.
SYMMETRIC = frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})


def nothing(t, x, y) -> tuple[float, float]:
    """No force, or walls at rest."""
    return 0.0, 0.0


class Flow(eqx.Module):
    """A flow on a mesh of n by m cells.

    - `u`, `v`: velocity by x and by y, on the faces across the axis; zero on the walls.
    - `p`: pressure over density in the cells, of mean zero; that of the middle of the last step.
    """

    u: Float[Array, "n+1 m"]
    v: Float[Array, "n m+1"]
    p: Float[Array, "n m"]


class Carried(eqx.Module):
    """A flow, and its rate of change before, without pressure."""

    flow: Flow
    rates: tuple[Float[Array, "n-1 m"], Float[Array, "n m-1"]]


class Pending(eqx.Module):
    """What the projection takes the divergence from."""

    u: Float[Array, "n+1 m"]
    v: Float[Array, "n m+1"]
    rates: tuple[Float[Array, "n-1 m"], Float[Array, "n m-1"]]


class Pressure(Stencil):
    r"""$-\Delta$ on cells that nothing leaves, singular by a constant.

    As a matrix, which is what direct solvers ask for, constants have the diagonal's mean for their
    eigenvalue: on a right-hand side that sums to zero it has the one solution of mean zero, where
    elimination of the singular one ends in a division by rounding.
    """

    def as_matrix(self) -> Float[Array, "n n"]:
        n = self.in_size()
        return super().as_matrix() + jnp.mean(lx.diagonal(self)) / n


class NavierStokes(AbstractScheme[Flow]):
    r"""$u_t + u\cdot\nabla u = -\nabla p + \nu\Delta u + f$, $\nabla\cdot u = 0$ in a rectangle.

    The walls let nothing through. Of second order in space and time. The system of each step is
    the pressure's, $-\Delta p = -\nabla\cdot u_* / \Delta t$ with the slope zero on the walls:
    symmetric, and singular by a constant. It has solutions, on which [`sciopt.relax.SOR`][],
    [`sciopt.relax.SSOR`][], [`sciopt.relax.Multigrid`][] with `unknowns="cells"`, and
    [`sciopt.relax.CG`][] with a preconditioner by these converge; direct solvers are given the
    matrix without the constant. What is left of its residual, times the step, is what is left of
    the divergence.

    Advection and viscosity are explicit: steps are to be so short that `courant` stays below about
    a half, the larger of $\sum_k |u_k| \Delta t / h_k$ and $2\nu\Delta t\sum_k h_k^{-2}$.

    **Arguments:**

    - `mesh`: of two axes; another raises `ValueError`.
    - `viscosity`: $\nu$.
    - `force`: $f$, a function of `t, x, y` that gives two components.
    - `walls`: the velocity of the walls, likewise, of which what lies along them counts.
    - `slip`: whether the walls do not hold the flow at all: no stress along them.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, lineax as lx
        >>> from pde import grid
        >>> mesh = grid.Mesh((0, 1, 8), (0, 1, 8))
        >>> lid = lambda t, x, y: (jnp.where(y > 0.99, 1.0, 0.0), 0.0)
        >>> cavity = grid.NavierStokes(mesh, viscosity=0.1, walls=lid)
        >>> loop = grid.TimeLoop(cavity, dt=0.01, solver=lx.CG(rtol=1e-10, atol=1e-12))
        >>> steps = jax.jit(lambda: loop.run(loop.init(cavity.at_rest()), steps=5)[0])
        >>> bool(jnp.abs(cavity.divergence(steps().fields)).max() < 1e-8)
        True

        ```
    """

    mesh: Mesh
    viscosity: float | Scalar
    force: Callable[..., tuple[ArrayLike, ArrayLike]] = nothing
    walls: Callable[..., tuple[ArrayLike, ArrayLike]] = nothing
    slip: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.mesh.dim != 2:
            raise ValueError(f"NavierStokes is for meshes of two axes, not {self.mesh.dim}.")

    def at_rest(self, dtype=float) -> Flow:
        """Nothing moves yet."""
        (n, m) = self.mesh.cells
        return Flow(jnp.zeros((n + 1, m), dtype), jnp.zeros((n, m + 1), dtype),
                    jnp.zeros((n, m), dtype))  # fmt: skip

    def flow(self, velocity: Callable[..., tuple[ArrayLike, ArrayLike]], dtype=float) -> Flow:
        """That of a function of `x, y` that gives two components, with walls and no pressure.

        Whatever divergence it has is gone after the first step.
        """
        rest = self.at_rest(dtype)
        u, v = (
            jnp.broadcast_to(jnp.asarray(velocity(*self.mesh.faces(k, dtype))[k], dtype), old.shape)
            for k, old in enumerate((rest.u, rest.v))
        )
        return Flow(rest.u.at[1:-1].set(u[1:-1]), rest.v.at[:, 1:-1].set(v[:, 1:-1]), rest.p)

    def divergence(self, flow: Flow) -> Float[Array, "n m"]:
        """Of the velocity, in each cell."""
        (h, k) = self.mesh.spacing
        return jnp.diff(flow.u, axis=0) / h + jnp.diff(flow.v, axis=1) / k

    def vorticity(self, flow: Flow, t: ArrayLike = 0.0) -> Float[Array, "n+1 m+1"]:
        """$v_x - u_y$ at all nodes, walls included."""
        (h, k) = self.mesh.spacing
        u, v = self._with_walls(flow.u, flow.v, jnp.asarray(t, flow.u.dtype))
        return jnp.diff(v, axis=0) / h - jnp.diff(u, axis=1) / k

    def start(self, fields: Flow, t: Scalar, dt: Scalar) -> Carried:
        # Their own rates as those before make the first step Euler's, whose error is of the order
        # of the others' sum.
        return Carried(fields, self._rates(fields, t))

    def fields(self, carried: Carried) -> Flow:
        return carried.flow

    def prepare(self, carried: Carried, t: Scalar, dt: Scalar) -> tuple[System, Pending]:
        flow = carried.flow
        rates = self._rates(flow, t)
        changes = (dt * (3 * new - old) / 2 for new, old in zip(rates, carried.rates, strict=True))
        u, v = flow.u.at[1:-1].add(next(changes)), flow.v.at[:, 1:-1].add(next(changes))
        vector = -self.divergence(Flow(u, v, flow.p)) / dt
        zero = jnp.zeros((), vector.dtype)
        return System(self._laplacian(vector.dtype), vector, flow.p, zero), Pending(u, v, rates)

    def complete(self, pending: Pending, solution: Float[Array, "n m"], dt: Scalar) -> Carried:
        (h, k) = self.mesh.spacing
        # Its derivative asks the singular system for a pressure of mean zero, which it has.
        p = solution - jnp.mean(solution)
        u = pending.u.at[1:-1].add(-dt / h * jnp.diff(p, axis=0))
        v = pending.v.at[:, 1:-1].add(-dt / k * jnp.diff(p, axis=1))
        return Carried(Flow(u, v, p), pending.rates)

    def courant(self, carried, t, dt):
        flow, (h, k) = carried.flow, self.mesh.spacing
        moved = jnp.max(jnp.abs(flow.u)) / h + jnp.max(jnp.abs(flow.v)) / k
        nu = jnp.asarray(self.viscosity, moved.dtype)
        return dt * jnp.maximum(moved, 2 * nu * (1 / h**2 + 1 / k**2))

    def _laplacian(self, dtype) -> Pressure:
        """$-\\Delta$ on the cells, nothing through the walls."""
        shape, sides = self.mesh.cells, []
        for step in (0, 1):
            for axis, h in enumerate(self.mesh.spacing):
                n = shape[axis]
                open_faces = jnp.ones(n, dtype).at[(n - 1) * step].set(0)
                sides.append(open_faces.reshape([n if k == axis else 1 for k in range(2)]) / h**2)
        off = [-side for side in sides]
        total = sum(sides[1:], start=sides[0])
        return Pressure(total, tuple(off[:2]), tuple(off[2:]), shape, SYMMETRIC)

    def _with_walls(self, u: Array, v: Array, t: Scalar) -> tuple[Array, Array]:
        """Both components with values beyond the walls that they lie along."""
        padded = []
        for component, values in enumerate((u, v)):
            axis = 1 - component
            low, high = (jnp.take(values, at, axis=axis) for at in (0, -1))
            if not self.slip:
                # The wall's is the mean of both sides.
                low, high = (2 * w - s for w, s in zip(self._along(component, t, u.dtype),
                                                       (low, high), strict=True))  # fmt: skip
            beyond = (jnp.expand_dims(side, axis) for side in (low, high))
            padded.append(jnp.concatenate([next(beyond), values, next(beyond)], axis=axis))
        return padded[0], padded[1]

    def _along(self, component: int, t: Scalar, dtype) -> tuple[Array, Array]:
        """A component of the velocity of the two walls that lie along it."""
        axis = 1 - component
        along = self.mesh.nodes(True, dtype)[component].reshape(-1)
        found = []
        for at in (self.mesh.lower[axis], self.mesh.upper[axis]):
            where = [along, jnp.full_like(along, at)]
            value = self.walls(t, *(where if component == 0 else where[::-1]))[component]
            found.append(jnp.broadcast_to(jnp.asarray(value, dtype), along.shape))
        return found[0], found[1]

    def _rates(self, flow: Flow, t: Scalar) -> tuple[Array, Array]:
        """Advection, viscosity and force on the inner faces."""
        (h, k), dtype = self.mesh.spacing, flow.u.dtype
        nu = jnp.asarray(self.viscosity, dtype)
        u, v = self._with_walls(flow.u, flow.v, t)
        # Fluxes of momentum: along the axis in the cells, across it at the nodes.
        uu, vv = _means(flow.u, 0) ** 2, _means(flow.v, 1) ** 2
        uv = _means(u, 1) * _means(v, 0)
        fx, fy = (
            jnp.broadcast_to(jnp.asarray(self.force(t, *at)[axis], dtype), faces.shape)
            for axis, faces in enumerate((flow.u, flow.v))
            for at in [self.mesh.faces(axis, dtype)]
        )
        du = (
            -jnp.diff(uu, axis=0) / h
            - jnp.diff(uv, axis=1)[1:-1] / k
            + nu * (_second(flow.u, 0) / h**2 + _second(u, 1)[1:-1] / k**2)
            + fx[1:-1]
        )
        dv = (
            -jnp.diff(vv, axis=1) / k
            - jnp.diff(uv, axis=0)[:, 1:-1] / h
            + nu * (_second(flow.v, 1) / k**2 + _second(v, 0)[:, 1:-1] / h**2)
            + fy[:, 1:-1]
        )
        return du, dv


def _means(a: Array, axis: int) -> Array:
    """Of neighbours."""
    n = a.shape[axis]
    low, high = (jax.lax.slice_in_dim(a, s, n - 1 + s, axis=axis) for s in (0, 1))
    return (low + high) / 2


def _second(a: Array, axis: int) -> Array:
    """Second differences."""
    return jnp.diff(a, n=2, axis=axis)
