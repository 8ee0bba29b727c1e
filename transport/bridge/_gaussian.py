r"""The bridge between two Gaussians in closed form, and every law of it.

Bunne, Hsieh, Cuturi and Krause, *The Schrödinger Bridge between Gaussian Measures has a Closed
Form* (AISTATS 2023), theorem 3; Mallasto, Gerolin and Minh, *Entropy-regularized 2-Wasserstein
distance between Gaussian measures* (2022), for the static problem. Written without the inverse of
either covariance, so that they may be degenerate: in unit coordinates, with $P = \Sigma_1^{1/2}$
and $E = (I + 4 P \Sigma_0 P)^{1/2}$, the end given the start is $\mathcal{N}(m_1 + S (u_0 - m_0),
S)$ with $S = 2 P (I + E)^{-1} P$.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key, Scalar

from ..gaussian import square_root, unbalanced_marginals
from ._bridge import AbstractPotentialBridge
from ._potential import Full, SumExpQuadratic
from ._reference import Reference, as_reference

Mean = Float[Array, " d"]
Covariance = Float[Array, "d d"]


class GaussianBridge(AbstractPotentialBridge):
    r"""The Schrödinger bridge from $\mathcal{N}(m_0, \Sigma_0)$ to $\mathcal{N}(m_1, \Sigma_1)$.

    **Arguments:**

    - `mean0`, `covariance0`: of the start.
    - `mean1`, `covariance1`: of the end. Either covariance may be degenerate, and zero.
    - `epsilon`: the diffusivity of a Brownian reference, one number or one a coordinate; or a
        [`transport.bridge.Reference`][].
    - `mass`: of all paths together; no law depends on it.

    **Raises:** `ValueError` for shapes that do not match; a runtime error for covariances that are
    not finite, symmetric and positive semi-definite.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, transport
        >>> one, other = jnp.zeros(2), jnp.array([3.0, 0.0])
        >>> bridge = transport.bridge.GaussianBridge(one, jnp.eye(2), other, jnp.eye(2), 1.0)
        >>> mean, covariance = bridge.marginal(0.5)
        >>> [round(float(v), 4) for v in (mean[0], covariance[0, 0])]
        [1.5, 1.059]

        ```
    """

    reference: Reference
    potential: SumExpQuadratic
    mean0: Mean
    covariance0: Covariance
    mean1: Mean
    covariance1: Covariance
    mass: Scalar

    def __init__(
        self, mean0: Mean, covariance0: Covariance, mean1: Mean, covariance1: Covariance,
        epsilon: ArrayLike | Reference = 1.0, *, mass: ArrayLike = 1.0,
    ):  # fmt: skip
        self.reference, self.mass = as_reference(epsilon), jnp.asarray(mass)
        if mean0.shape != mean1.shape or mean0.ndim != 1:
            raise ValueError(f"Means of shapes {mean0.shape} and {mean1.shape}.")
        d = len(mean0)
        if covariance0.shape != (d, d) or covariance1.shape != (d, d):
            raise ValueError(
                f"Covariances of shapes {covariance0.shape}, {covariance1.shape} for {d} "
                "coordinates."
            )
        self.mean0, self.covariance0 = mean0, _checked(covariance0)
        self.mean1, self.covariance1 = mean1, _checked(covariance1)
        m0, start = _in_unit(self.reference, 0, mean0, self.covariance0)
        m1, end = _in_unit(self.reference, 1, mean1, self.covariance1)
        root = conditional_root(start, end)
        r = m1 - root @ (root.T @ m0)
        self.potential = SumExpQuadratic(jnp.zeros(1, r.dtype), r[None], Full(root[None]))

    @classmethod
    def unbalanced(
        cls, mean0: Mean, covariance0: Covariance, mean1: Mean, covariance1: Covariance,
        epsilon: ArrayLike | Reference = 1.0, *, tau_a: Scalar | float, tau_b: Scalar | float,
    ) -> "GaussianBridge":  # fmt: skip
        r"""The bridge between ends that need not have these laws, at a price.

        A divergence from each of the two is added to the one from the reference, with the factor
        $\tau / (1 - \tau)$, as for [`transport.bridge.DiscreteBridge`][]. What is returned has the
        ends that are best then, and their mass
        ([`transport.gaussian.unbalanced_marginals`][], in unit coordinates).

        **Arguments:** as for the class, and `tau_a`, `tau_b` in (0, 1]; 1 keeps that end.

        ```python
        >>> import jax.numpy as jnp, transport
        >>> one, other = jnp.zeros(2), jnp.array([3.0, 0.0])
        >>> bridge = transport.bridge.GaussianBridge.unbalanced(
        ...     one, jnp.eye(2), other, jnp.eye(2), 1.0, tau_a=1.0, tau_b=0.5
        ... )
        >>> float(bridge.mean0[0]), float(bridge.mean1[0]), float(bridge.mass)
        (0.0, 2.0, 1.0)

        ```
        """
        reference = as_reference(epsilon)
        ends = [
            _in_unit(reference, t, mean, _checked(covariance))
            for t, mean, covariance in ((0, mean0, covariance0), (1, mean1, covariance1))
        ]
        mass, *found = unbalanced_marginals(*ends[0], *ends[1], 2.0, tau_a, tau_b)
        made = [_from_unit(reference, t, *end) for t, end in enumerate(found)]
        return cls(*made[0], *made[1], reference, mass=mass)

    @property
    def _spread(self) -> Covariance:
        """$S$: the covariance of the end given the start, in unit coordinates."""
        return jax.vmap(lambda s: s.matrix())(self.potential.covariance)[0]

    def coupling(self) -> tuple[Float[Array, " 2*d"], Float[Array, "2*d 2*d"]]:
        """The mean and the covariance of (start, end): the static bridge."""
        return self.joint(0.0, 1.0)

    def marginal(self, t: Scalar | float) -> tuple[Mean, Covariance]:
        """The mean and the covariance at time `t`."""
        mean, covariance = self.joint(t, t)
        return mean[: self.dim], covariance[: self.dim, : self.dim]

    def joint(
        self, s: Scalar | float, t: Scalar | float
    ) -> tuple[Float[Array, " 2*d"], Float[Array, "2*d 2*d"]]:
        """The mean and the covariance of the two times' points, stacked."""
        m0, start = _in_unit(self.reference, 0, self.mean0, self.covariance0)
        m1, end = _in_unit(self.reference, 1, self.mean1, self.covariance1)
        cross = start @ self._spread
        clock = [jnp.broadcast_to(self.reference.clock(v), (self.dim,)) for v in (s, t)]

        def between(f, g):
            # Points at f and g are interpolated, and two Brownian bridges' covariance is added.
            from_start, to_end = (1 - f)[:, None], f[:, None]
            pinned = jnp.diag(jnp.minimum(f, g) * (1 - jnp.maximum(f, g)))
            return (
                from_start * (start * (1 - g) + cross * g)
                + to_end * (cross.T * (1 - g) + end * g)
                + pinned
            )

        f, g = clock
        scales = [jnp.broadcast_to(self.reference.scale(v), (self.dim,)) for v in (s, t)]
        scale = jnp.concatenate(scales)
        blocks = jnp.block([[between(f, f), between(f, g)], [between(g, f), between(g, g)]])
        mean = [
            self.reference.from_unit(v, (1 - h) * m0 + h * m1)
            for v, h in zip((s, t), clock, strict=True)
        ]
        return jnp.concatenate(mean), scale[:, None] * blocks * scale

    def conditional(self, x0: Float[Array, "*n d"]) -> tuple[Float[Array, "*n d"], Covariance]:
        """The law of the end given `x0`: its means, and the covariance, the same for all."""
        spread = self._spread
        mean = self.potential.r[0] + self.reference.to_unit(0, x0) @ spread
        return _from_unit(self.reference, 1, mean, spread)

    def sample_start(self, key: Key[Array, ""], n: int) -> Float[Array, "n d"]:
        """Draws of the start."""
        noise = jax.random.normal(key, (n, self.dim), self.mean0.dtype)
        return self.mean0 + noise @ square_root(self.covariance0)


def _in_unit(reference: Reference, t, mean: Mean, covariance: Covariance):
    scale = jnp.broadcast_to(reference.scale(t), covariance.shape[:1])
    return reference.to_unit(t, mean), covariance / scale[:, None] / scale


def _from_unit(reference: Reference, t, mean: Mean, covariance: Covariance):
    scale = jnp.broadcast_to(reference.scale(t), covariance.shape[:1])
    return reference.from_unit(t, mean), scale[:, None] * covariance * scale


def conditional_root(start: Covariance, end: Covariance) -> Float[Array, "d d"]:
    r"""$R$ of $S = R R^\top$, from the ends' covariances in unit coordinates."""
    root = square_root(end)
    values, vectors = jnp.linalg.eigh(root @ start @ root)
    # R = P (2 / (I + E))^1/2.
    return root @ (vectors * jnp.sqrt(2 / (1 + jnp.sqrt(1 + 4 * jnp.maximum(values, 0)))))


def _checked(covariance: Covariance) -> Covariance:
    """The covariance, or a runtime error that says why it is none."""
    size = jnp.max(jnp.abs(covariance))
    slack = 100 * jnp.finfo(covariance.dtype).eps * size * len(covariance)
    crooked = jnp.max(jnp.abs(covariance - covariance.T)) > slack
    covariance = eqx.error_if(
        covariance, ~jnp.isfinite(size) | crooked, "A covariance must be finite and symmetric."
    )
    # Its factor exists where no eigenvalue is below minus the slack, and is had sooner than those.
    lift = (slack + jnp.finfo(covariance.dtype).tiny) * jnp.eye(len(covariance), dtype=slack.dtype)
    negative = ~jnp.all(jnp.isfinite(jnp.linalg.cholesky(covariance + lift)))
    return eqx.error_if(covariance, negative, "A covariance has a negative eigenvalue.")
