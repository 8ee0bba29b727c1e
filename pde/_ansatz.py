r"""Hard conditions: a field that satisfies them whatever the network is.

The field is $u = \ell + \mathcal{H}[\varphi N]$. $\varphi$ is a polynomial that vanishes on the
faces with hard values; $\ell$ is a transfinite interpolation of the data, built coordinate by
coordinate as the Boolean sum $\ell \leftarrow \ell + P_i[d_i - C_i \ell]$ (Gordon 1971; the
"constrained expressions" of Mortari's theory of functional connections). $C_i$ reads the
constrained values and slopes on the faces of coordinate $i$, and $P_i$ is the polynomial in that
coordinate that has them. $\mathcal{H}$ removes from the network's part what $\varphi$ does not: the
slopes that hard Neumann conditions prescribe, and values whose condition says `"subtract"`. All
data must agree where faces meet; where they do not, the coordinate that comes last in the box wins.

Values on the boundary of a region's shape (`_vanishing.py`) are what $\ell$ starts from, and their
factors belong to $\varphi$.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._curve import Curve
from ._domain import Box
from ._problem import Dirichlet, Expression, Initial, Neumann, Problem
from ._region import Region
from ._vanishing import Vanishing, weights

# The lift reads its data in 3**axes places, and a product of parabolas has the mean (2/3)**axes.
MAX_AXES = 6

Scalarfield = Callable[[Float[Array, " d"]], Array]


class Constraint(NamedTuple):
    """A value (`order` 0) or a slope (`order` 1) along `axis`, on the face at `position`."""

    axis: int
    position: float
    order: int
    data: Expression
    sign: float
    """What turns `data` into the derivative along the coordinate: -1 for an outward slope on a
    lower face."""
    factored: bool
    """Whether a factor takes it out of the network, and not a subtraction."""


def constraints(problem: Problem, unknown: str) -> list[Constraint]:
    """The hard values and slopes of an unknown. `ValueError` where two of them contradict."""
    box = problem.domain
    found = []
    for condition in problem.conditions.values():
        if not condition.hard:
            continue
        by_factor = condition.hard is True
        if isinstance(condition, Dirichlet) and unknown in condition.values:
            order = int(isinstance(condition, Neumann))
            for name, position in condition.at:
                if box.on_curves(name):
                    continue
                position = float(position)
                sign = -1.0 if order and box.side(name, position) == 0 else 1.0
                data = condition.values[unknown]
                factored = order == 0 and by_factor
                found.append(Constraint(box.axis(name), position, order, data, sign, factored))
        elif isinstance(condition, Initial):
            axis = box.axis("t")
            for order, given in enumerate((condition.values, condition.rates)):
                if unknown in given:
                    data, factored = given[unknown], order == 0 and by_factor
                    found.append(Constraint(axis, box.lower[axis], order, data, 1.0, factored))
    places = [c[:3] for c in found]
    if len(set(places)) < len(places):
        raise ValueError(f"Two hard conditions prescribe {unknown} on the same face.")
    return found


def on_curves(problem: Problem, unknown: str) -> list[tuple[tuple[Curve, ...], Expression]]:
    """The hard values of an unknown on curves of a region. `ValueError` where two contradict, or
    where a condition is of a kind that is hard on boxes alone."""
    region, found = problem.domain, []
    if not isinstance(region, Region):
        return []
    for name, condition in problem.conditions.items():
        if not (
            condition.hard and isinstance(condition, Dirichlet) and unknown in condition.values
        ):
            continue
        curves, _ = region.select(condition.at)
        if not curves or unknown not in condition.values:
            continue
        if isinstance(condition, Neumann) or condition.hard == "subtract":
            raise ValueError(
                f"Condition {name!r}: on the boundary of a shape only values can be hard, and by a "
                "factor. Make it soft."
            )
        if any(set(curves) & set(others) for others, _ in found):
            raise ValueError(f"Two hard conditions prescribe {unknown} on the same curve.")
        found.append((tuple(curves), condition.values[unknown]))
    return found


def _dual_basis(box: Box, group: list[Constraint]) -> np.ndarray:
    """Coefficients, one row a constraint, of the polynomials in the unit coordinate for which one
    constraint reads 1 and the others read 0."""
    axis = group[0].axis
    length = box.upper[axis] - box.lower[axis]

    def read(power: int, c: Constraint) -> float:
        at = (c.position - box.lower[axis]) / length
        if c.order == 0:
            return at**power
        return power * at ** max(power - 1, 0) / length

    # Slopes alone do not see a constant; then the polynomials begin with the linear term.
    first = 0 if any(c.order == 0 for c in group) else 1
    powers = range(first, first + len(group))
    table = np.array([[read(p, c) for p in powers] for c in group])
    coefficients = np.zeros((len(group), first + len(group)))
    coefficients[:, first:] = np.linalg.inv(table).T
    return coefficients


class Ansatz(eqx.Module):
    """The field of one unknown: `ansatz(raw, point)` with `raw` the network's field.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> problem = pde.Problem(
    ...     pde.Box(x=(-1, 1), t=(0, 1)), ["u"], {"rest": lambda v: v.u_t},
    ...     {"start": pde.Initial({"u": lambda v: 1 - v.x**2}, hard=True),
    ...      "walls": pde.Dirichlet({"x": (-1, 1)}, {"u": 0.0}, hard=True)},
    ... )
    >>> u = pde.Ansatz(problem, "u")
    >>> float(u(lambda p: 7.0 + p[0], jnp.array([0.5, 0.0])))
    0.75

    ```
    """

    problem: Problem
    groups: list[list[Constraint]]
    bases: list[np.ndarray]
    rim: Vanishing | None
    """Vanishes on all curves with hard values, if there are any."""
    parts: list[tuple[Vanishing, Expression]]
    """The same for each condition, with its data."""

    def __init__(self, problem: Problem, unknown: str):
        found = constraints(problem, unknown)
        axes = sorted({c.axis for c in found})
        if len(axes) > MAX_AXES:
            raise ValueError(
                f"Hard conditions on {unknown} are on faces of {len(axes)} coordinates: beyond "
                f"{MAX_AXES} the interpolation of their data has too many terms, and the factor "
                "that vanishes on the faces vanishes almost everywhere. Make them soft."
            )
        self.problem = problem
        self.groups = [[c for c in found if c.axis == axis] for axis in axes]
        self.bases = [_dual_basis(problem.domain, group) for group in self.groups]
        self.rim, self.parts, region = None, [], problem.domain
        if isinstance(region, Region) and (on_rim := on_curves(problem, unknown)):
            self.rim = Vanishing(region, sum((curves for curves, _ in on_rim), ()))
            self.parts = [(Vanishing(region, curves), data) for curves, data in on_rim]

    def __call__(self, raw: Scalarfield, point: Float[Array, " d"]) -> Array:
        return self.lift(point) + self.homogeneous(raw)(point)

    def lift(self, point: Float[Array, " d"]) -> Array:
        """A smooth field with the prescribed data."""

        def data(c):
            return lambda p: c.sign * c.data(self.problem.at(p))

        field: Scalarfield = self._around
        for group, basis in zip(self.groups, self.bases, strict=True):
            field = self._correct(field, group, basis, [data(c) for c in group])
        return field(point)

    def _around(self, point: Float[Array, " d"]) -> Array:
        """The data on curves, joined between them."""
        if not self.parts:
            return jnp.zeros((), point.dtype)
        given = self.problem.at(point)
        values = [data(given) for _, data in self.parts]
        if len(values) == 1:
            return jnp.asarray(values[0], point.dtype)
        shares = weights([factor for factor, _ in self.parts], point)
        return jnp.asarray(sum(w * g for w, g in zip(shares, values, strict=True)))

    def homogeneous(self, raw: Scalarfield) -> Scalarfield:
        """The network's field with all prescribed values and slopes taken out."""
        field: Scalarfield = lambda p: self.bubble(p) * raw(p)  # noqa: E731
        for group, basis in zip(self.groups, self.bases, strict=True):
            left = [i for i, c in enumerate(group) if not c.factored]
            if left:
                zero: list[Scalarfield] = [lambda p: jnp.zeros((), p.dtype)] * len(left)
                shapes = basis[np.asarray(left)]
                field = self._correct(field, [group[k] for k in left], shapes, zero)
        return field

    def bubble(self, point: Float[Array, " d"]) -> Array:
        """Vanishes to first order on each face with a factored value; of size one inside."""
        box = self.problem.domain
        product = jnp.ones((), point.dtype) if self.rim is None else self.rim(point)
        for group in self.groups:
            sides = {box.side(box.names[c.axis], c.position) for c in group if c.factored}
            xi = self._unit(point, group[0].axis)
            if sides == {0, 1}:
                product = product * 4 * xi * (1 - xi)
            elif sides == {0}:
                product = product * xi
            elif sides == {1}:
                product = product * (1 - xi)
        return product

    def _unit(self, point, axis):
        box = self.problem.domain
        return (point[axis] - box.lower[axis]) / (box.upper[axis] - box.lower[axis])

    def _correct(self, field, group, basis, data) -> Scalarfield:
        """`field + P[data - C field]` for the constraints of one coordinate."""

        def corrected(point):
            xi = self._unit(point, group[0].axis)
            value = field(point)
            for c, coefficients, wanted in zip(group, basis, data, strict=True):
                # Selected and not scattered, which `jet` (orders three and above) has no rule for.
                face = jnp.where(np.arange(point.shape[0]) == c.axis, c.position, point)
                if c.order == 0:
                    have = field(face)
                else:
                    along = jnp.zeros_like(point).at[c.axis].set(1)
                    have = jax.jvp(field, (face,), (along,))[1]
                value = value + _horner(coefficients, xi) * (wanted(face) - have)
            return value

        return corrected


def _horner(coefficients: np.ndarray, x: Array) -> Array:
    """A polynomial, unrolled: `polyval` is a loop, which `jet` has no rule for either."""
    value = jnp.asarray(coefficients[-1], x.dtype)
    for coefficient in coefficients[-2::-1]:
        value = value * x + jnp.asarray(coefficient, x.dtype)
    return value
