"""Constraints that hold by construction: each expert solves for its own weights of a basis."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PyTree


class Mixture(NamedTuple):
    """What the experts found.

    - `values`: the terms with the weights, on the whole grid.
    - `weights`: of each expert, in the order of their blocks.
    - `result`, `steps`: of each expert's least squares, as Optimistix's.
    """

    values: dict[str, Float[Array, "*grid"]]
    weights: Float[Array, "experts basis"]
    result: optx.RESULTS
    steps: Int[Array, " experts"]


class Experts(eqx.Module):
    r"""A layer that solves $F(b \cdot \omega_k) = 0$ in the least squares, one $\omega_k$ a block.

    A network gives a basis $b$ of $N$ fields on a grid; the grid is cut into blocks, and the expert
    of each finds the $N$ weights with which the basis and its derivatives satisfy a constraint,
    such as an equation's residual, at the block's points. Chalapathi, Du and Krishnapriyan,
    *Scaling physics-informed hard constraints with mixture-of-experts* (ICLR 2024), after their
    code; a single block is their global hard constraint (Négiar et al. 2023). Derivatives by the
    basis go through the solutions by the implicit function theorem, one system of $N$ unknowns an
    expert.

    **Arguments:**

    - `constraint`: `(local, common, args)` to a pytree of residuals. `local` has by name the values
        of the terms at an expert's points, each of shape `(points,)`, and the given fields there;
        `common` has the terms that all experts see whole, such as the start and the boundary.
    - `splits`: how many blocks in each direction of the grid.
    - `solver`: any Optimistix least-squares solver, by default Levenberg and Marquardt's to 1e-10.
    - `max_steps`: of it. An expert that needs more keeps what it has come to, and says so.
    - `points`: how many of a block's points are drawn, or all of them.
    - `devices`: a mesh of devices with one axis, which share the experts.

    **Called with**

    - `terms`: arrays `(*grid, N)` by name: the basis, its derivatives;
    - `common`: a pytree of arrays `(..., N)`; `args`, for the constraint;
    - `fields`: arrays `(*grid)` by name, which have no weights: a source, a coefficient;
    - `start`: the weights to begin from, by default all `1/N`;
    - `key`, where `points` are drawn.

    **Raises:** `ValueError` for blocks or devices that do not come out even, and for points without
    a key.

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from pde.operators import Experts
        >>> x = jnp.linspace(0, 1, 40)[:, None]
        >>> basis = jnp.concatenate([jnp.exp(x), jnp.exp(-x), x], axis=1)
        >>> slopes = jnp.concatenate([jnp.exp(x), -jnp.exp(-x), jnp.ones_like(x)], axis=1)
        >>> def decay(local, common, args):      # u' = -u, and u = 1 at the start
        ...     return local["u'"] + local["u"], common - 1
        >>> layer = Experts(decay, splits=[4])
        >>> found = layer({"u": basis, "u'": slopes}, common=basis[:1])
        >>> found.weights.shape, bool(abs(found.values["u"] - jnp.exp(-x[:, 0])).max() < 1e-4)
        ((4, 3), True)

        ```
    """

    constraint: Callable[[PyTree, PyTree, Any], PyTree]
    splits: tuple[int, ...] = eqx.field(static=True, converter=tuple)
    solver: optx.AbstractLeastSquaresSolver = optx.LevenbergMarquardt(rtol=1e-10, atol=1e-10)
    max_steps: int = eqx.field(static=True, default=64)
    points: int | None = eqx.field(static=True, default=None)
    devices: Mesh | None = eqx.field(static=True, default=None)

    def __call__(
        self,
        terms: Mapping[str, Float[Array, "*grid basis"]],
        common: PyTree[Float[Array, "... basis"]] = None,
        args: Any = None,
        fields: Mapping[str, Float[Array, "*grid"]] | None = None,
        start: Float[Array, "experts basis"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Mixture:
        first = next(iter(terms.values()))
        *grid, size = first.shape
        count = math.prod(self.splits)
        if len(grid) != len(self.splits) or any(
            n % k for n, k in zip(grid, self.splits, strict=True)
        ):
            raise ValueError(
                f"A grid of {tuple(grid)} is not cut evenly into {self.splits} blocks."
            )
        if self.devices is not None and count % self.devices.size:
            raise ValueError(f"{self.devices.size} devices cannot share {count} experts.")
        blocks = {n: _cut(t, self.splits).reshape(count, -1, size) for n, t in terms.items()}
        given = {
            n: _cut(f[..., None], self.splits).reshape(count, -1) for n, f in (fields or {}).items()
        }
        seen = blocks, given
        if self.points is not None:
            if key is None:
                raise ValueError("Experts that draw points need a key.")
            seen = _drawn(seen, self.points, key)
        if start is None:
            start = jnp.full((count, size), 1 / size, first.dtype)
        weights, result, steps = self._solved(start, seen, common, args)
        values = {
            n: _joined(jnp.einsum("kpn,kn->kp", t, weights), grid, self.splits)
            for n, t in blocks.items()
        }
        return Mixture(values, weights, result, steps)

    def _solved(self, start, seen, common, args):
        if self.devices is not None:
            # Not a shard_map: inside of one, lineax 0.1.1 takes a vector's structure for another.
            (axis,) = self.devices.axis_names
            each = NamedSharding(self.devices, PartitionSpec(axis))
            start, seen = eqx.filter_shard((start, seen), each)
        return jax.vmap(self._expert, (0, 0, None, None))(start, seen, common, args)

    def _expert(self, start, seen, common, args):
        def residuals(weights, given):
            (terms, fields), common, args = given
            local = {n: t @ weights for n, t in terms.items()} | fields
            return self.constraint(local, jax.tree.map(lambda t: t @ weights, common), args)

        solved = optx.least_squares(
            residuals, self.solver, start, (seen, common, args), max_steps=self.max_steps,
            throw=False, adjoint=optx.ImplicitAdjoint(lx.AutoLinearSolver(well_posed=False)),
        )  # fmt: skip
        return solved.value, solved.result, solved.stats["num_steps"]


def _cut(t: Float[Array, "*grid basis"], splits: Sequence[int]) -> Array:
    """Blocks first: `(*splits, *block, basis)`."""
    shape = [m for n, k in zip(t.shape[:-1], splits, strict=True) for m in (k, n // k)]
    dims = len(splits)
    order = [*range(0, 2 * dims, 2), *range(1, 2 * dims, 2), 2 * dims]
    return t.reshape(*shape, t.shape[-1]).transpose(order)


def _joined(v: Float[Array, "experts points"], grid: Sequence[int], splits: Sequence[int]) -> Array:
    """Back from blocks to the grid."""
    block = [n // k for n, k in zip(grid, splits, strict=True)]
    dims = len(splits)
    order = [i + half for i in range(dims) for half in (0, dims)]
    return v.reshape(*splits, *block).transpose(order).reshape(*grid)


def _drawn(blocks: PyTree, points: int, key: Key[Array, ""]) -> PyTree:
    count, size = jax.tree.leaves(blocks)[0].shape[:2]
    if points > size:
        raise ValueError(f"{points} points are more than the {size} of a block.")
    keys = jax.random.split(key, count)
    chosen = jax.vmap(lambda k: jax.random.choice(k, size, (points,), replace=False))(keys)
    return jax.tree.map(lambda t: jax.vmap(lambda rows, at: rows[at])(t, chosen), blocks)
