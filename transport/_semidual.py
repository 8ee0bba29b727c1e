r"""The semi-dual of entropic transport, $\phi(f) = \langle a, f\rangle + \langle b, g(f)\rangle$.

$g(f)$, the soft c-transform, scales the columns exactly; the gradient is then $a - P1$ and the
Hessian the Schur complement of [`transport._schur`][], divided by $-\varepsilon$. Sinkhorn's sweep
and Newton's direction are both made here (Tang et al. 2024, algorithm 1 and section 4).
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Scalar

from ._schur import direct, normalised, sparse


class Iterate(eqx.Module):
    """A row potential, and what scaling the columns exactly makes of it."""

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    plan: PyTree  # what the direction needs to know of it
    row: Float[Array, " n"]
    error: Scalar


def scale_columns(logits: Float[Array, "n m"], b: Float[Array, " m"], epsilon: Scalar):
    """The plan with column sums `b`, and the column potentials that make it so."""
    top = jnp.max(logits, axis=0)
    kernel = jnp.exp(logits - top)
    total = jnp.sum(kernel, axis=0)
    return kernel * (b / total), epsilon * (jnp.log(b) - top - jnp.log(total))


def damping_of(error: Scalar, dtype) -> Scalar:
    """Proportional to the relative error: tames the far field, leaves convergence superlinear."""
    return 1e-2 * error + 500 * jnp.finfo(dtype).eps


def log_gradient(row: Float[Array, " n"], a: Float[Array, " n"]) -> Float[Array, " n"]:
    """Newton's right-hand side for log r = log a, which near the end is that of r = a.

    A row alone is then solved by one step, where `a - row` asks an empty row for a jump without
    bound. Less its mean, for it must be orthogonal to the null direction.
    """
    full = (a > 0) & (row > 0)
    log_ratio = jnp.log(jnp.where(full, a / jnp.where(full, row, 1), 1))
    return row * (log_ratio - (row @ log_ratio) / jnp.sum(row))


def masses_of(logits: Float[Array, "..."], epsilon: Scalar) -> Float[Array, "..."]:
    """Their exponentials; derivatives are finite where atoms have no mass."""
    alive = jnp.isfinite(logits)
    return jnp.where(alive, jnp.exp(jnp.where(alive, logits, 0) / epsilon), 0)


def dual_value(f, g, a, b, epsilon: Scalar, mass: Scalar) -> Scalar:
    r"""The dual of $\langle C, P \rangle + \varepsilon\,\mathrm{KL}(P \,|\, a b^\top)$.

    `mass` is that of the plan that ott's potentials `f` and `g` make; they may be minus infinity
    where a weight is zero.
    """

    def paid(weight, potential):
        alive = weight > 0
        potential = jnp.where(alive, potential, 0) - epsilon * jnp.log(jnp.where(alive, weight, 1))
        return jnp.sum(jnp.where(alive, weight, 0) * potential)

    return paid(a, f) + paid(b, g) + epsilon * (jnp.sum(a) * jnp.sum(b) - mass)


class AbstractSemidual(eqx.Module):
    """What climbs it needs: values, sweeps, gains and Newton's directions."""

    a: eqx.AbstractVar[Float[Array, " n"]]
    b: eqx.AbstractVar[Float[Array, " m"]]

    @abc.abstractmethod
    def at(self, f: Float[Array, " n"], epsilon: Scalar) -> Iterate:
        """The point of row potential `f`."""

    @abc.abstractmethod
    def direction(
        self, it: Iterate, epsilon: Scalar, density: float | None, direct_below: int
    ) -> Float[Array, " n"]:
        """Newton's direction, damped; not finite where a factorisation failed."""

    def sweep(self, it: Iterate, epsilon: Scalar) -> Iterate:
        """One Sinkhorn iteration: scale the rows, then the columns; the dual never decreases."""
        # A row whose sum underflowed is raised as far as the smallest number warrants.
        row = jnp.maximum(it.row, jnp.finfo(it.row.dtype).tiny)
        return self.at(it.f + epsilon * (jnp.log(self.a) - jnp.log(row)), epsilon)

    def settled(self, it: Iterate, epsilon: Scalar) -> Iterate:
        """What becomes of the end of a Newton step before the next one."""
        return it

    def gain(self, old: Iterate, new: Iterate, step: Float[Array, " n"]) -> Scalar:
        """The increase of the dual, summed from differences so that large potentials cancel."""
        rise = jnp.where(self.b > 0, self.b * (new.g - old.g), 0)
        return jnp.sum(rise) + self.a @ step


class Semidual(AbstractSemidual):
    """The semi-dual with the cost matrix in memory."""

    cost: Float[Array, "n m"]
    a: Float[Array, " n"]
    b: Float[Array, " m"]

    def at(self, f: Float[Array, " n"], epsilon: Scalar) -> Iterate:
        plan, g = scale_columns((f[:, None] - self.cost) / epsilon, self.b, epsilon)
        row = jnp.sum(plan, axis=1)
        return Iterate(f, g, plan, row, jnp.sum(jnp.abs(row - self.a)))

    def direction(
        self, it: Iterate, epsilon: Scalar, density: float | None, direct_below: int
    ) -> Float[Array, " n"]:
        """By a factorisation up to `direct_below` rows, else by CG on the largest entries."""
        n, m = self.cost.shape
        q, by_row = normalised(it.plan, jnp.where(self.a > 0, it.row, 0), self.b)
        rhs = by_row * (self.a - it.row)
        error = it.error / jnp.sum(self.a)
        damping = damping_of(error, it.f.dtype)
        if n <= direct_below:
            return epsilon * by_row * direct(q, rhs, damping)
        tightness = jnp.minimum(1e-2, error)
        wanted = 16 * m if density is None else int(density * n * m)
        s = sparse(
            q,
            rhs,
            damping,
            threshold=1e-2 * tightness / m,
            capacity=min(max(n + m, wanted), n * m),
            rtol=jnp.maximum(tightness, 10 * jnp.finfo(it.f.dtype).eps),
            max_steps=2 * n,
        )
        return epsilon * by_row * s
