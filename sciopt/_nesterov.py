"""Nesterov's momentum over preconditioned or half-implicit steps, restarted where it overshoots."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree


class NesterovState(NamedTuple):
    """What the momentum remembers.

    - `steps`: since it was last zero.
    - `before`: where the last step led, without the momentum after it.
    """

    steps: Int[Array, ""]
    before: PyTree


def nesterov(
    learning_rate: float,
    precondition: Callable[[PyTree], PyTree] | None = None,
    momentum: float | None = None,
    restart: bool = True,
) -> optax.GradientTransformation:
    r"""Accelerated gradient steps with a preconditioner, as an optax transformation.

    $$x_{n+1} = y_n - \eta M \nabla f(y_n), \quad
    y_{n+1} = x_{n+1} + \beta_n (x_{n+1} - x_n)$$

    with $\beta_n = n / (n + 3)$ for the n-th step since the start or a restart, as in FISTA (Beck
    and Teboulle 2009; Su, Boyd and Candès 2014), or a constant. With $M = (I + \eta A)^{-1}$ for a
    quadratic part $\frac12 \langle u, A u \rangle$ of $f$ a step is implicit in that part and
    explicit in the rest: the convex-concave splitting of Akande et al., *Momentum-based
    minimization of the Ginzburg-Landau functional* (2025). What optax is given and gives back as
    parameters are the $y_n$; both sequences have the same limit.

    **Arguments:**

    - `learning_rate`: $\eta$.
    - `precondition`: $M$, from a gradient to a direction; the identity by default.
    - `momentum`: a constant $\beta$ in [0, 1); zero for plain steps.
    - `restart`: drop the momentum where it points uphill,
        $\langle y_n - x_{n+1}, x_{n+1} - x_n \rangle > 0$: O'Donoghue and Candès (2015), (13).

    **Raises:** `ValueError` for a momentum outside of [0, 1), or a rate that is not positive.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, optax, sciopt
        >>> scales = jnp.array([1.0, 100.0])
        >>> loss = lambda x: 0.5 * jnp.sum(scales * x**2)
        >>> optimizer = sciopt.nesterov(0.01)
        >>> x = jnp.ones(2)
        >>> state = optimizer.init(x)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(jax.grad(loss)(x), state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> bool(loss(x) < 1e-3)
        True

        ```
    """
    if learning_rate <= 0 or not (momentum is None or 0 <= momentum < 1):
        raise ValueError(
            f"nesterov needs a positive learning rate and a momentum in [0, 1); got "
            f"{learning_rate} and {momentum}."
        )

    def init(params: PyTree) -> NesterovState:
        return NesterovState(jnp.array(0), jax.tree.map(jnp.asarray, params))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("nesterov needs the parameters: call update(gradient, state, params).")
        direction = updates if precondition is None else precondition(updates)
        after = jax.tree.map(lambda y, d: y - learning_rate * d, params, direction)
        moved = jax.tree.map(jnp.subtract, after, state.before)
        steps = state.steps
        if restart:
            back = jax.tree.map(jnp.subtract, params, after)
            overshot = jnp.asarray(optax.tree.vdot(back, moved)).real > 0
            steps = jnp.where(overshot, 0, steps)
        beta = steps / (steps + 3) if momentum is None else jnp.where(steps > 0, momentum, 0.0)
        changes = jax.tree.map(
            lambda x, m, y: (x + beta.astype(x.dtype) * m - y).astype(y.dtype), after, moved, params
        )
        return changes, NesterovState(steps + 1, after)

    return optax.GradientTransformation(init, update)
