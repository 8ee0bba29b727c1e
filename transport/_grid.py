r"""The semi-dual on Cartesian grids whose cost is a sum over axes, axis by axis.

A soft minimum over such a grid is one along each axis in turn, exactly, at $O(n^{1 + 1/d})$ in
place of $O(n^2)$ (Solomon et al. 2015, *Convolutional Wasserstein Distances*, section 5; in the
log domain Schmitz et al. 2018, *Wasserstein Dictionary Learning*, section 4.1.2). Divided by its
sum, what each axis adds up is a Markov kernel, and the plan is the product of these kernels and
$\mathrm{diag}(b)$. So it multiplies vectors of any sign without an exponential more and without
underflow; squares of its entries are products of squares of the kernels' entries, for only one
path leads from an atom to another.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Scalar

from ._schur import damped, inverse_root
from ._semidual import AbstractSemidual, Iterate, damping_of, log_gradient

# Of axis k, from n_k to m_k values; "rest" runs over those of the axes to come, then those done.
Kernels = tuple[Float[Array, "rest n_k m_k"], ...]


class GridSemidual(AbstractSemidual):
    r"""The cost of $(i_1, \dots, i_d)$ and $(j_1, \dots, j_d)$ is $\sum_k$ `costs[k]`$[i_k, j_k]$.

    Of the plan an iterate keeps the kernels, $d$ arrays of $n\,m_k$ numbers. Newton's direction is
    found by conjugate gradients with products of all of them, so that nothing is dropped.
    """

    costs: tuple[Float[Array, "n_k m_k"], ...]
    a: Float[Array, " n"]
    b: Float[Array, " m"]

    def at(self, f: Float[Array, " n"], epsilon: Scalar) -> Iterate:
        kernels, total = soft_sums(f, self.costs, epsilon)
        row = spread_back(kernels, self.b)
        g = epsilon * jnp.log(self.b) - total
        return Iterate(f, g, kernels, row, jnp.sum(jnp.abs(row - self.a)))

    def direction(
        self, it: Iterate, epsilon: Scalar, density: float | None, direct_below: int
    ) -> Float[Array, " n"]:
        by_row = inverse_root(jnp.where(self.a > 0, it.row, 0))
        error = it.error / jnp.sum(self.a)
        damping = damping_of(error, it.f.dtype)
        squares = spread_back(tuple(kernel**2 for kernel in it.plan), self.b) * by_row**2

        def product(s):
            image = self.b * carried(it.plan, by_row * s)
            return by_row * spread_back(it.plan, image)

        s = damped(
            product,
            squares,
            by_row * log_gradient(it.row, self.a),
            damping,
            rtol=jnp.clip(error, 10 * jnp.finfo(it.f.dtype).eps, 1e-2),
            max_steps=2 * self.a.size,
        )
        return epsilon * by_row * s


def soft_sums(
    f: Float[Array, " n"], costs: Sequence[Float[Array, "n_k m_k"]], epsilon: Scalar
) -> tuple[Kernels, Float[Array, " m"]]:
    r"""$\varepsilon \log \sum_i \exp((f_i - C_{ij}) / \varepsilon)$, and the kernels that summed.

    Differentiable, also where `f` is minus infinity.
    """
    kernels = []
    for cost in costs:
        # The axis in front is summed and comes back as the last: after all of them, all are back.
        f = f.reshape(len(cost), -1).T[:, :, None]
        alive = jnp.isfinite(f)
        some = jnp.any(alive, axis=1, keepdims=True)
        # Atoms without mass stand below all others: never the largest, and nothing overflows.
        low = jnp.min(jnp.where(alive, f, jnp.inf), axis=1, keepdims=True) - jnp.ptp(cost)
        f = jnp.where(alive, f, lax.stop_gradient(jnp.where(some, low, 0)))
        # By reciprocals: as many divisions would be a sixth of a solve.
        logits = (f - cost) * (1 / epsilon)
        top = lax.stop_gradient(jnp.max(logits, axis=1, keepdims=True))
        kernel = jnp.where(alive, jnp.exp(logits - top), 0)
        total = jnp.where(some, jnp.sum(kernel, axis=1, keepdims=True), 1)
        kernels.append(kernel * (1 / total))
        f = jnp.where(some, epsilon * (top + jnp.log(total)), -jnp.inf).ravel()
    return tuple(kernels), f


def carried(kernels: Kernels, s: Float[Array, " n"]) -> Float[Array, " m"]:
    """A vector over the source through the kernels: each value of the target's is a mean."""
    for kernel in kernels:
        s = jnp.einsum("rij,ir->rj", kernel, s.reshape(kernel.shape[1], -1)).ravel()
    return s


def spread_back(kernels: Kernels, u: Float[Array, " m"]) -> Float[Array, " n"]:
    """The transpose of `carried`; of masses, where they come from."""
    for kernel in reversed(kernels):
        u = jnp.einsum("rij,rj->ir", kernel, u.reshape(-1, kernel.shape[2])).ravel()
    return u
