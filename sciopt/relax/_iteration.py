"""What all iterations share: when they stop, what they count, and what they say of failure."""

import abc
import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, PyTree, Scalar

from ._red_black import RedBlackSplitting
from ._sparse import Sparse
from ._splitting import AbstractSplitting, DenseSplitting, RowSplitting
from ._stencil import Stencil
from ._wavefront import WavefrontSplitting

Ordering = Literal["red_black", "natural"]


def split(operator: lx.AbstractLinearOperator, ordering: Ordering) -> AbstractSplitting:
    """The layout of an operator; any that is not ours is made a matrix, in its natural order."""
    operator = untagged(operator)
    if isinstance(operator, Stencil):
        layout = RedBlackSplitting if ordering == "red_black" else WavefrontSplitting
        return layout.of(operator)
    if isinstance(operator, Sparse | lx.TridiagonalLinearOperator):
        return RowSplitting.of(operator)
    return DenseSplitting.of(operator)


def untagged(operator: lx.AbstractLinearOperator) -> lx.AbstractLinearOperator:
    """What was wrapped by `lineax.TaggedLinearOperator`."""
    while isinstance(operator, lx.TaggedLinearOperator):
        operator = operator.operator
    return operator


def inner(x: PyTree[Array], y: PyTree[Array]) -> Scalar:
    """$x^\\top y$ of packed vectors."""
    return sum(
        map(jnp.vdot, jax.tree.leaves(x), jax.tree.leaves(y)), start=jnp.array(0.0, dtype_of(x))
    )


def dtype_of(x: PyTree[Array]) -> jnp.dtype:
    """Of a packed vector."""
    return jnp.result_type(*jax.tree.leaves(x))


class Prepared(eqx.Module):
    """An operator, and what a solver made of it."""

    operator: lx.AbstractLinearOperator
    system: PyTree[Any]


class AbstractMethod(eqx.Module):
    """What an iteration and a smoother have in common: they prepare an operator, once."""

    @abc.abstractmethod
    def prepare(self, operator: lx.AbstractLinearOperator) -> PyTree[Any]:
        """All that depends on the operator alone."""

    @abc.abstractmethod
    def splitting(self, system: PyTree[Any]) -> AbstractSplitting:
        """The operator of what was prepared."""

    def admissible(self) -> Bool[Array, ""]:
        """Whether the parameters are where the method can converge."""
        return jnp.array(True)


class AbstractIteration(lx.AbstractLinearSolver[Prepared], AbstractMethod):
    r"""An iteration $x_k \to x_{k+1}$ from a starting point, zero or `options["y0"]`.

    It stops as soon as $|b - Ax_k|_2 \le$ `atol` + `rtol` $|b|_2$. Results:

    - `max_steps_reached`: it has not, after `max_steps`;
    - `singular`: there is a zero on a diagonal that has to be divided by;
    - `breakdown`: the residual grew beyond $1/\epsilon$ of the first, or is no longer finite; or a
        parameter is outside of where the method can converge, in which case no step is made;
    - `nonfinite_input`: the operator, the vector or the starting point is not finite.

    Derivatives are those of the solution, by another solve with the operator or its transpose, and
    not of the iteration: to `rtol` they are right, and there are none in the solver's parameters.

    `stats` holds `num_steps`, `max_steps` and `residuals`: $|b - Ax_k|_2$ for $k$ from zero to
    `max_steps`, of which the last one reached is repeated.
    """

    rtol: eqx.AbstractVar[float]
    atol: eqx.AbstractVar[float]
    max_steps: eqx.AbstractVar[int]

    @abc.abstractmethod
    def begin(self, system: PyTree[Any], r: PyTree[Array]) -> PyTree[Array]:
        """What is carried from step to step."""

    @abc.abstractmethod
    def advance(
        self, system: PyTree[Any], b: PyTree[Array], x: PyTree[Array], r: PyTree[Array], carry: Any
    ) -> tuple[PyTree[Array], PyTree[Array], Any]:
        """$x$, its residual and what is carried, after one step."""

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> Prepared:
        del options
        if operator.in_structure() != operator.out_structure():
            raise ValueError(f"{type(self).__name__} is for square operators.")
        if jnp.issubdtype(
            jnp.result_type(*jax.tree.leaves(operator.in_structure())), jnp.complexfloating
        ):
            raise ValueError(f"{type(self).__name__} is for real operators.")
        return Prepared(operator, self.prepare(operator))

    def compute(
        self, state: Prepared, vector: PyTree[Array], options: dict[str, Any]
    ) -> tuple[PyTree[Array], lx.RESULTS, dict[str, Any]]:
        system, splitting = state.system, self.splitting(state.system)
        b = splitting.pack(vector)
        if (y0 := options.get("y0")) is None:
            # Not b itself: a NaN of the operator has to be seen in the residual.
            x = jax.tree.map(jnp.zeros_like, b)
        else:
            x = splitting.pack(y0)
        r = splitting.residual(x, b)
        first = jnp.sqrt(inner(r, r))
        singular, admissible = splitting.has_zero_on_diagonal(), self.admissible()
        target = self.atol + self.rtol * jnp.sqrt(inner(b, b))
        limit = jnp.maximum(first, target) / jnp.finfo(first.dtype).eps
        # In pages: what a batch of solves carries is selected anew in each step, and a page is less
        # by far than a history of ten thousand steps.
        size = max(1, math.isqrt(self.max_steps))
        pages = jnp.zeros((self.max_steps // size + 1, size), first.dtype)

        def going(carry):
            _, _, norm, _, step = carry
            # Written so that a NaN stops it.
            unfinished = (norm > target) & (norm <= limit) & (step < self.max_steps)
            return unfinished & ~singular & admissible

        def fill(carry):
            at, pages = carry
            number = at[-1] // size

            def step(carry):
                (x, r, _, more, k), page = carry
                x, r, more = self.advance(system, b, x, r, more)
                norm = jnp.sqrt(inner(r, r))
                return (x, r, norm, more, k + 1), page.at[k % size].set(norm)

            def within(carry):
                return going(carry[0]) & (carry[0][-1] // size == number)

            at, page = jax.lax.while_loop(within, step, (at, jnp.zeros_like(pages[0])))
            return at, pages.at[number].set(page)

        start = (x, r, first, self.begin(system, r), jnp.array(0))
        at, pages = jax.lax.while_loop(lambda c: going(c[0]), fill, (start, pages))
        x, _, norm, _, steps = at
        history = jnp.append(first, pages.reshape(-1)[: self.max_steps])
        result = _result(first, norm, norm <= target, norm > limit, singular, admissible)
        stats = {
            "num_steps": steps,
            "max_steps": self.max_steps,
            "residuals": jnp.where(jnp.arange(self.max_steps + 1) <= steps, history, norm),
        }
        return splitting.unpack(x), result, stats

    def transpose(self, state: Prepared, options: dict[str, Any]):
        if lx.is_symmetric(state.operator):
            return state, {}
        return self.init(state.operator.T, {}), {}

    def conj(self, state: Prepared, options: dict[str, Any]):
        return state, options  # real

    def assume_full_rank(self) -> bool:
        return True


def _result(first, norm, converged, diverged, singular, admissible) -> lx.RESULTS:
    """The gravest that holds, written from the mildest on."""
    codes = lx.RESULTS
    result = codes.where(converged, codes.successful, codes.max_steps_reached)
    result = codes.where(diverged | ~jnp.isfinite(norm) | ~admissible, codes.breakdown, result)
    result = codes.where(singular, codes.singular, result)
    return codes.where(jnp.isfinite(first), result, codes.nonfinite_input)
