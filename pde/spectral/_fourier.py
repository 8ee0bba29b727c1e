r"""Fourier series on a periodic box, and their values at equal distances.

A field is $u(x) = \sum_k \hat u_k e^{ik\cdot x}$ over the waves that are kept. Products are formed
from values; they alias where waves add up to more than the points can tell apart. Orszag, J. Atmos.
Sci. 28 (1971): with n points along an axis, a product of p fields of at most K waves leaves those
K untouched where $(p + 1) K < n$. So K follows from n and p, and waves beyond are never stored.
"""

from functools import cached_property, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Complex, DTypeLike, Float

from ..grid import Mesh


class Fourier(eqx.Module):
    r"""A periodic box, the waves that are kept on it, and the way between values and modes.

    Values are real and have the shape of the points, modes are the coefficients $\hat u_k$: their
    last axis has the waves from 0, those before it the others as well, in the order of the discrete
    Fourier transform. Fields of several components have axes in front. Coefficients do not depend
    on the number of points, the first is the mean, and $\frac12\overline{u^2}$ is
    `energy(modes)`.

    **Arguments:**

    - `axes`: lower end, upper end and number of points of each.
    - `degree`: of the highest product that is to be free of aliasing; 2 keeps two thirds of the
        waves, 3 one half, and 1 all but the highest of an even number.
    - `devices`: a mesh of devices with one axis. Values are spread along the first coordinate and
        modes along the second: a transform is one along local axes, an exchange, and one more.

    **Raises:** `ValueError` for axes that are too short, or that devices cannot share.

    !!! Example

        ```python
        >>> import jax, numpy as np
        >>> from pde import spectral
        >>> basis = spectral.Fourier((0, 2 * np.pi, 16), (0, 2 * np.pi, 12))
        >>> basis.kept, basis.shape
        ((5, 3), (11, 4))
        >>> x, y = (np.arange(n) * 2 * np.pi / n for n in basis.cells)
        >>> slope = jax.jit(lambda u: basis.values(basis.derivative(basis.modes(u), 0)))
        >>> found = slope(np.outer(np.cos(2 * x), np.sin(y)))
        >>> bool(np.abs(found + 2 * np.outer(np.sin(2 * x), np.sin(y))).max() < 1e-6)
        True

        ```
    """

    mesh: Mesh
    degree: int = eqx.field(static=True)
    devices: jax.sharding.Mesh | None = eqx.field(static=True)

    def __init__(
        self,
        *axes: tuple[float, float, int],
        degree: int = 2,
        devices: jax.sharding.Mesh | None = None,
    ):
        self.mesh = Mesh(*((float(low), float(high), n) for low, high, n in axes))
        self.degree = degree
        self.devices = devices
        if degree < 1 or min(self.kept) < 1:
            raise ValueError(f"{self.mesh.cells} points keep no wave free of products of {degree}.")
        if devices is not None:
            if len(axes) < 2 or len(devices.axis_names) != 1:
                raise ValueError("Devices share two coordinates or more, along one axis of theirs.")
            if self.mesh.cells[0] % devices.size:
                raise ValueError(f"{devices.size} devices cannot share {self.mesh.cells[0]} points")

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return self.mesh.dim

    @property
    def cells(self) -> tuple[int, ...]:
        """Points along each axis."""
        return self.mesh.cells

    @property
    def kept(self) -> tuple[int, ...]:
        """The highest wave along each axis."""
        return tuple((n - 1) // (self.degree + 1) for n in self.cells)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of modes."""
        shares = 1 if self.devices is None else self.devices.size
        sizes = [2 * k + 1 for k in self.kept[:-1]] + [self.kept[-1] + 1]
        if self.dim > 1:  # rounded up for devices to share; what is between the waves is zero
            sizes[1] = -(-sizes[1] // shares) * shares
        return tuple(sizes)

    def points(self, dtype: DTypeLike = float) -> tuple[Float[Array, "..."], ...]:
        """Coordinates that broadcast against each other, one an axis; the upper end left out."""
        nodes = self.mesh.nodes(boundary=True, dtype=dtype)
        return tuple(jax.lax.slice_in_dim(x, 0, -1, axis=k) for k, x in enumerate(nodes))

    @cached_property
    def waves(self) -> tuple[np.ndarray, ...]:
        r"""Wavenumbers $2\pi m / L$ along each axis, that broadcast against modes, in float64."""
        found = []
        for axis, (highest, size) in enumerate(zip(self.kept, self.shape, strict=True)):
            waves = np.zeros(size)
            waves[: highest + 1] = np.arange(highest + 1)
            if axis < self.dim - 1:
                waves[size - highest :] = np.arange(-highest, 0)
            length = self.mesh.upper[axis] - self.mesh.lower[axis]
            shape = [-1 if k == axis else 1 for k in range(self.dim)]
            found.append((2 * np.pi / length * waves).reshape(shape))
        return tuple(found)

    @cached_property
    def square(self) -> np.ndarray:
        r"""$|k|^2$, the symbol of $-\Delta$, in float64."""
        return np.asarray(sum(k**2 for k in self.waves)) + np.zeros(self.shape)

    @cached_property
    def inverse_square(self) -> np.ndarray:
        r"""$1/|k|^2$, and zero for the mean."""
        return np.divide(1.0, self.square, out=np.zeros(self.shape), where=self.square > 0)

    def derivative(self, modes: Complex[Array, "..."], axis: int) -> Complex[Array, "..."]:
        """By one coordinate, of modes."""
        return modes * jnp.asarray(1j * self.waves[axis], modes.dtype)

    def values(self, modes: Complex[Array, "..."]) -> Float[Array, "..."]:
        """Of modes, at the points."""
        axes = tuple(range(-self.dim, 0))
        if self.devices is None:
            padded = modes
            for axis in axes:
                padded = self._padded(padded, axis)
            return jnp.fft.irfftn(padded, s=self.cells, axes=axes, norm="forward")
        first, *others = axes
        along = partial(jnp.fft.ifft, axis=first, norm="forward")
        a = self._locally(lambda a: along(self._padded(a, first)), modes, axes[1])
        a = self._spread(a, first)

        def rest(a):
            for axis in others:
                a = self._padded(a, axis)
            return jnp.fft.irfftn(a, s=self.cells[1:], axes=others, norm="forward")

        return self._locally(rest, a, first)

    def modes(self, values: Float[Array, "..."]) -> Complex[Array, "..."]:
        """Of values at the points; waves that are not kept are left out."""
        axes = tuple(range(-self.dim, 0))
        if self.devices is None:
            modes = jnp.fft.rfftn(values, axes=axes, norm="forward")
            for axis in axes:
                modes = self._cut(modes, axis)
            return modes
        first, *others = axes

        def rest(a):
            a = jnp.fft.rfftn(a, axes=others, norm="forward")
            for axis in others:
                a = self._cut(a, axis)
            return a

        a = self._spread(self._locally(rest, self._spread(values, first), first), axes[1])
        along = partial(jnp.fft.fft, axis=first, norm="forward")
        return self._locally(lambda a: self._cut(along(a), first), a, axes[1])

    def resampled(self, modes: Complex[Array, "..."], onto: "Fourier") -> Complex[Array, "..."]:
        """The same field by the waves of another basis: cut off, or none where there were none."""
        for axis in range(-self.dim, 0):
            low = min(self.kept[axis], onto.kept[axis])
            modes = _middle(modes, axis, low, onto.shape[axis], half=axis == -1)
        return modes

    def energy(self, modes: Complex[Array, "..."]) -> Float[Array, "..."]:
        r"""$\frac12\overline{u^2}$ of each field, by Parseval's identity."""
        squares = modes.real**2 + modes.imag**2
        # Each wave of the last axis stands for its conjugate too, but for those of zero.
        whole = jnp.sum(squares, axis=tuple(range(-self.dim, 0)))
        once = jnp.sum(squares[..., 0], axis=tuple(range(1 - self.dim, 0)))
        return whole - once / 2

    # --- waves in the order of a transform --------------------------------------------------------

    def _padded(self, modes: Array, axis: int) -> Array:
        size = self.cells[axis] // 2 + 1 if axis == -1 else self.cells[axis]
        return _middle(modes, axis, self.kept[axis], size, half=axis == -1)

    def _cut(self, modes: Array, axis: int) -> Array:
        return _middle(modes, axis, self.kept[axis], self.shape[axis], half=axis == -1)

    # --- devices ----------------------------------------------------------------------------------

    def _partition(self, a: Array, axis: int) -> PartitionSpec:
        assert self.devices is not None
        spec: list[str | None] = [None] * a.ndim
        spec[axis] = self.devices.axis_names[0]
        return PartitionSpec(*spec)

    def _spread(self, a: Array, axis: int) -> Array:
        assert self.devices is not None
        where = NamedSharding(self.devices, self._partition(a, axis))
        return jax.lax.with_sharding_constraint(a, where)

    def _locally(self, transform, a: Array, axis: int) -> Array:
        # XLA gathers the operand of a transform even where other axes alone are spread.
        spec = self._partition(a, axis)
        return jax.shard_map(transform, mesh=self.devices, in_specs=spec, out_specs=spec)(a)


def _middle(a: Array, axis: int, highest: int, size: int, half: bool) -> Array:
    """The waves up to `highest` along an axis, and as many zeros in the middle as make `size`."""
    low = jax.lax.slice_in_dim(a, 0, highest + 1, axis=axis)
    high = a.shape[axis] if half else a.shape[axis] - highest
    parts = [low, jax.lax.slice_in_dim(a, high, None, axis=axis)]
    shape = list(a.shape)
    shape[axis] = size - sum(part.shape[axis] for part in parts)
    return jnp.concatenate([parts[0], jnp.zeros(shape, a.dtype), parts[1]], axis=axis)
