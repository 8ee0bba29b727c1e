"""Claims about searches through simulations: what is refused, found, and resumed."""

import os
import signal

import jax
import numpy as np
import pytest
from case_files import complaint, written

import cases
from cases._control import plot
from cases._control.problem import Problem
from cases._folder import RunFolder
from cases._wording import verdict

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

PAST = """\
kind: control
equation: {type: burgers, viscosity: 0.1}
domain: {x: [-1, 1]}
points: {x: 24}
initial: {u: 1 - sin(pi*x)}
time: {step: 0.02, steps: 20, frames: 4}
order: 1
seek: {type: initial}
match: {type: observations, after: 2, every: 2}
search: {steps: 60}
tolerance: 1e-1
"""

FUTURE = """\
kind: control
equation: {type: burgers, viscosity: 0.1}
domain: {x: [-1, 1]}
points: {x: 24}
initial: {u: -sin(pi*x)}
time: {step: 0.02, steps: 20, frames: 4}
order: 1
seek: {type: force, nodes: 3}
match: {type: target, values: {u: cos(pi*x)}}
search: {steps: 30}
tolerance: 1e-4
"""


@pytest.fixture(autouse=True)
def _no_report(monkeypatch):
    monkeypatch.setattr("cases._engine.report", lambda folder: None)


@pytest.mark.parametrize(
    ("case", "sets", "said"),
    [
        (PAST, ["match.after=4"], "match.after: must be below the 4 frames"),
        (PAST, ["match={type: target, values: {u: 1}}"], "leaves nothing to judge"),
        (PAST, ["seek.guess={v: 1}"], "seek.guess.v: the fields are u"),
        (FUTURE, ["match.values={u: t}"], "'t' is not known here"),
        (FUTURE, ["match={type: observations, after: 1}"], "take target"),
        (FUTURE, ["equation={type: shallow_water}", "initial={h: 1}", "match.values={h: 1}"],
         "cannot act on shallow_water"),
    ],
)  # fmt: skip
def test_a_contradiction_is_said_with_its_key_and_what_to_do(case, sets, said, tmp_path):
    assert said in complaint(written(tmp_path, case), *sets)


@pytest.mark.parametrize("text", [PAST, FUTURE])
def test_the_slope_of_a_mismatch_is_that_of_finite_differences(text, tmp_path):
    problem = Problem(cases.load(written(tmp_path, text), ["weight=0.1"]))
    random = np.random.default_rng(0)
    at, along = (random.normal(size=problem.begin.shape) for _ in range(2))
    found = jax.jit(jax.value_and_grad(problem.mismatch))
    h = 1e-4
    slope = (found(at + h * along)[0] - found(at - h * along)[0]) / (2 * h)
    assert abs((found(at)[1] * along).sum() / slope - 1) < 1e-6


def test_a_first_state_is_found_by_what_it_led_to_and_an_interrupted_search_goes_on(tmp_path):
    path = written(tmp_path, PAST)
    whole = cases.run(path, out=tmp_path / "whole")
    judged = verdict(whole.summary)
    assert judged is not None
    assert judged.good, judged.text
    assert whole.summary["residual"] < 1e-7
    assert whole.summary["gradient_bytes"] > 0

    def stop(progress):
        if progress.phase == "iterate" and progress.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    assert cases.run(path, out=tmp_path / "run", on_progress=stop).status == "interrupted"
    resumed = cases.resume(tmp_path / "run")
    with resumed.solution as found, whole.solution as solution:
        np.testing.assert_array_equal(found["u"], solution["u"])


def test_a_force_drives_a_wave_to_its_target_and_is_drawn(tmp_path):
    run = cases.run(written(tmp_path, FUTURE), out=tmp_path / "run")
    assert run.summary["error.u.relative_l2"] < 1e-4
    names = [name for name, _ in plot.figures(RunFolder.open(run.folder))]
    assert names == ["search", "match", "u", "force", "u_moving"]
