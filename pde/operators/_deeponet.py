"""DeepONets: a function in at its sensors, a function out at any point or on a grid."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ._modes import resample


class DeepONet(eqx.Module):
    r"""$G(u)(y) = \sum_k b_k(u(x_1), \dots, u(x_m))\, t_k(y) + b_0$: a branch and a trunk.

    Lu, Jin, Pang, Zhang and Karniadakis, *Learning nonlinear operators via DeepONet* (Nature
    Machine Intelligence 2021), the unstacked form. For several outputs both networks give so many
    groups of $k$, and each output has its own.
    The trunk is differentiable by $y$, so a residual of an equation needs no grid: give
    `lambda y: deeponet(u, y)` to [`pde.derivatives`][].

    **Arguments:** `branch`, `(m,)` to `(out*p,)`; `trunk`, `(d,)` to `(out*p,)`, any two modules,
    such as [`pde.MLP`][]; `out_size`.

    **Called with** the input at its sensors, `(m,)`, and one point `(d,)`; gives `(out_size,)`.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, pde
        >>> from pde.operators import DeepONet
        >>> branch = pde.MLP(50, 16, width=32, depth=2, key=jax.random.key(0))
        >>> trunk = pde.MLP(2, 16, width=32, depth=2, key=jax.random.key(1))
        >>> operator = DeepONet(branch, trunk)
        >>> u, points = jnp.ones(50), jnp.zeros((100, 2))
        >>> jax.vmap(operator, in_axes=(None, 0))(u, points).shape
        (100, 1)

        ```
    """

    branch: PyTree
    trunk: PyTree
    bias: Float[Array, " out"]

    def __init__(self, branch: PyTree, trunk: PyTree, *, out_size: int = 1):
        self.branch, self.trunk, self.bias = branch, trunk, jnp.zeros(out_size)

    def __call__(self, u: Float[Array, " m"], y: Float[Array, " d"]) -> Float[Array, " out"]:
        coefficients = self.branch(u).reshape(self.bias.size, -1)
        basis = self.trunk(y).reshape(self.bias.size, -1)
        return jnp.sum(coefficients * basis, axis=1) + self.bias.astype(basis.dtype)


class OnGrid(eqx.Module):
    r"""A DeepONet between periodic fields on grids, as a [`pde.operators.FNO`][] is called.

    The input is brought to the branch's sensors, a grid of its own, by its Fourier series; the
    trunk sees a place as $\cos 2\pi x_i$ and $\sin 2\pi x_i$, with the box scaled to one, and is
    asked at each point of the input's grid.

    **Arguments:** `deeponet`, whose branch takes `channels * prod(sensors)` numbers and whose trunk
    `2 * len(sensors)`; `sensors`, the grid.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, pde
        >>> from pde.operators import DeepONet, OnGrid
        >>> branch = pde.MLP(32, 8, width=16, depth=1, key=jax.random.key(0))
        >>> trunk = pde.MLP(2, 8, width=16, depth=1, key=jax.random.key(1))
        >>> operator = OnGrid(DeepONet(branch, trunk), sensors=[32])
        >>> operator(jnp.ones((1, 48))).shape
        (1, 48)

        ```
    """

    deeponet: DeepONet
    sensors: tuple[int, ...] = eqx.field(static=True, converter=tuple)

    def __call__(self, v: Float[Array, "i *grid"]) -> Float[Array, "o *grid"]:
        grid = v.shape[1:]
        sensed = resample(v, self.sensors).ravel()
        phases = [2 * np.pi * np.arange(n) / n for n in grid]
        angle = np.stack(np.meshgrid(*phases, indexing="ij"), axis=-1).reshape(-1, len(grid))
        places = jnp.asarray(np.concatenate([np.cos(angle), np.sin(angle)], axis=1), v.dtype)
        values = jax.vmap(self.deeponet, in_axes=(None, 0))(sensed, places)
        return values.T.reshape(-1, *grid)
