r"""Train the networks of a bridge: each direction in turn on paths of the other.

Iterative Markovian fitting: Shi, De Bortoli, Campbell and Doucet, *Diffusion Schrödinger Bridge
Matching* (NeurIPS 2023). Iterative proportional fitting: De Bortoli, Thornton, Heng and Doucet,
*Diffusion Schrödinger Bridge with Applications to Score-Based Generative Modeling* (NeurIPS 2021).

A bridge's `reverse` is a bridge, so that both halves of an iteration are the same program: train
`forward` on paths of `reverse`. No derivative is taken through a path.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jaxtyping import Array, Float, Key

from ._descent import descend, rows
from ._matching import Coupling, matching_loss
from ._neural import NeuralBridge
from ._reference import Reference


def markovian_fitting(
    bridge: NeuralBridge,
    x0: Float[Array, "n d"],
    x1: Float[Array, "m d"],
    optimizer: optax.GradientTransformation,
    *,
    key: Key[Array, ""],
    iterations: int = 5,
    steps: int = 1000,
    batch_size: int = 256,
    paths: int = 4096,
    path_steps: int = 50,
    coupling: Coupling | None = None,
    average: float = 0.99,
) -> optx.Solution:
    r"""Diffusion Schrödinger bridge matching (DSBM), by iterative Markovian fitting.

    In each half of an iteration one direction simulates pairs of ends, from samples of its own
    start, and the other direction's control is regressed on the reference's paths between them.
    The first half takes pairs from `coupling`. Both ends keep their laws, up to the networks'
    errors. Alternating the directions makes it proportional fitting, too (Kholkin et al. 2024), so
    that errors in an end's law do not add up.

    **Arguments:**

    - `bridge`: where to begin, as from `NeuralBridge.from_samples`. Its reference is linear.
    - `x0`, `x1`: samples of the start and of the end, not paired; their numbers may differ.
    - `optimizer`: of optax, with a fresh state in each half; so is its schedule.
    - `key`: of all randomness.
    - `iterations`: each trains `backward`, then `forward`.
    - `steps`, `batch_size`: of the optimizer in a half, and pairs in each.
    - `paths`, `path_steps`: simulated in a half, and the steps of Euler-Maruyama in each.
    - `coupling`: called as `coupling(key, x0, x1)` on `paths` samples of each, gives the ends of
        the first pairs. By default they are independent. A good guess, such as
        `lambda key, x0, x1: DiscreteBridge(epsilon, x0, x1).sample(key, x0)`, saves iterations.
    - `average`: the decay of an exponential average of the parameters. The average is what
        simulates, what is returned, and where the next half begins.

    **Returns:** Optimistix's solution. `value` is the trained bridge, `aux` has the losses, shaped
    `(iterations, 2, steps)`, and `result` is `nonfinite` where a loss or a gradient was not finite;
    such steps are not taken.

    **Raises:** `TypeError` for a reference whose pinned paths have no closed form.

    ```python
    >>> import jax, optax
    >>> from transport.bridge import NeuralBridge, markovian_fitting
    >>> x0, x1 = jax.random.normal(jax.random.key(0), (2, 500, 1))
    >>> bridge = NeuralBridge.from_samples(jax.random.key(1), 1.0, x0, x1 + 3, width=16, depth=1)
    >>> bridge = markovian_fitting(
    ...     bridge, x0, x1 + 3, optax.adam(1e-2), key=jax.random.key(2),
    ...     iterations=1, steps=200, paths=500, path_steps=20,
    ... ).value
    >>> bool(abs(bridge.sample(jax.random.key(3), x0, 20).mean() - 3) < 0.3)
    True

    ```
    """
    if not isinstance(bridge.reference, Reference):
        raise TypeError(
            "Matching needs the reference's paths between pinned ends, whose closed form only a "
            "`Reference` has; use `proportional_fitting`."
        )

    def pairs(turn, key, bridge, ends):
        if turn:
            return bridge.reverse.sample(key, ends, path_steps), ends
        # No direction has been trained yet; the first to be leads from the end to the start.
        draw, pair = jax.random.split(key)
        begin = rows(draw, x1, paths)
        return begin if coupling is None else coupling(pair, ends, begin), ends

    training = (optimizer, steps, batch_size, average)
    return _alternate(pairs, _matching, bridge, x0, x1, key, iterations, paths, training)


def proportional_fitting(
    bridge: NeuralBridge,
    x0: Float[Array, "n d"],
    x1: Float[Array, "m d"],
    optimizer: optax.GradientTransformation,
    *,
    key: Key[Array, ""],
    iterations: int = 5,
    steps: int = 1000,
    batch_size: int = 256,
    paths: int = 4096,
    path_steps: int = 50,
    average: float = 0.99,
) -> optx.Solution:
    r"""Diffusion Schrödinger bridge (DSB), by iterative proportional fitting.

    In each half of an iteration one direction simulates whole paths, from samples of its own start,
    and the other direction's control is regressed on single steps of them, reversed. Where
    Markovian fitting has the right ends and nears the reference, this has the reference's paths and
    nears the ends: each half has one end right. It asks nothing of the reference but its drift.

    The regression is the paper's mean matching, at points of the paths from which a step is drawn
    anew. Steps are drawn in pairs of opposite noise, without which the variance of a target grows
    as the number of steps.

    **Arguments:** as for [`transport.bridge.markovian_fitting`][], without a coupling: the first
    paths are those of the bridge as it is, which should be the reference's, as they are from
    `NeuralBridge.from_samples`. All `path_steps` points of all `paths` are kept for a half.

    **Returns:** as there.

    ```python
    >>> import jax, jax.numpy as jnp, optax
    >>> from transport.bridge import Langevin, NeuralBridge, proportional_fitting
    >>> x0, x1 = jax.random.normal(jax.random.key(0), (2, 500, 1))
    >>> valley = Langevin(1.0, lambda x: jnp.sum((x - 1) ** 4) / 50)
    >>> bridge = NeuralBridge.from_samples(jax.random.key(1), valley, x0, x1 + 3, width=16, depth=1)
    >>> bridge = proportional_fitting(
    ...     bridge, x0, x1 + 3, optax.adam(1e-2), key=jax.random.key(2),
    ...     iterations=4, steps=200, paths=500, path_steps=20,
    ... ).value
    >>> bool(abs(bridge.sample(jax.random.key(3), x0, 20).mean() - 3) < 0.3)
    True

    ```
    """

    def points(_, key, bridge, ends):
        ts = jnp.arange(path_steps, dtype=ends.dtype) / path_steps
        return bridge.reverse.simulate(key, ends, ts, steps=path_steps)

    training = (optimizer, steps, batch_size, average)
    return _alternate(points, _single_steps, bridge, x0, x1, key, iterations, paths, training)


def _alternate(
    simulated: Callable, loss: Callable, bridge, x0, x1, key, iterations: int, paths: int, training
) -> optx.Solution:
    """Train `forward` on what `reverse` simulates from an end, and change places."""
    losses, results = [], []
    for turn in range(2 * iterations):
        draw, along = jax.random.split(jax.random.fold_in(key, turn))
        simulate, train = jax.random.split(along)
        bridge = bridge.reverse
        data = simulated(turn, simulate, bridge, rows(draw, x1 if turn % 2 else x0, paths))
        solution = _trained(loss, bridge, data, train, *training)
        bridge = solution.value
        losses.append(solution.aux)
        results.append(solution.result == optx.RESULTS.successful)
    good = jnp.all(jnp.stack(results))
    return optx.Solution(
        value=bridge,
        result=optx.RESULTS.where(good, optx.RESULTS.successful, optx.RESULTS.nonfinite),
        aux=jnp.stack(losses).reshape(iterations, 2, -1),
        stats={"num_steps": sum(map(len, losses))},
        state=None,
    )


@eqx.filter_jit
def _trained(loss, bridge, data, key, optimizer, steps, batch_size, average) -> optx.Solution:
    def of(forward, key):
        return loss(_with(bridge, forward), data, key, batch_size)

    solution = descend(of, bridge.forward, optimizer, key, steps, average)
    return eqx.tree_at(lambda s: s.value, solution, _with(bridge, solution.value))


def _matching(bridge: NeuralBridge, pairs, key, batch_size: int):
    """Of the reference's paths between pairs of ends."""
    begin, end = pairs
    assert isinstance(bridge.reference, Reference)
    which, along = jax.random.split(key)
    index = jax.random.randint(which, (batch_size,), 0, len(begin))
    return matching_loss(bridge.control, bridge.reference, along, begin[index], end[index])


def _single_steps(bridge: NeuralBridge, points, key, batch_size: int):
    """Of single steps from points of the reverse's paths, reversed."""
    path_steps, n, _ = points.shape
    reference, reverse, width = bridge.reference, bridge.reverse, 1 / path_steps
    which, when, noise = jax.random.split(key, 3)
    index = jax.random.randint(when, (batch_size,), 0, path_steps)
    x = points[index, jax.random.randint(which, (batch_size,), 0, n)]
    s = index * width
    noise = jax.random.normal(noise, x.shape, x.dtype)
    noise = jnp.sqrt(reference.epsilon * width) * jnp.stack([noise, -noise])
    later = x + width * reverse.drift(s, x) + noise
    # (x - later) / width, and the change of the drift on the way, less the reference's drift.
    target = -noise / width - reverse.drift(s, later) - reference.drift(later)
    control = bridge.control(1 - s - width, later)
    return jnp.mean(jnp.sum((0.5 * control - target) * control / reference.epsilon, axis=-1))


def _with(bridge: NeuralBridge, forward) -> NeuralBridge:
    return eqx.tree_at(lambda b: b.forward, bridge, forward)
