"""Claims about time: windows hand over exactly, late times wait, and the reference is one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cases
import pde

pytestmark = pytest.mark.usefixtures("compiled_in_haste")


def wave():
    return pde.Problem(
        pde.Box(x=(-1, 1), t=(0, 1)),
        ["u"],
        {"wave": lambda v: v.u_tt - v.u_xx},
        {
            "start": pde.Initial(
                {"u": lambda v: jnp.sin(jnp.pi * v.x)}, {"u": 0.0}, hard="subtract"
            ),
            "wrap": pde.Periodic("x", hard=True),
        },
    )


def test_a_window_begins_as_the_one_before_ends_with_rates_and_derivatives():
    problem = wave()
    spans = pde.windows(problem, 2)
    assert spans[0][1] == spans[1][0]
    fields = []
    for turn, span in enumerate(spans):
        posed = pde.in_window(problem, span, fields[-1] if fields else None)
        network = pde.MLP(3, 1, width=5, depth=2, key=jax.random.key(turn))
        fields.append(pde.Field(posed, network))
    names, read = ("u", "u_x", "u_xx", "u_t"), eqx.filter_jit(pde.Field.read)
    ended, begun = (read(field, jnp.array([0.3, 0.5]), names) for field in fields)
    for name in names:
        np.testing.assert_allclose(begun[name], ended[name], rtol=1e-9, atol=1e-10)
    # And the last still has what the first began with: nothing is lost on the way.
    times = jnp.array([0.0, spans[0][1], 1.0])
    found = pde.Marched(fields).on_grid({"x": jnp.linspace(-1, 1, 5), "t": times})["u"]
    np.testing.assert_allclose(found[:, 0], np.sin(np.pi * np.linspace(-1, 1, 5)), atol=1e-14)
    np.testing.assert_allclose(found[1, 2], fields[1](jnp.array([-0.5, 1.0]))[0], rtol=1e-14)


def test_a_window_must_follow():
    first = pde.Field(pde.in_window(wave(), (0.0, 0.5)), lambda x: x[:1])
    with pytest.raises(ValueError, match=r"from 0.6 cannot follow one that ends at 0.5"):
        pde.in_window(wave(), (0.6, 1.0), first)


def test_points_late_in_time_wait_for_early_residuals():
    """By the formula of the paper, with the residuals at the points that are drawn."""
    problem = pde.Problem(
        pde.Box(x=(0, 1), t=(0, 2)), ["u"], {"rate": lambda v: v.u_t - 1.0 - v.x}, {}
    )
    pinn = pde.PINN(
        problem,
        pde.FourierSeries(2, 1, modes=1),
        points=64,
        sampler=pde.Grid(),
        causal=pde.Causal(tolerance=0.1, chunks=8),
    )
    drawn = pinn.sample(jax.random.key(0), pinn.params)["equations"]
    # The coefficients are zero, and the residual is -(1 + x) at all times.
    row = np.mean((1 + (np.arange(8) + 0.5) / 8) ** 2)
    wanted = np.exp(-0.1 * row * np.floor(4 * np.asarray(drawn["x"][:, 1])))
    np.testing.assert_allclose(drawn["weight"], wanted, rtol=1e-12)


def test_kuramoto_sivashinsky_satisfies_its_equation_and_is_converged():
    x, t, h = np.linspace(-1, 1, 9), np.array([0.0, 0.05, 0.1]), 1e-3
    u = pde.reference.kuramoto_sivashinsky(x, t)
    finer = pde.reference.kuramoto_sivashinsky(x, t, modes=128, dt=5e-5)
    np.testing.assert_allclose(u, finer, atol=1e-10)
    times = 0.1 + h * np.array([-1, 0, 1])
    near = np.pi * np.linspace(0, 2, 64, endpoint=False)
    before, now, after = pde.reference.kuramoto_sivashinsky(near / np.pi - 1, times, dt=h).T
    k = np.pi * np.fft.rfftfreq(64, 1 / 64)

    def by_x(u, order):
        return np.fft.irfft((1j * k) ** order * np.fft.rfft(u), 64)

    rate = (after - before) / (2 * h)
    residual = rate + 5 * now * by_x(now, 1) + 0.5 * by_x(now, 2) + 0.005 * by_x(now, 4)
    # Central differences in time leave h^2.
    assert np.max(np.abs(residual)) < 1e-3 * np.max(np.abs(rate))


CASE = """\
unknowns: [u]
equations: {decay: u_t + u}
domain: {t: [0, 2]}
conditions: {start: {type: initial, values: {u: 1}, hard: true}}
reference: {type: exact, values: {u: exp(-t)}}
network: {type: mlp, width: 6, depth: 1}
sampler: {type: sobol, points: 16}
train: {steps: 8, windows: 2, log_every: 4, checkpoint_every: 4, optimizer: {type: gauss_newton}}
"""


def test_a_case_in_windows_resumes_in_the_second_as_if_it_had_never_stopped(tmp_path):
    path = tmp_path / "decay.yaml"
    path.write_text(CASE)
    whole = cases.run(path, out=tmp_path / "whole")
    assert whole.summary["steps"] == 16
    assert whole.summary["error.u.relative_l2"] < 1e-4
    assert [row["step"] for row in whole.history] == [4, 8, 12, 16]

    class Stop(Exception):
        pass

    def kill(progress):
        if progress.step == 16:
            raise Stop

    with pytest.raises(Stop):
        cases.run(path, out=tmp_path / "killed", on_progress=kill)
    again = cases.resume(tmp_path / "killed")
    assert again.summary["steps"] == 16
    for name in ("error.u.relative_l2", "error.u.max", "residual"):
        assert again.summary[name] == whole.summary[name]
    assert [row["loss"] for row in again.history] == [row["loss"] for row in whole.history]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("conditions={}", "need an initial condition"),
        ("sampler.causal={tolerance: 2}", "drawn but once"),
        ("network={type: lagrangian, velocity: {y: 1}}", "there is no such coordinate"),
        ("network={type: lagrangian, velocity: {t: w}}", "'w' is not known here"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, setting, said):
    path = tmp_path / "decay.yaml"
    path.write_text(CASE)
    with pytest.raises(cases.CaseError, match=said):
        cases.load(path, [setting])
