"""Claims about cases of experts: the problem they solve, what is refused, what a run leaves."""

import jax.numpy as jnp
import numpy as np
import pytest
from case_files import complaint, written

import cases
from cases._experts import plot
from cases._experts.problem import DiffusionSorption, passage
from cases._folder import RunFolder

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

SMALL = """\
kind: experts
problem: {type: diffusion_sorption}
grid: {t: 6, x: 8}
starts: {lower: 0.1, upper: 0.2, test: 2}
network: {type: fno, modes: 2, width: 3, depth: 1, projection: 4}
constraint: {blocks: 2, basis: 3}
train: {batch: 2, steps: 60, log_every: 20, optimizer: {type: adam, learning_rate: 1e-2}}
"""


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["constraint.blocks=3"], "constraint.blocks: 8 points are not cut evenly into 3"),
        (["network.modes=5"], "grid.t: 7 points do not tell a network's 5 modes apart"),
        (["starts.lower=0.3"], "starts.lower: must be below 0.2"),
        (["problem.type=diffusion"], "did you mean 'diffusion_sorption'?"),
    ],
)
def test_a_contradiction_is_said_with_its_key_and_what_to_do(sets, said, tmp_path):
    assert said in complaint(written(tmp_path, SMALL), *sets)


def test_the_steady_state_has_no_residual_but_the_start_s():
    """A straight line, of which differences are exact: 1 on the left, D times its slope right."""
    problem = DiffusionSorption(4, 10)
    slope = -1 / (1 - problem.diffusion)
    x = np.arange(12) / 11
    field = jnp.broadcast_to(jnp.asarray(1 + slope * x), (5, 12))[..., None]
    local, common = problem.terms(field)
    local, common = ({n: t[..., 0] for n, t in terms.items()} for terms in (local, common))
    parts = problem.residuals(local, common, 0.5)
    np.testing.assert_allclose(parts.pop("start"), 0.5 + slope * x[1:], atol=1e-12)
    for part in parts.values():
        np.testing.assert_allclose(part, 0, atol=1e-9)


def test_experts_of_equal_weights_are_one_and_each_is_alone_in_the_middle_of_its_block():
    problem, rng = DiffusionSorption(4, 10), np.random.default_rng(0)
    basis, weights = jnp.asarray(rng.normal(size=(5, 12, 3))), jnp.asarray(rng.normal(size=3))
    mixed = problem.mixed(basis, jnp.tile(weights, (4, 1)))
    np.testing.assert_allclose(mixed, basis @ weights, atol=1e-12)
    for periodic in (False, True):
        across = passage(np.array([0.125, 0.25, 0.375, 0.625, 0.875, 1.0]), 4, periodic)
        np.testing.assert_allclose(across[[0, 2, 3, 4]], np.eye(4), atol=1e-12)
        np.testing.assert_allclose(across[1], [0.5, 0.5, 0, 0], atol=1e-12)
        np.testing.assert_allclose(
            across[5], [0.5 * periodic, 0, 0, 1 - 0.5 * periodic], atol=1e-12
        )


def test_the_reference_tends_to_the_steady_state():
    problem = DiffusionSorption(4, 10, end=1e5)
    line = 1 - problem.x / (1 - problem.diffusion)
    np.testing.assert_allclose(problem.truth(0.2, cells=64)[-1], line, atol=1e-5)


def test_a_soft_penalty_learns_and_leaves_errors_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("cases._engine.report", lambda folder: None)
    run = cases.run(written(tmp_path, SMALL), out=tmp_path / "run", sets=["constraint=null"])
    said = run.summary
    assert run.status == "completed"
    assert said["error.u.relative_l2"] <= said["worst.u.relative_l2"]
    losses = [row["loss"] for row in run.history]
    assert losses[-1] < losses[0]
    assert run.solution["u_reference"].shape == (8, 6)
    assert [name for name, _ in plot.figures(RunFolder.open(run.folder))] == ["u", "convergence"]
