"""A problem is data: domain, unknowns, residual expressions, conditions and parameters.

Nothing here knows of networks or optimizers.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._domain import Box, Face
from ._inferred import Inferred
from ._names import laplacian_of, split_derivative

# The name of the block of all equations, beside those of the conditions.
EQUATIONS = "equations"


class Values(Mapping[str, Array]):
    """What an expression reads, by name and by attribute: `v.u_xx` is `v["u_xx"]`.

    Coordinates, parameters, unknowns and their derivatives are names alike. A vector coordinate is
    an array with its components along the first axis; `v.laplacian("u")` is the sum of the second
    derivatives by all coordinates but time.
    """

    def __init__(self, lookup: Callable[[str], Array], names: tuple[str, ...] = ()):
        self._lookup = lookup
        self._names = names

    def __getitem__(self, name: str) -> Array:
        return self._lookup(name)

    def __getattr__(self, name: str) -> Array:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._lookup(name)

    def laplacian(self, unknown: str) -> Array:
        return self._lookup(f"laplacian({unknown})")

    def __iter__(self):
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


Expression = Callable[[Values], Array]
Faces = tuple[Face, ...]


def _constant_or_expression(value: float | Expression) -> Expression:
    if callable(value):
        return value
    return lambda v: jnp.asarray(float(value))


Positions = float | str | tuple[float | str, ...] | list[float] | list[str]


def _faces(at: Mapping[str, Positions] | Faces) -> Faces:
    """One (coordinate, position) a face; or ("boundary", its name)."""
    if isinstance(at, tuple):
        return at
    return tuple(
        (name, value if isinstance(value, str) else float(value))
        for name, values in at.items()
        for value in (values if isinstance(values, tuple | list) else (values,))
    )


def _expressions(values: Mapping[str, float | Expression] | None) -> dict[str, Expression]:
    return {name: _constant_or_expression(v) for name, v in (values or {}).items()}


Hard = bool | Literal["subtract"]


def _array(values: Any) -> Array:
    return np.asarray(values)  # pyright: ignore[reportReturnType]


def _arrays(values: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(v) for name, v in values.items()}  # pyright: ignore[reportReturnType]


class Condition(eqx.Module):
    """What holds on part of the boundary, for some unknowns.

    `hard` conditions are built into the ansatz and cost no residual; soft ones are residual
    blocks of their own, with a `weight` and a number of `points`.
    """

    hard: Hard = eqx.field(static=True, default=False, kw_only=True)
    weight: float = eqx.field(default=1.0, kw_only=True)
    points: int = eqx.field(static=True, default=256, kw_only=True)


class Dirichlet(Condition):
    """`unknown = value` on faces of the box, or on the boundary of a region.

    **Arguments:**

    - `at`: coordinate to the face's position, or to both: `{"x": (-1, 1)}`; of a
        [`pde.Region`][] also `{"boundary": "all"}` or the names of parts of it, and a coordinate
        picks the straight parts where it has this value.
    - `values`: unknown to a number or to an expression of the coordinates and parameters.
    - `hard`: build it into the ansatz instead of adding a residual block. `True` multiplies the
        network by a factor that vanishes on the faces; `"subtract"` takes away what the network
        says there, which costs its evaluation on each face and leaves fast oscillations along the
        normal as they are, where a factor would have the network divide by it.
    - `weight`, `points`: of the residual block, where soft.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> walls = pde.Dirichlet({"x": (0, 1)}, {"u": lambda v: jnp.sin(v.y)}, hard=True)
    >>> walls.at
    (('x', 0.0), ('x', 1.0))

    ```
    """

    at: Faces = eqx.field(static=True, converter=_faces)
    values: dict[str, Expression] = eqx.field(converter=_expressions)


class Neumann(Dirichlet):
    """The derivative along the *outward* normal, on faces of the box: arguments as `Dirichlet`.

    ```python
    >>> import pde
    >>> insulated = pde.Neumann({"x": (0, 1)}, {"u": 0.0}, weight=10.0)

    ```
    """


class Robin(Neumann):
    """`slope + coefficient * unknown = value`, the slope along the *outward* normal: always soft.

    **Arguments:** as [`pde.Neumann`][]; and `coefficient`, a number or an expression, for all the
    unknowns that `values` names.

    ```python
    >>> import pde
    >>> cooled = pde.Robin({"x": (0, 1)}, {"u": 0.0}, coefficient=2.0)

    ```
    """

    coefficient: Expression = eqx.field(
        converter=_constant_or_expression, default=1.0, kw_only=True
    )

    def __check_init__(self):
        if self.hard:
            raise ValueError("A Robin condition cannot be hard: leave it out.")


class Initial(Condition):
    """Values, and where the equation is of second order in time also rates, at the first time.

    **Arguments:**

    - `values`: unknown to its value at the lower end of `t`.
    - `rates`: unknown to its derivative by `t` there.
    - `hard`, `weight`, `points`: as for [`pde.Dirichlet`][].

    ```python
    >>> import jax.numpy as jnp, pde
    >>> start = pde.Initial({"u": lambda v: -jnp.sin(jnp.pi * v.x)}, hard=True)

    ```
    """

    values: dict[str, Expression] = eqx.field(converter=_expressions)
    rates: dict[str, Expression] = eqx.field(converter=_expressions, default=None)


class Periodic(Condition):
    """Everything is periodic over a coordinate.

    **Arguments:**

    - `over`: the coordinate.
    - `hard`: the coordinate enters the network only through `harmonics` sines and cosines of its
        phase, so all derivatives match.
    - `derivatives`: where soft, the order up to which derivatives are matched.
    - `weight`, `points`: as for [`pde.Dirichlet`][].

    ```python
    >>> import pde
    >>> wrap = pde.Periodic("x", hard=True, harmonics=2)

    ```
    """

    over: str = eqx.field(static=True)
    derivatives: int = eqx.field(static=True, default=1, kw_only=True)
    harmonics: int = eqx.field(static=True, default=1, kw_only=True)

    def __check_init__(self):
        if self.hard == "subtract":
            raise ValueError("A period is hard through what the network sees: give hard=True.")


class Data(Condition):
    """Measured values of unknowns at points: always soft.

    **Arguments:**

    - `at`: the points, shape `(n, d)`, components in the order of the domain's coordinates.
    - `values`: unknown to what was measured there, shape `(n,)`.
    - `noise`: its standard deviation, if that is known. The loss does not depend on it, but a prior
        does, and how sure inferred parameters are.
    - `weight`: of the residual block.

    ```python
    >>> import numpy as np, pde
    >>> sensors = pde.Data(np.array([[0.5, 1.0]]), {"u": np.array([0.2])}, noise=0.01)

    ```
    """

    at: Array = eqx.field(converter=_array)
    values: dict[str, Array] = eqx.field(converter=_arrays)
    noise: float | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self):
        if self.hard:
            raise ValueError("Data cannot be hard.")
        if self.noise is not None and not self.noise > 0:
            raise ValueError(f"The noise of Data must be positive, got {self.noise}.")
        if self.at.ndim != 2 or not len(self.at) or not self.values:
            raise ValueError(f"Data need points of shape (n, d) and values; got {self.at.shape}.")
        for name, values in self.values.items():
            if values.shape != self.at.shape[:1]:
                raise ValueError(
                    f"Data of {name} have the shape {values.shape}, for {len(self.at)} points."
                )
        if not all(np.isfinite(a).all() for a in (self.at, *self.values.values())):
            raise ValueError("Data hold NaN or infinity.")


def _on_components(domain: Box, condition: Condition) -> Condition:
    """Faces of a vector are those of each of its components."""
    if not isinstance(condition, Dirichlet):
        return condition
    at = tuple((part, at) for name, at in condition.at for part in domain.components(name))
    return dataclasses.replace(condition, at=at)


class Problem(eqx.Module):
    """A boundary- and initial-value problem on a box.

    **Arguments:**

    - `domain`: a [`pde.Box`][] or a [`pde.Region`][].
    - `unknowns`: names, in the order of the network's outputs.
    - `equations`: name to an expression of [`pde.Values`][] that is zero for a solution. The
        derivatives that it reads, `v.u_xx`, are found by running it once on placeholders.
    - `conditions`: name to condition. Names of equations and soft conditions are the names of the
        residual blocks.
    - `parameters`: name to number, or to a [`pde.Inferred`][] one that is trained.
    - `weights`: equation to its weight in the loss, 1 where not named.

    **Raises:** `ValueError` where names clash or something is named that does not exist.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, pde
        >>> heat = pde.Problem(
        ...     domain=pde.Box(x=(0, 1), t=(0, 1)),
        ...     unknowns=["u"],
        ...     equations={"diffusion": lambda v: v.u_t - v.alpha * v.u_xx},
        ...     conditions={
        ...         "start": pde.Initial({"u": lambda v: jnp.sin(jnp.pi * v.x)}, hard=True),
        ...         "ends": pde.Dirichlet({"x": (0, 1)}, {"u": 0.0}, hard=True),
        ...     },
        ...     parameters={"alpha": 0.1},
        ... )
        >>> heat.reads("diffusion")
        ('u_t', 'u_xx')

        ```
    """

    domain: Box
    unknowns: tuple[str, ...] = eqx.field(static=True)
    equations: dict[str, Expression]
    conditions: dict[str, Condition]
    parameters: dict[str, float | Array | Inferred]
    weights: dict[str, float]

    def __init__(
        self,
        domain: Box,
        unknowns: list[str] | tuple[str, ...],
        equations: Mapping[str, Expression],
        conditions: Mapping[str, Condition],
        parameters: Mapping[str, float | Array | Inferred] | None = None,
        weights: Mapping[str, float] | None = None,
    ):
        self.domain = domain
        self.unknowns = tuple(unknowns)
        self.equations = dict(equations)
        self.conditions = {n: _on_components(domain, c) for n, c in conditions.items()}
        self.parameters = dict(parameters or {})
        self.weights = dict(weights or {})
        vectors = dict(domain.vectors)
        names = [*domain.names, *vectors, *self.unknowns, *self.parameters]
        if clash := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"Coordinates, unknowns and parameters share: {', '.join(clash)}.")
        if clash := sorted(set(self.equations) & set(self.conditions)):
            raise ValueError(f"Equations and conditions share the names {', '.join(clash)}.")
        if EQUATIONS in self.conditions:
            raise ValueError(f"{EQUATIONS!r} means all equations; a condition needs another name.")
        if unknown := sorted(set(self.weights) - set(self.equations)):
            raise ValueError(f"Weights name equations that do not exist: {', '.join(unknown)}.")
        if not self.equations:
            raise ValueError("A problem needs at least one equation.")
        for name, condition in self.conditions.items():
            self._check(name, condition)
        for name in self.equations:
            self.reads(name)

    def _check(self, name: str, condition: Condition):
        values: Mapping[str, Any] = {}
        if isinstance(condition, Dirichlet):
            values = condition.values
            for coordinate, position in condition.at:
                self.domain.check_face(coordinate, position)
        elif isinstance(condition, Initial):
            values = {**condition.values, **condition.rates}
            self.domain.axis("t")
        elif isinstance(condition, Data):
            values = condition.values
            self._check_points(name, condition)
        elif isinstance(condition, Periodic):
            self.domain.axis(condition.over)
            if condition.over in self.domain.varied:
                raise ValueError(f"Condition {name!r} is periodic over a parameter of the family.")
            if self.domain.on_curves(condition.over):
                raise ValueError(
                    f"Condition {name!r} is periodic across a shape, which has no period."
                )
        if unknown := sorted(set(values) - set(self.unknowns)):
            raise ValueError(f"Condition {name!r} is about {', '.join(unknown)}: no such unknown.")
        if not (math.isfinite(condition.weight) and condition.weight >= 0):
            raise ValueError(f"Condition {name!r} has the weight {condition.weight}.")

    def _check_points(self, name: str, data: Data):
        if data.at.shape[1] != self.domain.ndim:
            raise ValueError(
                f"The points of {name!r} have {data.at.shape[1]} components, and the domain has "
                f"{self.domain.ndim} coordinates."
            )
        outside = ~np.asarray(self.domain.covers(data.at))
        if outside.any():
            first = dict(zip(self.domain.names, data.at[outside][0].tolist(), strict=True))
            place = ", ".join(f"{n} = {value:g}" for n, value in first.items())
            raise ValueError(
                f"{outside.sum()} of {len(outside)} points of {name!r} lie outside of the domain, "
                f"the first at {place}."
            )

    @property
    def inferred(self) -> dict[str, Inferred]:
        """The parameters that are trained."""
        return {n: p for n, p in self.parameters.items() if isinstance(p, Inferred)}

    def with_raw(self, raw: Mapping[str, Array]) -> "Problem":
        """With the values that raw numbers stand for, in the place of inferred parameters."""
        known = {n: p.value(raw[n]) for n, p in self.inferred.items()}
        return eqx.tree_at(lambda p: p.parameters, self, {**self.parameters, **known})

    def reads(self, equation: str) -> tuple[str, ...]:
        """The unknowns and derivatives that an equation reads, sorted."""
        read: set[str] = set()
        vectors = dict(self.domain.vectors)

        def lookup(name):
            if name in self.domain.names or name in vectors:
                return self.domain.read(jnp.ones(self.domain.ndim), name)
            if name in self.parameters:
                return jnp.ones(())
            if (
                split_derivative(name, self.unknowns, self.domain.names) is None
                and laplacian_of(name, self.unknowns) is None
            ):
                raise ValueError(
                    f"Equation {equation!r} reads {name!r}, which is no coordinate, parameter, "
                    "unknown or derivative of one."
                )
            read.add(name)
            return jnp.ones(())

        jax.eval_shape(lambda: self.equations[equation](Values(lookup)))
        return tuple(sorted(read))

    def at(self, point: Float[Array, " d"], fields: Mapping[str, Array] | None = None) -> Values:
        """What expressions read at a point: its coordinates, the parameters, and `fields`."""
        fields = {} if fields is None else fields
        vectors = dict(self.domain.vectors)

        def lookup(name):
            if name in self.domain.names or name in vectors:
                return self.domain.read(point, name)
            if name in self.parameters:
                given = self.parameters[name]
                known = given.initial if isinstance(given, Inferred) else given
                return jnp.asarray(known, point.dtype)
            if name in fields:
                return fields[name]
            raise KeyError(
                f"{name!r} cannot be read here: there are "
                f"{', '.join([*self.domain.names, *self.parameters, *fields])}."
            )

        return Values(lookup, (*self.domain.names, *vectors, *self.parameters, *fields))
