"""What is known of SOR's rate of convergence.

Young, Iterative Methods for Solving Partial Difference Equations of Elliptic Type (1954);
Hackbusch, Iterative Solution of Large Sparse Systems of Equations (2016); Khodak, Chow, Balcan and
Talwalkar, Learning to Relax (2024, arXiv:2310.02246).
"""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, Scalar

from ._iteration import inner, split
from ._splitting import Unravel


def jacobi_radius(operator: lx.AbstractLinearOperator, key: Array, steps: int = 100) -> Scalar:
    r"""$\beta = \rho(I - D^{-1}A)$ by power iteration, for symmetric positive definite $A$.

    $I - D^{-1}A$ is symmetric in the inner product of $D$, in which the estimate is Rayleigh's
    quotient of its square: never above $\beta$, and with an error of the square of the vector's.
    $\pm\beta$ may both be eigenvalues.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp
        >>> from sciopt import relax
        >>> poisson = relax.Stencil.laplacian((9, 9), spacing=0.1)
        >>> beta = relax.jacobi_radius(poisson, jax.random.key(0))
        >>> bool(jnp.abs(beta - jnp.cos(jnp.pi / 10)) < 1e-4)
        True

        ```
    """
    splitting = split(operator, "red_black")
    unravel, flat = Unravel(operator.in_structure()), lx.diagonal(operator)
    diagonal = splitting.pack(unravel(flat))
    start = splitting.pack(unravel(jax.random.normal(key, flat.shape, flat.dtype)))

    def square(v):
        return inner(v, jax.tree.map(jnp.multiply, diagonal, v))

    def step(_, carry):
        v, _ = carry
        norm = jnp.sqrt(square(v))
        v = jax.tree.map(lambda x: x / norm, v)
        v = jax.tree.map(jnp.subtract, v, splitting.over_diagonal(splitting.mv(v)))
        return v, jnp.sqrt(square(v))

    return jax.lax.fori_loop(0, steps, step, (start, jnp.zeros_like(square(start))))[1]


def optimal_omega(beta: ArrayLike) -> Float[Array, "..."]:
    r"""Young's $\omega^* = 2 / (1 + \sqrt{1 - \beta^2})$ for Jacobi's spectral radius $\beta$.

    For consistently ordered matrices, such as five-point stencils in natural or red-black order,
    whose Jacobi iteration has real eigenvalues.

    !!! Example

        ```python
        >>> from sciopt import relax
        >>> round(float(relax.optimal_omega(0.95)), 4)
        1.5241

        ```
    """
    return 2 / (1 + jnp.sqrt(1 - jnp.square(beta)))


def sor_radius(omega: ArrayLike, beta: ArrayLike) -> Float[Array, "..."]:
    r"""SOR's spectral radius $\rho(C_\omega)$, after Young.

    $\frac14 \big(\omega\beta + \sqrt{\omega^2\beta^2 - 4(\omega - 1)}\big)^2$ below $\omega^*$, and
    $\omega - 1$ from there on, for the matrices of [`sciopt.relax.optimal_omega`][].

    !!! Example

        ```python
        >>> from sciopt import relax
        >>> float(relax.sor_radius(1.0, 0.9)), round(float(relax.sor_radius(1.75, 0.9)), 6)
        (0.81, 0.75)

        ```
    """
    omega, beta = jnp.asarray(omega), jnp.asarray(beta)
    square = jnp.maximum(jnp.square(omega * beta) - 4 * (omega - 1), 0.0)
    below = jnp.square(omega * beta + jnp.sqrt(square)) / 4
    return jnp.where(omega < optimal_omega(beta), below, omega - 1)


def near_asymptotic_bound(
    omega: ArrayLike, beta: ArrayLike, tau: ArrayLike, tolerance: ArrayLike
) -> Float[Array, "..."]:
    r"""The surrogate of SOR's iteration count for which Khodak et al. prove their regret bounds.

    $U(\omega) = 1 + \log\varepsilon \,/\, \log\big(\rho(C_\omega) + \tau(1 - \rho(C_\omega))\big)$,
    where $\tau$ says how far from asymptotic the iteration still is when it stops:
    $|C_\omega^k|_2^{1/k} \le \rho + \tau(1 - \rho)$. At $\tau = 0$ it is the asymptotic estimate.

    !!! Example

        ```python
        >>> from sciopt import relax
        >>> round(float(relax.near_asymptotic_bound(1.5, 0.95, 0.1, 1e-8)), 2)
        48.04

        ```
    """
    radius = sor_radius(omega, beta)
    return 1 + jnp.log(tolerance) / jnp.log(radius + tau * (1 - radius))


def energy_norm_rate(
    omega: ArrayLike, beta: ArrayLike, product_radius: ArrayLike = 0.25
) -> Float[Array, "..."]:
    r"""A bound on SOR's convergence in the energy norm (Hackbusch, corollary 3.45).

    With $\Omega = (2 - \omega) / (2\omega)$ and $\gamma = 1 - \beta$ it is $\sqrt{1 - 2\Omega\gamma
    / (\Omega^2 + \gamma/\omega + \rho(D^{-1}LD^{-1}L^\top) - 1/4)}$. `product_radius`, the last
    spectral radius, is at most a quarter for Laplacians.

    !!! Example

        ```python
        >>> from sciopt import relax
        >>> round(float(relax.energy_norm_rate(1.5, 0.95)), 4)
        0.8528

        ```
    """
    omega = jnp.asarray(omega)
    gamma, ratio = 1 - jnp.asarray(beta), (2 - omega) / (2 * omega)
    return jnp.sqrt(
        1 - 2 * ratio * gamma / (jnp.square(ratio) + gamma / omega + product_radius - 0.25)
    )
