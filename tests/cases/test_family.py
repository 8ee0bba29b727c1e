"""Claims about cases of a family: what is refused, what a run leaves, and how it is resumed."""

import os
import signal

import numpy as np
import pytest
from case_files import complaint, written

import cases
from cases._wording import errors

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

LINE = """\
kind: family
random: {c: {lower: 0.1, upper: 100, scale: log}, a: {lower: 0, upper: 1}}
problem: {type: poisson, source: "1 + a*x", shift: c, diffusivity: 1 + x}
domain: {x: [0, 1]}
cells: {x: 10}
solver: {type: sor, rtol: 1e-5, max_steps: 300}
omega: {lower: 1, upper: 1.9, count: 10}
network: {width: 8, depth: 1}
guess: {width: 8, depth: 1}
train: {steps: 60, batch: 8, learning_rate: 0.02, iterations: 40, fixed_steps: 3}
unseen: 40
reference: {type: instance_optimal, tolerance: 0.5}
"""


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["problem.source=d"], "problem.source: 'd' is not known here"),
        (["random={x: {lower: 0, upper: 1}}"], "random.x: is taken by a coordinate"),
        (["random.c.lower=0"], "a logarithm needs a lower end above zero"),
        (["random.a.upper=-1"], "lower must be below upper"),
        (["domain={x: [1, 0]}"], "domain.x: the interval [1.0, 0.0] is empty"),
        (["train.fixed_steps=50"], "train.fixed_steps: must not exceed train.iterations"),
        (["omega.count=1"], "omega.count: needs two values"),
        (["solver={type: sr}"], "did you mean 'sor'"),
    ],
)
def test_a_contradiction_is_said_with_its_key(sets, said, tmp_path):
    assert said in complaint(written(tmp_path, LINE), *sets)


def test_a_run_compares_what_was_learned_and_goes_on_where_it_was_stopped(tmp_path):
    whole = cases.run(written(tmp_path, LINE), out=tmp_path / "whole")
    said, arrays = whole.summary, whole.arrays
    assert whole.status == "completed"
    costs = arrays["costs"]
    assert costs.shape == (40, 10)
    assert said["iterations.learned"] == arrays["cost.learned"].mean()
    assert said["iterations.best_fixed"] == costs.mean(axis=0).min()
    assert said["iterations.instance_optimal"] == costs.min(axis=1).mean()
    assert said["iterations.learned"] < said["iterations.best_fixed"]
    assert said["iterations.learned"] < said["iterations.classical"]
    excess = said["iterations.learned"] / said["iterations.instance_optimal"] - 1
    assert errors(said)["iterations"] == excess < said["tolerance"]
    assert (np.abs(arrays["omega.learned"] - 1.45) < 0.45).all()
    assert arrays["random.c"].min() > 0.1
    assert arrays["random.c"].max() < 100
    # Learned of the number that matters, and not of the other.
    matter = np.corrcoef(np.log(arrays["random.c"]), arrays["omega.learned"])[0, 1]
    assert matter < -0.8
    names = sorted(p.name for p in (whole.folder / "plots").iterdir())
    assert names == ["iterations.png", "omega.png", "training.png"]
    page = (whole.folder / "report.html").read_text()
    assert "Mean iterations on unseen instances" in page

    def stop(progress):
        if progress.phase == "train" and progress.step == 72:
            os.kill(os.getpid(), signal.SIGINT)

    run = cases.run(written(tmp_path, LINE), out=tmp_path / "run", on_progress=stop)
    assert run.status == "interrupted"
    assert run.summary["steps"] == 72
    resumed = cases.resume(run.folder)
    assert resumed.status == "completed"
    assert [row["step"] for row in resumed.history] == [row["step"] for row in whole.history]
    for name, array in arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], array, err_msg=name)
