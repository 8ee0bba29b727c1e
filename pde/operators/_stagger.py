"""A solver of a fine grid and its steps, out of many that each see a coarse one."""

import itertools
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def stagger(v: Float[Array, "*batch_grid"], factors: Sequence[int]) -> Float[Array, "p *rest"]:
    """The coarse fields that lie one beside the other in a fine one.

    **Arguments:** a field whose last axes are the grid; in each direction of it, by how much the
    pieces are coarser.

    **Returns** the pieces along a new first axis: that with the offsets `(i, j)` holds the points
    `i, i + a, ...` and `j, j + b, ...`, and the last offset runs fastest.

    **Raises:** `ValueError` where a factor does not divide the points.

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from pde.operators import stagger, unstagger
        >>> stagger(jnp.arange(6), [2]).tolist()
        [[0, 2, 4], [1, 3, 5]]
        >>> unstagger(stagger(jnp.arange(6), [2]), [2]).tolist()
        [0, 1, 2, 3, 4, 5]

        ```
    """
    if len(factors) > v.ndim or any(
        n % a for n, a in zip(v.shape[v.ndim - len(factors) :], factors, strict=True)
    ):
        raise ValueError(f"A field of shape {v.shape} does not part into {tuple(factors)}.")
    offsets = itertools.product(*(range(a) for a in factors))
    return jnp.stack(
        [v[(..., *(slice(i, None, a) for i, a in zip(o, factors, strict=True)))] for o in offsets]
    )


def unstagger(pieces: Float[Array, "p *rest"], factors: Sequence[int]) -> Float[Array, "*whole"]:
    """The fine field that [`pde.operators.stagger`][] would part into these pieces.

    **Raises:** `ValueError` for another number of pieces than the factors make.

    ```python
    >>> import jax.numpy as jnp
    >>> from pde.operators import unstagger
    >>> unstagger(jnp.array([[[0.0]], [[1.0]], [[2.0]], [[3.0]]]), [2, 2]).tolist()
    [[0.0, 1.0], [2.0, 3.0]]

    ```
    """
    if len(pieces) != math.prod(factors):
        raise ValueError(f"{len(pieces)} pieces are not those of {tuple(factors)}.")
    dims, batch = len(factors), pieces.ndim - 1 - len(factors)
    parted = pieces.reshape(*factors, *pieces.shape[1:])
    # From (a, b, *batch, n, m) to (*batch, n, a, m, b).
    order = [*range(dims, dims + batch)]
    for k in range(dims):
        order += [dims + batch + k, k]
    coarse = pieces.shape[1 + batch :]
    grid = [n * a for n, a in zip(coarse, factors, strict=True)]
    return parted.transpose(order).reshape(*pieces.shape[1 : 1 + batch], *grid)


class NeuralStagger(eqx.Module):
    r"""Fine states at many times, by networks on coarse grids that stand beside each other.

    Huang et al., *NeuralStagger: Accelerating Physics-constrained Neural PDE Solver with
    Spatial-temporal Decomposition* (ICML 2023). The start is parted into coarse fields
    ([`pde.operators.stagger`][]), a network takes each of them to as coarse a field at each of
    `time` times $t_k = kT/K$, and side by side they are the fine states

    $$u_k = u_0 + \frac kK\, G_k(u_0), \qquad k = 1, \dots, K,$$

    right at the start whatever the networks are. They are trained together, by the equation alone:
    what `defect` gives vanishes for the trajectory of the fine solver and no other. Each network
    may be called alone, for a coarse picture at its share of the work, and so may its last time.

    Where all networks are one, it must not matter where a piece lies: true of an equation on a
    torus, with what is not the same everywhere `given` as a field.

    Of the paper we could read the abstract alone; that a network gives all its times at once, as
    channels, and the form of the start and of the defect are ours.

    **Arguments:**

    - `network`: from a key to a network, from `(channels, *coarse)` to
        `(time * channels of the start, *coarse)`.
    - `space`: by how much the networks' grids are coarser, a number a direction.
    - `time`: how many times there are.
    - `shared`: one network for all pieces.
    - `key`.

    **Called with** the start, `(channels, *grid)`, and what is given, as many channels as there
    are, on the same grid; **returns** states, `(time, channels, *grid)`.

    !!! Example

        ```python
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from pde.operators import NeuralStagger
        >>> def network(key):  # or a `pde.operators.FNO`
        ...     return eqx.nn.Conv1d(1, 4, 3, padding="SAME", padding_mode="CIRCULAR", key=key)
        >>> solver = NeuralStagger(network, [2], 4, key=jax.random.key(0))
        >>> start = jnp.sin(2 * jnp.pi * jnp.arange(64) / 64)[None]
        >>> eqx.filter_jit(solver)(start).shape
        (4, 1, 64)

        ```
    """

    networks: Callable[[Array], Array]
    space: tuple[int, ...] = eqx.field(static=True)
    time: int = eqx.field(static=True)
    shared: bool = eqx.field(static=True)

    def __init__(
        self,
        network: Callable[[Key[Array, ""]], Callable[[Array], Array]],
        space: Sequence[int],
        time: int,
        *,
        shared: bool = False,
        key: Key[Array, ""],
    ):
        self.space, self.time, self.shared = tuple(space), time, shared
        if not self.space or min(self.space) < 1 or time < 1:
            raise ValueError(f"Factors are from 1 up; got space={self.space}, time={time}.")
        if shared:
            self.networks = network(key)
        else:
            keys = jax.random.split(key, math.prod(self.space))
            self.networks = eqx.filter_vmap(network)(keys)

    def __call__(
        self, start: Float[Array, "c *grid"], given: Float[Array, "g *grid"] | None = None
    ) -> Float[Array, "t c *grid"]:
        pieces = stagger(start, self.space)
        others = None if given is None else stagger(given, self.space)
        axes = (None if self.shared else eqx.if_array(0), 0, None if given is None else 0)
        states = eqx.filter_vmap(self._states, in_axes=axes)(self.networks, pieces, others)
        return unstagger(states, self.space)

    def piece(
        self,
        start: Float[Array, "c *coarse"],
        index: int,
        given: Float[Array, "g *coarse"] | None = None,
    ) -> Float[Array, "t c *coarse"]:
        """The states on one of the coarse grids, by its network alone."""
        network = self.networks
        if not self.shared:
            network = jax.tree.map(lambda x: x[index] if eqx.is_array(x) else x, network)
        return self._states(network, start, given)

    def _states(self, network, start: Array, given: Array | None) -> Array:
        known = start if given is None else jnp.concatenate([start, given])
        changes = network(known).reshape(self.time, *start.shape)
        share = jnp.arange(1, self.time + 1, dtype=start.dtype) / self.time
        return start + share.reshape(-1, *(1,) * start.ndim) * changes

    def defect(
        self,
        advance: Callable[[Array], Array],
        start: Float[Array, "c *grid"],
        given: Float[Array, "g *grid"] | None = None,
    ) -> Float[Array, "t c *grid"]:
        r"""$K (u_{k+1} - \Phi(u_k))$, for training by the equation alone.

        **Arguments:** `advance`, $\Phi$: the fine solver from one of the times to the next, fields
        to fields; and what the networks are called with.
        """
        states = self(start, given)
        before = jnp.concatenate([start[None], states[:-1]])
        return self.time * (states - jax.vmap(advance)(before))
