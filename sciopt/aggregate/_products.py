r"""Find the matrix products through which a function uses its parameters.

Where a matrix $W$ enters a function only by products $z = W a$, its gradient is the outer product
$\delta a^\top$ with $\delta = \partial \ell / \partial z$. Inner products of such gradients need
the two vectors and never the matrix (Goodfellow, *Efficient Per-Example Gradient Computations*
(2015), section 4). Here the products are read off the function's jaxpr, so that it does not matter
how a network was written: `equinox.nn.Linear`, bare matrices, transposed or shared weights, or the
derivatives of a network in the residual of a differential equation.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import Array, Float


class Product(NamedTuple):
    """One product with a parameter matrix: which, along which of its axes, the result's shape."""

    leaf: int
    contracted: int
    shape: tuple[int, ...]
    dtype: Any
    # Axes of the result that come from the matrix, and of the other factor that are contracted.
    own_axis: int
    other_axis: int

    @property
    def vectors(self) -> int:
        """How many vectors the matrix is applied to."""
        return math.prod(self.shape) // max(self.shape[self.own_axis], 1)


class Factors(NamedTuple):
    """The gradient of a matrix, $\\sum_k l_k r_k^\\top$, kept as its factors."""

    left: Float[Array, "*batch k rows"]
    right: Float[Array, "*batch k columns"]


class Structure(NamedTuple):
    """A function's jaxpr, and the products with its parameters in the order of evaluation."""

    jaxpr: Any
    products: list[Product]
    # Parameters that are only ever used in products: the others need their gradients in full.
    pure: frozenset[int]


class _Matrix(NamedTuple):
    """That a variable is a parameter, or the transpose of one."""

    leaf: int
    flipped: bool


def find_products(fn: Callable[..., Any], params: Sequence[Array], *args: Any) -> Structure:
    """The structure of `fn(params, *args)`; `params` is a list of arrays or their shapes."""
    jaxpr = jax.make_jaxpr(fn)(params, *args)
    products: list[Product] = []
    spoiled: set[int] = set()

    def walk(jaxpr, tracked: dict[Any, _Matrix]):
        for eqn in jaxpr.eqns:
            inputs = [tracked.get(v) if isinstance(v, jex.Var) else None for v in eqn.invars]
            if not any(inputs):
                continue
            if product := _as_product(eqn, inputs):
                products.append(product)
            elif (inner := _inlined(eqn)) is not None:
                pairs = zip(inner.jaxpr.invars, inputs, strict=True)
                walk(inner.jaxpr, {v: m for v, m in pairs if m is not None})
            elif matrix := _transposed(eqn, inputs):
                tracked[eqn.outvars[0]] = matrix
            else:
                spoiled.update(m.leaf for m in inputs if m is not None)
        spoiled.update(
            tracked[v].leaf for v in jaxpr.outvars if isinstance(v, jex.Var) and v in tracked
        )

    matrices = {
        v: _Matrix(i, False)
        for i, v in enumerate(jaxpr.jaxpr.invars[: len(params)])
        if len(v.aval.shape) == 2
    }
    walk(jaxpr.jaxpr, matrices)
    pure = {m.leaf for m in matrices.values()} - spoiled
    return Structure(jaxpr, products, frozenset(pure))


def evaluate_with_taps(
    structure: Structure, chosen: frozenset[int], taps: Sequence[Array], args: Sequence[Array]
) -> tuple[list[Any], list[Array]]:
    """Evaluate a structure, adding `taps` to the products with the chosen parameters.

    The gradient with respect to a tap is the $\\delta$ of its product.

    **Returns:** the outputs, and the other factor of each of those products.
    """
    remaining: Iterator[Array] = iter(taps)
    others: list[Array] = []

    def run(jaxpr, consts, args, tracked: dict[Any, _Matrix]):
        env: dict[Any, Any] = {}

        def read(v):
            return v.val if isinstance(v, jex.Literal) else env[v]

        env.update(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        for eqn in jaxpr.eqns:
            values = [read(v) for v in eqn.invars]
            inputs = [tracked.get(v) if isinstance(v, jex.Var) else None for v in eqn.invars]
            inner = _inlined(eqn) if any(inputs) else None
            if inner is not None and not _as_product(eqn, inputs):
                pairs = zip(inner.jaxpr.invars, inputs, strict=True)
                below = {v: m for v, m in pairs if m is not None}
                out = run(inner.jaxpr, inner.consts, values, below)
            else:
                bound = eqn.primitive.get_bind_params(eqn.params)
                # Before JAX 0.10 the functions that a primitive calls come apart from its options.
                called, options = bound if isinstance(bound, tuple) else ((), bound)
                with eqn.ctx.manager:
                    out = eqn.primitive.bind(*called, *values, **options)
                if not eqn.primitive.multiple_results:
                    out = [out]
                if any(inputs) and _as_product(eqn, inputs):
                    out = [out[0] + next(remaining)]
                    others.append(values[1] if inputs[0] is not None else values[0])
                elif matrix := _transposed(eqn, inputs):
                    tracked[eqn.outvars[0]] = matrix
            env.update(zip(eqn.outvars, out, strict=True))
        return [read(v) for v in jaxpr.outvars]

    closed = structure.jaxpr
    tracked = {v: _Matrix(i, False) for i, v in enumerate(closed.jaxpr.invars) if i in chosen}
    return run(closed.jaxpr, closed.consts, args, tracked), others


def factors(product: Product, delta: Array, other: Array) -> Factors:
    """The gradient of the product's matrix as factors, from $\\delta$ and the other factor."""
    delta = jnp.moveaxis(delta, product.own_axis, -1)
    delta = delta.reshape(-1, delta.shape[-1])
    other = jnp.moveaxis(other, product.other_axis, -1)
    other = other.reshape(-1, other.shape[-1])
    return Factors(delta, other) if product.contracted == 1 else Factors(other, delta)


def _as_product(eqn: Any, inputs: Sequence[_Matrix | None]) -> Product | None:
    if eqn.primitive.name != "dot_general" or len(inputs) != 2 or None not in inputs:
        return None
    (lhs, rhs), (lhs_batch, rhs_batch) = eqn.params["dimension_numbers"]
    out = eqn.outvars[0].aval
    # A product that changes the type (mixed precision) is left to ordinary differentiation.
    if lhs_batch or rhs_batch or len(lhs) != 1 or out.dtype != eqn.invars[0].aval.dtype:
        return None
    first = inputs[0] is not None
    matrix = inputs[0] if first else inputs[1]
    assert matrix is not None
    contracted, other_axis = (lhs[0], rhs[0]) if first else (rhs[0], lhs[0])
    if matrix.flipped:
        contracted = 1 - contracted
    # The result's axes are those of the left factor that remain, then those of the right one.
    own_axis = 0 if first else len(out.shape) - 1
    return Product(matrix.leaf, contracted, out.shape, out.dtype, own_axis, other_axis)


def _transposed(eqn: Any, inputs: Sequence[_Matrix | None]) -> _Matrix | None:
    if eqn.primitive.name != "transpose" or inputs[0] is None:
        return None
    return inputs[0]._replace(flipped=inputs[0].flipped != (eqn.params["permutation"] == (1, 0)))


def _inlined(eqn: Any) -> Any | None:
    """The jaxpr of a jitted call, which can be evaluated in its place."""
    inner = eqn.params.get("jaxpr") if eqn.primitive.name in ("jit", "pjit") else None
    return inner if isinstance(inner, jex.ClosedJaxpr) else None
