"""Three or more snapshots in time: a bridge for each interval between them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ._bridge import AbstractBridge, Positions, ascending
from ._reference import Langevin, as_reference


class BridgeChain(eqx.Module):
    r"""The process closest to a reference, of all with given laws at several times.

    The reference is Markov, so that the relative entropy of a process with respect to it is at
    least the sum of those on the intervals between the times, but for terms of the laws at the
    times themselves, which are given; and it is that sum for a Markov process. Hence the optimum is
    a chain: on each interval the bridge between its two ends, each beginning where the one before
    has ended (Lavenant, Zhang, Kim and Schiebinger, *Toward a mathematical theory of trajectory
    inference*, 2024).

    **Arguments:**

    - `times`: $t_0 < t_1 < \dots < t_K$, numbers.
    - `bridges`: $K$ of them, each in units of time of its own interval, as `from_snapshots` makes
        them.

    **Raises:** `ValueError` for times that do not ascend or do not match in number.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, transport
        >>> from transport.bridge import BridgeChain, DiscreteBridge
        >>> x = jax.random.normal(jax.random.key(0), (3, 100, 1)) + jnp.array([[[0]], [[2]], [[1]]])
        >>> chain = BridgeChain.from_snapshots(DiscreteBridge, 0.5, [0.0, 1.0, 4.0], x)
        >>> paths = chain.simulate(jax.random.key(1), x[0], [1.0, 2.5, 4.0])
        >>> [bool(abs(path.mean() - m) < 0.4) for path, m in zip(paths, (2, 1.5, 1))]
        [True, True, True]

        ```
    """

    times: tuple[float, ...] = eqx.field(static=True)
    bridges: tuple[AbstractBridge, ...]

    def __init__(self, times: Sequence[float], bridges: Sequence[AbstractBridge]):
        self.times, self.bridges = tuple(map(float, times)), tuple(bridges)
        if len(self.times) != len(self.bridges) + 1 or not self.bridges:
            raise ValueError(f"{len(self.times)} times for {len(self.bridges)} bridges between.")
        if any(after <= before for before, after in pairwise(self.times)):
            raise ValueError(f"The times must ascend: {self.times}.")

    @classmethod
    def from_snapshots(
        cls,
        make: Callable[..., AbstractBridge],
        reference,
        times: Sequence[float],
        snapshots: Sequence[Float[Array, "n d"]],
    ) -> "BridgeChain":
        """A bridge between each snapshot and the next.

        **Arguments:**

        - `make`: called as `make(reference, x0, x1)` for each interval, with the reference in units
            of its time. [`transport.bridge.DiscreteBridge`][] is one; a function that makes and
            fits a [`transport.bridge.LightSB`][] another.
        - `reference`: the reference process in the units of `times`, a number being Brownian
            motion's diffusivity.
        - `times`, `snapshots`: samples of the law at each time. Their numbers may differ.

        **Raises:** `ValueError` where times and snapshots do not match in number.
        """
        reference = reference if isinstance(reference, Langevin) else as_reference(reference)
        lengths = [after - before for before, after in pairwise(times)]
        bridges = [
            make(reference.over(length), x0, x1)
            for length, (x0, x1) in zip(lengths, pairwise(snapshots), strict=True)
        ]
        return cls(times, bridges)

    def drift(self, t: Float[Array, "*#n"] | float, x: Positions) -> Positions:
        r"""$b(t, x)$ of $dX = b\,dt + \sqrt{\varepsilon}\,dW$; at a snapshot, what follows it."""

        def of(bridge, begin, end):
            length = end - begin
            return lambda t, x: bridge.drift((t - begin) / length, x) / length

        branches = [
            of(bridge, *ends)
            for bridge, ends in zip(self.bridges, pairwise(self.times), strict=True)
        ]

        def at(t, x):
            index = jnp.searchsorted(jnp.asarray(self.times[1:-1], x.dtype), t, side="right")
            return jax.lax.switch(index, branches, jnp.asarray(t, x.dtype), x)

        return jnp.vectorize(at, signature="(),(d)->(d)")(t, x)

    def sample(self, key: Key[Array, ""], x0: Positions) -> Positions:
        """Draws at the last time, one for each `x0` at the first."""
        for one, bridge in zip(self._keys(key), self.bridges, strict=True):
            x0 = bridge.sample(one, x0)
        return x0

    @eqx.filter_jit
    def simulate(
        self,
        key: Key[Array, ""],
        x0: Positions,
        ts: Float[Array, " times"] | Sequence[float],
        solver: diffrax.AbstractSolver | None = None,
        steps: int = 100,
        adjoint: diffrax.AbstractAdjoint | None = None,
    ) -> Float[Array, "times *n d"]:
        """Paths from `x0` at the first time, at the times `ts`.

        Arguments as for the bridges' own `simulate`, with `steps` for each interval.

        **Raises:** a runtime error for times outside of the chain's, or that do not ascend.
        """
        ts = ascending(ts, self.times[0], self.times[-1], x0.dtype)
        inner = (slice(None), *(None,) * x0.ndim)
        paths, x = jnp.broadcast_to(x0, (len(ts), *x0.shape)), x0
        for one, bridge, (begin, end) in zip(
            self._keys(key), self.bridges, pairwise(self.times), strict=True
        ):
            here = jnp.append(jnp.clip((ts - begin) / (end - begin), 0, 1), 1)
            found = bridge.simulate(one, x, here, solver, steps, adjoint)
            paths = jnp.where((ts >= begin)[inner], found[:-1], paths)
            x = found[-1]
        return paths

    def _keys(self, key: Key[Array, ""]) -> Key[Array, " intervals"]:
        return jax.random.split(key, len(self.bridges))
