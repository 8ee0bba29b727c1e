r"""Numbers of a problem that are not known and trained beside the network, and how sure they are.

Each is a function of a raw number that starts at zero and is of size one, whatever the units of the
parameter: a damped step then weighs it as it does a weight of the network.
"""

import math
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree


class Inferred(eqx.Module):
    r"""A parameter to infer.

    **Arguments:**

    - `initial`: where training starts.
    - `lower`, `upper`: bounds that it never reaches: the parameter is an exponential above one
        bound, a logistic function between two, and otherwise a multiple of its initial size.
    - `prior`: mean and standard deviation of a normal law that it is drawn from, if any.

    **Raises:** `ValueError` where `initial` is not within the bounds or the deviation not positive.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> nu = pde.Inferred(0.1, lower=0.0)
    >>> [round(float(nu.value(jnp.array(raw))), 4) for raw in (-1.0, 0.0)]
    [0.0368, 0.1]

    ```
    """

    initial: float = eqx.field(static=True)
    lower: float = eqx.field(static=True, default=-math.inf)
    upper: float = eqx.field(static=True, default=math.inf)
    prior: tuple[float, float] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not (math.isfinite(self.initial) and self.lower < self.initial < self.upper):
            raise ValueError(
                f"A parameter cannot start at {self.initial}: its bounds are {self.lower} and "
                f"{self.upper}."
            )
        if self.prior is not None and not self.prior[1] > 0:
            raise ValueError(f"The deviation of a prior must be positive, got {self.prior[1]}.")

    def value(self, raw: Float[Array, ""]) -> Float[Array, ""]:
        """The parameter that a raw number stands for."""
        below, above = math.isfinite(self.lower), math.isfinite(self.upper)
        if below and above:
            share = (self.initial - self.lower) / (self.upper - self.lower)
            start = math.log(share / (1 - share))
            return self.lower + (self.upper - self.lower) * jax.nn.sigmoid(start + raw)
        if below or above:
            end = self.lower if below else self.upper
            return end + (self.initial - end) * jnp.exp(raw)
        return self.initial + (abs(self.initial) or 1.0) * raw


def laplace(
    jacobian: np.ndarray, columns: np.ndarray, unit: float
) -> Float[np.ndarray, "k k"] | None:
    r"""Covariance of some parameters by Laplace's approximation of a least-squares posterior.

    Where the loss over `unit` is minus twice the logarithm of the posterior, its Gauss-Newton
    Hessian is $J^\top J / s^2$, and the covariance of parameters $\theta$, with all others free,

    $$s^2 \big(J_\theta^\top (I - P) J_\theta\big)^{-1},$$

    $P$ the projection onto the columns of the others: MacKay, *A practical Bayesian framework for
    backpropagation networks* (1992), marginalised by Schur's complement.

    **Arguments:** `jacobian` of the scaled residuals, shape `(m, n)`; `columns`, the indices of
    $\theta$; `unit`, $s^2$: what one standard deviation of the noise adds to the loss.

    **Returns:** `None` where there are no more residuals than parameters: they leave nothing to be
    sure of.
    """
    rows, count = jacobian.shape
    if rows <= count:
        return None
    others = np.delete(jacobian, columns, axis=1)
    chosen = jacobian[:, columns]
    fitted = np.linalg.lstsq(others, chosen, rcond=1e-12)[0]
    left = chosen - others @ fitted
    # What the network can imitate to rounding is not determined.
    gramian = left.T @ left
    if not np.all(np.diag(gramian) > (1e-12 * np.linalg.norm(chosen, axis=0)) ** 2):
        return None
    return unit * np.linalg.inv(gramian)


def raw_columns(params: PyTree, names: Mapping[str, Inferred]) -> np.ndarray:
    """Where the raw numbers are among the flat parameters, in the order of `names`."""
    nowhere = jax.tree.map(lambda x: jnp.full(jnp.shape(x), -1.0), params)
    marked = {"network": nowhere["network"], "raw": {n: float(i) for i, n in enumerate(names)}}
    flat = np.asarray(ravel_pytree(marked)[0])
    return np.asarray([int(np.flatnonzero(flat == i)[0]) for i in range(len(names))])
