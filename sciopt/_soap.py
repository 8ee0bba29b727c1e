"""SOAP: Adam in the slowly changing eigenbasis of Shampoo's preconditioner.

Follows Vyas et al., *SOAP: Improving and Stabilizing Shampoo using Adam* (2024), algorithms 3 and
4. Wang et al., *Gradient Alignment in Physics-informed Neural Networks* (2025), train PINNs so.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree


class SoapState(NamedTuple):
    """What SOAP remembers: by parameter array, and for the factors by its axes.

    - `steps`: updates made; the first gradient makes none, and leaves it at zero.
    - `mean`: $M$, in the parameters' own basis; `square`: $V$, in the rotated one.
    - `factors`: $L$ and $R$, an average of $G G^\\top$ for each axis; `bases`: $Q_L$ and $Q_R$.
    - `started`: whether there has been a gradient to take the bases from.
    """

    steps: Int[Array, ""]
    mean: PyTree
    square: PyTree
    factors: tuple[tuple[Float[Array, "k k"], ...], ...]
    bases: tuple[tuple[Float[Array, "k k"], ...], ...]
    started: Array


def soap(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    precondition_frequency: int = 10,
) -> optax.GradientTransformation:
    r"""SOAP (Vyas et al. 2024, algorithm 3), as an optax transformation.

    For a matrix with gradient $G$, and its bases $Q_L$, $Q_R$ from before this step,

    $$G' = Q_L^\top G Q_R, \quad M \leftarrow \beta_1 M + (1 - \beta_1) G, \quad
    V \leftarrow \beta_2 V + (1 - \beta_2) G' \odot G', \quad
    W \leftarrow W - \eta \, Q_L \frac{Q_L^\top M Q_R}{\sqrt{V} + \epsilon} Q_R^\top$$

    with Adam's corrections of the bias of $M$ and $V$, then $L \leftarrow \beta_2 L + (1 - \beta_2)
    G G^\top$ and $R \leftarrow \beta_2 R + (1 - \beta_2) G^\top G$, and every
    `precondition_frequency` updates one step of orthogonal iteration (algorithm 4): $Q_L$ is the
    orthogonal factor of the QR decomposition of $L Q_L$, and $Q_R$ that of $R Q_R$. As in the
    authors' code the first gradient only makes the bases, by an eigendecomposition, and moves
    nothing. An array of three or more axes has a factor for each of them; scalars and vectors are
    left to Adam.

    **Arguments:**

    - `learning_rate`: $\eta$, a number or an optax schedule.
    - `b1`, `b2`, `eps`: $\beta_1$, $\beta_2$ and $\epsilon$.
    - `weight_decay`: decoupled, as in AdamW.
    - `precondition_frequency`: updates between new bases.

    **Raises:** `ValueError` if `precondition_frequency` is less than one.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, optax, sciopt
        >>> loss = lambda w: jnp.sum((w @ w.T - jnp.eye(2)) ** 2)
        >>> optimizer = sciopt.soap(0.05)
        >>> w = jnp.array([[1.0, 2.0], [0.0, 1.0]])
        >>> @jax.jit
        ... def step(w, state):
        ...     updates, state = optimizer.update(jax.grad(loss)(w), state, w)
        ...     return optax.apply_updates(w, updates), state
        >>> state = optimizer.init(w)
        >>> for _ in range(100):
        ...     w, state = step(w, state)
        >>> bool(loss(w) < 1e-2)
        True

        ```
    """
    if precondition_frequency < 1:
        raise ValueError(f"soap needs precondition_frequency >= 1; got {precondition_frequency}.")
    return optax.chain(
        _scale_by_soap(b1, b2, eps, precondition_frequency),
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )


def _scale_by_soap(b1: float, b2: float, eps: float, every: int) -> optax.GradientTransformation:
    def init(params):
        factors = tuple(
            tuple(jnp.zeros((k, k), p.dtype) for k in p.shape) if p.ndim > 1 else ()
            for p in map(jnp.asarray, jax.tree.leaves(params))
        )
        zeros = jax.tree.map(jnp.zeros_like, params)
        return SoapState(jnp.array(0), zeros, zeros, factors, factors, jnp.array(False))

    def update(updates, state: Any, params=None):
        gradients, structure = jax.tree.flatten(updates)
        means, squares = jax.tree.leaves(state.mean), jax.tree.leaves(state.square)

        def first():
            factors = [_averaged(f, g, 0.0) for f, g in zip(state.factors, gradients, strict=True)]
            bases = tuple(tuple(_eigenvectors(p) for p in factor) for factor in factors)
            factors = tuple(tuple((1 - b2) * p for p in factor) for factor in factors)
            still = [jnp.zeros_like(g) for g in gradients]
            return still, means, squares, factors, bases, state.steps

        def later():
            count = state.steps + 1
            new = []
            for g, m, v, q in zip(gradients, means, squares, state.bases, strict=True):
                rotated = _rotate(g, q, forward=True)
                m = b1 * m + (1 - b1) * g
                v = b2 * v + (1 - b2) * rotated**2
                m_hat = _rotate(m, q, forward=True) / (1 - b1**count).astype(g.dtype)
                v_hat = v / (1 - b2**count).astype(g.dtype)
                new.append((_rotate(m_hat / (jnp.sqrt(v_hat) + eps), q, forward=False), m, v))
            step, mean, square = (list(part) for part in zip(*new, strict=True))
            factors = tuple(
                _averaged(f, g, b2) for f, g in zip(state.factors, gradients, strict=True)
            )
            bases = jax.lax.cond(
                count % every == 0, _iterated, lambda _, q: q, factors, state.bases
            )
            return step, mean, square, factors, bases, count

        step, mean, square, factors, bases, count = jax.lax.cond(state.started, later, first)
        mean, square = structure.unflatten(mean), structure.unflatten(square)
        new_state = SoapState(count, mean, square, factors, bases, jnp.array(True))
        return structure.unflatten(step), new_state

    return optax.GradientTransformation(init, update)


def _averaged(factors, gradient, decay):
    """$L$ and $R$ with a gradient more: for each axis its product with itself over the others."""

    def gram(axis):
        rows = jnp.moveaxis(gradient, axis, 0).reshape(gradient.shape[axis], -1)
        return rows @ rows.T

    return tuple(decay * p + (1 - decay) * gram(axis) for axis, p in enumerate(factors))


def _eigenvectors(factor):
    # The largest first: the order that orthogonal iteration keeps.
    return jnp.linalg.eigh(factor)[1][:, ::-1]


def _iterated(factors, bases):
    return tuple(
        tuple(jnp.linalg.qr(p @ q)[0] for p, q in zip(factor, basis, strict=True))
        for factor, basis in zip(factors, bases, strict=True)
    )


def _rotate(array, bases, *, forward: bool):
    """Into the eigenbasis along every axis, or back out of it."""
    for axis, q in enumerate(bases):
        array = jnp.moveaxis(jnp.tensordot(q, array, axes=(0 if forward else 1, axis)), 0, axis)
    return array
