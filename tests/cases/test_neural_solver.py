"""Claims about neural solvers' cases: what is refused, what a run leaves, how it is resumed."""

import os
import signal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case_files import complaint, written

import cases
from cases._neural_solver import build
from pde.operators import Propagator

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

LINE = """\
kind: neural_solver
equation: {type: burgers, viscosity: 0.1}
domain: {x: [0, 1]}
points: 16
starts: {modes: 3, shift: 5, scale: 5, train: 30, test: 8}
time: {end: 0.2, step: 0.01, looks: 2}
network: {type: fno, modes: 4, width: 4, depth: 1, projection: 4, activation: tanh}
train: {batch: 5, steps: 40, optimizer: {type: adam}, log_every: 10, checkpoint_every: 10}
evaluate: {points: [32], rollout: 2, tolerance: 5}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_in_haste):
    """The case run without a stop."""
    folder = tmp_path_factory.mktemp("neural")
    return cases.run(written(folder, LINE), out=folder / "run")


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["domain={x: [0, 1], y: [0, 1]}"], "domain: burgers is for 1 coordinates, not 2"),
        (["domain={x: [1, 0]}"], "domain.x: the interval [1.0, 0.0] is empty"),
        (["starts.modes=8"], "points: 16 points do not hold starts of 8 modes; take 17 or more"),
        (["network.modes=9"], "points: 16 points do not tell a network's 9 modes apart"),
        (["evaluate.points=[24]"], "points: 16 does not divide 24"),
        (["train.batch=31"], "train.batch: 31 is more than the 30 starts there are"),
        (["starts.shift=0"], "starts.shift: 0 leaves the mean without a variance"),
        (["time.step=0.03"], "time.step: 2 looks at equal distances up to 0.2 are no whole"),
        (["equation.type=burger"], "did you mean 'burgers'?"),
        (["train.optimizer.type=gauss_newton"], "train.optimizer.type"),
        (["network={type: neural_stagger, modes: 4, space: 3}"], "points: 16 points do not part"),
        (["network={type: neural_stagger, modes: 5, space: 2}"], "take 18 or more"),
        (
            ["equation={type: vorticity, viscosity: 1, force: sin(z)}", "domain.y=[0, 1]"],
            "equation.force: 'z' is not known here",
        ),
        (
            ["equation={type: vorticity, viscosity: 1}", "domain.y=[0, 1]"],
            "starts.mean_free: vorticity has no mean on a torus; say true",
        ),
    ],
)
def test_a_contradiction_is_said_with_its_key_and_what_to_do(sets, said, tmp_path):
    assert said in complaint(written(tmp_path, LINE), *sets)


def test_a_run_leaves_errors_by_grid_and_by_time_and_what_both_take(whole):
    said, arrays = whole.summary, whole.arrays
    assert whole.status == "completed"
    assert arrays["errors"].shape == (8,)
    assert said["error.u.relative_l2"] == pytest.approx(arrays["errors"].mean())
    assert said["worst.u.relative_l2"] == pytest.approx(arrays["errors"].max())
    # Without places as inputs the operator is one of functions: another grid says the same.
    assert said["at_32_points.u.relative_l2"] == pytest.approx(said["error.u.relative_l2"], rel=0.2)
    assert said["simulation.relative_l2"] < 1e-4
    np.testing.assert_allclose(arrays["times"], [0.2, 0.4])
    assert arrays["rollout"][0] == pytest.approx(said["error.u.relative_l2"])
    assert min(said["seconds.network"], said["seconds.simulation"]) > 0
    names = sorted(p.name for p in (whole.folder / "plots").iterdir())
    assert names == ["convergence.png", "errors.png", "samples.png"]
    page = (whole.folder / "report.html").read_text()
    assert "if nothing happened" in page


def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(whole, tmp_path):
    def stop(progress):
        if progress.phase == "train" and progress.step == 20:
            os.kill(os.getpid(), signal.SIGINT)

    run = cases.run(written(tmp_path, LINE), out=tmp_path / "run", on_progress=stop)
    assert (run.status, run.summary["steps"]) == ("interrupted", 20)
    resumed = cases.resume(run.folder)
    assert resumed.status == "completed"
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], array, err_msg=name)


def test_a_simulation_that_is_not_finite_is_said_before_training(tmp_path):
    run = cases.run(written(tmp_path, LINE), out=tmp_path / "run", sets=["starts.scale=1e60"])
    assert run.status == "diverged"
    assert "of 8 starts is not finite: try a smaller time.step" in run.summary["advice"]


def test_the_equation_s_loss_vanishes_for_its_solution_and_not_for_others(tmp_path):
    """The heat equation's exact propagator, put in the network's place."""
    case = cases.load(
        written(tmp_path, LINE),
        ["equation={type: allen_cahn, diffusion: 0.01, rate: 1e-9}", "train.loss=physics"],
    )
    k = 2 * np.pi * np.arange(9)

    def exact(inputs):
        start, share = inputs[0], inputs[1, 0]
        t = share * case.time.end
        decayed = jnp.fft.irfft(jnp.fft.rfft(start) * jnp.exp(-0.01 * k**2 * t), 16)
        return ((decayed - start) / share)[None]

    made = build.network(case, jax.random.key(0))
    assert isinstance(made, Propagator)
    solver = eqx.tree_at(lambda m: m.network, made, exact)
    posed = build.equation(case, 16)
    start = build.law(case)(jax.random.key(1), [16])[None]
    right, wrong = (float(jnp.abs(m.defect(posed, start, 0.1)).max()) for m in (solver, made))
    assert right < 1e-8
    assert wrong > 0.01


def test_staggered_networks_learn_a_forced_flow_by_both_losses(tmp_path):
    run = cases.run(
        written(tmp_path, LINE), out=tmp_path / "run",
        sets=["equation={type: vorticity, viscosity: 0.01, force: 10*sin(2*pi*(x + y))}",
              "domain={x: [0, 1], y: [0, 1]}", "starts.mean_free=true", "starts.train=5",
              "network={type: neural_stagger, space: 2, modes: 3, width: 4, depth: 1}",
              "train.loss=both", "train.optimizer.learning_rate=1e-2", "starts.test=2",
              "evaluate={}"],
    )  # fmt: skip
    assert run.status == "completed"
    # Of the force, which nothing else tells of: what happens is mostly its doing.
    assert run.summary["error.u.relative_l2"] < 0.5 * run.summary["unchanged.u.relative_l2"]


def test_a_deeponet_learns_from_the_equation_alone_in_two_dimensions(tmp_path):
    """Nothing is simulated but what judges: thirty steps bring the residual down."""
    run = cases.run(
        written(tmp_path, LINE), out=tmp_path / "run",
        sets=["equation={type: allen_cahn, diffusion: 0.01}", "domain={x: [0, 1], y: [0, 1]}",
              "network={type: deeponet, width: 4, depth: 1, basis: 4}", "points=8", "evaluate={}",
              "train.loss=physics",
              "train.optimizer.learning_rate=1e-2", "starts.test=2"],
    )  # fmt: skip
    assert run.status == "completed"
    losses = [row["residual"]["equation"] for row in run.history]
    assert losses[-1] < 0.8 * losses[0]
    assert run.arrays["given"].shape == (2, 8, 8)
