"""Claims about `train.aggregator`: from the key to the class, and through the run."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import cases
import sciopt
from cases._checkpoint import Checkpoints
from cases._pinn import build, schema
from sciopt import aggregate

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

SOFT = """\
unknowns: [u]
equations: {load: u_xx + 2}
domain: {x: [0, 1]}
conditions:
  left: {type: dirichlet, at: {x: 0}, values: {u: 0}}
  right: {type: neumann, at: {x: 1}, values: {u: 0}, weight: 3}
reference: {type: exact, values: {u: x*(2 - x)}}
network: {type: mlp, width: 6, depth: 1}
sampler: {type: sobol, points: 16}
train:
  steps: 12
  optimizer: {type: adam, learning_rate: 1e-2}
  aggregator: config
  log_every: 3
  checkpoint_every: 5
evaluate: {grid: {x: 5}}
"""

SGD = "train.optimizer.type=sgd"


@pytest.fixture(scope="module")
def soft(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("soft") / "string.yaml"
    path.write_text(SOFT)
    return path


@functools.cache  # a fit compiles anew, and most claims can be made of the same one
def fit(path, *sets) -> tuple[sciopt.Fit, sciopt.FitState]:
    case = cases.load(path, sets)
    pinn = build.pinn(case, jax.random.key(0))
    made = sciopt.Fit(pinn.residuals, build.optimizer(case), pinn.sample, jax.random.key(1))
    return made, made.init(pinn.params)


def test_a_name_is_short_for_a_mapping_and_survives_the_round_trip(soft, tmp_path):
    short = cases.load(soft)
    long = cases.load(soft, ["train.aggregator={type: config}"])
    assert short == long
    again = tmp_path / "again.yaml"
    again.write_text(cases.dump(short))
    assert cases.load(again) == short.model_copy(update={"name": short.name})
    assert cases.load(soft, ["train.aggregator="]).train.aggregator is None


def test_the_json_schema_knows_both_forms(soft):
    jsonschema = pytest.importorskip("jsonschema")
    train = cases.json_schema()["$defs"]["pinn.Train"]["properties"]["aggregator"]
    for value in ("config", {"type": "lra", "decay": 0.5}, None):
        jsonschema.validate(value, train)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate("confg", train)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["train.aggregator=confg"], "did you mean 'config'"),
        (["train.aggregator={type: lra, decoy: 1}"], "unknown key; did you mean 'decay'"),
        (["train.optimizer={type: gauss_newton}"], "gauss_newton does not descend along"),
        (["train.optimizer={type: bfgs}"], "take a first-order optimizer, such as adam"),
        (["train.aggregator=m_config"], "take the optimizer sgd"),
        (
            ["conditions.left.hard=true", "conditions.right.hard=true"],
            "one residual block alone, and needs several",
        ),
    ],
)
def test_what_cannot_be_aggregated_is_refused_in_words(soft, sets, message):
    with pytest.raises(cases.CaseError, match=message):
        cases.load(soft, sets)


def blocks(made) -> sciopt.Residuals:
    assert isinstance(made.residuals, sciopt.Residuals)
    return made.residuals


def test_the_objectives_are_the_blocks_by_sorted_name_and_sum_to_the_loss(soft):
    made, state = fit(soft, SGD)
    objectives = blocks(made).objectives(state.params, state.points)
    assert sorted(objectives) == build.objectives(cases.load(soft)) == ["left", "load", "right"]
    total = made.residuals.loss(state.params, state.points)
    np.testing.assert_allclose(sum(objectives.values()), total, rtol=1e-14)


def test_a_step_is_the_aggregate_of_the_gradients_of_the_blocks(soft):
    made, state = fit(soft, SGD)
    before = ravel_pytree(state.params)[0]
    rows = jnp.stack(
        [
            ravel_pytree(
                jax.grad(lambda p, n=n: blocks(made).objectives(p, state.points)[n])(state.params)
            )[0]
            for n in ("left", "load", "right")
        ]
    )
    after = ravel_pytree(made.advance(state, 1).params)[0]
    np.testing.assert_allclose(after, before - 1e-2 * aggregate.ConFIG()(rows), atol=1e-13)


def test_the_sum_is_what_training_without_an_aggregator_does(soft):
    plain, state = fit(soft, "train.aggregator=")
    summed, start = fit(soft, "train.aggregator=sum")
    a, b = plain.advance(state, 5), summed.advance(start, 5)
    np.testing.assert_allclose(ravel_pytree(a.params)[0], ravel_pytree(b.params)[0], atol=1e-12)
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-12)


def test_every_name_makes_an_aggregator_that_takes_steps(soft):
    loaded = cases.load(soft)
    shape = jax.ShapeDtypeStruct((3,), jnp.float64)
    for name in schema.AGGREGATORS:
        kind = "sgd" if name == "m_config" else "adam"
        case = cases.load(soft, [f"train.aggregator={name}", f"train.optimizer.type={kind}"])
        optimizer = build.optimizer(case)
        assert isinstance(optimizer, optax.GradientTransformationExtraArgs)
        jax.eval_shape(optimizer.init, shape)
    assert set(build.AGGREGATORS) | {"lra", "m_config"} == set(schema.AGGREGATORS)
    assert isinstance(build.aggregator(loaded), aggregate.ConFIG)


@pytest.mark.parametrize("name", ["config", "m_config"])
def test_nothing_compiles_after_the_first_step_and_the_state_is_arrays(soft, name):
    made, state = fit(soft, SGD, *([] if name == "config" else [f"train.aggregator={name}"]))
    state = made.advance(state, 0)
    compiled = []

    def listen(event, *_, **__):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        state = made.advance(made.advance(state, 4), 3)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled
    assert int(state.step) == 7
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


def test_turns_take_one_block_a_step_and_remember_the_others(soft):
    made, state = fit(soft, SGD, "train.aggregator=m_config")
    for turn, name in enumerate(["left", "load", "right"]):
        seen = float(blocks(made).objectives(state.params, state.points)[name])
        state = made.advance(state, 1)
        assert float(state.inner.values[turn]) == pytest.approx(seen, rel=1e-12)
    assert float(state.loss) == pytest.approx(float(state.inner.values.sum()), rel=1e-14)


def test_lra_weighs_the_conditions_and_leaves_the_equation(soft):
    made, state = fit(soft, "train.aggregator=lra")
    weights = made.advance(state, 1).inner.aggregator
    assert float(weights[1]) == 1
    assert all(float(w) > 1 for w in (weights[0], weights[2]))


@pytest.mark.parametrize("name", ["lra", "pcgrad"])
def test_a_fit_goes_on_from_a_checkpoint_with_the_same_numbers(soft, tmp_path, name):
    """Moving weights and random draws: all of it is in the arrays that are saved."""
    made, start = fit(soft, f"train.aggregator={name}")
    whole = made.advance(start, 9)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(5, made.advance(start, 5))
        resumed = made.advance(checkpoints.restore(5, start), 4)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_with_an_aggregator_completes(soft, tmp_path):
    run = cases.run(soft, out=tmp_path / "run")
    assert run.status == "completed"
    assert set(run.history[-1]["residual"]) == {"left", "load", "right"}
    assert run.case.train.aggregator == schema.Aggregator(type="config")


@pytest.mark.parametrize("name", ["config", "m_config"])
def test_gradients_that_are_not_finite_end_a_run_as_diverged(name, tmp_path):
    sets = [
        "train.optimizer={type: sgd, learning_rate: 1e30}", f"train.aggregator={name}",
        "train.steps=20", "sampler.points=16", "network.width=4", "network.depth=1",
    ]  # fmt: skip
    run = cases.run("burgers_config", out=tmp_path / "run", sets=sets)
    assert run.status == "diverged"
    assert run.summary["advice"].startswith("Try a learning rate")
