"""Attach a network to a problem: the field that satisfies the hard conditions, and the residuals
that are left to be trained."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sciopt import Residuals

from ._ansatz import Ansatz
from ._derivative import derivatives, laplacian, taylor
from ._inferred import laplace, raw_columns
from ._names import laplacian_of, split_derivative
from ._network import partition
from ._problem import (
    EQUATIONS,
    Condition,
    Data,
    Dirichlet,
    Expression,
    Initial,
    Neumann,
    Periodic,
    Problem,
    Robin,
)
from ._sample import RAD, AbstractSampler, Causal, Sobol


class Features(eqx.Module):
    """What a network sees of a point: each coordinate scaled to [-1, 1], or, where a hard periodic
    condition holds over it, the sines and cosines of its phase; and whatever else is known to help.

    **Arguments:** `problem`; `more`, name to a function of coordinates and parameters whose value
    is a further input: a distance to a corner, a phase, the shape of a layer.

    ```python
    >>> import jax.numpy as jnp, pde
    >>> problem = pde.Problem(
    ...     pde.Box(x=(0, 4), t=(0, 1)), ["u"], {"wave": lambda v: v.u_t + v.u_x},
    ...     {"wrap": pde.Periodic("x", hard=True)},
    ... )
    >>> features = pde.Features(problem)
    >>> features.size, [abs(round(float(f), 6)) for f in features(jnp.array([1.0, 1.0]))]
    (3, [0.0, 1.0, 1.0])

    ```
    """

    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    harmonics: tuple[int, ...] = eqx.field(static=True)
    problem: Problem
    more: dict[str, Expression]

    def __init__(self, problem: Problem, more: Mapping[str, Expression] | None = None):
        self.problem, self.more = problem, dict(more or {})
        box = problem.domain
        self.lower, self.upper = box.lower, box.upper
        hard = {
            c.over: c.harmonics
            for c in problem.conditions.values()
            if isinstance(c, Periodic) and c.hard
        }
        self.harmonics = tuple(hard.get(name, 0) for name in box.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The coordinate, or the name of its own, that each feature comes from."""
        box = zip(self.problem.domain.names, self.harmonics, strict=True)
        return (*(name for name, k in box for _ in range(2 * k or 1)), *self.more)

    @property
    def size(self) -> int:
        """How many features there are: the `in_size` of the network."""
        return len(self.names)

    def __call__(self, point: Float[Array, " d"]) -> Float[Array, " features"]:
        coordinates = self.coordinates(point)
        if not self.more:
            return coordinates
        given = self.problem.at(point)
        return jnp.concatenate([coordinates, jnp.stack([f(given) for f in self.more.values()])])

    def coordinates(self, point: Float[Array, " d"]) -> Float[Array, " features"]:
        """The features that are the coordinates themselves."""
        if not any(self.harmonics):  # one operation, and not one a coordinate
            lower, upper = np.asarray(self.lower), np.asarray(self.upper)
            xi = (point - jnp.asarray(lower, point.dtype)) / jnp.asarray(upper - lower, point.dtype)
            return 2 * xi - 1
        features = []
        for x, a, b, harmonics in zip(point, self.lower, self.upper, self.harmonics, strict=True):
            xi = (x - a) / (b - a)
            if harmonics:
                phase = 2 * jnp.pi * jnp.arange(1, harmonics + 1, dtype=point.dtype) * xi
                features += [jnp.cos(phase), jnp.sin(phase)]
            else:
                features.append(2 * xi[None] - 1)
        return jnp.concatenate(features)


class Field(eqx.Module):
    """A problem's unknowns as a function of a point: network, features and ansatz together.

    **Arguments:** `problem`; `network`, from as many inputs as there are features to one output an
    unknown; `features`, a [`pde.Features`][], `Features(problem)` if not given.

    Calling it with a point of shape `(d,)` gives the unknowns, shape `(k,)`; `on_grid` evaluates
    a tensor grid.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> problem = pde.Problem(
    ...     pde.Box(x=(0, 1)), ["u"], {"load": lambda v: v.u_xx + 1},
    ...     {"ends": pde.Dirichlet({"x": (0, 1)}, {"u": 0.0}, hard=True)},
    ... )
    >>> u = pde.Field(problem, pde.MLP(1, 1, width=8, depth=1, key=jax.random.key(0)))
    >>> u(jnp.array([1.0])).tolist()
    [0.0]

    ```
    """

    problem: Problem
    network: PyTree
    features: Features
    ansatz: list[Ansatz]

    def __init__(
        self,
        problem: Problem,
        network: Callable[[Array], Array],
        features: Features | None = None,
    ):
        self.problem = problem
        self.network = network
        self.features = Features(problem) if features is None else features
        self.ansatz = [Ansatz(problem, unknown) for unknown in problem.unknowns]
        point = jnp.asarray(problem.domain.lower)
        try:
            out = jax.eval_shape(lambda p: network(self.features(p)), point)
        except TypeError as e:
            raise ValueError(
                f"The network does not take the {self.features.size} features of this problem: {e}"
            ) from e
        if out.shape != (len(problem.unknowns),):
            raise ValueError(
                f"The network gives {out.shape} for {len(problem.unknowns)} unknowns: it must give "
                "one output an unknown."
            )

    def __call__(self, point: Float[Array, " d"]) -> Float[Array, " k"]:
        here = self.network(self.features(point))

        def raw(i):
            # One evaluation serves all unknowns; an ansatz with slopes also reads faces.
            return lambda p: here[i] if p is point else self.network(self.features(p))[i]

        return jnp.stack([ansatz(raw(i), point) for i, ansatz in enumerate(self.ansatz)])

    def with_params(self, params: PyTree) -> "Field":
        """The field that the trained arrays of a [`pde.PINN`][] stand for."""
        if not self.problem.inferred:
            network = eqx.combine(params, partition(self.network)[1])
            return eqx.tree_at(lambda field: field.network, self, network)
        problem = self.problem.with_raw(params["raw"])
        network = eqx.combine(params["network"], partition(self.network)[1])
        # All that reads parameters holds the problem.
        field = eqx.tree_at(lambda f: (f.network, f.problem), self, (network, problem))
        features = eqx.tree_at(lambda f: f.problem, field.features, problem)
        ansatz = [eqx.tree_at(lambda a: a.problem, a, problem) for a in field.ansatz]
        return eqx.tree_at(lambda f: (f.features, f.ansatz), field, (features, ansatz))

    def on_grid(self, axes: dict[str, Array]) -> dict[str, Array]:
        """The unknowns on a tensor grid.

        **Arguments:** `axes`, coordinate to a one-dimensional array of positions, for each
        coordinate of the domain. **Returns:** unknown to an array with an axis a coordinate, in
        the domain's order.
        """
        grid = jnp.meshgrid(*(axes[n] for n in self.problem.domain.names), indexing="ij")
        values = self.at(jnp.stack([g.ravel() for g in grid], -1))
        return {name: value.reshape(grid[0].shape) for name, value in values.items()}

    def at(self, points: Float[Array, "n d"]) -> dict[str, Float[Array, " n"]]:
        """The unknowns at points, by name."""
        values = _evaluate(self, points)
        return {name: values[:, i] for i, name in enumerate(self.problem.unknowns)}

    def read(self, point: Float[Array, " d"], names: tuple[str, ...]) -> dict[str, Array]:
        """Unknowns and derivatives at a point, by name (`"u"`, `"u_xx"`, `"laplacian(u)"`)."""
        box, unknowns = self.problem.domain, self.problem.unknowns
        laplacians = {n: u for n in names if (u := laplacian_of(n, unknowns)) is not None}
        wanted = {}
        for name in set(names) - set(laplacians):
            split = split_derivative(name, unknowns, box.names)
            if split is None:
                raise ValueError(f"{name!r} is no unknown or derivative of one.")
            wanted[name] = unknowns.index(split[0]), tuple(sorted(map(box.axis, split[1])))
        found: dict[tuple[int, ...], Array] = {}
        read: dict[str, Array] = {}
        if laplacians:
            expansion = laplacian(self, point, box.space)
            # The value comes with it, and so do the slopes.
            found = {(axis,): expansion.jacobian[i] for i, axis in enumerate(box.space)}
            found[()] = expansion.value
            read = {n: expansion.laplacian[unknowns.index(u)] for n, u in laplacians.items()}
        found |= derivatives(self, point, {axes for _, axes in wanted.values()} - set(found))
        read |= {name: found[axes][i] for name, (i, axes) in wanted.items()}
        return read

    def residuals(self, point: Float[Array, " d"]) -> dict[str, Array]:
        """Of the equations at a point, by name.

        All are made from one evaluation of the derivatives that any of them reads, so that the
        gradient of their sum is one reverse pass.
        """
        problem = self.problem
        reads = sorted({name for each in problem.equations for name in problem.reads(each)})
        values = problem.at(point, self.read(point, tuple(reads)))
        return {name: equation(values) for name, equation in problem.equations.items()}


@eqx.filter_jit
def _evaluate(field: Field, points: Float[Array, "n d"]) -> Float[Array, "n k"]:
    # In blocks, so that memory stays bounded on fine grids.
    return jax.lax.map(field, points, batch_size=16_384)


Points = dict[str, dict[str, Array]]
PRIOR = "prior"
_DENSE = 5000


class PINN(eqx.Module):
    """The least-squares problem that training a network on a problem is.

    `params` is the trainable part of the network (and, where parameters are inferred, a dictionary
    of it and of the raw numbers that they are made from), `residuals` a [`sciopt.Residuals`][]
    whose blocks are the equations and the soft conditions, `sample(key, params)` draws their
    points. `field(params)` is the solution.

    **Arguments:**

    - `problem`, `network`, `features`: see [`pde.Field`][]. In place of a network may stand a
        field that has one, such as a [`pde.Lagrangian`][]; its residuals are then those of the
        equations.
    - `points`: collocation points for each equation.
    - `sampler`: a [`pde.AbstractSampler`][].
    - `adapt`: a [`pde.RAD`][] to choose points by residual, or `None`.
    - `causal`: a [`pde.Causal`][] to weigh points by the residuals before them in time, or `None`.
    - `left`: equation to a linear map of its residuals at all points, such as a
        [`pde.preconditioning.InverseLaplacian`][]: what is trained is the map's output.

    ```python
    >>> import jax, pde
    >>> problem = pde.Problem(
    ...     pde.Box(x=(0, 1)), ["u"], {"load": lambda v: v.u_xx + 1},
    ...     {"ends": pde.Dirichlet({"x": (0, 1)}, {"u": 0.0}, points=2)},
    ... )
    >>> pinn = pde.PINN(problem, pde.MLP(1, 1, width=8, depth=1, key=jax.random.key(0)), points=16)
    >>> residuals = pinn.residuals(pinn.params, pinn.sample(jax.random.key(1), pinn.params))
    >>> {name: r.shape for name, r in residuals.items()}
    {'load': (16,), 'ends': (2, 1)}

    ```
    """

    problem: Problem
    params: PyTree
    static: Field
    residuals: Residuals
    points: int = eqx.field(static=True)
    sampler: AbstractSampler
    adapt: RAD | None
    causal: Causal | None

    def __init__(
        self,
        problem: Problem,
        network: Callable[[Array], Array] | Field,
        *,
        points: int,
        sampler: AbstractSampler | None = None,
        adapt: RAD | None = None,
        causal: Causal | None = None,
        features: Features | None = None,
        left: Mapping[str, Callable[[Array], Array]] | None = None,
    ):
        if points < 1:
            raise ValueError(f"An equation needs at least one point, got points={points}.")
        field = network if isinstance(network, Field) else Field(problem, network, features)
        _refuse_kinks(field)
        self.problem = problem
        self.params, rest = partition(field.network)
        if problem.inferred:
            dtype = jnp.result_type(*jax.tree.leaves(self.params))
            raw = {name: jnp.zeros((), dtype) for name in problem.inferred}
            self.params = {"network": self.params, "raw": raw}
        self.static = eqx.tree_at(lambda f: f.network, field, rest)
        self.points = points
        self.sampler = Sobol() if sampler is None else sampler
        self.adapt = adapt
        self.causal = causal
        blocks: dict[str, Callable[[PyTree, dict[str, Array]], Any]] = {
            EQUATIONS: EquationsBlock(self.static)
        }
        weights = dict(problem.weights)
        for name, condition in problem.conditions.items():
            if not condition.hard:
                blocks[name] = ConditionBlock(self.static, condition)
                weights[name] = condition.weight
        if any(p.prior for p in problem.inferred.values()):
            blocks[PRIOR] = PriorBlock(problem)
            weights[PRIOR] = self._prior_weight()
        self.residuals = Residuals(blocks, weights, left=left)

    def field(self, params: PyTree) -> Field:
        """The solution that parameters stand for."""
        return self.static.with_params(params)

    def _prior_weight(self) -> float:
        """As much as a measurement that is off by one standard deviation adds to the loss."""
        problem = self.problem
        if PRIOR in {*problem.conditions, *problem.equations}:
            raise ValueError(f"{PRIOR!r} is the block of the parameters' priors.")
        for condition in problem.conditions.values():
            if isinstance(condition, Data) and condition.noise is not None:
                return condition.weight * condition.noise**2 / len(condition.at)
        raise ValueError("A prior weighs as much as the noise of data says: give it.")

    def inferred(self, params: PyTree) -> dict[str, Array]:
        """The inferred parameters, by name."""
        found = self.problem.inferred
        return {name: p.value(params["raw"][name]) for name, p in found.items()}

    def noise(self, params: PyTree, points: Points) -> dict[str, float]:
        """The standard deviation of the noise of each data; where it is not given, what is left of
        them."""
        data = {n: c for n, c in self.problem.conditions.items() if isinstance(c, Data)}
        if all(c.noise is not None for c in data.values()):
            return {name: c.noise for name, c in data.items() if c.noise is not None}
        left = self.residuals.rms(params, points)
        return {n: float(left[n]) if c.noise is None else c.noise for n, c in data.items()}

    def deviations(self, params: PyTree, points: Points) -> dict[str, float | None]:
        r"""Standard deviations of the inferred parameters at the end of training, by Laplace's
        approximation; `None` where the residuals do not determine them, or the network has more
        parameters than a dense factorisation is for.

        All that the loss adds up counts as measured: with weights $w$ and noise $\sigma$ of the
        first data, an equation is believed to $\sigma$ times the root of the ratio of its weight a
        point to that of the data. Where the noise is not given it is what is left of the data.
        """
        found = self.problem.inferred
        data = {n: c for n, c in self.problem.conditions.items() if isinstance(c, Data)}
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        if not found or not data or size > _DENSE:
            return dict.fromkeys(found)
        name, first = next(iter(data.items()))
        unit = first.weight * self.noise(params, points)[name] ** 2 / len(first.at)
        jacobian = eqx.filter_jit(self.residuals.jacobian)(params, points)[1]
        columns = raw_columns(params, found)
        covariance = laplace(np.asarray(jacobian, float), columns, unit)
        if covariance is None:
            return dict.fromkeys(found)
        slopes = [float(jax.grad(p.value)(params["raw"][n])) for n, p in found.items()]
        spread = np.abs(slopes) * np.sqrt(np.diag(covariance))
        return dict(zip(found, map(float, spread), strict=True))

    def sample(self, key: Key[Array, ""], params: PyTree) -> Points:
        """Points for every block: `x` of shape `(n, d)`, and beside it the quadrature `weight`
        of interior points or the outward `normal` of boundary points."""
        interior_key, adapt_key, boundary_key = jax.random.split(key, 3)
        if self.adapt is None:
            interior = self._interior(interior_key, self.points)
        else:
            interior = self._adaptive(self.adapt, interior_key, adapt_key, params)
        if self.causal is not None:
            box, axis = self.problem.domain, self.problem.domain.axis("t")
            times = (interior["x"][:, axis] - box.lower[axis]) / (box.upper[axis] - box.lower[axis])
            squares = self._squares(params, interior | {"weight": jnp.ones_like(times)})
            weight = interior["weight"] * self.causal(times, squares)
            interior = interior | {"weight": weight}
        points = {EQUATIONS: interior}
        for name, condition in self.problem.conditions.items():
            if isinstance(condition, Data):
                values = jnp.stack([jnp.asarray(v) for v in condition.values.values()], axis=-1)
                points[name] = {"x": jnp.asarray(condition.at), "values": values}
            elif not condition.hard:
                boundary_key, draw = jax.random.split(boundary_key)
                points[name] = self._boundary(draw, condition)
        if PRIOR in self.residuals.blocks:
            count = sum(p.prior is not None for p in self.problem.inferred.values())
            points[PRIOR] = {"shift": jnp.zeros((1, count))}
        return points

    def _interior(self, key, count):
        x = self.problem.domain.draw(self.sampler, key, count)
        return {"x": x, "weight": jnp.ones(x.shape[0], x.dtype)}

    def _adaptive(self, adapt: RAD, interior_key, adapt_key, params):
        candidates = self._interior(interior_key, max(adapt.candidates, self.points + 1))
        size = jnp.sqrt(self._squares(params, candidates))
        unit = self.problem.domain.to_unit(candidates["x"])
        index, weight = adapt.choose(adapt_key, unit, size, self.points)
        return {"x": candidates["x"][index], "weight": weight}

    def _squares(self, params: PyTree, points: dict[str, Array]) -> Float[Array, " n"]:
        """What each point adds to the loss of the equations, but for the number of points."""
        equations = cast(EquationsBlock, self.residuals.blocks[EQUATIONS])
        found = jax.vmap(equations, (None, 0))(params, points)
        return sum(
            (self.residuals.weights.get(name, 1.0) * r**2 for name, r in found.items()),
            start=jnp.zeros(()),
        )

    def _boundary(self, key, condition: Condition):
        box = self.problem.domain
        if isinstance(condition, Dirichlet):
            faces = condition.at
        elif isinstance(condition, Periodic):
            faces = ((condition.over, box.lower[box.axis(condition.over)]),)
        else:
            faces = (("t", box.lower[box.axis("t")]),)
        x, normal = box.draw_on(faces, self.sampler, key, condition.points)
        return {"x": x, "normal": normal}


def _refuse_kinks(field: Field) -> None:
    """Raise where a hard periodic condition is broken by the data of other hard conditions, or by
    a further feature.

    The ansatz adds the data to a periodic network. Data with a kink where the period closes would
    put that kink into the solution at all times.
    """
    problem = field.problem
    box = problem.domain
    lifts = {
        f"hard conditions on {unknown}": ansatz.lift
        for unknown, ansatz in zip(problem.unknowns, field.ansatz, strict=False)
    }
    features = {
        f"feature {name!r}": lambda p, given=given: given(problem.at(p))
        for name, given in field.features.more.items()
    }
    probes = box.from_unit(jax.random.uniform(jax.random.key(0), (16, box.ndim)))
    for name, condition in problem.conditions.items():
        if not (isinstance(condition, Periodic) and condition.hard):
            continue
        axis = box.axis(condition.over)
        lower, upper = (probes.at[:, axis].set(end[axis]) for end in (box.lower, box.upper))
        for whose, function in (lifts | features).items():

            def ends(point, function=function, axis=axis):
                return jnp.stack(taylor(function, point, axis, 1))

            here, there = jax.vmap(ends)(lower), jax.vmap(ends)(upper)
            slack = 1e3 * float(jnp.finfo(here.dtype).eps) * (1 + float(jnp.max(jnp.abs(here))))
            for what, jump in zip(
                ("value", "slope"), jnp.max(jnp.abs(here - there), 0), strict=True
            ):
                if not jump <= slack:
                    raise ValueError(
                        f"Not periodic over {condition.over}: the {whose}, whose {what} jumps by "
                        f"{float(jump):.2g} where the period closes, so {name!r} cannot hold. Make "
                        "conditions with a jump soft, and features periodic."
                    )


class EquationsBlock(eqx.Module):
    """The residuals of the equations at a point, by name, times the root of the point's weight."""

    static: Field

    def __call__(self, params: PyTree, point: dict[str, Array]) -> dict[str, Array]:
        found = self.static.with_params(params).residuals(point["x"])
        root = jnp.sqrt(point["weight"])
        return {name: root * residual for name, residual in found.items()}


class PriorBlock(eqx.Module):
    """How many deviations inferred parameters are away from the means of their priors; or, with
    a `shift`, from points that are so many deviations beyond them."""

    problem: Problem

    def __call__(self, params: PyTree, point: dict[str, Array]) -> Float[Array, " k"]:
        away = []
        for name, inferred in self.problem.inferred.items():
            if inferred.prior is not None:
                mean, deviation = inferred.prior
                away.append((inferred.value(params["raw"][name]) - mean) / deviation)
        return jnp.stack(away) - point["shift"]


class ConditionBlock(eqx.Module):
    """The mismatch of a soft condition at one point of the boundary, for all that it states."""

    static: Field
    condition: Condition

    def __call__(self, params: PyTree, point: dict[str, Array]) -> Float[Array, " k"]:
        field, condition = self.static.with_params(params), self.condition
        problem = field.problem
        x = point["x"]
        given = problem.at(x)
        mismatches = []

        def compare(values: Mapping[str, Expression], have: Array):
            for name, wanted in values.items():
                mismatches.append(have[problem.unknowns.index(name)] - wanted(given))

        if isinstance(condition, Data):
            have = field(x)
            measured = zip(condition.values, point["values"], strict=True)
            mismatches = [have[problem.unknowns.index(name)] - value for name, value in measured]
        elif isinstance(condition, Robin):
            value, slope = jax.jvp(field, (x,), (point["normal"],))
            compare(condition.values, slope + condition.coefficient(given) * value)
        elif isinstance(condition, Neumann):
            compare(condition.values, jax.jvp(field, (x,), (point["normal"],))[1])
        elif isinstance(condition, Dirichlet):
            compare(condition.values, field(x))
        elif isinstance(condition, Initial):
            compare(condition.values, field(x))
            if condition.rates:
                time = problem.domain.axis("t")
                compare(condition.rates, taylor(field, x, time, 1)[1])
        elif isinstance(condition, Periodic):
            axis, order = problem.domain.axis(condition.over), condition.derivatives
            across = x.at[axis].set(problem.domain.upper[axis])
            for here, there in zip(
                taylor(field, x, axis, order), taylor(field, across, axis, order), strict=True
            ):
                mismatches.extend(here - there)
        return jnp.stack(mismatches)
