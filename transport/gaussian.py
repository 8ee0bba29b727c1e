r"""Closed forms between Gaussians for the squared Euclidean cost $\|x - y\|^2$.

Unregularised: the Bures-Wasserstein distance and its map (Peyré and Cuturi, *Computational Optimal
Transport*, 2019, remark 2.31). Entropic: Janati, Muzellec, Peyré and Cuturi, *Entropic Optimal
Transport between Unbalanced Gaussian Measures has a Closed Form* (2020), theorems 1 and 3. A plan
with $\varepsilon\,\mathrm{KL}(\pi \,|\, \alpha \otimes \beta)$ beside the cost $\|x - y\|^2$ has
their $\sigma$ with $2\sigma^2 = \varepsilon$.
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


def unbalanced_marginals(
    mean_a: Mean,
    a: Covariance,
    mean_b: Mean,
    b: Covariance,
    epsilon: Scalar | float,
    tau_a: Scalar | float,
    tau_b: Scalar | float,
) -> tuple[Scalar, tuple[Mean, Covariance], tuple[Mean, Covariance]]:
    r"""The mass of the optimal unbalanced plan, and the means and covariances of its two marginals.

    The plan of $\min_\pi \mathbb{E}_\pi \|x - y\|^2 + \varepsilon\,\mathrm{KL}(\pi \,|\, \alpha
    \otimes \beta) + \rho_a\,\mathrm{KL}(\pi_1 \,|\, \alpha) + \rho_b\,\mathrm{KL}(\pi_2 \,|\,
    \beta)$ over all measures, with $\tau = \rho / (\rho + \varepsilon)$ as in ott, is a Gaussian of
    some mass (Janati et al. 2020, theorem 3, for equal $\tau$). It is the balanced plan between its
    own marginals, so that they say all of it. In units in which $\varepsilon = 2$, its precision is
    $\begin{pmatrix} X & -I \\ -I & Y \end{pmatrix}$ with

    $$ X = A^{-1} + (1 - \tau_a) I + \tau_a Y^{-1}, \qquad
       Y = B^{-1} + (1 - \tau_b) I + \tau_b X^{-1}, $$

    which is a quadratic equation for each eigenvalue of $\tilde B^{1/2} \tilde A \tilde B^{1/2}$,
    where $\tilde A = (A^{-1} + (1 - \tau_a) I)^{-1}$ and likewise $\tilde B$.

    **Arguments:**

    - `mean_a`, `a`, `mean_b`, `b`: of both measures, whose masses are 1. Either covariance may be
        degenerate.
    - `epsilon`: as above. Between points ott holds an unbalanced plan against a mass of 1 in each,
        not against their weights.
    - `tau_a`, `tau_b`: in (0, 1]; 1 keeps that marginal.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> zero, far, one = jnp.zeros(1), jnp.array([2.0]), jnp.eye(1)
        >>> mass, start, end = transport.gaussian.unbalanced_marginals(
        ...     zero, one, far, one, epsilon=2.0, tau_a=0.5, tau_b=0.5
        ... )
        >>> [round(float(v), 4) for v in (mass, start[0][0], end[0][0])]
        [0.5894, 0.5, 1.5]

        ```
    """
    eye, unit = jnp.eye(len(a), dtype=a.dtype), epsilon / 2
    a, b, free_a, free_b = a / unit, b / unit, 1 - tau_a, 1 - tau_b
    kept_a, root = _inverse_sum(a, free_a * eye), square_root(_inverse_sum(b, free_b * eye))
    values, vectors = jnp.linalg.eigh(root @ kept_a @ root)
    values = jnp.maximum(values, 0)
    less = 1 + (tau_a - tau_b) * values
    whole = 1 + (jnp.sqrt(less**2 + 4 * tau_b * values) - less) / 2
    # The covariances of either end given the other: Y^-1 and X^-1.
    end_given = (root @ vectors / whole) @ (root @ vectors).T
    start_given = _inverse_sum(kept_a, tau_a * end_given)
    apart = jnp.linalg.solve(eye + free_a * a + free_b * b, mean_a - mean_b)

    def marginal(covariance, free, other_given):
        """Its covariance, and its divergence from what was given."""
        root = square_root(covariance)
        ratio = jnp.linalg.inv(eye + free * root @ (eye - other_given) @ root)
        found = root @ ratio @ root
        spread = jnp.trace(ratio) - len(eye) - jnp.linalg.slogdet(ratio)[1]
        return (found + found.T) / 2, 0.5 * (spread + free**2 * apart @ covariance @ apart / unit)

    start, off_a = marginal(a, free_a, end_given)
    end, off_b = marginal(b, free_b, start_given)
    start_mean, end_mean = mean_a - free_a * a @ apart, mean_b + free_b * b @ apart
    distance = jnp.sum((start_mean - end_mean) ** 2) / unit
    linear = 0.5 * (distance + jnp.trace(start + end - 2 * start @ end_given))
    shared = 0.5 * jnp.linalg.slogdet(eye + end_given @ start)[1]
    log_mass = -(free_a * free_b * (linear + shared) + free_b * off_a + free_a * off_b)
    balanced = tau_a * tau_b == 1
    mass = jnp.where(balanced, 1, jnp.exp(log_mass / jnp.where(balanced, 1, 1 - tau_a * tau_b)))
    return mass, (start_mean, unit * start), (end_mean, unit * end)


def _inverse_sum(covariance: Covariance, precision: Covariance) -> Covariance:
    """$(C^{-1} + P)^{-1}$, also of a degenerate $C$."""
    root = square_root(covariance)
    eye = jnp.eye(len(covariance), dtype=covariance.dtype)
    return root @ jnp.linalg.solve(eye + root @ precision @ root, root)
