r"""What a second-order step asks of a loss: its gradient and Hessian, by a root.

With $\ell(z, t)$ the loss of one example's outputs $z$, $r = \partial \ell / \partial z$ and $Q =
\partial^2 \ell / \partial z^2$, a pair $(L, u)$ with $Q = L L^\top$ and $r = L u$ turns the
generalised Gauss-Newton step, $(J^\top Q J + \mu I) d = -J^\top r$, into a damped least-squares
problem, $\min_d |L^\top J d + u|^2 + \mu |d|^2$, which is symmetric where the published
$(Q J J^\top + \mu I)^{-1} r$ is not.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar


def least_curvature(dtype: Any) -> float:
    r"""A curvature that stands for none: far below rounding, and its root's inverse is finite.

    Where $Q$ is singular and $r$ not in its range (Huber's tails, a saturated softmax), $L$ has
    this for a zero, and $u$ a large entry; Cholesky's factorisation does not mind the scale of a
    row.
    """
    return float(jnp.finfo(dtype).tiny) ** 0.5


class AbstractLoss(eqx.Module):
    """A convex loss of the outputs for one example."""

    @abc.abstractmethod
    def __call__(self, output: Float[Array, "..."], target: Any) -> Scalar:
        """The loss of one example."""

    @abc.abstractmethod
    def root(
        self, output: Float[Array, "..."], target: Any
    ) -> tuple[Float[Array, "c k"], Float[Array, " k"]]:
        r"""$L$ and $u$ with $L L^\top$ the Hessian and $L u$ the gradient, of raveled outputs."""


class Differentiated(AbstractLoss):
    """Any convex `loss(output, target) -> scalar` of one example, differentiated by JAX.

    The root is by the eigenvalues of the Hessian, of which a negative one counts as zero: a loss
    that is not convex gets its convex part. [`sciopt.EGN`][] puts any callable into this class.

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from sciopt import losses
        >>> quartic = losses.Differentiated(lambda z, t: jnp.sum((z - t) ** 4))
        >>> root, residual = quartic.root(jnp.array([2.0]), jnp.array([1.0]))
        >>> float((root @ root.T)[0, 0].round(4)), float((root @ residual)[0].round(4))
        (12.0, 4.0)

        ```
    """

    loss: Callable[[Array, Any], Scalar]

    def __call__(self, output: Float[Array, "..."], target: Any) -> Scalar:
        return self.loss(output, target)

    def root(self, output: Float[Array, "..."], target: Any):
        def flat(z):
            return self.loss(z.reshape(output.shape), target)

        z = output.ravel()
        values, vectors = jnp.linalg.eigh(jax.hessian(flat)(z))
        roots = jnp.sqrt(jnp.maximum(values, least_curvature(z.dtype)))
        return vectors * roots, vectors.T @ jax.grad(flat)(z) / roots
