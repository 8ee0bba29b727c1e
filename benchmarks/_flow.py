r"""Flow in a periodic square, as a network that gives its vorticity at all times at once.

$w_t + u \cdot \nabla w = \nu \Delta w$ on $(0, 1)^2$ to t = 1, from a random start; the second
problem of Chalapathi, Du and Krishnapriyan (ICLR 2024). As there, what the network gives is added
to the start and vanishes with t. Derivatives in space are those of Fourier series, in time of the
polynomial through the start and the values at Chebyshev's points: what is left is the network's.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _chebyshev import chebyshev
from jaxtyping import Array, Float

from cases._experts.problem import passage
from pde import grid, spectral

FINE, STEPS = 2, 32  # of the reference: times the points, and steps from one time to the next


class Flow(eqx.Module):
    """At `times` after the first, on `points` in each direction."""

    times: int = eqx.field(static=True)
    points: int = eqx.field(static=True)
    viscosity: float = eqx.field(static=True, default=1e-3)

    @property
    def t(self) -> np.ndarray:
        """The times after the first."""
        return chebyshev(self.times, (0, 1))[0][1:]

    @property
    def rates(self) -> Float[np.ndarray, "times times"]:
        """From values at these times, and zero at the first, to derivatives."""
        return chebyshev(self.times, (0, 1))[1][1:, 1:]

    def truth(self, start: Float[Array, "x y"]) -> Float[np.ndarray, "times x y"]:
        """By ETDRK4 on a grid of twice the points."""
        coarse = spectral.Fourier(*[(0, 1, self.points)] * 2, degree=1)
        fine = spectral.Fourier(*[(0, 1, FINE * self.points)] * 2)
        flow = spectral.Vorticity(fine, self.viscosity)

        def onwards(modes: Array, dt: Array) -> tuple[Array, Array]:
            march = grid.March(flow, spectral.ETDRK(flow, dt))
            modes = march.run(march.init(modes), STEPS)[0].y
            return modes, coarse.values(fine.resampled(modes, coarse))

        modes = coarse.resampled(coarse.modes(start), fine)
        lengths = jnp.asarray(np.diff(self.t, prepend=0) / STEPS, start.dtype)
        return np.asarray(jax.jit(lambda m: jax.lax.scan(onwards, m, lengths)[1])(modes))

    def splits(self, blocks: int) -> list[int]:
        """Blocks are squares."""
        return [1, math.isqrt(blocks), math.isqrt(blocks)]

    def mixed(
        self, b: Float[Array, "times x y basis"], weights: Float[Array, "blocks basis"]
    ) -> Float[Array, "times x y"]:
        """With smooth passages from the middle of each block to the next."""
        n = math.isqrt(len(weights))
        at = (np.arange(self.points) + 0.5) / self.points
        along = jnp.asarray(passage(at, n, periodic=True), b.dtype)
        each = jnp.einsum("xk,yl,kln->xyn", along, along, weights.reshape(n, n, -1))
        return jnp.einsum("txyn,xyn->txy", b, each)

    def solution(self, local: dict, start: Float[Array, "x y"]) -> Float[Array, "times x y"]:
        """The vorticity."""
        return start + local["w"]

    def basis(self, network: Any, start: Float[Array, "x y"]) -> Float[Array, "times x y basis"]:
        """What may be added to the start."""
        fields = network(start[None]).reshape(self.times, -1, *start.shape)
        return jnp.moveaxis(fields, 1, -1) * jnp.asarray(self.t, start.dtype)[:, None, None, None]

    def terms(self, b: Float[Array, "times x y basis"]) -> tuple[dict, dict]:
        """What is linear in the basis, everywhere."""
        rate = jnp.einsum("st,txyn->sxyn", jnp.asarray(self.rates, b.dtype), b)
        return {"w": b, "w_t": rate} | self._slopes(b), {}

    def fields(self, start: Float[Array, "x y"]) -> dict[str, Array]:
        """Of the start, at all times."""
        whole = jnp.broadcast_to(start[..., None], (self.times, *start.shape, 1))
        return {f"start_{n}": v[..., 0] for n, v in self._slopes(whole).items()}

    def residuals(self, local: dict, common: dict, start: Any) -> dict[str, Array]:
        """Of the equation."""
        u, v, x, y, laplacian = (
            local[n] + local[f"start_{n}"] for n in ("u", "v", "w_x", "w_y", "laplacian")
        )
        return {"equation": local["w_t"] + u * x + v * y - self.viscosity * laplacian}

    def _slopes(self, b: Float[Array, "times x y basis"]) -> dict[str, Array]:
        """Velocity and slopes of vorticities."""
        n = self.points
        k = 2 * np.pi * np.fft.fftfreq(n, 1 / n)[:, None, None]
        m = 2 * np.pi * np.fft.rfftfreq(n, 1 / n)[None, :, None]
        square = k**2 + m**2
        inverse = 1 / np.where(square > 0, square, 1)
        modes = jnp.fft.rfftn(b, axes=(1, 2))
        symbols = {
            "u": 1j * m * inverse, "v": -1j * k * inverse, "w_x": 1j * k, "w_y": 1j * m,
            "laplacian": -square,
        }  # fmt: skip
        return {
            name: jnp.fft.irfftn(modes * jnp.asarray(s, modes.dtype), s=(n, n), axes=(1, 2))
            for name, s in symbols.items()
        }
