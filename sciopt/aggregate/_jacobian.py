"""The Jacobian of several objectives, beside `jax.value_and_grad`.

Losses that stand alone (the residual blocks of a PINN) share little of their graphs. A Jacobian by
one batched reverse pass would send a batch of mostly zero cotangents through all of them, m times
the work of the sum's gradient. Here the functions are linearised once, and each objective
transposes the part of the linear map that reaches it and no other: structural zeros are never
computed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Scalar


def value_and_jacobian(
    fn: Callable[..., PyTree], *, has_aux: bool = False
) -> Callable[..., tuple[Any, PyTree]]:
    r"""The values of several objectives and their Jacobian with respect to the first argument.

    **Arguments:**

    - `fn`: `fn(params, *args, **kwargs)` gives the objectives: a vector, or a pytree (such as a
        dictionary of losses) of scalars and arrays. With `has_aux`, it gives `(objectives, aux)`.
    - `has_aux`: whether `fn` returns something beside.

    **Returns:** a function of the same arguments that gives `(objectives, jacobian)`, or
    `((objectives, aux), jacobian)`. The Jacobian is like `params`, with one more axis in front over
    the objectives, in the order of `jax.tree.leaves` (a dictionary's keys *sorted*, arrays row by
    row). Only floating-point arrays are differentiated; any other leaf of `params` gives `None`,
    as in `equinox.filter_value_and_grad`.

    A scalar objective costs one reverse pass through what it depends on, and no more; an array
    costs one pass batched over its entries.

    **Raises:** `TypeError` for objectives that are not real and floating.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import value_and_jacobian
    >>> losses = lambda p: {"size": p["w"] @ p["w"], "bias": 3 * p["b"]}
    >>> value, jac = value_and_jacobian(losses)({"w": jnp.array([1.0, 2.0]), "b": jnp.array(1.0)})
    >>> jac["w"].tolist(), jac["b"].tolist()  # rows: bias, size
    ([[0.0, 0.0], [2.0, 4.0]], [3.0, 0.0])

    ```
    """

    def wrapped(params: PyTree, *args: Any, **kwargs: Any) -> tuple[Any, PyTree]:
        diff, rest = eqx.partition(params, eqx.is_inexact_array)

        def objectives(p):
            out = fn(eqx.combine(p, rest), *args, **kwargs)
            return out if has_aux else (out, None)

        values, push, aux = jax.linearize(objectives, diff, has_aux=True)
        leaves = jax.tree.leaves(values)
        if not leaves:
            raise TypeError("The function of value_and_jacobian gives no objectives.")
        for leaf in leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(f"Objectives must be real and floating; got {leaf.dtype}.")
        blocks = [_rows(push, i, leaf, diff) for i, leaf in enumerate(leaves)]
        jacobian = jax.tree.map(lambda *rows: jnp.concatenate(rows), *blocks)
        return (values, aux) if has_aux else values, jacobian

    return wrapped


def _rows(push: Callable[[PyTree], PyTree], index: int, leaf: Array, params: PyTree) -> PyTree:
    """The rows that belong to one leaf of the objectives, shape `(leaf.size, ...)`."""
    transpose = jax.linear_transpose(lambda t: jax.tree.leaves(push(t))[index], params)
    if leaf.ndim == 0:
        (row,) = transpose(jnp.ones((), leaf.dtype))
        return jax.tree.map(lambda x: x[None], row)
    basis = jnp.eye(leaf.size, dtype=leaf.dtype).reshape(leaf.size, *leaf.shape)
    return jax.vmap(lambda e: transpose(e)[0])(basis)


def value_and_row(fn: Callable[..., PyTree]) -> Callable[..., tuple[Scalar, PyTree]]:
    """One of several scalar objectives and its gradient, by its (traced) index.

    One row of the Jacobian at the cost of that row: methods that take objectives in turns, such as
    [`sciopt.aggregate.MConFIG`][], need no other.

    **Arguments:** `fn`, as for [`sciopt.aggregate.value_and_jacobian`][], with scalar objectives.

    **Returns:** `row(index, params, *args)`, which gives `(objective, gradient)`; indices count in
    the order of the Jacobian's rows.

    **Raises:** `TypeError` for objectives that are not scalars.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import value_and_row
    >>> row = value_and_row(lambda x: {"square": x @ x, "first": x[0]})
    >>> value, gradient = row(1, jnp.array([1.0, 2.0]))
    >>> float(value), gradient.tolist()
    (5.0, [2.0, 4.0])

    ```
    """

    def wrapped(index, params, *args):
        diff, rest = eqx.partition(params, eqx.is_inexact_array)

        def objectives(p):
            return jax.tree.leaves(fn(eqx.combine(p, rest), *args))

        shapes = jax.eval_shape(objectives, diff)
        if any(shape.shape != () for shape in shapes):
            raise TypeError("value_and_row wants objectives that are scalars.")

        def branch(i):
            return jax.value_and_grad(lambda p: objectives(p)[i])

        return jax.lax.switch(index, [branch(i) for i in range(len(shapes))], diff)

    return wrapped


def multi_task_jacobian(
    trunk: Callable[..., PyTree], heads: Mapping[str, Callable[..., Scalar]]
) -> Callable[..., tuple[dict[str, Scalar], PyTree, dict[str, PyTree]]]:
    r"""The Jacobian of the tasks' losses for a shared trunk, and plain gradients for their heads.

    Tasks conflict only where they share parameters. With features $z = f(\theta, x)$ and losses
    $\ell_i = g_i(\phi_i, z)$, row $i$ of the Jacobian is
    $(\partial_\theta f)^\top \nabla_z \ell_i$: every head is differentiated once, for
    $\nabla_{\phi_i} \ell_i$ and $\nabla_z \ell_i$ together, and the trunk's reverse pass is batched
    over the tasks.

    **Arguments:**

    - `trunk`: `trunk(shared, *args)` gives the features, any pytree of arrays.
    - `heads`: name of the task to `head(params, features, *args)`, its scalar loss.

    **Returns:** `fn(shared, tasks, *args)`, with `tasks` the parameters of each head by name, that
    gives `(losses, jacobian, gradients)`: the losses by name; the Jacobian for `shared`, its rows
    in the order of the *sorted* names; the gradients for `tasks`, by name.

    **Raises:** `ValueError` without heads, or where `tasks` does not name the same tasks.

    ```python
    >>> import jax.numpy as jnp
    >>> from sciopt.aggregate import multi_task_jacobian
    >>> heads = {"up": lambda p, z, x: (p * z - 1) ** 2, "down": lambda p, z, x: (p * z + 1) ** 2}
    >>> fn = multi_task_jacobian(lambda w, x: w @ x, heads)
    >>> w, x = jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0])
    >>> losses, jacobian, gradients = fn(w, {"up": jnp.array(2.0), "down": jnp.array(1.0)}, x)
    >>> jacobian.tolist(), float(gradients["up"])
    ([[4.0, 8.0], [4.0, 8.0]], 2.0)

    ```
    """
    if not heads:
        raise ValueError("multi_task_jacobian needs at least one head.")
    names = sorted(heads)

    def wrapped(shared, tasks, *args):
        if set(tasks) != set(names):
            raise ValueError(
                f"The heads are {', '.join(names)}; parameters are given for "
                f"{', '.join(sorted(tasks))}."
            )
        diff, rest = eqx.partition(shared, eqx.is_inexact_array)
        features, pull = jax.vjp(lambda p: trunk(eqx.combine(p, rest), *args), diff)
        losses, gradients, cotangents = {}, {}, []
        for name in names:
            own, fixed = eqx.partition(tasks[name], eqx.is_inexact_array)

            def head(pair, name=name, fixed=fixed):
                return heads[name](eqx.combine(pair[0], fixed), pair[1], *args)

            losses[name], (gradients[name], seen) = jax.value_and_grad(head)((own, features))
            cotangents.append(seen)
        stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *cotangents)
        (jacobian,) = jax.vmap(pull)(stacked)
        return losses, jacobian, gradients

    return wrapped
