"""ExcessMTL: more weight to the tasks that are further from their best.

He, Zhou, Zhang, Cheng and Zhao, *Robust Multi-Task Learning with Excess Risks* (2024), equations
(6), (7) and (9).
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ._aggregator import AbstractAggregator, checked, combine, count_objectives, result_type


class ExcessState(eqx.Module):
    weights: Float[Array, " m"]
    squares: PyTree
    baseline: Float[Array, " m"]
    step: Int[Array, ""]


class ExcessMTL(AbstractAggregator):
    r"""Weights that grow exponentially with the estimated excess risks.

    The excess risk of task $i$ is estimated as $e_i = g_i^\top H_i^{-1} g_i$ (equation 6) with
    $H_i$ the diagonal of AdaGrad, $\sqrt{\sum_t g_{i,t}^2 + 10^{-7}}$ (equation 7), relative to a
    baseline; the weights follow $w_i \leftarrow w_i e^{\eta e_i}$, normalised (equation 9).

    | non-conflicting | linear under scaling | weighted |
    |---|---|---|
    | no | no | yes |

    Stateful: the state holds the weights and the sums of squared gradients, as large as a
    Jacobian.

    **Arguments:**

    - `robust_step_size`: $\eta$.
    - `n_warmup_steps`: steps with uniform weights, whose mean risk is the baseline. With none, the
        first step's risk is, as in the authors' code.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import ExcessMTL
    >>> ExcessMTL(n_warmup_steps=1)(jnp.array([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [0.5, 1.5]

    ```
    """

    robust_step_size: float = 1.0
    n_warmup_steps: int = 0

    def __check_init__(self):
        if self.robust_step_size <= 0 or self.n_warmup_steps < 0:
            raise ValueError("ExcessMTL wants robust_step_size > 0 and n_warmup_steps >= 0.")

    def init(self, jacobian):
        m = count_objectives(jacobian)
        dtype = result_type(jacobian)
        return ExcessState(
            weights=jnp.full(m, 1 / m, dtype),
            squares=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jacobian),
            baseline=jnp.zeros(m, dtype),
            step=jnp.array(0),
        )

    def update(self, jacobian, state: ExcessState, *, key=None):
        squares = jax.tree.map(lambda s, leaf: s + leaf**2, state.squares, jacobian)

        def risk(leaf, s):
            return jnp.sum(leaf**2 / jnp.sqrt(s + 1e-7), axis=tuple(range(1, leaf.ndim)))

        risks = jax.tree.leaves(jax.tree.map(risk, jacobian, squares))
        excess = checked(functools.reduce(jnp.add, risks))
        warming = state.step < self.n_warmup_steps
        first = state.step == 0
        if self.n_warmup_steps:
            mean = state.baseline + excess / self.n_warmup_steps
            baseline = jnp.where(warming, mean, state.baseline)
            relative = excess / (baseline + 1e-7)
        else:
            baseline = jnp.where(first, excess, state.baseline)
            relative = jnp.where(first, excess, excess / (baseline + 1e-7))
        # In logarithms: a task whose baseline was zero saturates the weights and no more.
        grown = jax.nn.softmax(jnp.log(state.weights) + self.robust_step_size * relative)
        weights = jnp.where(warming, state.weights, grown)
        state = ExcessState(weights, squares, baseline, state.step + 1)
        return combine(weights, jacobian), state
