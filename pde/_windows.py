"""Time in windows, each of which begins where the one before it ends."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._domain import Box, Range
from ._pinn import Field
from ._problem import Initial, Periodic, Problem, Values
from ._region import Region

_PLACES = 512  # where a field is asked, for its series


def windows(problem: Problem, count: int) -> list[tuple[float, float]]:
    """The intervals of time, of equal length.

    ```python
    >>> import pde
    >>> decay = pde.Problem(pde.Box(t=(0, 1)), ["u"], {"rate": lambda v: v.u_t + v.u}, {})
    >>> pde.windows(decay, 2)
    [(0.0, 0.5), (0.5, 1.0)]

    ```
    """
    axis = problem.domain.axis("t")
    edges = np.linspace(problem.domain.lower[axis], problem.domain.upper[axis], count + 1)
    return [(float(a), float(b)) for a, b in itertools.pairwise(edges)]


def in_window(
    problem: Problem, interval: tuple[float, float], before: Field | None = None
) -> Problem:
    """The problem on an interval of time; it begins as `before` ends, if that is given.

    The initial condition stays as it is stated. Where it is hard, what the field before it says at
    its end is built into the next one, to rounding and with all its derivatives: the hand-over is
    exact. Over a single coordinate of space that is periodic it is handed over as its Fourier
    series; otherwise as the field itself, so that each window evaluates all those before it. Where
    the condition is soft, this is the sequence-to-sequence learning of Krishnapriyan et al.,
    *Characterizing possible failure modes in physics-informed neural networks* (2021).

    **Raises:** `ValueError` where there is no initial condition to hand over to, or the interval
    does not begin where the field ends.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> decay = pde.Problem(
    ...     pde.Box(t=(0, 1)), ["u"], {"rate": lambda v: v.u_t + v.u},
    ...     {"start": pde.Initial({"u": 1.0}, hard=True)},
    ... )
    >>> first, second = pde.windows(decay, 2)
    >>> net = pde.MLP(1, 1, width=4, depth=1, key=jax.random.key(0))
    >>> u = pde.Field(pde.in_window(decay, first), net)
    >>> v = pde.Field(pde.in_window(decay, second, u), net)
    >>> bool(v(jnp.array([0.5]))[0] == u(jnp.array([0.5]))[0])
    True

    ```
    """
    conditions = dict(problem.conditions)
    if before is not None:
        end = before.problem.domain.upper[before.problem.domain.axis("t")]
        if interval[0] != end:
            raise ValueError(f"A window from {interval[0]} cannot follow one that ends at {end}.")
        starts = {n: c for n, c in conditions.items() if isinstance(c, Initial)}
        if not starts:
            raise ValueError("Windows need an initial condition, which each hands to the next.")
        for name, start in starts.items():
            values = {unknown: _at_end(before, unknown) for unknown in start.values}
            rates = {unknown: _at_end(before, f"{unknown}_t") for unknown in start.rates}
            conditions[name] = dataclasses.replace(start, values=values, rates=rates)
    return Problem(
        _with_time(problem.domain, interval), problem.unknowns, problem.equations, conditions,
        problem.parameters, problem.weights,
    )  # fmt: skip


def _at_end(before: Field, name: str) -> "End | Series":
    """What a field says at the end of its window: as a series, where one holds it to rounding."""
    whole, box = End(before, name), before.problem.domain
    periodic = {c.over for c in before.problem.conditions.values() if isinstance(c, Periodic)}
    space = [n for n in box.names if n != "t"]
    if len(space) != 1 or space[0] not in periodic:
        return whole
    axis = box.axis(space[0])
    points = jnp.tile(jnp.asarray(box.upper), (_PLACES, 1))
    place = box.lower[axis] + (box.upper[axis] - box.lower[axis]) * np.arange(_PLACES) / _PLACES
    points = points.at[:, axis].set(place)
    values = eqx.filter_jit(lambda w, p: jax.vmap(lambda x: w(before.problem.at(x)))(p))
    found = np.asarray(values(whole, points))
    waves = np.fft.rfft(np.asarray(found, float)) / _PLACES
    noise = 50 * np.finfo(found.dtype).eps * np.max(np.abs(waves))
    count = int(np.max(np.flatnonzero(np.abs(waves) > noise), initial=0)) + 1
    if count > len(waves) // 2:
        return whole
    waves = 2 * waves[:count]
    waves[0] /= 2
    return Series(
        jnp.asarray(waves.real, found.dtype), jnp.asarray(-waves.imag, found.dtype),
        space[0], box.lower[axis], box.upper[axis],
    )  # fmt: skip


class Series(eqx.Module):
    """A Fourier series over a coordinate, as the expression of an initial condition."""

    cosines: Float[Array, " waves"]
    sines: Float[Array, " waves"]
    over: str = eqx.field(static=True)
    lower: float = eqx.field(static=True)
    upper: float = eqx.field(static=True)

    def __call__(self, v: Values) -> Array:
        turn = 2 * jnp.pi * (v[self.over] - self.lower) / (self.upper - self.lower)
        phase = turn * jnp.arange(self.cosines.size, dtype=self.cosines.dtype)
        return self.cosines @ jnp.cos(phase) + self.sines @ jnp.sin(phase)


class End(eqx.Module):
    """What a field says at the end of its window, as the expression of an initial condition."""

    field: Field
    name: str = eqx.field(static=True)

    def __call__(self, v: Values) -> Array:
        point = jnp.stack([v[name] for name in self.field.problem.domain.names])
        if self.name in self.field.problem.unknowns:
            return self.field(point)[self.field.problem.unknowns.index(self.name)]
        return self.field.read(point, (self.name,))[self.name]


def _with_time(box: Box, interval: tuple[float, float]) -> Box:
    vector_of = {part: vector for vector, parts in box.vectors for part in parts}
    given: dict = {}
    for name, lower, upper in zip(box.names, box.lower, box.upper, strict=True):
        if name in vector_of:
            given.setdefault(vector_of[name], []).append((lower, upper))
        else:
            given[name] = Range(lower, upper) if name in box.varied else (lower, upper)
    given |= {"t": interval}
    if isinstance(box, Region):
        return Region(box.shape, **{n: i for n, i in given.items() if n not in box.shape.names})
    return Box(**given)


class Marched:
    """One field of several that follow each other in time, as a [`pde.Field`][] on a grid.

    **Arguments:** `fields`, in the order of their windows.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> decay = pde.Problem(
    ...     pde.Box(t=(0, 1)), ["u"], {"rate": lambda v: v.u_t + v.u},
    ...     {"start": pde.Initial({"u": 1.0}, hard=True)},
    ... )
    >>> net = pde.MLP(1, 1, width=4, depth=1, key=jax.random.key(0))
    >>> fields = [pde.Field(pde.in_window(decay, pde.windows(decay, 2)[0]), net)]
    >>> fields += [pde.Field(pde.in_window(decay, pde.windows(decay, 2)[1], fields[0]), net)]
    >>> pde.Marched(fields).on_grid({"t": jnp.array([0.0, 0.4, 1.0])})["u"].shape
    (3,)

    ```
    """

    def __init__(self, fields: Sequence[Field]):
        self.fields = list(fields)

    def on_grid(self, axes: Mapping[str, Array]) -> dict[str, Array]:
        """The unknowns on a tensor grid, each time by the window that it is in."""
        box = self.fields[0].problem.domain
        times, axis = np.asarray(axes["t"]), box.axis("t")
        ends = [field.problem.domain.upper[axis] for field in self.fields[:-1]]
        turns = np.searchsorted(ends, times)
        pieces = []
        for turn, field in enumerate(self.fields):
            if (mine := times[turns == turn]).size:
                pieces.append(field.on_grid({**axes, "t": jnp.asarray(mine)}))
        return {n: jnp.concatenate([piece[n] for piece in pieces], axis) for n in pieces[0]}
