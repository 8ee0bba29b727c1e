r"""Meta-solvers: networks that set a solver from what is known of an instance, and their training.

Arisaka and Li, Principled Acceleration of Iterative Numerical Methods Using Machine Learning (2023,
arXiv:2206.08594), algorithm 1: a meta-solver $\Psi$ takes an instance $\tau$ to parameters
$\theta = \Psi(\tau; \omega)$ of a solver, and is trained on what the solver then does.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax
from jaxtyping import Array, Float, PyTree, Scalar

from ._iteration import AbstractIteration
from ._learned import relative_residuals


class Instance(eqx.Module):
    """A linear system, and what a meta-solver is told of it.

    - `features`: what the networks take, such as coefficients or the right-hand side.
    - `operator`, `vector`: $A$ and $b$.
    """

    features: PyTree[Array]
    operator: lx.AbstractLinearOperator
    vector: PyTree[Array]


class MetaSolver(eqx.Module):
    r"""A solver whose parameters, and where it starts, are functions of an instance's features.

    **Arguments:**

    - `solver`: an iteration of ours.
    - `network`: from features to as many numbers as there are parameters, such as an
        `equinox.nn.MLP`; None leaves the solver's own.
    - `ranges`: lower and upper end of each parameter, between which a sigmoid takes the number.
        Raises `ValueError` where one is empty.
    - `parameters`: where they are, a function from the solver to a leaf or a tuple of leaves:
        $\omega$ unless given; `lambda s: (s.lower, s.upper)` of a Chebyshev iteration,
        `lambda s: s.smoother.omega` of a multigrid.
    - `guess`: from features to the starting point, zero where it is None.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, lineax as lx
        >>> from sciopt import relax
        >>> network = lambda features: 0.2 - features  # or an equinox.nn.MLP
        >>> meta = relax.MetaSolver(relax.Jacobi(), network, ranges=((0.5, 1.0),))
        >>> matrix = lx.MatrixLinearOperator(jnp.array([[4.0, 1.0], [1.0, 3.0]]))
        >>> instance = relax.Instance(jnp.array([0.2]), matrix, jnp.array([5.0, 4.0]))
        >>> float(meta(instance.features).omega)
        0.75
        >>> meta.solve(instance).value.round(6).tolist()
        [1.0, 1.0]

        ```
    """

    solver: AbstractIteration
    network: Callable[[Any], Float[Array, " parameters"]] | None = None
    ranges: tuple[tuple[float, float], ...] = eqx.field(static=True, default=((0.0, 2.0),))
    parameters: Callable[[Any], Any] = lambda solver: solver.omega
    guess: Callable[[Any], PyTree[Array]] | None = None

    def __check_init__(self):
        for lower, upper in self.ranges:
            if not lower < upper:
                raise ValueError(f"The range [{lower}, {upper}] of a parameter is empty.")

    def __call__(self, features: PyTree[Array]) -> AbstractIteration:
        """The solver for an instance. Raises `ValueError` for a number without a range."""
        if self.network is None:
            return self.solver
        numbers = self.network(features)
        if numbers.shape != (len(self.ranges),):
            raise ValueError(
                f"The network gives numbers of shape {numbers.shape} for {len(self.ranges)} ranges."
            )
        values = tuple(
            lower + (upper - lower) * jax.nn.sigmoid(number)
            for number, (lower, upper) in zip(numbers, self.ranges, strict=True)
        )
        several = isinstance(self.parameters(self.solver), tuple)
        return eqx.tree_at(self.parameters, self.solver, values if several else values[0])

    def start(self, instance: Instance) -> PyTree[Array]:
        """Where the iteration starts."""
        if self.guess is None:
            return jax.tree.map(jnp.zeros_like, instance.vector)
        return self.guess(instance.features)

    def solve(self, instance: Instance, throw: bool = True) -> lx.Solution:
        """By `lineax.linear_solve`: the instance's solution, and how many steps it took."""
        options = {"y0": self.start(instance)}
        solver = self(instance.features)
        return lx.linear_solve(
            instance.operator, instance.vector, solver, options=options, throw=throw
        )

    def residuals(self, instance: Instance, steps: int) -> Float[Array, " steps+1"]:
        """[`sciopt.relax.relative_residuals`][], with derivatives in the networks' weights."""
        solver, y0 = self(instance.features), self.start(instance)
        return relative_residuals(solver, instance.operator, instance.vector, steps, y0)


def exact_gradient(
    fn: Callable[[PyTree], Scalar], params: PyTree, key: Array
) -> tuple[Scalar, PyTree]:
    """The value and the gradient, by differentiation; `key` is not needed."""
    del key
    return eqx.filter_value_and_grad(fn)(params)


class MetaTraining(eqx.Module):
    r"""Trains the networks of a meta-solver on fresh instances of a family.

    Each step draws `batch` instances and takes the mean of `loss` over them. Steps are a
    `jax.lax.scan`; runs one after the other are one run.

    **Arguments:**

    - `family`: a function from a key to an instance.
    - `loss`: of the relative residuals of one instance (`iterations`+1): a partial of
        [`sciopt.relax.surrogate_steps`][], the solver-dependent loss of the paper, or of
        [`sciopt.relax.fixed_steps_loss`][], that of classical meta-learning.
    - `optimizer`: an optax transform.
    - `iterations`: how many of an iteration's steps are differentiated through; memory grows with
        them. Where fewer than the solver needs, the loss does not see its end.
    - `batch`: instances a step.
    - `gradient`: the gradient's estimator; by default it is exact. With
        [`sciopt.relax.black_box_gradient`][] or a partial of it the loss needs no derivative, and
        may be [`sciopt.relax.steps_to_tolerance`][].

    !!! Example

        ```python
        >>> import functools, equinox as eqx, jax, jax.numpy as jnp, lineax as lx, optax
        >>> from sciopt import relax
        >>> def family(key):
        ...     shift = jax.random.uniform(key, minval=1, maxval=4)
        ...     matrix = lx.MatrixLinearOperator(jnp.array([[2 + shift, -1], [-1, 2 + shift]]))
        ...     return relax.Instance(shift[None], matrix, jnp.array([1.0, 2.0]))
        >>> network = eqx.nn.Linear(1, 1, key=jax.random.key(0))
        >>> meta = relax.MetaSolver(relax.Jacobi(rtol=1e-6), network)
        >>> loss = functools.partial(relax.surrogate_steps, tolerance=1e-6)
        >>> training = relax.MetaTraining(family, loss, optax.adam(0.1), iterations=20, batch=4)
        >>> state, losses = training.run(training.init(meta, jax.random.key(1)), steps=50)
        >>> bool(losses[-1] < losses[0])
        True

        ```
    """

    family: Callable[[Array], Instance]
    loss: Callable[[Float[Array, " iterations+1"]], Scalar]
    optimizer: optax.GradientTransformation
    iterations: int = eqx.field(static=True)
    batch: int = eqx.field(static=True, default=32)
    gradient: Callable[..., tuple[Scalar, PyTree]] = exact_gradient

    def init(self, meta: MetaSolver, key: Array) -> "MetaState":
        """Before the first step; `key` draws all instances."""
        state = self.optimizer.init(eqx.filter(meta, _weights(meta)))
        return MetaState(meta, state, key, jnp.array(0))

    @eqx.filter_jit
    def run(self, state: "MetaState", steps: int) -> tuple["MetaState", Float[Array, " steps"]]:
        """So many steps, and the loss of each."""
        weights, rest = eqx.partition(state.meta, _weights(state.meta))

        def step(carry, _):
            weights, opt_state, count = carry
            drawing, estimating = jax.random.split(jax.random.fold_in(state.key, count))
            instances = eqx.filter_vmap(self.family)(jax.random.split(drawing, self.batch))

            def mean_loss(weights):
                meta = eqx.combine(weights, rest)

                def one(instance):
                    return self.loss(meta.residuals(instance, self.iterations))

                return jnp.mean(eqx.filter_vmap(one)(instances))

            value, gradient = self.gradient(mean_loss, weights, key=estimating)
            updates, opt_state = self.optimizer.update(gradient, opt_state, weights)
            return (eqx.apply_updates(weights, updates), opt_state, count + 1), value

        start = (weights, state.optimizer, state.step)
        (weights, opt_state, count), losses = jax.lax.scan(step, start, length=steps)
        return MetaState(eqx.combine(weights, rest), opt_state, state.key, count), losses


class MetaState(eqx.Module):
    """Where a training is.

    - `meta`: the meta-solver as it is now.
    - `optimizer`, `key`, `step`: for the next step.
    """

    meta: MetaSolver
    optimizer: PyTree[Any]
    key: Array
    step: Array


def _weights(meta: MetaSolver) -> MetaSolver:
    """Which leaves are trained: the networks' arrays, and not the solver's."""
    none = jax.tree.map(lambda _: False, meta)
    trained = lambda meta: (meta.network, meta.guess)  # noqa: E731
    which = jax.tree.map(eqx.is_inexact_array, trained(meta))
    return eqx.tree_at(trained, none, which, is_leaf=lambda x: x is None)
