"""Claims about `diagnose`: what it measures, of what, and what it says of it."""

import io

import numpy as np
import pytest

import cases
from cases._diagnose import diagnose, print_diagnosis, sentences

POISSON = """\
unknowns: [u]
equations: {load: u_xx + sin(x)}
domain: {x: [-pi, pi]}
conditions: {ends: {type: dirichlet, at: {x: [-pi, pi]}, values: {u: 0}, points: 2, weight: 0.01}}
reference: {type: exact, values: {u: sin(x)}}
network: {type: fourier, modes: 6, preconditioned: false}
sampler: {type: grid, points: 32}
train: {steps: 4, optimizer: {type: sgd, learning_rate: 0.45}}
"""


@pytest.fixture
def poisson(tmp_path):
    path = tmp_path / "poisson.yaml"
    path.write_text(POISSON)
    return path


def test_a_case_is_diagnosed_as_initialised_and_a_run_at_its_checkpoint(
    poisson, tmp_path, monkeypatch
):
    monkeypatch.setattr("cases._engine.report", lambda folder: None)
    found = diagnose(poisson)
    assert (found.step, list(found.spectra)[-2:]) == (0, ["all", "the fields themselves"])
    assert found.spectra["load"].condition == pytest.approx(6**4)
    assert found.spectra["the fields themselves"].condition == pytest.approx(1)
    run = cases.run(poisson, out=tmp_path / "run", sets=["network.preconditioned=true"])
    assert run.summary["error.u.relative_l2"] < 1e-2
    after = diagnose(tmp_path / "run")
    assert after.step == 4
    assert after.spectra["load"].condition == pytest.approx(1)


def test_it_says_what_the_condition_number_means(poisson, tmp_path):
    found = diagnose(poisson)
    said = " ".join(sentences(found))
    whole = found.spectra["all"]
    assert f"about {whole.condition:.1e} steps" in said
    assert f"learns {whole.learned(1000)} of 13 directions" in said
    assert "'load' speaks 1.0e+04 times as loud as 'ends'" in said
    out = io.StringIO()
    print_diagnosis(found, "poisson", tmp_path / "spectrum.png", out)
    lines = out.getvalue().splitlines()
    assert lines[0].split()[0] == "residual"
    assert lines[2].split() == ["load", "13", "12", "1.3e+03", "1.0e+00", "1.3e+03"]
    assert (tmp_path / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    np.testing.assert_allclose(found.spectra["load"].eigenvalues[0], 1296)


def test_a_case_without_a_network_is_refused():
    with pytest.raises(cases.CaseError, match="kind transport trains no network"):
        diagnose("ot_mnist_like")


def test_a_series_does_not_take_a_hard_period(poisson):
    with pytest.raises(cases.CaseError, match="a Fourier series is periodic"):
        cases.load(poisson, ["conditions.wrap={type: periodic, over: x, hard: true}"])
