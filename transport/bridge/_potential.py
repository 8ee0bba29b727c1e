r"""Sum-exp-quadratic Schrödinger potentials, in the unit coordinates of the reference.

Korotin, Gushchin and Burnaev, *Light Schrödinger Bridge* (ICLR 2024), equation (9):
$v(y) = \sum_k \alpha_k \mathcal{N}(y \,|\, r_k, S_k)$. With $\varphi_1(y) = e^{|y|^2/2} v(y)$ and
$\varphi$ at earlier times its expectation under Brownian motion, the bridge is Brownian motion
weighted by $\varphi$. The family is closed: at clock $f$ each component is the exponential of

$$ \log \alpha_k - \tfrac12 \log\det Q - \tfrac12 r^\top F Q^{-1} r + r^\top Q^{-\top} u
   + \tfrac12 u^\top Q^{-1} (S - I)\, u, \qquad Q = I + (S - I) F, \quad F = \mathrm{diag}(f), $$

up to one constant factor, $(2\pi)^{-d/2}$. It is the paper's $c_\theta$ at $f = 0$ (its equation
(11), times $e^{-|u|^2/2}$) and gives its drift (proposition 3.3) by the gradient.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

Vector = Float[Array, " d"]


def powers(u: Float[Array, "n d"], full: bool) -> Float[Array, "n powers"]:
    """One, each coordinate, and their squares or all their products."""
    n, _ = u.shape
    second = (u[:, :, None] * u[:, None]).reshape(n, -1) if full else u**2
    return jnp.concatenate([jnp.ones((n, 1), u.dtype), u, second], axis=1)


class Quadratic(eqx.Module):
    r"""$a + b^\top u + \tfrac12 u^\top (\mathrm{diag}(p) + W W^\top + M)\, u$."""

    constant: Scalar
    linear: Vector
    diagonal: Vector | None = None
    factor: Float[Array, "d rank"] | None = None
    dense: Float[Array, "d d"] | None = None

    def __call__(self, u: Vector) -> Scalar:
        # Products of vectors, so that many points and many components make one matrix product.
        value = self.constant + self.linear @ u
        if self.diagonal is not None:
            value += 0.5 * (self.diagonal @ u**2)
        if self.factor is not None:
            value += 0.5 * jnp.sum((u @ self.factor) ** 2)
        if self.dense is not None:
            value += 0.5 * (u @ (self.dense @ u))
        return value


class AbstractCovariance(eqx.Module):
    """$S$ of one component; of several, stacked along a leading axis of every field."""

    @abstractmethod
    def times(self, u: Vector) -> Vector:
        """$S u$."""

    @abstractmethod
    def colour(self, noise: Float[Array, " size"]) -> Vector:
        r"""A draw of $\mathcal{N}(0, S)$ from `noise_size` standard normal numbers."""

    def noise_size(self, dim: int) -> int:
        """How many numbers `colour` takes in `dim` dimensions."""
        return dim

    @abstractmethod
    def matrix(self) -> Float[Array, "d d"]:
        """$S$."""

    @abstractmethod
    def quadratic(self, f: Vector, r: Vector) -> Quadratic:
        r"""The logarithm of the component at clock `f`, without $\log \alpha$."""


class Diagonal(AbstractCovariance):
    r"""$S = \mathrm{diag}(e^{\ell})$.

    **Arguments:**

    - `log_variance`: $\ell$; of several components, a row each.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> covariance = transport.bridge.Diagonal(jnp.log(jnp.array([1.0, 4.0])))
        >>> covariance.times(jnp.ones(2)).round(4).tolist()
        [1.0, 4.0]

        ```
    """

    log_variance: Vector

    def times(self, u: Vector) -> Vector:
        return jnp.exp(self.log_variance) * u

    def colour(self, noise: Float[Array, " size"]) -> Vector:
        return jnp.exp(0.5 * self.log_variance) * noise

    def matrix(self) -> Float[Array, "d d"]:
        return jnp.diag(jnp.exp(self.log_variance))

    def quadratic(self, f: Vector, r: Vector) -> Quadratic:
        excess = jnp.expm1(self.log_variance)
        q = 1 + excess * f
        linear = r / q
        constant = -0.5 * (jnp.sum(jnp.log(q)) + (f * r) @ linear)
        return Quadratic(constant, linear, diagonal=excess / q)


class LowRank(AbstractCovariance):
    r"""$S = \mathrm{diag}(e^{\ell}) + U U^\top$.

    **Arguments:**

    - `log_variance`: $\ell$.
    - `factor`: $U$, a column for each unit of its rank.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> transport.bridge.LowRank(jnp.zeros(2), jnp.ones((2, 1))).matrix().tolist()
        [[2.0, 1.0], [1.0, 2.0]]

        ```
    """

    log_variance: Vector
    factor: Float[Array, "d rank"]

    def times(self, u: Vector) -> Vector:
        return jnp.exp(self.log_variance) * u + self.factor @ (self.factor.T @ u)

    def colour(self, noise: Float[Array, " size"]) -> Vector:
        d = len(self.log_variance)
        return jnp.exp(0.5 * self.log_variance) * noise[:d] + self.factor @ noise[d:]

    def noise_size(self, dim: int) -> int:
        return dim + self.factor.shape[-1]

    def matrix(self) -> Float[Array, "d d"]:
        return jnp.diag(jnp.exp(self.log_variance)) + self.factor @ self.factor.T

    def quadratic(self, f: Vector, r: Vector) -> Quadratic:
        # Woodbury: with G = U / q and C = (I + G' F U)^-1, Q^-1 = 1 / q - G C G' F.
        excess = jnp.expm1(self.log_variance)
        q = 1 + excess * f
        scaled = self.factor / q[:, None]
        eye = jnp.eye(self.factor.shape[1], dtype=q.dtype)
        lower = jnp.linalg.cholesky(eye + scaled.T @ (f[:, None] * self.factor))
        factor = jax.scipy.linalg.solve_triangular(lower, scaled.T, lower=True).T
        linear = r / q - factor @ (factor.T @ (f * r))
        log_det = jnp.sum(jnp.log(q)) + 2 * jnp.sum(jnp.log(jnp.diag(lower)))
        return Quadratic(-0.5 * (log_det + (f * r) @ linear), linear, excess / q, factor)


class Full(AbstractCovariance):
    r"""$S = R R^\top$, for any square matrix $R$.

    **Arguments:**

    - `root`: $R$.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> transport.bridge.Full(jnp.array([[1.0, 0.0], [1.0, 1.0]])).matrix().tolist()
        [[1.0, 1.0], [1.0, 2.0]]

        ```
    """

    root: Float[Array, "d d"]

    def times(self, u: Vector) -> Vector:
        return self.root @ (self.root.T @ u)

    def colour(self, noise: Float[Array, " size"]) -> Vector:
        return self.root @ noise

    def matrix(self) -> Float[Array, "d d"]:
        return self.root @ self.root.T

    def quadratic(self, f: Vector, r: Vector) -> Quadratic:
        eye = jnp.eye(len(f), dtype=self.root.dtype)
        excess = self.matrix() - eye
        q = jax.scipy.linalg.lu_factor(eye + excess * f)
        linear, dense = jax.scipy.linalg.lu_solve(q, r), jax.scipy.linalg.lu_solve(q, excess)
        log_det = jnp.sum(jnp.log(jnp.abs(jnp.diag(q[0]))))
        return Quadratic(-0.5 * (log_det + (f * r) @ linear), linear, dense=(dense + dense.T) / 2)


class Points(AbstractCovariance):
    """$S = 0$: the components are points. They have no density at the end.

    **Arguments:**

    - `dim`: the number of coordinates, $d$.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> transport.bridge.Points(2).times(jnp.ones(2)).tolist()
        [0.0, 0.0]

        ```
    """

    dim: int = eqx.field(static=True)

    def times(self, u: Vector) -> Vector:
        return jnp.zeros_like(u)

    def colour(self, noise: Float[Array, " size"]) -> Vector:
        return jnp.zeros_like(noise)

    def matrix(self) -> Float[Array, "d d"]:
        return jnp.zeros((self.dim, self.dim))

    def quadratic(self, f: Vector, r: Vector) -> Quadratic:
        q = 1 - f
        linear = r / q
        constant = -0.5 * (jnp.sum(jnp.log(q)) + (f * r) @ linear)
        return Quadratic(constant, linear, diagonal=-1 / q)


class SumExpQuadratic(eqx.Module):
    r"""$v(y) = \sum_k \alpha_k \mathcal{N}(y \,|\, r_k, S_k)$: the part of a bridge that is fitted.

    **Arguments:**

    - `log_alpha`: $\log \alpha_k$, not normalised.
    - `r`: $r_k$, a row a component.
    - `covariance`: $S_k$: `Diagonal`, `LowRank`, `Full` or `Points`, stacked.

    !!! Example

        ```python
        >>> import jax.numpy as jnp
        >>> from transport.bridge import Diagonal, LightSB, SumExpQuadratic
        >>> r = jnp.array([[-2.0], [2.0]])
        >>> potential = SumExpQuadratic(jnp.zeros(2), r, Diagonal(jnp.zeros((2, 1))))
        >>> mean, covariance = LightSB(1.0, potential).conditional_moments(jnp.zeros((1, 1)))
        >>> float(mean[0, 0]), float(covariance[0, 0, 0])
        (0.0, 5.0)

        ```
    """

    log_alpha: Float[Array, " k"]
    r: Float[Array, "k d"]
    covariance: AbstractCovariance

    def at(self, f: Float[Array, "*#d"]) -> "Components":
        r"""$\varphi$ at clock `f`."""
        f = jnp.broadcast_to(f, self.r.shape[1:]).astype(self.r.dtype)
        each = eqx.filter_vmap(lambda s, r: s.quadratic(f, r))(self.covariance, self.r)
        return Components(eqx.tree_at(lambda q: q.constant, each, each.constant + self.log_alpha))


class Components(eqx.Module):
    r"""$\varphi$ at one time: the exponentials of quadratics, stacked, and their sum."""

    each: Quadratic

    def logits(self, u: Vector) -> Float[Array, " k"]:
        """The logarithm of each at a point."""
        return eqx.filter_vmap(lambda q: q(u))(self.each)

    def coefficients(self) -> Float[Array, "k powers"]:
        """Of the logarithms, for each of the `powers` of a point; there is no factor."""
        q = self.each
        second = q.diagonal if q.dense is None else q.dense.reshape(len(q.dense), -1)
        assert second is not None
        return jnp.concatenate([q.constant[:, None], q.linear, 0.5 * second], axis=1)

    def by_rows(self, u: Float[Array, "n d"]) -> Float[Array, "k n"]:
        """The logarithm of each at many points, where it can be by one matrix product."""
        if self.each.factor is not None:
            return jax.vmap(self.logits, out_axes=1)(u)
        return self.coefficients() @ powers(u, self.each.dense is not None).T

    def log_value(self, u: Vector) -> Scalar:
        r"""$\log \varphi$."""
        return jax.nn.logsumexp(self.logits(u))

    def gradient(self, u: Vector) -> Vector:
        r"""$\nabla \log \varphi$: the components' gradients, weighted by their shares."""
        q, share = self.each, jax.nn.softmax(self.logits(u))
        gradient = share @ q.linear
        if q.diagonal is not None:
            gradient += (share @ q.diagonal) * u
        if q.factor is not None:
            gradient += jnp.einsum("k,kir,kjr,j->i", share, q.factor, q.factor, u)
        if q.dense is not None:
            gradient += jnp.einsum("k,kij,j->i", share, q.dense, u)
        return gradient
