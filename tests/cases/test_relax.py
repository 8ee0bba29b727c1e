"""Claims about relaxation cases: what is refused, what a run leaves, and that it can be resumed."""

import os
import signal

import equinox as eqx
import numpy as np
import pytest
from case_files import complaint, written

import cases
from cases._relax import build, plot
from cases._wording import verdict
from sciopt import relax

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

HEAT = """\
kind: relax
parameters: {k: 2}
problem:
  type: heat
  diffusivity: k + sin(9*t)
  source: x*y
  initial: sin(pi*x)*sin(pi*y)
domain: {x: [0, 1], y: [0, 1]}
cells: {x: 8, y: 6}
time: {step: 0.01, steps: 80}
solver: {type: sor, rtol: 1e-8}
omega: {lower: 1, upper: 1.6, count: 3}
tuner: {type: tsallis_inf, contexts: {bins: 2, lower: 1, upper: 3}}
reference: {type: hindsight, tolerance: 1}
"""

FLOW = """\
kind: relax
problem: {type: navier_stokes, viscosity: 1, walls: {u: y}}
domain: {x: [0, 1], y: [0, 1]}
cells: {x: 8, y: 8}
time: {step: 0.05, steps: 60}
solver: {type: sor}
omega: {lower: 1.5, upper: 1.5, count: 1}
"""

LINE = """\
kind: relax
problem:
  type: advection_diffusion
  initial: 1 + cos(pi*x)
  velocity: {x: 0}
  diffusivity: 0.1
domain: {x: [0, 1]}
cells: {x: 20}
time: {step: 0.05, steps: 10}
solver: {type: jacobi}
omega: {lower: 0.9, upper: 1, count: 2}
hindsight: false
reference: {type: exact, values: {u: 1 + cos(pi*x)*exp(-0.1*pi^2*t)}, tolerance: 1e-2}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_in_haste):
    """The heat case run without a stop, and the phases that it told of."""
    folder, phases = tmp_path_factory.mktemp("heat"), set()
    run = cases.run(
        written(folder, HEAT), out=folder / "run", on_progress=lambda p: phases.add(p.phase)
    )
    return run, phases


@pytest.mark.parametrize(
    ("case", "sets", "said"),
    [
        (HEAT, ["problem.diffusivity=kk"], "problem.diffusivity: 'kk' is not known here"),
        (HEAT, ["problem.initial=t"], "problem.initial: 't' is not known here"),
        (HEAT, ["problem.type=het"], "did you mean 'heat'?"),
        (HEAT, ["domain={x: [0, 1], t: [0, 1]}"], "domain.t: is time"),
        (HEAT, ["domain={x: [1, 0], y: [0, 1]}"], "domain.x: the interval [1.0, 0.0] is empty"),
        (HEAT, ["cells={x: 8}"], "cells: needs a number of cells along y; such as y: 32"),
        (HEAT, ["cells.z=4"], "cells.z: there is no such coordinate"),
        (HEAT, ["parameters={x: 1}"], "parameters.x: is taken"),
        (HEAT, ["omega.upper=2"], "omega.upper: should be less than 2"),
        (HEAT, ["omega.upper=0.5"], "lower must not exceed upper"),
        (HEAT, ["tuner.type=tsalis"], "expected one of tsallis_inf"),
        (HEAT, ["tuner.contexts.lower=5"], "lower must be below upper"),
        (HEAT, ["hindsight=false"], "reference.type: needs `hindsight: true`"),
        (HEAT, ["reference={type: exact, values: {v: 1}, tolerance: 1}"], "the fields are u"),
        (HEAT, ["problem.theta=0.3"], "problem.theta: should be"),
        (FLOW, ["domain={x: [0, 1]}", "cells={x: 8}"], "navier_stokes is for 2 coordinates"),
        (FLOW, ["solver={type: multigrid}", "cells.x=9"], "cells: cannot be halved often enough"),
        (FLOW, ["tuner={type: cheb_cb, lower: 0, upper: 1}"], "tuner.type: the pressure's systems"),
        (HEAT, ["tuner={type: cheb_cb, lower: 1, upper: 0}"], "lower must be below upper"),
        (HEAT, ["tuner={type: constant, choice: 3}"], "tuner.choice: there are 3 values, from 0"),
        (FLOW, ["problem.viscosity=-1"], "problem.viscosity: is -1, and must not be negative"),
        (FLOW, ["problem.viscosity=nu"], "problem.viscosity: 'nu' is not known here"),
        (FLOW, ["tuner={type: ucb1, contexts: {bins: 2, lower: 0, upper: 1}}"], "have no context"),
        (LINE, ["solver={type: cg}"], "solver.type: is for symmetric systems"),
        (LINE, ["problem.velocity={y: 1}"], "problem.velocity: needs a component for each of x"),
    ],
)
def test_a_contradiction_is_said_with_its_key_and_what_to_do(case, sets, said, tmp_path):
    assert said in complaint(written(tmp_path, case), *sets)


@pytest.mark.parametrize(
    "solver",
    [
        "{type: ssor, ordering: natural}", "{type: cg}", "{type: multigrid, smoother: jacobi}",
        "{type: cg, preconditioner: {type: multigrid}}",
    ],
)  # fmt: skip
def test_what_is_tuned_is_the_omega_of_the_innermost_solver(solver, tmp_path):
    case = cases.load(written(tmp_path, HEAT), [f"solver={solver}", "solver.rtol=1e-5"])
    tuned = build.tuned(case)
    assert tuned.solver.rtol == 1e-5  # pyright: ignore[reportAttributeAccessIssue]
    assert tuned.parameter(tuned.solver) == 1.0
    changed = eqx.tree_at(tuned.parameter, tuned.solver, 1.25)
    assert tuned.parameter(changed) == 1.25


@pytest.mark.parametrize(
    ("tuner", "expected"),
    [
        ("{type: cheb_cb, lower: 1, upper: 3, terms: 4}", relax.ChebCB(3, 1.0, 3.0, 4)),
        ("{type: epsilon_greedy, exploration: 0.5}", relax.EpsilonGreedy(3, 0.5)),
        ("{type: constant, choice: 2}", relax.Constant(2)),
        ("{type: ucb1, contexts: {bins: 2, lower: 1, upper: 3}}",
         relax.Binned(relax.UCB1(3), 2, 1.0, 3.0)),
        ("{type: exp3}", relax.EXP3(3)),
        ("{type: thompson}", relax.Thompson(3)),
    ],
)  # fmt: skip
def test_a_tuner_s_keys_are_its_constructor_s_arguments(tuner, expected, tmp_path):
    case = cases.load(written(tmp_path, HEAT), [f"tuner={tuner}"])
    assert build.tuned(case).tuner == expected


def test_too_many_cells_are_refused_with_the_way_out(tmp_path):
    path = written(tmp_path, HEAT)
    large = ["cells={x: 20000, y: 20000}"]
    with pytest.raises(cases.CaseError, match=r"cells: .*hindsight: false"):
        cases.load(path, large, memory_limit=10**9)


def test_a_run_tells_what_the_tuner_chose_and_what_it_could_have(whole):
    run, phases = whole
    said, arrays = run.summary, run.arrays
    assert run.status == "completed"
    assert {"compile", "iterate", "evaluate", "report"} <= phases
    table, rounds = arrays["costs"], np.arange(80)
    np.testing.assert_array_equal(arrays["cost"], table[rounds, arrays["choice"]])
    np.testing.assert_array_equal(arrays["value"], arrays["omega"][arrays["choice"]])
    assert said["iterations"] == arrays["cost"].sum()
    assert said["iterations.best_fixed"] == table.sum(axis=0).min()
    assert said["iterations.first_omega"] == table[:, 0].sum()
    assert said["iterations.instance_optimal"] == table.min(axis=1).sum()
    excess = said["iterations"] / said["iterations.best_fixed"] - 1
    assert said["error.iterations.excess"] == pytest.approx(excess)
    judged = verdict(said)
    assert judged is not None
    assert "excess over the best omega in hindsight" in judged.text
    assert arrays["u"].shape == (4, 7, 5)
    np.testing.assert_allclose(arrays["times"], [0, 0.27, 0.54, 0.8], atol=0.01)
    np.testing.assert_allclose(arrays["context"], 2 + np.sin(9 * (0.01 * rounds + 0.005)))
    assert run.history[-1]["step"] == 80
    names = sorted(p.name for p in (run.folder / "plots").iterdir())
    assert names == ["iterations.png", "omega.png", "u.png"]
    page = (run.folder / "report.html").read_text()
    for part in ("Iterations in all", "the best one of each step", "over the best fixed"):
        assert part in page
    assert cases.compare([run.folder, run.folder]).plot is not None


def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(whole, tmp_path):
    def stop(progress):
        if progress.phase == "iterate" and progress.step == 30:
            os.kill(os.getpid(), signal.SIGINT)

    run = cases.run(written(tmp_path, HEAT), out=tmp_path / "run", on_progress=stop)
    assert run.status == "interrupted"
    assert run.summary["steps"] == 30
    resumed = cases.resume(run.folder)
    assert resumed.status == "completed"
    assert [row["step"] for row in resumed.history] == [row["step"] for row in whole[0].history]
    for name, array in whole[0].arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], array, err_msg=name)


def test_a_solve_that_fails_is_diverged_and_says_where_why_and_what_to_try(tmp_path):
    run = cases.run(written(tmp_path, LINE), out=tmp_path / "run", sets=["solver.max_steps=2"])
    assert run.status == "diverged"
    assert run.summary["steps"] == 0
    for part in ("Step 1, of Courant number", "maximum number", "raise solver.max_steps"):
        assert part in run.summary["advice"]
    assert run.arrays["iterations"].tolist() == [2]
    assert run.arrays["u"].shape == (1, 20)


def test_a_field_on_a_line_is_judged_by_its_exact_reference_without_hindsight(tmp_path):
    run = cases.run(written(tmp_path, LINE), out=tmp_path / "run")
    assert run.status == "completed"
    assert 0 < run.summary["error.u.relative_l2"] < 2e-3
    assert "regret" not in run.summary
    assert "costs" not in run.arrays
    assert not plot.tables(cases._folder.RunFolder.open(run.folder))
