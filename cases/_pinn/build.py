"""From a case to the objects that it names: each YAML key is an argument of one constructor."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
from jaxtyping import Array, Key

import pde
import sciopt
from sciopt import aggregate, damped
from sciopt.aggregate import AbstractAggregator

from .._expression import Expression
from . import data, inference, schema, shapes

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "sin": jnp.sin,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
}

SAMPLERS: dict[str, type[pde.AbstractSampler]] = {
    "sobol": pde.Sobol,
    "uniform": pde.Uniform,
    "grid": pde.Grid,
}

DAMPED_SOLVERS: dict[str, type[damped.AbstractDampedSolver]] = {
    "cholesky": damped.Cholesky,
    "qr": damped.QR,
    "svd": damped.SVD,
    "auto": damped.Auto,
}

AGGREGATORS: dict[str, Callable[[], AbstractAggregator]] = {
    "aligned_mtl": aggregate.AlignedMTL,
    "config": aggregate.ConFIG,
    "dcgd": aggregate.DCGD,
    "dualproj": aggregate.DualProj,
    "excess_mtl": aggregate.ExcessMTL,
    "graddrop": aggregate.GradDrop,
    "gradvac": aggregate.GradVac,
    "imtl_g": aggregate.IMTLG,
    "mean": aggregate.Mean,
    "mgda": aggregate.MGDA,
    "nash_mtl": aggregate.NashMTL,
    "pcgrad": aggregate.PCGrad,
    "random": aggregate.Random,
    "sum": aggregate.Sum,
    "upgrad": aggregate.UPGrad,
}

Reference = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def expression(text: Expression) -> Callable[[Mapping[str, Array]], Array]:
    """An expression as `pde` wants it: a function of named values, in JAX."""
    return lambda values: jnp.asarray(text(values, jnp))


def domain(case: schema.Case) -> pde.Box:
    """The domain of a case. Of a shape nothing is computed with JAX."""
    intervals: dict[str, Any] = {
        name: [given.interval] * given.dimensions
        if isinstance(given, schema.VectorInterval)
        else given
        for name, given in case.domain.items()
    }
    intervals |= {name: pde.Range(*ends) for name, ends in case.family.items()}
    if case.shape is None:
        return pde.Box(**intervals)
    return pde.Region(shape(case.shape), **intervals)


def shape(spec: Any) -> pde.AbstractShape:
    """The shape that an entry of `shape` describes."""
    match spec:
        case shapes.Box():
            made = pde.Box(**spec.sides)
        case shapes.Ball():
            made = pde.Ball(radius=spec.radius, **spec.centre)
        case shapes.Polygon():
            made = pde.Polygon(spec.vertices, spec.coordinates, spec.edges)
        case shapes.Combination():
            kinds = {
                "union": pde.Union,
                "intersection": pde.Intersection,
                "difference": pde.Difference,
            }
            made = kinds[spec.type]([shape(part) for part in spec.parts])
        case _:
            raise TypeError(f"No shape is made from a {type(spec).__name__}.")
    return made if spec.name is None else made.called(spec.name)


def problem(case: schema.Case) -> pde.Problem:
    """The boundary-value problem that a case poses."""
    return pde.Problem(
        domain=domain(case),
        unknowns=case.unknowns,
        equations={name: expression(text) for name, text in case.equations.items()},
        conditions={name: condition(c) for name, c in case.conditions.items()} | measured(case),
        parameters={n: parameter(p) for n, p in case.parameters.items() if n not in case.family},
        weights=case.weights,
    )


def parameter(spec: Any) -> float | pde.Inferred:
    """A number, or what is inferred in its place."""
    if not isinstance(spec, inference.Inferred):
        return spec
    prior = None if spec.prior is None else spec.prior.normal
    return pde.Inferred(spec.initial, *spec.interval, prior=prior)


def measured(case: schema.Case) -> dict[str, pde.Condition]:
    """The data of a case, read or generated."""
    found: dict[str, pde.Condition] = {}
    for name, spec in case.data.items():
        names = list(case.coordinates)
        if spec.generate is None:
            assert spec.file is not None
            columns = data.read(spec.file, [*names, *spec.observe])
            points = np.stack([columns[n] for n in names], axis=-1)
        else:
            rng = np.random.default_rng(spec.generate.seed)
            points = _inside(case, spec.generate.points, rng)
            columns = data.generate(
                points, names, spec.observe, reference(case), spec.noise or 0.0, rng
            )
        values = {unknown: columns[unknown] for unknown in spec.observe}
        found[name] = pde.Data(points, values, noise=spec.noise or None, weight=spec.weight)
    return found


def _inside(case: schema.Case, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random points of the domain."""
    lower, upper = np.asarray(list(case.coordinates.values()), float).T
    where, found = domain(case), np.zeros((0, len(lower)))
    while len(found) < count:
        drawn = lower + (upper - lower) * rng.uniform(size=(count, len(lower)))
        found = np.concatenate([found, drawn[np.asarray(where.covers(drawn))]])
    return found[:count]


def condition(c: Any) -> pde.Condition:
    """The condition that one entry of `conditions` states."""
    shared: dict[str, Any] = {"hard": c.hard, "weight": c.weight, "points": c.points}

    def expressions(values):
        return {name: expression(text) for name, text in values.items()}

    match c:
        case schema.DirichletCondition():
            return pde.Dirichlet(c.at, expressions(c.values), **shared)
        case schema.NeumannCondition():
            return pde.Neumann(c.at, expressions(c.values), **shared)
        case schema.RobinCondition():
            coefficient = expression(c.coefficient)
            return pde.Robin(c.at, expressions(c.values), coefficient=coefficient, **shared)
        case schema.InitialCondition():
            return pde.Initial(expressions(c.values), expressions(c.rates), **shared)
        case schema.PeriodicCondition():
            return pde.Periodic(c.over, harmonics=c.harmonics, derivatives=c.derivatives, **shared)
    raise TypeError(f"No condition is made from a {type(c).__name__}.")


def network(case: schema.Case, features: pde.Features, key: Key[Array, ""]) -> Any:
    """The network of a case, before training."""
    spec = case.network
    if isinstance(spec, schema.Lagrangian):
        return pde.TwoBranch.mlp(
            features.size, len(case.unknowns), len(spec.velocity), width=spec.width,
            depth=spec.depth, activation=ACTIVATIONS[spec.activation], key=key,
        )  # fmt: skip
    body_key, embedding_key = jax.random.split(key)
    sizes = features.size, len(case.unknowns)
    if isinstance(spec, schema.FourierSeries):
        return pde.FourierSeries(*sizes, modes=spec.orders(case.coordinates))
    shared: dict[str, Any] = {"width": spec.width, "depth": spec.depth, "key": body_key}
    if isinstance(spec, schema.FilterNet):
        scale = spec.scale
        if isinstance(scale, dict):
            scale = [scale.get(name, 1.0) for name in features.names]
        return pde.FilterNet(*sizes, scale=scale, **shared)
    embedding = None
    if spec.embedding is not None:
        embedding = pde.FourierEmbedding(
            features.size, spec.embedding.features, scale=spec.embedding.scale, key=embedding_key
        )
    kind = {"mlp": pde.MLP, "pirate": pde.PirateNet}[spec.type]
    activation = ACTIVATIONS[spec.activation]
    return kind(*sizes, activation=activation, embedding=embedding, **shared)


def pinn(case: schema.Case, key: Key[Array, ""], posed: pde.Problem | None = None) -> pde.PINN:
    """Problem, network and points of a case, put together; of another problem, if given."""
    posed = problem(case) if posed is None else posed
    more = {name: expression(text) for name, text in case.network.features.items()}
    features = pde.Features(posed, more)
    adapt, causal = case.sampler.adapt, case.sampler.causal
    made = functools.partial(
        pde.PINN,
        posed,
        features=features,
        points=case.sampler.points,
        sampler=SAMPLERS[case.sampler.type](),
        adapt=None
        if adapt is None
        else pde.RAD(adapt.candidates, adapt.exponent, adapt.offset, unbiased=adapt.unbiased),
        causal=None if causal is None else pde.Causal(causal.tolerance, causal.chunks),
        left={
            name: pde.preconditioning.InverseLaplacian(
                posed.domain, case.sampler.points, spec.boundary, spec.power
            )
            for name, spec in case.left.items()
        },
    )
    untrained: Any = network(case, features, key)
    if isinstance(case.network, schema.Lagrangian):
        velocity = {name: expression(text) for name, text in case.network.velocity.items()}
        untrained = pde.Lagrangian(posed, untrained, velocity, features)
    if isinstance(case.network, schema.FourierSeries) and case.network.preconditioned:
        plain = made(untrained)
        points = plain.sample(key, plain.params)
        untrained = untrained.rescaled(pde.preconditioning.diagonal(plain, points))
    return made(untrained)


def optimizer(case: schema.Case) -> sciopt.Optimizer:
    """The optimizer of a case, or its stages."""
    *before, last = case.train.optimizers
    rest = max(case.train.steps - sum(case.train.ends[-1:]), 1)
    made = [_optimizer(case, o, o.steps or 1) for o in before] + [_optimizer(case, last, rest)]
    return sciopt.Stages(made, case.train.ends) if before else made[0]


def _optimizer(
    case: schema.Case, spec: schema.Optimizer, steps: int
) -> optax.GradientTransformation | optx.AbstractMinimiser | optx.AbstractLeastSquaresSolver:
    match spec:
        case schema.GaussNewton():
            return sciopt.GaussNewton(
                damping=spec.damping if spec.radius is None else sciopt.TrustRegion(spec.radius),
                acceleration=spec.acceleration,
                scaled=spec.scaled,
                linear_solver=DAMPED_SOLVERS[spec.linear_solver](),
            )
        case schema.EGN():
            return sciopt.EGN(damping=spec.damping, momentum=spec.momentum)
        case schema.ENGD():
            solver = damped.Cholesky()
            if spec.rank is not None:
                solver = damped.Nystrom(spec.rank, jax.random.key(case.seed))
            return sciopt.ENGD(damping=spec.damping, linear_solver=solver)
        case schema.SPRING():
            grid, cap = sciopt.ENGD().step_sizes, spec.norm_constraint
            return sciopt.SPRING(
                damping=spec.damping,
                momentum=spec.momentum,
                step_sizes=grid if spec.step_size is None else (spec.step_size,),
                norm_constraint=math.inf if cap is None else cap,
            )
        case schema.TNGD():
            return sciopt.TNGD(
                damping=spec.damping,
                temperature=spec.temperature,
                time=spec.time,
                key=jax.random.key(case.seed),
            )
        case schema.BFGS():
            return optx.BFGS(rtol=0.0, atol=0.0)
        case schema.SelfScaled():
            method = {"ssbfgs": sciopt.SSBFGS, "ssbroyden": sciopt.SSBroyden}[spec.type]
            return method(history_length=spec.history_length)
        case schema.Optax():
            method = first_order(spec, steps)
            if (chosen := aggregator(case)) is None:
                return method
            count = len(objectives(case))
            if isinstance(chosen, aggregate.MConFIG):
                return aggregate.alternating_descent(chosen, method, num_objectives=count)
            return aggregate.jacobian_descent(chosen, method, num_objectives=count, seed=case.seed)
    raise TypeError(f"No optimizer is made from a {type(spec).__name__}.")


def first_order(spec: schema.Optax, steps: int) -> optax.GradientTransformation:
    """An optimizer whose schedule ends after so many steps."""
    rate = spec.learning_rate
    match spec.schedule:
        case "cosine":
            rate = optax.cosine_decay_schedule(rate, steps)
        case "exponential":
            # Two decades over its steps.
            rate = optax.exponential_decay(rate, steps, 0.01)
    match spec.type:
        case "soap":
            return sciopt.soap(rate)
        case "fadam":
            # Decayed weights would bound the accuracy of a solution.
            return sciopt.fadam(rate, weight_decay=0.0)
        case _:
            return getattr(optax, spec.type)(rate)


def objectives(case: schema.Case) -> list[str]:
    """The residual blocks, in the order of the rows of their Jacobian."""
    soft = [name for name, condition in case.conditions.items() if not condition.hard]
    moving = case.network.velocity if isinstance(case.network, schema.Lagrangian) else ()
    characteristics = [f"characteristic {name}" for name in moving]
    return sorted([*case.equations, *soft, *case.data, *characteristics])


def aggregator(case: schema.Case) -> AbstractAggregator | None:
    """The aggregator of a case."""
    match spec := case.train.aggregator:
        case None:
            return None
        case schema.LRA():
            equations = [i for i, name in enumerate(objectives(case)) if name in case.equations]
            return aggregate.LRA(tuple(equations), spec.decay)
        case schema.MConFIG():
            return aggregate.MConFIG()
        case schema.Aggregator():
            return AGGREGATORS[spec.type]()
    raise TypeError(f"No aggregator is made from a {type(spec).__name__}.")


def reference(case: schema.Case) -> Reference | None:
    """The exact solution or reference of a case, or of each member of its family."""
    given = inference.values(case.parameters, truth=True)
    if case.family and not isinstance(case.reference, schema.ExactReference | schema.FileReference):
        return case.reference and pde.reference.Family(
            lambda values: cast(Reference, _reference(case, {**given, **values})),
            tuple(case.family),
        )
    return _reference(case, given)


def _reference(case: schema.Case, numbers: Mapping[str, float]) -> Reference | None:
    match spec := case.reference:
        case None:
            return None
        case schema.ExactReference():
            values = {
                name: lambda v, text=text: text({**numbers, **v}, np)
                for name, text in spec.values.items()
            }
            return pde.reference.Exact(values)
        case schema.ColeHopfReference():
            return pde.reference.ColeHopf(numbers["nu"])
        case schema.ETDRK4Reference():
            given = {"modes": spec.modes, "dt": spec.dt}
            given = {name: value for name, value in given.items() if value is not None}
            return pde.reference.AllenCahn(diffusion=numbers["d"], **given)
        case schema.KuramotoSivashinskyReference():
            return pde.reference.KuramotoSivashinsky(**cast(dict[str, Any], numbers))
        case schema.SchrodingerReference():
            return pde.reference.Schrodinger()
        case schema.FileReference():
            known = case.unknowns if spec.unknowns is None else spec.unknowns
            return pde.reference.FromFile(spec.path, known, holes=case.shape is not None)
    raise TypeError(f"No reference is made from a {type(spec).__name__}.")
