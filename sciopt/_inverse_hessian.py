r"""Approximations of the inverse Hessian: scaled updates of Broyden's family, dense and limited.

With the step $s$, the change $y$ of the gradient along it and the image $u = H y$, the update is
equations (13) and (14) of Urban, Stefanou and Pons (J. Comput. Phys. 523, 2025),

$$H \leftarrow \frac1\tau \left(H - \frac{u u^\top}{y^\top u}
+ \phi \, (y^\top u) \, v v^\top \right) + \frac{s s^\top}{y^\top s}, \quad
v = \frac{s}{y^\top s} - \frac{u}{y^\top u}.$$

Where $\phi \ge 0$, as in both self-scaled methods, it is also a product,

$$H \leftarrow \frac1\tau (I - p y^\top) H (I - y p^\top) + \frac{s s^\top}{y^\top s}, \quad
p = \sqrt\phi \, \frac{s}{y^\top s} + (1 - \sqrt\phi) \frac{u}{y^\top u},$$

with Nocedal and Wright's (6.17) for $\phi = 1$. A matrix takes the sum. A limited memory takes the
product: whatever $H$ stands in it, the result is positive definite and maps $y$ to $s$, so that $H$
may be less than it was when $p$ was made.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

Weigh = Callable[[Scalar], tuple[Scalar, Scalar]]


class AbstractInverseHessian(eqx.Module):
    """$H$, symmetric and positive definite."""

    @abstractmethod
    def mv(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        """Its product with a vector."""

    @abstractmethod
    def fresh(self) -> Self:
        """The identity in its place."""

    @abstractmethod
    def updated(self, step: Float[Array, " n"], change: Float[Array, " n"], weigh: Weigh) -> Self:
        r"""After an update; `weigh` maps $y^\top H y / y^\top s$ to $\tau > 0$ and $\phi \ge 0$."""


class DenseInverse(AbstractInverseHessian):
    """A matrix."""

    matrix: Float[Array, "n n"]

    @classmethod
    def identity(cls, like: Float[Array, " n"]) -> Self:
        return cls(jnp.eye(like.size, dtype=like.dtype))

    def mv(self, vector):
        return self.matrix @ vector

    def fresh(self):
        return self.identity(self.matrix[0])

    def updated(self, step, change, weigh):
        # Every term is the square of a vector, so the matrix stays symmetric to the last bit,
        # however products are contracted.
        curvature = change @ step
        image = self.mv(change)
        square = change @ image
        tau, phi = weigh(square / curvature)
        of_image = image / jnp.sqrt(tau * square)
        of_step = step / jnp.sqrt(curvature)
        v = jnp.sqrt(jnp.maximum(phi, 0) * square / tau) * (step / curvature - image / square)
        return DenseInverse(
            self.matrix / tau
            - jnp.outer(of_image, of_image)
            + jnp.outer(v, v)
            + jnp.outer(of_step, of_step)
        )


class LimitedInverse(AbstractInverseHessian):
    r"""The last $m$ updates of a multiple of the identity, the oldest first: $3 m n$ numbers.

    With $\phi = 1$ and $\tau = 1$ this is L-BFGS (Nocedal and Wright, algorithm 7.5). For Broyden's
    family Luksan and Vlcek (Kybernetika 49, 2013) give a recursion and DeGuchy, Erway and Marcia
    (2018) a compact representation; here $p$ is kept from the step that made it, where PETSc's
    `MATLMVMSYMBROYDEN` makes every $u$ anew from what is left, at $m$ times the work.

    - `steps`: $s / \sqrt{y^\top s}$; zero where there has been no update yet, as are the others.
    - `changes`: $y$.
    - `across`: $p$.
    - `tau`: $\tau$; one where there has been no update yet.
    - `base`: the multiple of the identity.
    """

    steps: Float[Array, "m n"]
    changes: Float[Array, "m n"]
    across: Float[Array, "m n"]
    tau: Float[Array, " m"]
    base: Scalar

    @classmethod
    def identity(cls, like: Float[Array, " n"], length: int) -> Self:
        zeros = jnp.zeros((length, like.size), like.dtype)
        one = jnp.ones((), like.dtype)
        return cls(zeros, zeros, zeros, jnp.broadcast_to(one, (length,)), one)

    def mv(self, vector):
        # The two loops of Nocedal and Wright's algorithm 7.4, with p for s / y's where it is
        # applied, and H / tau for H.
        def backward(vector, update):
            step, change, across, tau = update
            return (vector - (across @ vector) * change) / tau, step @ vector

        def forward(vector, update):
            step, change, across, along = update
            return vector - (change @ vector) * across + along * step, None

        updates = self.steps, self.changes, self.across
        vector, along = jax.lax.scan(backward, vector, (*updates, self.tau), reverse=True)
        return jax.lax.scan(forward, self.base * vector, (*updates, along))[0]

    def fresh(self):
        return self.identity(self.steps[0], len(self.tau))

    def updated(self, step, change, weigh):
        curvature = change @ step
        image = self.mv(change)
        square = change @ image
        tau, phi = weigh(square / curvature)
        share = jnp.sqrt(jnp.maximum(phi, 0))
        across = share * step / curvature + (1 - share) * image / square

        def push(old, new):
            return jnp.concatenate([old[1:], new[None]])

        # The oldest update is forgotten: from then on the newest pair scales the identity.
        forgets = jnp.any(self.steps[0] != 0)
        base = jnp.where(forgets, curvature / (change @ change), self.base)
        return LimitedInverse(
            push(self.steps, step / jnp.sqrt(curvature)),
            push(self.changes, change),
            push(self.across, across),
            push(self.tau, tau),
            base,
        )
