"""Derivatives of a field at a point, by forward propagation of truncated Taylor polynomials.

Orders one and two are a `jvp` and a `jvp` of a `jvp`: nested twice, forward mode carries one
redundant term, and it is the faster of the two there. From the third order on nesting carries
2**k terms for k + 1 useful ones and `jax.experimental.jet` carries just those. The crossing was
measured (`benchmarks/derivatives.py`).
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.jet import jet
from jax.extend import core
from jaxtyping import Array, Float

Field = Callable[[Float[Array, " d"]], Float[Array, " k"]]


def taylor(field: Field, point: Float[Array, " d"], axis: int, order: int) -> list[Array]:
    """The derivatives of orders `0..order` of a field along one coordinate.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> [round(float(d[0]), 9) for d in pde.taylor(lambda x: x**3, jnp.array([2.0]), 0, 3)]
    [8.0, 12.0, 12.0, 6.0]

    ```
    """
    direction = jnp.zeros_like(point).at[axis].set(1)

    def along(f):
        return lambda x: jax.jvp(f, (x,), (direction,))

    if order == 0:
        return [field(point)]
    if order == 1:
        return list(along(field)(point))
    if order == 2:
        (value, first), (_, second) = along(along(field))(point)
        return [value, first, second]
    series = [direction] + [jnp.zeros_like(point)] * (order - 1)
    value, derivatives = jet(field, (point,), (series,))
    return [value, *derivatives]


def derivatives(
    field: Field, point: Float[Array, " d"], wanted: Iterable[tuple[int, ...]]
) -> dict[tuple[int, ...], Float[Array, " k"]]:
    """Partial derivatives of a field at a point.

    **Arguments:**

    - `field`: from a point, shape `(d,)`, to `k` unknowns.
    - `point`: where.
    - `wanted`: multi-indices as tuples of axes: `()` is the value, `(0, 0, 1)` is the derivative
        twice by axis 0 and once by axis 1. Their order within a tuple does not matter.

    **Returns:** the derivatives of all unknowns, shape `(k,)`, by sorted tuple.

    Pure derivatives along an axis come from one expansion. A mixed one is an expansion along its
    last axis of the expansion along the axes before it.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> f = lambda p: jnp.array([p[0] ** 2 * p[1] ** 3])
    >>> d = pde.derivatives(f, jnp.array([1.0, 2.0]), [(), (0, 0), (0, 1)])
    >>> {k: float(v[0]) for k, v in d.items()}
    {(): 8.0, (0, 0): 16.0, (0, 1): 24.0}

    ```
    """
    tuples = sorted({tuple(sorted(w)) for w in wanted}, key=lambda w: (len(w), w))
    pure: dict[int, int] = {}
    for w in tuples:
        if len(set(w)) == 1:
            pure[w[0]] = max(pure.get(w[0], 0), len(w))
    found = {}
    for axis, order in pure.items():
        for k, value in enumerate(taylor(field, point, axis, order)):
            found[(axis,) * k] = value
    for w in tuples:
        if w not in found:
            found[w] = _mixed(field, w)(point)
    return {w: found[w] for w in tuples}


def _mixed(field: Field, axes: tuple[int, ...]) -> Field:
    if not axes:
        return field
    last = axes[-1]
    order = axes.count(last)
    inner = _mixed(field, axes[:-order])
    return lambda point: taylor(inner, point, last, order)[order]


# Equations that hold a program of their own, and the parameter that it is.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


class Expansion(NamedTuple):
    """A value with its derivatives along some directions and the sum of the second ones."""

    value: Array
    jacobian: Array
    """With a leading axis over the directions."""
    laplacian: Array


class _Constant(NamedTuple):
    """What does not depend on the point."""

    value: Array


class _Pointwise(NamedTuple):
    """What depends, number by number, on `base` alone."""

    base: Expansion
    outer: Expansion
    """By the base's numbers, as if they were the only direction: value, slope and bend."""
    bent: bool
    """False where the bend is known to be zero: no squares of the base's Jacobian are made."""

    def settle(self) -> Expansion:
        """The chain rule, for all directions of the base at once."""
        (slope,) = self.outer.jacobian
        laplacian = slope * self.base.laplacian
        if self.bent:
            laplacian += self.outer.laplacian * jnp.sum(self.base.jacobian**2, 0)
        return Expansion(self.outer.value, slope * self.base.jacobian, laplacian)


_Known = Expansion | _Pointwise | _Constant

# Primitives that make each number from the numbers in the same place.
_POINTWISE = {
    "abs", "add", "add_any", "convert_element_type", "copy", "cos", "cosh", "div", "erf", "erfc",
    "exp", "exp2", "expm1", "integer_pow", "log", "log1p", "logistic", "max", "min", "mul", "neg",
    "pow", "rsqrt", "select_n", "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh",
}  # fmt: skip
# Those that are affine in all that moves; a product is so where one factor does.
_AFFINE = {"add", "add_any", "convert_element_type", "copy", "neg", "select_n", "sub"}


def laplacian(
    field: Field, point: Float[Array, " d"], axes: Iterable[int] | None = None
) -> Expansion:
    r"""Value, Jacobian and Laplacian of a field, by one forward pass.

    Li et al., *A computational framework for neural network-based variational Monte Carlo with
    Forward Laplacian* (2024), equations (8) and (9): through $y = f(x)$,

    $$\partial_i y = f' \partial_i x, \qquad
    \Delta y = f' \Delta x + \sum_i f''[\partial_i x, \partial_i x],$$

    so that the second derivatives travel as one sum and not as $d$ terms: the collapsed Taylor mode
    of Dangel et al. (2025). The program of `field` is walked one primitive at a time, except that
    consecutive pointwise ones (those of an activation) are one $f$, whose derivatives are numbers
    and through which the Jacobian passes once.

    **Arguments:** `field`, from a point, shape `(d,)`, to `k` unknowns; `point`; `axes`, the
    coordinates to sum over, all if not given.

    **Returns:** a named tuple: `value`, shape `(k,)`; `jacobian`, shape `(axes, k)`; `laplacian`,
    shape `(k,)`.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> square = lambda x: jnp.sum(x**2)[None]
    >>> found = pde.laplacian(square, jnp.arange(3.0))
    >>> found.value.tolist(), found.jacobian[:, 0].tolist(), found.laplacian.tolist()
    ([5.0], [0.0, 2.0, 4.0], [6.0])

    ```
    """
    d = point.shape[0]
    chosen = jnp.eye(d, dtype=point.dtype)
    if axes is not None:
        chosen = chosen[jnp.asarray(tuple(axes))]
    program = jax.make_jaxpr(field)(point)
    start = Expansion(point, chosen, jnp.zeros_like(point))
    (found,) = _expand(program.jaxpr, program.consts, [start])
    if isinstance(found, _Pointwise):
        found = found.settle()
    if isinstance(found, _Constant):
        nothing = jnp.zeros((chosen.shape[0], *found.value.shape), point.dtype)
        return Expansion(found.value, nothing, jnp.zeros_like(found.value))
    return found


def _expand(program: Any, constants: list[Any], arguments: list[_Known]) -> list[_Known]:
    known: dict[Any, _Known] = {}

    def read(variable):
        if isinstance(variable, core.Literal):
            return _Constant(variable.val)
        return known[variable]

    def settled(variable):
        found = read(variable)
        if isinstance(found, _Pointwise):
            known[variable] = found = found.settle()
        return found

    known |= dict(zip(program.constvars, map(_Constant, constants), strict=True))
    known |= dict(zip(program.invars, arguments, strict=True))
    for equation in program.eqns:
        inner = equation.params.get(_CALLS.get(equation.primitive.name, ""))
        inputs = [read(v) for v in equation.invars]
        if inner is not None:
            outputs = _expand(inner.jaxpr, inner.consts, inputs)
        elif (base := _shared_base(equation, inputs)) is not None:
            outputs = _through_pointwise(equation, base, inputs)
        else:
            outputs = _through(equation, [settled(v) for v in equation.invars])
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(v) for v in program.outvars]


def _shared_base(equation: Any, inputs: list[_Known]) -> Expansion | None:
    """What a pointwise primitive's result depends on number by number, if it is one thing."""
    if equation.primitive.name not in _POINTWISE:
        return None
    bases = {
        id(base): base
        for x in inputs
        if (base := x if isinstance(x, Expansion) else getattr(x, "base", None)) is not None
    }
    if len(bases) != 1:
        return None
    (base,) = bases.values()
    return base if base.value.shape == equation.outvars[0].aval.shape else None


def _through_pointwise(equation: Any, base: Expansion, inputs: list[_Known]) -> list[_Known]:
    one = jnp.ones_like(base.value)
    itself = Expansion(base.value, one[None], jnp.zeros_like(one))
    inputs = [_Pointwise(base, itself, False) if isinstance(x, Expansion) else x for x in inputs]
    moving = [x for x in inputs if isinstance(x, _Pointwise)]
    name = equation.primitive.name
    affine = name in _AFFINE or (name == "mul" and len(moving) == 1)
    bent = not affine or any(x.bent for x in moving)
    outer = [x.outer if isinstance(x, _Pointwise) else x for x in inputs]
    return [
        _Pointwise(base, x, bent) if isinstance(x, Expansion) else x
        for x in _through(equation, outer)
    ]


def _through(equation: Any, inputs: list[Expansion | _Constant]) -> list[Expansion | _Constant]:
    """Through one primitive."""
    primitive = equation.primitive
    params = primitive.get_bind_params(equation.params)
    moving = {i: x for i, x in enumerate(inputs) if isinstance(x, Expansion)}

    def apply(*moved):
        arguments = [x.value for x in inputs]
        for i, value in zip(moving, moved, strict=True):
            arguments[i] = value
        out = primitive.bind(*arguments, **params)
        return tuple(out) if primitive.multiple_results else (out,)

    at = tuple(x.value for x in moving.values())
    if not moving:
        return [_Constant(value) for value in apply()]

    def twice(direction):
        # What is linear has a second derivative of symbolic zeros, and costs nothing here.
        once = lambda *x: jax.jvp(apply, x, direction)[1]  # noqa: E731
        return jax.jvp(once, at, direction)

    value, through = jax.jvp(apply, at, tuple(x.laplacian for x in moving.values()))
    first, second = jax.vmap(twice)(tuple(x.jacobian for x in moving.values()))
    return [
        # What is not a number of reals (an index, a comparison) has no derivative to carry on.
        Expansion(v, a, b + jnp.sum(c, 0)) if jnp.issubdtype(v.dtype, jnp.inexact) else _Constant(v)
        for v, a, b, c in zip(value, first, through, second, strict=True)
    ]
