r"""The Gramian of per-example gradients, without the Jacobian that it is the Gramian of.

Instance-wise risk minimisation makes an objective of every example of a batch (Quinton and Rey,
*Jacobian Descent for Multi-Objective Optimization* (2024), section 5), and asks for
$G_{ij} = \langle \nabla \ell_i, \nabla \ell_j \rangle$. The Jacobian has a row of the size of the
network for each example; $G$ is small. Two things keep it from being formed:

- *structure*: gradients of weight matrices stay in factors, $\langle \delta_i a_i^\top, \delta_j
  a_j^\top \rangle = (\delta_i \cdot \delta_j)(a_i \cdot a_j)$;
- *blocks*: what is left is made for two blocks of examples at a time, as large as a budget of
  memory allows, and made again for each pair of blocks.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Scalar

from ._products import Factors, Structure, evaluate_with_taps, factors, find_products

Loss = Callable[[PyTree, Any], Scalar]

MEMORY = 2**28
"""Bytes that two blocks of gradients may take, by default."""


def per_example_gramian(
    loss: Loss,
    params: PyTree,
    batch: PyTree,
    *,
    memory: int = MEMORY,
    structure: bool = True,
) -> Float[Array, "batch batch"]:
    """The inner products of the gradients of `loss` at each example of a batch.

    **Arguments:**

    - `loss`: `loss(params, example)`, the scalar loss of *one* example.
    - `params`: any pytree; its floating-point arrays are differentiated.
    - `batch`: a pytree of arrays with a leading axis over the examples.
    - `memory`: bytes for the gradients held at one time, from which the size of a block follows.
        Smaller blocks recompute: with $b$ blocks there are $b(b+1)/2$ passes over a block.
    - `structure`: keep the gradients of weight matrices as factors, where those are smaller than
        the matrix; wherever a parameter is used otherwise (biases, convolutions, inside a scan) its
        gradient is formed. `False` forms all of them: the slow way, to compare with.

    **Raises:** `ValueError` for a batch whose arrays do not share their leading axis, or is empty;
    `TypeError` for a loss that is not a real scalar.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from sciopt.aggregate import per_example_gramian
    >>> loss = lambda w, xy: (w @ xy[0] - xy[1]) ** 2 / 2
    >>> batch = jnp.array([[1.0, 0.0], [1.0, 2.0]]), jnp.array([0.0, 0.0])
    >>> per_example_gramian(loss, jnp.array([1.0, 1.0]), batch).tolist()
    [[1.0, 3.0], [3.0, 45.0]]

    ```
    """
    count = count_examples(batch)
    rows, size = _rows(loss, params, batch, structure)
    block = max(1, min(count, memory // (2 * max(size, 1))))
    blocks = -(-count // block)
    # Equal blocks, the last one filled up with whatever example comes first.
    block = -(-count // blocks)
    if blocks == 1:
        own = rows(batch)
        return _inner(own, own)
    index = jnp.arange(blocks * block) % count
    padded = jax.tree.map(lambda x: x[index].reshape(blocks, block, *x.shape[1:]), batch)

    def at(i):
        return rows(jax.tree.map(lambda x: x[i], padded))

    def outer(i, gram):
        own = at(i)
        diagonal = _inner(own, own)
        gram = gram.at[i, i].set(diagonal)

        def inner(j, gram):
            pair = _inner(own, at(j))
            return gram.at[i, j].set(pair).at[j, i].set(pair.T)

        return jax.lax.fori_loop(i + 1, blocks, inner, gram)

    dtype = jax.eval_shape(lambda: _inner(at(0), at(0))).dtype
    gram = jax.lax.fori_loop(0, blocks, outer, jnp.zeros((blocks, blocks, block, block), dtype))
    return gram.transpose(0, 2, 1, 3).reshape(blocks * block, -1)[:count, :count]


def count_examples(batch: PyTree) -> int:
    """The leading axis that all arrays of a batch share; `ValueError` where they do not."""
    shapes = [jnp.shape(x) for x in jax.tree.leaves(batch)]
    counts = {shape[0] if shape else None for shape in shapes}
    if len(counts) != 1 or not next(iter(counts)):
        raise ValueError(
            "The arrays of a batch must share a leading axis over its examples; they have the "
            f"shapes {', '.join(map(str, shapes)) or 'of nothing'}."
        )
    (count,) = counts
    assert count is not None
    return count


def _rows(
    loss: Loss, params: PyTree, batch: PyTree, structure: bool
) -> tuple[Callable[[PyTree], PyTree], int]:
    """A function from a block of examples to their gradients, and its bytes for each example."""
    diff, rest = eqx.partition(params, eqx.is_inexact_array)
    leaves, unravel = jax.tree.flatten(diff)
    if not leaves:
        raise ValueError("The parameters hold no floating-point arrays.")

    def flat_loss(leaves, example):
        return loss(eqx.combine(jax.tree.unflatten(unravel, leaves), rest), example)

    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    shape = jax.eval_shape(flat_loss, leaves, example)
    if getattr(shape, "shape", None) != () or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise TypeError(f"The loss of one example must be a real scalar; it is {shape}.")

    found = find_products(flat_loss, leaves, example) if structure else None
    chosen = frozenset() if found is None else _worth_factoring(found, leaves)
    row = _full_row(flat_loss, leaves) if found is None else _factored_row(found, chosen, leaves)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(row, example)))
    return jax.vmap(row), size


def _worth_factoring(structure: Structure, leaves: list[Array]) -> frozenset[int]:
    """The matrices whose gradients take more numbers, and more work to pair, than their factors.

    With $k$ products an example, pairing two examples takes $k^2$ inner products of factors.
    """
    counts: dict[int, int] = {}
    for product in structure.products:
        counts[product.leaf] = counts.get(product.leaf, 0) + product.vectors
    return frozenset(
        leaf
        for leaf, k in counts.items()
        if leaf in structure.pure and k**2 * sum(leaves[leaf].shape) < leaves[leaf].size
    )


def _full_row(loss, leaves):
    return lambda example: {"full": jax.grad(loss)(leaves, example), "factored": {}}


def _factored_row(structure: Structure, chosen: frozenset[int], leaves: list[Array]):
    products = [p for p in structure.products if p.leaf in chosen]
    others = [i for i in range(len(leaves)) if i not in chosen]

    def row(example):
        arguments = jax.tree.leaves(example)

        def tapped(taps, some):
            full = list(leaves)
            for i, leaf in zip(others, some, strict=True):
                full[i] = leaf
            out, seen = evaluate_with_taps(structure, chosen, taps, [*full, *arguments])
            return out[0], seen

        taps = [jnp.zeros(p.shape, p.dtype) for p in products]
        (deltas, grads), seen = jax.grad(tapped, argnums=(0, 1), has_aux=True)(
            taps, [leaves[i] for i in others]
        )
        factored: dict[int, list[Factors]] = {}
        for product, delta, other in zip(products, deltas, seen, strict=True):
            factored.setdefault(product.leaf, []).append(factors(product, delta, other))
        # A matrix that is used more than once has the sum of its outer products for a gradient.
        joined = {
            leaf: jax.tree.map(lambda *parts: jnp.concatenate(parts), *uses)
            for leaf, uses in factored.items()
        }
        return {"full": grads, "factored": joined}

    return row


def _inner(a: PyTree, b: PyTree) -> Float[Array, "i j"]:
    """The inner products of the gradients in one block with those in another."""
    total = sum(
        jnp.tensordot(x, y, axes=(tuple(range(1, x.ndim)),) * 2)
        for x, y in zip(a["full"], b["full"], strict=True)
    )
    for leaf, x in a["factored"].items():
        y = b["factored"][leaf]
        if x.left.shape[1] == 1:
            total = total + (x.left[:, 0] @ y.left[:, 0].T) * (x.right[:, 0] @ y.right[:, 0].T)
        else:
            left = jnp.einsum("ikr,jlr->ikjl", x.left, y.left)
            right = jnp.einsum("ikr,jlr->ikjl", x.right, y.right)
            total = total + jnp.sum(left * right, axis=(1, 3))
    return jnp.asarray(total)
