r"""Fields that move with the flow: physics-informed networks in Lagrangian coordinates.

Mojgani, Balajewicz and Hassanzadeh, *Kolmogorov n-width and Lagrangian physics-informed neural
networks: a causality-conforming manifold for convection-dominated PDEs* (CMAME 2023,
arXiv:2205.02902), of which the abstract was read. A particle is labelled by where it starts, $\xi$.
One branch gives its place $x(\xi, t)$, the other the state $w(\xi, t) = u(x(\xi, t), t)$ that it
carries. For
$u_t + a \cdot \nabla u = s$ they satisfy

$$x_t = a, \qquad x(\xi, 0) = \xi, \qquad w_t = s,$$

in which what travels far, and needs many modes to be seen from a fixed place, hardly changes.
Derivatives by $x$ in $s$ are taken through $\partial x / \partial \xi$.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ._names import split_derivative
from ._network import MLP, Activation
from ._pinn import Features, Field
from ._problem import Expression, Initial, Periodic, Problem, Values

# Newton's method for the label of a place: iterations, and halvings of a step that does not help.
ITERATIONS, HALVINGS = 20, 6


class TwoBranch(eqx.Module):
    """The paper's parallel branches: the state along characteristics, and the characteristics.

    **Arguments:** `state`, to the unknowns, and `characteristics`, to the displacements, each a
    network of the same features. [`pde.TwoBranch.mlp`][] makes both.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> net = pde.TwoBranch.mlp(3, 1, 1, width=16, depth=2, key=jax.random.key(0))
    >>> net(jnp.zeros(3)).shape
    (2,)

    ```
    """

    state: Callable
    characteristics: Callable

    @classmethod
    def mlp(
        cls,
        in_size: int,
        unknowns: int,
        directions: int,
        *,
        width: int,
        depth: int,
        activation: Activation = jnp.tanh,
        key: Key[Array, ""],
    ) -> "TwoBranch":
        """Two [`pde.MLP`][]s of one size."""
        keys = jax.random.split(key)
        return cls(
            *(
                MLP(in_size, out, width=width, depth=depth, activation=activation, key=k)
                for out, k in zip((unknowns, directions), keys, strict=True)
            )
        )

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " k"]:
        return jnp.concatenate([self.state(x), self.characteristics(x)])


class Lagrangian(Field):
    """A problem's unknowns, by a network that follows the flow.

    **Arguments:**

    - `problem`: whose equations are of the first order in time, on a box with `t`, with a hard
        initial condition on every unknown and a hard period over each coordinate that moves.
    - `network`: from the features of a label to the unknowns and then one displacement for each
        coordinate in `velocity`: a [`pde.TwoBranch`][].
    - `velocity`: coordinate to its rate, an expression of coordinates, parameters and unknowns.
    - `features`: `Features(problem)` if not given.

    Calling it with a point gives the unknowns there, for which Newton's method finds the label
    whose particle has come to the point. Where characteristics have crossed there are several, and
    what it gives is not the solution.

    **Raises:** `ValueError` for a problem that does not fit.

    ```python
    >>> import jax, jax.numpy as jnp, pde
    >>> problem = pde.Problem(
    ...     pde.Box(x=(0, 1), t=(0, 1)), ["u"], {"transport": lambda v: v.u_t + 50 * v.u_x},
    ...     {"start": pde.Initial({"u": lambda v: jnp.sin(2 * jnp.pi * v.x)}, hard=True),
    ...      "wrap": pde.Periodic("x", hard=True)},
    ... )
    >>> branches = pde.TwoBranch.mlp(3, 1, 1, width=8, depth=1, key=jax.random.key(0))
    >>> u = pde.Lagrangian(problem, branches, {"x": lambda v: 50.0})
    >>> round(float(u(jnp.array([0.25, 0.0]))[0]), 12)
    1.0
    >>> sorted(u.residuals(jnp.array([0.3, 0.5])))
    ['characteristic x', 'transport']

    ```
    """

    velocity: dict[str, Expression]

    def __init__(
        self,
        problem: Problem,
        network: Callable[[Array], Array],
        velocity: Mapping[str, Callable[[Any], Any]],
        features: Features | None = None,
    ):
        _check(problem, velocity)
        self.problem = problem
        self.velocity = dict(velocity)
        labels = Field(_of_labels(problem, velocity), network, features or Features(problem))
        self.network, self.features, self.ansatz = network, labels.features, labels.ansatz

    @property
    def axes(self) -> tuple[int, ...]:
        """The components of a point that move."""
        return tuple(map(self.problem.domain.axis, self.velocity))

    def carried(self, label: Float[Array, " d"]) -> tuple[Float[Array, " k"], Float[Array, " d"]]:
        """What the particle with a label carries, and where it is: its unknowns, its point."""
        box, axes = self.problem.domain, np.asarray(self.axes)
        lower, upper = (np.asarray(side)[axes] for side in (box.lower, box.upper))
        # Data are given on the box, and a label may be that of a particle from a box beside it.
        turns = jnp.floor((label[axes] - lower) / (upper - lower)) * (upper - lower)
        out = super().__call__(label.at[axes].add(-jax.lax.stop_gradient(turns)))
        count = len(self.problem.unknowns)
        return out[:count], label.at[axes].add(out[count:])

    def position(self, label: Float[Array, " d"]) -> Float[Array, " d"]:
        """The point at which the particle with a label is."""
        return self.carried(label)[1]

    def label(self, point: Float[Array, " d"]) -> Float[Array, " d"]:
        """The label of the particle that is at a point, by Newton's method with backtracking."""
        axes = np.asarray(self.axes)

        def miss(label):
            return (self.position(label) - point)[axes]

        def step(label, _):
            here = miss(label)
            slope = jax.jacfwd(miss)(label)[:, axes]
            move = jnp.linalg.solve(slope, here)
            shares = 0.5 ** jnp.arange(HALVINGS, dtype=point.dtype)
            tried = jax.vmap(lambda share: label.at[axes].add(-share * move))(shares)
            sizes = jnp.linalg.norm(jax.vmap(miss)(tried), axis=1)
            return tried[jnp.nanargmin(sizes)], None

        # Its displacement, were that of its own label.
        first = point.at[axes].add(-miss(point))
        return jax.lax.scan(step, first, length=ITERATIONS)[0]

    def __call__(self, point: Float[Array, " d"]) -> Float[Array, " k"]:
        return self.carried(self.label(point))[0]

    def residuals(self, point: Float[Array, " d"]) -> dict[str, Array]:
        """Of the equations and of the characteristics, at the label `point`."""
        problem = self.problem
        values = self._values(point)
        found = {name: equation(values) for name, equation in problem.equations.items()}
        along = jnp.zeros_like(point).at[problem.domain.axis("t")].set(1)
        rate = jax.jvp(self.position, (point,), (along,))[1]
        for name, velocity in self.velocity.items():
            found[f"characteristic {name}"] = rate[problem.domain.axis(name)] - velocity(values)
        return found

    def _values(self, label: Float[Array, " d"]) -> Values:
        """What equations read at the particle with a label: its place, and Eulerian derivatives."""
        problem = self.problem
        reads = {name for each in problem.equations for name in problem.reads(each)}
        reads |= set(problem.unknowns)
        fields = {}
        for name in reads:
            split = split_derivative(name, problem.unknowns, problem.domain.names)
            if split is None:
                raise ValueError(f"{name!r} cannot be read along characteristics.")
            index = problem.unknowns.index(split[0])
            function = lambda p, index=index: self.carried(p)[0][index]  # noqa: E731
            # By place first: a rate in time is that of a fixed place.
            for coordinate in sorted(split[1], key=lambda c: c == "t"):
                function = self._by(coordinate, function)
            fields[name] = function(label)
        return problem.at(self.position(label), fields)

    def _by(self, coordinate: str, function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        """The derivative by a coordinate at a fixed place and time, of a function of labels."""
        box, axes = self.problem.domain, np.asarray(self.axes)

        def derivative(label):
            along = jnp.zeros_like(label).at[box.axis(coordinate)].set(1)
            if coordinate == "t":
                # The particle's own rate, less what it sees because it moves.
                carried, place = self.carried(label)
                values = self.problem.at(
                    place, dict(zip(self.problem.unknowns, carried, strict=True))
                )
                speeds = [jnp.asarray(a(values), label.dtype) for a in self.velocity.values()]
                passing = sum(
                    (a * self._by(name, function)(label)
                     for name, a in zip(self.velocity, speeds, strict=True)),
                    start=jnp.zeros((), label.dtype),
                )  # fmt: skip
                return jax.jvp(function, (label,), (along,))[1] - passing
            stretch = jax.jacfwd(self.position)(label)[np.ix_(axes, axes)]
            moved = along[axes] if coordinate in self.velocity else jnp.zeros(axes.size)
            direction = along.at[axes].set(jnp.linalg.solve(stretch, moved.astype(label.dtype)))
            return jax.jvp(function, (label,), (direction,))[1]

        return derivative


def _of_labels(problem: Problem, velocity: Mapping[str, Any]) -> Problem:
    """The same conditions on what particles carry, and on their displacements, which start at 0."""
    moves = [f"displacement of {name}" for name in velocity]
    still = Initial(dict.fromkeys(moves, 0.0), hard=True)
    conditions = problem.conditions | {"displacements": still}
    nothing = {"nothing": lambda v: v[problem.unknowns[0]]}
    return Problem(
        problem.domain, (*problem.unknowns, *moves), nothing, conditions, problem.parameters
    )


def _check(problem: Problem, velocity: Mapping[str, Any]) -> None:
    box = problem.domain
    if not velocity or "t" in velocity or set(velocity) - set(box.names) or "t" not in box.names:
        raise ValueError(
            "A velocity is for some of the coordinates that are not t, in a box that has t: "
            f"it names {', '.join(velocity) or 'none'}, and the box has {', '.join(box.names)}."
        )
    over, started = set(), set()
    for name, condition in problem.conditions.items():
        if not condition.hard or not isinstance(condition, Initial | Periodic):
            raise ValueError(
                f"Condition {name!r} must be a hard initial or periodic one: particles leave "
                "through every other boundary."
            )
        if isinstance(condition, Periodic):
            over.add(condition.over)
        else:
            started |= set(condition.values)
    if missing := sorted(set(velocity) - over):
        raise ValueError(f"Nothing is periodic over {', '.join(missing)}, where particles move.")
    if missing := sorted(set(problem.unknowns) - started):
        raise ValueError(f"No initial condition is on {', '.join(missing)}, which is carried.")
