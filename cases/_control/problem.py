"""The mismatch of a simulation as a function of what is sought in it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from pde import grid, spectral

from .._simulate import build
from . import schema


class Problem:
    """What is sought, as values at the points; the march that it makes; and its mismatch."""

    def __init__(self, case: schema.Case):
        self.case = case
        self.plain = build.loop(case)
        made = self.plain.equation
        at = made.mesh.centres() if build.cells(made) else made.basis.points()
        at = tuple(x.astype(build.dtype(case)) for x in at)
        self.first = build.fields(case, case.initial, at, 0.0)
        self.known: Float[Array, ...]
        if isinstance(case.match, schema.Target):
            self.known = build.fields(case, case.match.values, at, 0.0)
        else:
            frames = jax.jit(lambda: self._frames(self.plain, self.first)[case.match.after :])()
            seen = self._seen(frames)
            noise = jax.random.normal(jax.random.key(case.seed), seen.shape, seen.dtype)
            self.known = seen + case.match.noise * noise
        if isinstance(case.seek, schema.Initial):
            self.begin = build.fields(case, case.seek.guess, at, 0.0)
        else:
            self.begin = jnp.zeros((case.seek.nodes, *self.first.shape[1:]), self.first.dtype)

    def trajectory(self, sought: Array) -> Float[Array, "frames fields ..."]:
        """The fields after each stretch between frames."""
        if isinstance(self.case.seek, schema.Initial):
            return self._frames(self.plain, sought)
        return self._frames(self._pushed(sought), self.first)

    def mismatch(self, sought: Array) -> Scalar:
        """Half the mean square of what differs, and of what is sought by its weight."""
        frames = self.trajectory(sought)
        if isinstance(self.case.match, schema.Target):
            gap = frames[-1] - self.known
        else:
            gap = self._seen(frames[self.case.match.after :]) - self.known
        return (jnp.mean(gap**2) + self.case.weight * jnp.mean(sought**2)) / 2

    def judged(self, sought: Array, frames: Array) -> tuple[Array, Array]:
        """What is judged, and what it should be: the first state, or the last one reached."""
        if isinstance(self.case.seek, schema.Initial):
            return sought, self.first
        return frames[-1], self.known

    def gradient_bytes(self) -> int | None:
        """The room that one gradient needs, beside what goes in and comes out."""
        compiled = jax.jit(jax.value_and_grad(self.mismatch)).lower(self.begin).compile()
        analysis = compiled.memory_analysis()
        return None if analysis is None else int(analysis.temp_size_in_bytes)

    # --- parts ------------------------------------------------------------------------------------

    def _pushed(self, sought: Array) -> grid.March:
        """The march under a force on the first field."""
        made: Any = self.plain.equation
        modes = made.basis.modes(sought)
        if len(self.case.fields) > 1:
            others = jnp.zeros((len(modes), len(self.case.fields) - 1, *modes.shape[1:]))
            modes = jnp.concatenate([modes[:, None], others], axis=1)
        hats = spectral.Hats(modes, self.case.time.step * self.case.time.steps)
        return eqx.tree_at(lambda loop: loop.equation, self.plain, spectral.Forced(made, hats))

    def _frames(self, loop: grid.March, first: Array) -> Float[Array, "frames fields ..."]:
        case, made = self.case, self.plain.equation
        start: Any = first if build.cells(made) else made.start(
            first[0] if len(case.fields) == 1 else first
        )  # fmt: skip
        _, record = loop.run(
            loop.init(start), case.time.steps, case.time.steps // case.time.frames,
            save=lambda state: build.shown(case, made, state.y), remat=True, throw=False,
        )  # fmt: skip
        return record.saved

    def _seen(self, frames: Array) -> Array:
        assert isinstance(self.case.match, schema.Observations)
        here = (slice(None, None, self.case.match.every),) * len(self.case.domain)
        return frames[(slice(None), slice(None), *here)]
