r"""Closed forms between Gaussians for the squared Euclidean cost $\|x - y\|^2$.

Unregularised: the Bures-Wasserstein distance and its map (Peyré and Cuturi, *Computational Optimal
Transport*, 2019, remark 2.31). Entropic: Janati, Muzellec, Peyré and Cuturi, *Entropic Optimal
Transport between Unbalanced Gaussian Measures has a Closed Form* (2020), theorem 1. A plan with
$\varepsilon\,\mathrm{KL}(\pi \,|\, \alpha \otimes \beta)$ beside the cost $\|x - y\|^2$ has their
$\sigma$ with $2\sigma^2 = \varepsilon$.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

Mean = Float[Array, " d"]
Covariance = Float[Array, "d d"]


def square_root(covariance: Covariance) -> Covariance:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = jnp.linalg.eigh(covariance)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0))) @ vectors.T


def bures(a: Covariance, b: Covariance) -> Scalar:
    r"""Squared Bures distance $\mathrm{tr}\,(A + B - 2 (A^{1/2} B A^{1/2})^{1/2})$.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> round(float(transport.gaussian.bures(4 * jnp.eye(3), jnp.eye(3))), 5)
        3.0

        ```
    """
    root = square_root(a)
    return jnp.trace(a) + jnp.trace(b) - 2 * jnp.trace(square_root(root @ b @ root))


def cost(mean_a: Mean, a: Covariance, mean_b: Mean, b: Covariance) -> Scalar:
    r"""Squared 2-Wasserstein distance, $\|m_a - m_b\|^2$ plus the squared Bures distance."""
    return jnp.sum((mean_a - mean_b) ** 2) + bures(a, b)


def transport_map(a: Covariance, b: Covariance) -> Covariance:
    r"""The linear part $A^{-1/2} (A^{1/2} B A^{1/2})^{1/2} A^{-1/2}$ of the optimal map.

    The map is $x \mapsto m_b + T (x - m_a)$. `a` must be invertible; NaN or infinite otherwise.
    """
    root = square_root(a)
    inverse = jnp.linalg.inv(root)
    return inverse @ square_root(root @ b @ root) @ inverse


def entropic_cross_covariance(a: Covariance, b: Covariance, epsilon: Scalar | float) -> Covariance:
    r"""Cross-covariance of the optimal entropic plan, itself a Gaussian on the product space.

    $K = \tfrac12 A^{1/2} (4 A^{1/2} B A^{1/2} + \sigma^4 I)^{1/2} A^{-1/2} - \tfrac{\sigma^2}{2}
    I$, $\sigma^2 = \varepsilon / 2$: the plan's covariance is $\begin{pmatrix} A & K \\ K^\top &
    B\end{pmatrix}$. `a` must be invertible.
    """
    variance = epsilon / 2
    eye = jnp.eye(a.shape[0], dtype=a.dtype)
    root = square_root(a)
    middle = square_root(4 * root @ b @ root + variance**2 * eye)
    return 0.5 * root @ middle @ jnp.linalg.inv(root) - variance / 2 * eye


def entropic_cost(
    mean_a: Mean, a: Covariance, mean_b: Mean, b: Covariance, epsilon: Scalar | float
) -> Scalar:
    r"""$\min_\pi \mathbb{E}_\pi \|x - y\|^2 + \varepsilon\,\mathrm{KL}(\pi \,|\, \alpha \otimes
    \beta)$.

    Evaluated at the optimal plan: the divergence of a Gaussian plan from the product of its
    marginals is $\tfrac12 (\log\det A + \log\det B - \log\det \Sigma)$, with $\Sigma$ its
    covariance. `a` and `b` must be invertible.
    """
    cross = entropic_cross_covariance(a, b, epsilon)
    # det of the joint covariance, as the conditional's: B - K' A^-1 K.
    conditional = b - cross.T @ jnp.linalg.solve(a, cross)
    divergence = 0.5 * (jnp.linalg.slogdet(b)[1] - jnp.linalg.slogdet(conditional)[1])
    linear = jnp.sum((mean_a - mean_b) ** 2) + jnp.trace(a) + jnp.trace(b) - 2 * jnp.trace(cross)
    return linear + epsilon * divergence
