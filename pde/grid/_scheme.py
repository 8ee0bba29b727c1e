"""What a method on a grid is to the loop over time: a linear system a step, and what follows it."""

import abc
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, PyTree, Scalar

from sciopt.relax import Stencil

Fields = TypeVar("Fields")

# A number, or a function of t and of the coordinates, which broadcast against each other.
Coefficient = float | Array | Callable[..., ArrayLike]


def evaluated(
    coefficient: Coefficient, t: Scalar, points: tuple[Float[Array, "..."], ...]
) -> Float[Array, "..."]:
    """A coefficient at points, in their precision; of no axes or of as many as there are points."""
    value = coefficient(t, *points) if callable(coefficient) else coefficient
    value = jnp.asarray(value, points[0].dtype)
    if value.ndim not in (0, len(points)):
        raise ValueError(
            f"A coefficient must have no axes or {len(points)}, one a coordinate; "
            f"it has the shape {value.shape}."
        )
    return value


class System(eqx.Module):
    """One step's linear system.

    - `operator`, `vector`: $A$ and $b$.
    - `guess`: where an iteration starts.
    - `context`: a number that says how hard the system is, for tuners that take one.
    """

    operator: lx.AbstractLinearOperator
    vector: PyTree[Array]
    guess: PyTree[Array]
    context: Scalar


class AbstractScheme(eqx.Module, Generic[Fields]):
    """A discretisation whose step is explicit but for one linear system.

    Schemes are immutable; coefficients are functions of time and position or numbers, and may be
    modules with parameters, by which a simulation can be differentiated.
    """

    def start(self, fields: Fields, t: Scalar, dt: Scalar) -> Any:
        """What is carried from step to step, from the fields at the first time."""
        return fields

    def fields(self, carried: Any) -> Fields:
        """The inverse of `start`."""
        return carried

    @abc.abstractmethod
    def prepare(self, carried: Any, t: Scalar, dt: Scalar) -> tuple[System, Any]:
        """The system of the step from `t` to `t + dt`, and what `complete` needs besides."""

    @abc.abstractmethod
    def complete(self, pending: Any, solution: PyTree[Array], dt: Scalar) -> Any:
        """What is carried after the step, from the system's solution."""

    @abc.abstractmethod
    def courant(self, carried: Any, t: Scalar, dt: Scalar) -> Scalar:
        """How many cells something moves, or spreads over, in a step."""


def theta_system(
    scaled: Stencil,
    theta: float,
    now: Float[Array, "..."],
    after: Float[Array, "..."],
    source: Float[Array, "..."],
    context: Scalar,
) -> System:
    r"""$(I + \theta L) u_+ = (I - (1 - \theta) L) u + s$ for $L$ times the step, `scaled`.

    Backward Euler at $\theta = 1$, Crank and Nicolson's rule at a half. `now` and `after` have the
    boundary's values around them, at both ends of the step; `now` has the field inside of them.
    """
    inside = (slice(1, -1),) * now.ndim
    field = now[inside]
    known = (1 - theta) * scaled.applied(now) + theta * scaled.applied(after.at[inside].set(0))
    operator = Stencil(
        1 + theta * scaled.diagonal,
        [theta * off for off in scaled.lower],
        [theta * off for off in scaled.upper],
        scaled.shape,
        scaled.tags,
    )
    return System(operator, field - known + source, field, context)
