r"""How sure inferred parameters are, by training again on data that are perturbed anew.

Randomised maximum a posteriori: each member minimises the loss with a draw of the noise added to
the data, and with a draw of each prior in the place of its mean, from a network of its own. For a
linear model and Gaussian errors the members are draws of the posterior; for others they follow a
posterior that is not Gaussian where Laplace's approximation cannot: Chen and Oliver, *Ensemble
randomized maximum likelihood method as an iterative ensemble smoother* (2012); Pearce et al.,
*Uncertainty in neural networks: approximately Bayesian ensembling* (2020). Equations are believed
as they are, and not perturbed.
"""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sciopt import Fit, GaussNewton, Optimizer

from ._pinn import PINN, PRIOR, Points
from ._problem import Data


def ensemble(
    pinn: PINN,
    starts: Sequence[PyTree],
    optimizer: Optimizer | None = None,
    *,
    steps: int,
    key: Key[Array, ""],
    noise: Mapping[str, float] | None = None,
) -> dict[str, Float[Array, " members"]]:
    """The inferred parameters of each member; all are trained by one program.

    **Arguments:**

    - `pinn`: the least-squares problem, with data.
    - `starts`: the parameters that each member starts from, at least two: `params` of as many
        [`pde.PINN`][]s of networks with keys of their own.
    - `optimizer`: as in [`pde.solve`][].
    - `steps`: how many each takes.
    - `key`: for the points, which members share, and for the perturbations, which they do not.
    - `noise`: name of data to its standard deviation, where that is not the data's own.

    **Returns:** name to the values, NaN for a member whose loss has not stayed finite.

    **Raises:** `ValueError` for fewer than two members, or for data whose noise is not known.

    ```python
    >>> import jax, numpy as np, pde
    >>> sensors = pde.Data(np.array([[0.3], [0.5]]), {"u": np.array([0.1, 0.12])}, noise=1e-3)
    >>> problem = pde.Problem(
    ...     pde.Box(x=(0, 1)), ["u"], {"load": lambda v: v.u_xx + v.q},
    ...     {"ends": pde.Dirichlet({"x": (0, 1)}, {"u": 0.0}, hard=True), "sensors": sensors},
    ...     parameters={"q": pde.Inferred(0.5)},
    ... )
    >>> keys = jax.random.split(jax.random.key(0), 4)
    >>> pinns = [pde.PINN(problem, pde.MLP(1, 1, width=4, depth=1, key=k), points=16) for k in keys]
    >>> starts = [pinn.params for pinn in pinns]
    >>> pde.ensemble(pinns[0], starts, steps=20, key=jax.random.key(1))["q"].shape
    (4,)

    ```
    """
    if len(starts) < 2:
        raise ValueError(f"An ensemble has at least two members, got {len(starts)}.")
    deviations = {}
    for name, condition in pinn.problem.conditions.items():
        if isinstance(condition, Data):
            deviations[name] = (noise or {}).get(name, condition.noise)
            if deviations[name] is None:
                raise ValueError(f"The noise of {name!r} is not known, and members differ by it.")
    points_key, noise_key = jax.random.split(key)

    def trained(start: PyTree, own: Key[Array, ""]) -> dict[str, Array]:
        def sample(key, params):
            return perturbed(pinn.sample(key, params), deviations, own)

        chosen = GaussNewton() if optimizer is None else optimizer
        fit = Fit(pinn.residuals, chosen, sample, points_key)
        state = fit.advance(fit.init(start), steps)
        finite = jnp.isfinite(state.loss)
        return {n: jnp.where(finite, q, jnp.nan) for n, q in pinn.inferred(state.params).items()}

    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    return eqx.filter_jit(jax.vmap(trained))(together, jax.random.split(noise_key, len(starts)))


def perturbed(points: Points, noise: Mapping[str, float], key: Key[Array, ""]) -> Points:
    """Points with a draw of the noise added to measured values, and of each prior to its mean."""
    found = dict(points)
    for turn, name in enumerate(sorted(noise)):
        values = points[name]["values"]
        drawn = jax.random.normal(jax.random.fold_in(key, turn), values.shape, values.dtype)
        found[name] = {**points[name], "values": values + noise[name] * drawn}
    if PRIOR in points:
        shift = points[PRIOR]["shift"]
        drawn = jax.random.normal(jax.random.fold_in(key, len(noise)), shift.shape, shift.dtype)
        found[PRIOR] = {"shift": shift + drawn}
    return found
