"""Gaussian random fields on periodic boxes, the inputs of operators."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key


class RandomField(eqx.Module):
    r"""The law $N(0, \sigma^2 (-\Delta + \tau^2)^{-\alpha})$ of periodic functions, cut at `modes`.

    A draw is a function, $\sum_k \sqrt{\lambda_k}\,\xi_k\,\phi_k$ with the orthonormal sines and
    cosines $\phi_k$ of $|k_i| \leq K$. `__call__` gives its values on a grid, and the same key the
    same function on every grid. The random input of Li et al. (ICLR 2021), appendix A.3.

    **Arguments:** `lengths`, of the box, one a direction; `modes` $K$; `scale` $\sigma$, `shift`
    $\tau$ and `power` $\alpha$; `mean_free` leaves the mode 0 out.

    !!! Example

        ```python
        >>> import jax
        >>> from pde.operators import RandomField
        >>> law = RandomField([1.0], modes=32, scale=25.0, shift=5.0, power=2.0)
        >>> coarse, fine = law(jax.random.key(0), [128]), law(jax.random.key(0), [256])
        >>> bool(abs(fine[::2] - coarse).max() < 1e-5)
        True

        ```
    """

    lengths: tuple[float, ...] = eqx.field(static=True)
    modes: int = eqx.field(static=True)
    scale: float = eqx.field(static=True, default=1.0)
    shift: float = eqx.field(static=True, default=1.0)
    power: float = eqx.field(static=True, default=2.0)
    mean_free: bool = eqx.field(static=True, default=False)

    def __init__(
        self,
        lengths: Sequence[float],
        *,
        modes: int,
        scale: float = 1.0,
        shift: float = 1.0,
        power: float = 2.0,
        mean_free: bool = False,
    ):
        self.lengths = tuple(float(length) for length in lengths)
        self.modes, self.scale, self.shift = modes, float(scale), float(shift)
        self.power, self.mean_free = float(power), mean_free
        if modes < 1 or not self.lengths or min(self.lengths) <= 0:
            raise ValueError(
                f"A random field needs lengths above 0 and a mode or more; got {lengths}, {modes}."
            )
        if self.shift <= 0 and not mean_free:
            raise ValueError("With shift=0 the mean has no finite variance: say mean_free=True.")

    def variances(self) -> np.ndarray:
        """Of the coefficient of each wave vector, shape `(2K+1, ..., 2K+1)`, from -K up."""
        k = [2 * np.pi * np.arange(-self.modes, self.modes + 1) / length for length in self.lengths]
        square = sum(np.square(m) for m in np.meshgrid(*k, indexing="ij"))
        with np.errstate(divide="ignore"):
            variance = self.scale**2 * (square + self.shift**2) ** -self.power
        if self.mean_free:
            variance[(self.modes,) * len(self.lengths)] = 0
        return variance

    def __call__(self, key: Key[Array, ""], grid: Sequence[int]) -> Float[Array, "*grid"]:
        if len(grid) != len(self.lengths) or min(grid) < 2 * self.modes + 1:
            raise ValueError(
                f"A grid of {tuple(grid)} does not hold {self.modes} modes in each of "
                f"{len(self.lengths)} directions: it needs {2 * self.modes + 1} points or more."
            )
        deviation = np.sqrt(self.variances() / np.prod(self.lengths))
        # cos(kx) + sin(kx) for k and -k together are sqrt(2) cos and sqrt(2) sin, orthonormal.
        coefficients = jax.random.normal(key, deviation.shape) * deviation
        spectrum = coefficients.astype(jnp.result_type(coefficients, jnp.complex64))
        values = spectrum
        for axis, n in enumerate(grid):
            phase = np.outer(np.arange(n), np.arange(-self.modes, self.modes + 1)) / n
            wave = jnp.asarray(np.exp(2j * np.pi * phase), values.dtype)
            values = jnp.moveaxis(jnp.tensordot(wave, values, axes=(1, axis)), 0, axis)
        return values.real + values.imag
