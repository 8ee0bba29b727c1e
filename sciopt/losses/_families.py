"""Losses whose roots are known in closed form, and keep their digits where outputs saturate."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from ._loss import AbstractLoss, least_curvature


class Squares(AbstractLoss):
    r"""$\frac12 |z - t|^2$, for targets of the outputs' shape."""

    def __call__(self, output: Float[Array, "..."], target: Float[Array, "..."]) -> Scalar:
        return jnp.sum((output - target) ** 2) / 2

    def root(self, output: Float[Array, "..."], target: Float[Array, "..."]):
        residual = (output - target).ravel()
        return jnp.eye(residual.size, dtype=residual.dtype), residual


class SoftmaxCrossEntropy(AbstractLoss):
    r"""$-\sum_i t_i \log p_i$ with $p = \operatorname{softmax}(z)$, for logits $z$.

    Targets are a class's number or probabilities that sum to 1. The Hessian $\operatorname{diag}(p)
    - p p^\top$ is singular; with $s = \sqrt p$ its root is $\operatorname{diag}(s) (I - s
    s^\top)$ and $u = (p - t) / s$. Differences are formed as sums of probabilities: $1 - p_i$
    keeps all its digits where $p$ is nearly one-hot.

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from sciopt import losses
        >>> loss = losses.SoftmaxCrossEntropy()
        >>> root, residual = loss.root(jnp.array([0.0, 0.0]), jnp.array(1))
        >>> (root @ root.T).round(4).tolist(), (root @ residual).round(4).tolist()
        ([[0.25, -0.25], [-0.25, 0.25]], [0.5, -0.5])

        ```
    """

    def __call__(
        self, output: Float[Array, " c"], target: Int[Array, ""] | Float[Array, " c"]
    ) -> Scalar:
        return -_probabilities(target, output) @ jax.nn.log_softmax(output)

    def root(self, output: Float[Array, " c"], target: Int[Array, ""] | Float[Array, " c"]):
        t, others = _probabilities(target, output), 1 - jnp.eye(output.size, dtype=output.dtype)
        p = jnp.maximum(jnp.exp(jax.nn.log_softmax(output)), least_curvature(output.dtype))
        s = jnp.sqrt(p)
        root = jnp.diag(s * (others @ p)) - others * p[:, None] * s
        return root, (p * (others @ t) - t * (others @ p)) / s


def _probabilities(target: Array, output: Float[Array, " c"]) -> Float[Array, " c"]:
    if jnp.issubdtype(jnp.result_type(target), jnp.integer):
        return jax.nn.one_hot(target, output.size, dtype=output.dtype)
    return target


class Logistic(AbstractLoss):
    r"""$\sum \log(1 + e^z) - t z$, the binary cross-entropy of logits; $0 \le t \le 1$.

    Its curvature is $\sigma(z) \sigma(-z)$, and $u = (1 - t) e^{z/2} - t e^{-z/2}$.
    """

    def __call__(self, output: Float[Array, "..."], target: Float[Array, "..."]) -> Scalar:
        softplus = jax.nn.softplus
        return jnp.sum((1 - target) * softplus(output) + target * softplus(-output))

    def root(self, output: Float[Array, "..."], target: Float[Array, "..."]):
        z, t = output.ravel(), jnp.ravel(target)
        q = jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)
        s = jnp.sqrt(jnp.maximum(q, least_curvature(z.dtype)))
        return jnp.diag(s), ((1 - t) * jax.nn.sigmoid(z) - t * jax.nn.sigmoid(-z)) / s


class Poisson(AbstractLoss):
    r"""$\sum e^z - t z$: counts $t$ at rates $e^z$, without the constant $\log t!$."""

    def __call__(self, output: Float[Array, "..."], target: Float[Array, "..."]) -> Scalar:
        return jnp.sum(jnp.exp(output) - target * output)

    def root(self, output: Float[Array, "..."], target: Float[Array, "..."]):
        rate = jnp.exp(output.ravel())
        s = jnp.sqrt(jnp.maximum(rate, least_curvature(rate.dtype)))
        return jnp.diag(s), (rate - jnp.ravel(target)) / s


class Huber(AbstractLoss):
    r"""$\frac12 e^2$ of the error $e = z - t$ up to `delta`, from there its tangent.

    Beyond `delta` it has no curvature, and only the damping bounds the step that such an example
    asks for.
    """

    delta: float = 1.0

    def __call__(self, output: Float[Array, "..."], target: Float[Array, "..."]) -> Scalar:
        error = output - target
        clipped = jnp.clip(error, -self.delta, self.delta)
        return jnp.sum(clipped * (error - clipped / 2))

    def root(self, output: Float[Array, "..."], target: Float[Array, "..."]):
        error = (output - target).ravel()
        floor = least_curvature(error.dtype)
        s = jnp.sqrt(jnp.where(jnp.abs(error) <= self.delta, 1, floor)).astype(error.dtype)
        return jnp.diag(s), jnp.clip(error, -self.delta, self.delta) / s
