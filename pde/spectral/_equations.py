"""Equations that are ready: each is its symbol, and its products."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Scalar

from ._fourier import Fourier
from ._semilinear import AbstractSemilinear

Number = float | Scalar


def _refuse_unless(basis: Fourier, dims: tuple[int, ...], degree: int, name: str) -> None:
    if basis.dim not in dims:
        allowed = " or ".join(map(str, dims))
        raise ValueError(f"{name} is for {allowed} coordinates, not {basis.dim}.")
    if basis.degree < degree:
        raise ValueError(f"{name} forms products of {degree}: its basis needs degree={degree}.")


class AbstractSteepening(AbstractSemilinear):
    r"""$N = -\frac{a}{2} (u^2)_x$, of one coordinate."""

    basis: eqx.AbstractVar[Fourier]
    steepening: ClassVar[float] = 1.0

    def __check_init__(self):
        _refuse_unless(self.basis, (1,), 2, type(self).__name__)

    def nonlinear(self, t: Any, modes: Complex[Array, " m"], args: Any = None) -> Array:
        """Of one transform there and one back."""
        slope = jnp.asarray(-0.5j * self.steepening * self.basis.waves[0], modes.dtype)
        return slope * self.basis.modes(self.basis.values(modes) ** 2)

    def speeds(self, modes):
        return abs(self.steepening) * jnp.abs(self.basis.values(modes)).max()[None]


class Burgers(AbstractSteepening):
    r"""$u_t + u u_x = \nu u_{xx}$.

    **Arguments:** `basis`; `viscosity` $\nu$.

    ```python
    >>> import jax.numpy as jnp
    >>> from pde import spectral
    >>> burgers = spectral.Burgers(spectral.Fourier((0, 2 * jnp.pi, 12)), viscosity=0.1)
    >>> burgers.symbol.round(2).tolist()
    [-0.0, -0.1, -0.4, -0.9]

    ```
    """

    basis: Fourier
    viscosity: Number

    @property
    def symbol(self):
        return -self.viscosity * self.basis.square


class KortewegDeVries(AbstractSteepening):
    r"""$u_t + 6 u u_x + u_{xxx} = 0$, whose solitons are $\frac c2\,\mathrm{sech}^2$.

    The symbol is imaginary, and so are its $\varphi_k$: their real parts alone, as for equations
    that dissipate, would leave steps of first order.

    ```python
    >>> import jax.numpy as jnp
    >>> from pde import spectral
    >>> kdv = spectral.KortewegDeVries(spectral.Fourier((0, 2 * jnp.pi, 12)))
    >>> kdv.symbol.imag.tolist()
    [0.0, 1.0, 8.0, 27.0]

    ```
    """

    basis: Fourier
    steepening: ClassVar[float] = 6.0

    @property
    def symbol(self):
        return 1j * self.basis.waves[0] ** 3


class KuramotoSivashinsky(AbstractSteepening):
    r"""$u_t + u u_x + u_{xx} + u_{xxxx} = 0$, chaotic on intervals longer than about 20.

    ```python
    >>> import jax.numpy as jnp
    >>> from pde import spectral
    >>> flames = spectral.KuramotoSivashinsky(spectral.Fourier((0, 2 * jnp.pi, 12)))
    >>> flames.symbol.tolist()
    [0.0, 0.0, -12.0, -72.0]

    ```
    """

    basis: Fourier

    @property
    def symbol(self):
        return self.basis.square - self.basis.square**2


class AllenCahn(AbstractSemilinear):
    r"""$u_t = d\Delta u + r (u - u^3)$ in any number of coordinates, on a basis of degree 3.

    **Arguments:** `basis`; `diffusion` $d$; `rate` $r$.

    ```python
    >>> from pde import spectral
    >>> basis = spectral.Fourier((-1, 1, 16), (-1, 1, 16), degree=3)
    >>> spectral.AllenCahn(basis, 0.01, rate=5.0).symbol.shape
    (7, 4)

    ```
    """

    basis: Fourier
    diffusion: Number
    rate: Number = 1.0

    def __check_init__(self):
        _refuse_unless(self.basis, (1, 2, 3), 3, "AllenCahn")

    @property
    def symbol(self):
        return self.rate - self.diffusion * self.basis.square

    def nonlinear(self, t: Any, modes: Complex[Array, "..."], args: Any = None) -> Array:
        return -self.rate * self.basis.modes(self.basis.values(modes) ** 3)


class GrayScott(AbstractSemilinear):
    r"""$u_t = d_u\Delta u - uv^2 + F(1 - u)$, $v_t = d_v\Delta v + uv^2 - (F + k)v$.

    Pearson, Science 261 (1993). Two fields along the first axis, on a basis of degree 3.

    **Arguments:** `basis`; `feed` F; `kill` k; `diffusion` of both.

    ```python
    >>> from pde import spectral
    >>> basis = spectral.Fourier((0, 2.5, 16), (0, 2.5, 16), degree=3)
    >>> spectral.GrayScott(basis, feed=0.04, kill=0.06).symbol.shape
    (2, 7, 4)

    ```
    """

    basis: Fourier
    feed: Number
    kill: Number
    diffusion: tuple[Number, Number] = (2e-5, 1e-5)

    def __check_init__(self):
        _refuse_unless(self.basis, (1, 2, 3), 3, "GrayScott")

    @property
    def symbol(self):
        (d_u, d_v), k2 = self.diffusion, self.basis.square
        both = [-d_u * k2 - self.feed, -d_v * k2 - (self.feed + self.kill)]
        return np.stack(both) if all(isinstance(a, np.ndarray) for a in both) else jnp.stack(both)

    def nonlinear(self, t: Any, modes: Complex[Array, "2 ..."], args: Any = None) -> Array:
        u, v = self.basis.values(modes)
        eaten = self.basis.modes(u * v**2)
        mean = (0,) * self.basis.dim
        return jnp.stack([(-eaten).at[mean].add(self.feed), eaten])


class Vorticity(AbstractSemilinear):
    r"""Incompressible flow in two dimensions, $\omega_t + u\cdot\nabla\omega = \nu\Delta\omega - a\omega + f$.

    With $\omega = v_x - u_y$. Basdevant, J. Comput. Phys. 50 (1983): since the flow is free of
    divergence, $u\cdot\nabla\omega = (\partial_x^2 - \partial_y^2) uv + \partial_x\partial_y
    (v^2 - u^2)$, which takes four transforms instead of five. Advection conserves energy and
    enstrophy to the error of the steps.

    **Arguments:**

    - `basis`: of two coordinates.
    - `viscosity`, `drag`: $\nu$ and $a$.
    - `force`: the modes of $f$, or a function of `t` and `args` that gives them.

    ```python
    >>> import numpy as np
    >>> from pde import spectral
    >>> basis = spectral.Fourier((0, 2 * np.pi, 12), (0, 2 * np.pi, 12))
    >>> flow = spectral.Vorticity(basis, viscosity=0.1, drag=0.5)
    >>> flow.symbol[:2, :2].round(1).tolist()
    [[-0.5, -0.6], [-0.6, -0.7]]

    ```
    """  # noqa: E501

    basis: Fourier
    viscosity: Number
    drag: Number = 0.0
    force: Any = None

    def __check_init__(self):
        _refuse_unless(self.basis, (2,), 2, "Vorticity")

    @property
    def symbol(self):
        return -self.viscosity * self.basis.square - self.drag

    def velocity(self, modes: Complex[Array, "kx ky"]) -> Complex[Array, "2 kx ky"]:
        """Its modes, from those of vorticity."""
        (kx, ky), inverse = self.basis.waves, self.basis.inverse_square
        both = np.stack([1j * ky * inverse, -1j * kx * inverse])
        return jnp.asarray(both, modes.dtype) * modes

    def nonlinear(self, t: Any, modes: Complex[Array, "kx ky"], args: Any = None) -> Array:
        u, v = self.basis.values(self.velocity(modes))
        products = self.basis.modes(jnp.stack([u * v, v**2 - u**2]))
        kx, ky = self.basis.waves
        real = modes.real.dtype
        rate = jnp.asarray(kx**2 - ky**2, real) * products[0]
        rate += jnp.asarray(kx * ky, real) * products[1]
        force = self.force(t, args) if callable(self.force) else self.force
        return rate if force is None else rate + jnp.asarray(force)

    def speeds(self, modes):
        return jnp.abs(self.basis.values(self.velocity(modes))).max(axis=(1, 2))

    def energy(self, modes: Complex[Array, "kx ky"]) -> Float[Array, ""]:
        r"""$\frac12\overline{|u|^2}$."""
        return jnp.sum(self.basis.energy(self.velocity(modes)))

    def enstrophy(self, modes: Complex[Array, "kx ky"]) -> Float[Array, ""]:
        r"""$\frac12\overline{\omega^2}$."""
        return self.basis.energy(modes)


class IncompressibleFlow(AbstractSemilinear):
    r"""Flow in three dimensions, $u_t + \nabla\cdot(uu) = -\nabla p + \nu\Delta u$, $\nabla\cdot u = 0$.

    Velocity along the first axis. Pressure is what projects the rest on fields without divergence,
    and takes the trace of $uu$ with it: of six products five are left, and eight transforms, where
    the rotational form $u\times\omega$ takes nine. Advection conserves energy to the error of the
    steps.

    **Arguments:** `basis`, of three coordinates; `viscosity` $\nu$.

    ```python
    >>> import jax, numpy as np
    >>> from pde import spectral
    >>> basis = spectral.Fourier(*[(0, 2 * np.pi, 8)] * 3)
    >>> flow = spectral.IncompressibleFlow(basis, viscosity=0.1)
    >>> x, y, z = np.meshgrid(*[np.arange(8) * np.pi / 4] * 3, indexing="ij")
    >>> vortex = np.stack([np.sin(x) * np.cos(y), -np.cos(x) * np.sin(y), 0 * z]) * np.cos(z)
    >>> round(float(jax.jit(lambda: flow.energy(flow.start(vortex)))()), 6)
    0.125

    ```
    """  # noqa: E501

    basis: Fourier
    viscosity: Number

    def __check_init__(self):
        _refuse_unless(self.basis, (3,), 2, "IncompressibleFlow")

    @property
    def symbol(self):
        return -self.viscosity * self.basis.square

    def projected(self, modes: Complex[Array, "3 ..."]) -> Complex[Array, "3 ..."]:
        """Without its divergence."""
        real = modes.real.dtype
        waves = [jnp.asarray(k, real) for k in self.basis.waves]
        inverse = jnp.asarray(self.basis.inverse_square, real)
        along = sum(k * m for k, m in zip(waves, modes, strict=True)) * inverse
        return jnp.stack([m - k * along for k, m in zip(waves, modes, strict=True)])

    def start(self, values: Float[Array, "3 nx ny nz"]) -> Complex[Array, "3 ..."]:
        return self.projected(self.basis.modes(values))

    def nonlinear(self, t: Any, modes: Complex[Array, "3 ..."], args: Any = None) -> Array:
        u, v, w = self.basis.values(modes)
        products = jnp.stack([u * u - w * w, v * v - w * w, u * v, u * w, v * w])
        xx, yy, xy, xz, yz = self.basis.modes(products)
        kx, ky, kz = (jnp.asarray(-1j * k, modes.dtype) for k in self.basis.waves)
        flux = (kx * xx + ky * xy + kz * xz, kx * xy + ky * yy + kz * yz, kx * xz + ky * yz)
        return self.projected(jnp.stack(flux))

    def speeds(self, modes):
        return jnp.abs(self.basis.values(modes)).max(axis=(1, 2, 3))

    def vorticity(self, modes: Complex[Array, "3 ..."]) -> Complex[Array, "3 ..."]:
        """Its modes."""
        u, v, w = modes

        def d(a, axis):
            return self.basis.derivative(a, axis)

        return jnp.stack([d(w, 1) - d(v, 2), d(u, 2) - d(w, 0), d(v, 0) - d(u, 1)])

    def energy(self, modes: Complex[Array, "3 ..."]) -> Float[Array, ""]:
        r"""$\frac12\overline{|u|^2}$."""
        return jnp.sum(self.basis.energy(modes))

    def enstrophy(self, modes: Complex[Array, "3 ..."]) -> Float[Array, ""]:
        r"""$\frac12\overline{|\omega|^2}$; energy is dissipated at $2\nu$ times it."""
        return jnp.sum(self.basis.energy(self.vorticity(modes)))


class Wave(AbstractSemilinear):
    r"""$u_{tt} = c^2\Delta u$, whose steps are exact.

    What is stepped are u and $u_t$ turned into waves one way and the other,
    $w_\pm = \hat u_t \pm ic|k| \hat u$, which only turn: $w_\pm \mapsto e^{\pm ic|k|t} w_\pm$.
    Where $|k| = 0$ they are $\hat u_t$ and $\hat u$, and the first feeds the second.

    **Arguments:** `basis`; `speed` c.

    ```python
    >>> import numpy as np
    >>> from pde import spectral
    >>> wave = spectral.Wave(spectral.Fourier((0, 2 * np.pi, 6), degree=1), speed=2.0)
    >>> wave.symbol.imag.tolist()
    [[0.0, 2.0, 4.0], [-0.0, -2.0, -4.0]]

    ```
    """

    basis: Fourier
    speed: Number = 1.0

    @property
    def _turning(self):
        return self.speed * self.basis.square**0.5

    @property
    def symbol(self):
        # Of the mean both vanish, and one feeds the other.
        both = [1j * self._turning, -1j * self._turning]
        return np.stack(both) if isinstance(both[0], np.ndarray) else jnp.stack(both)

    def nonlinear(self, t: Any, modes: Complex[Array, "2 ..."], args: Any = None) -> Array:
        mean = (0,) * self.basis.dim
        return jnp.zeros_like(modes).at[(1, *mean)].set(modes[(0, *mean)])

    def start(self, values: Float[Array, "2 ..."]) -> Complex[Array, "2 ..."]:
        u, rate = self.basis.modes(values)
        turned = jnp.asarray(1j * self._turning, u.dtype) * u
        mean = (0,) * self.basis.dim
        return jnp.stack([rate + turned, (rate - turned).at[mean].set(u[mean])])

    def fields(self, modes: Complex[Array, "2 ..."]) -> Float[Array, "2 ..."]:
        mean, turning = (0,) * self.basis.dim, self._turning
        inverse = 1 / jnp.where(turning > 0, turning, 1)
        u = (
            ((modes[0] - modes[1]) * (-0.5j * inverse).astype(modes.dtype))
            .at[mean]
            .set(modes[(1, *mean)])
        )
        rate = ((modes[0] + modes[1]) / 2).at[mean].set(modes[(0, *mean)])
        return self.basis.values(jnp.stack([u, rate]))

    def speeds(self, modes):
        return jnp.full(self.basis.dim, self.speed, modes.real.dtype)
