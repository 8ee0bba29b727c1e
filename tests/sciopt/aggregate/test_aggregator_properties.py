"""The property tables: what each aggregator claims, and counter-examples to what it does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import sciopt.aggregate as sa

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

KEY = jax.random.key(0)

NON_CONFLICTING = {
    "UPGrad": sa.UPGrad(reg_eps=0.0, norm_eps=0.0),
    "DualProj": sa.DualProj(reg_eps=0.0, norm_eps=0.0),
    "MGDA": sa.MGDA(),
    "CAGrad with c = 1": sa.CAGrad(c=1.0, norm_eps=1e-12),
    "ConFIG": sa.ConFIG(),
    "NashMTL": sa.NashMTL(),
    "FairGrad": sa.FairGrad(alpha=2.0),
}
NON_CONFLICTING_FOR_TWO = {
    "PCGrad": sa.PCGrad(),
    "DCGD projection": sa.DCGD("projection"),
    "DCGD average": sa.DCGD("average"),
    "DCGD center": sa.DCGD("center"),
}
LINEAR = {
    "Mean": sa.Mean(),
    "Sum": sa.Sum(),
    "Constant": sa.Constant(jnp.array([1.0, 2.0, 3.0])),
    "UPGrad": sa.UPGrad(reg_eps=0.0, norm_eps=0.0),
    "PCGrad": sa.PCGrad(),
    "GradVac": sa.GradVac(eps=0.0),
    "Random": sa.Random(),
    "ConFIG": sa.ConFIG(),
    "PCD at a first step": sa.PCD(eps=0.0),
}
CONFLICTING = {
    "Mean": sa.Mean(),
    "Sum": sa.Sum(),
    "Constant": sa.Constant(jnp.array([1.0, 2.0, 3.0])),
    "PCGrad": sa.PCGrad(),
    "CAGrad with c = 0.5": sa.CAGrad(c=0.5),
    "IMTLG": sa.IMTLG(),
    "AlignedMTL": sa.AlignedMTL(),
    "GradDrop": sa.GradDrop(),
    "GradVac": sa.GradVac(),
    "Random": sa.Random(),
    "Krum": sa.Krum(0),
    "TrimmedMean": sa.TrimmedMean(1),
    "ExcessMTL": sa.ExcessMTL(),
    "PCD, with the primary objective": sa.PCD(),
    "MoDo": sa.MoDo(),
    "SDMGrad": sa.SDMGrad(),
    "CRMOGM": sa.CRMOGM(sa.Mean()),
    "MConFIG": sa.MConFIG(),
}
NONLINEAR = {
    "DualProj": sa.DualProj(),
    "MGDA": sa.MGDA(),
    "CAGrad": sa.CAGrad(c=0.5),
    "NashMTL": sa.NashMTL(),
    "FairGrad": sa.FairGrad(alpha=2.0),
    "IMTLG": sa.IMTLG(),
    "AlignedMTL": sa.AlignedMTL(),
    "GradDrop": sa.GradDrop(),
    "Krum": sa.Krum(0),
    "TrimmedMean": sa.TrimmedMean(1),
    "ExcessMTL": sa.ExcessMTL(),
    "MoDo": sa.MoDo(),
    "SDMGrad": sa.SDMGrad(),
    "CRMOGM": sa.CRMOGM(sa.MGDA()),
    "MConFIG": sa.MConFIG(),
}


@functools.cache
def compiled(name, group):
    aggregator = {**globals()[group]}[name]
    return jax.jit(lambda jacobian: aggregator(jacobian, key=KEY))


def gradients(m, n):
    # Thousandths, so that products are either zero or well above rounding.
    entries = st.integers(-5000, 5000).map(lambda k: k / 1000)
    return arrays(float, (m, n), elements=entries)


def independent(jacobian):
    norms = np.linalg.norm(jacobian, axis=1)
    return norms.min() > 0 and np.linalg.cond(jacobian / norms[:, None]) < 1e4


def smallest_gain(update, jacobian):
    """In units in which the steepest descent of the longest gradient gains one."""
    return np.min(jacobian @ update) / np.linalg.norm(jacobian, axis=1).max() ** 2


@pytest.mark.parametrize("name", NON_CONFLICTING)
@settings(deadline=None, max_examples=60)
@given(jacobian=gradients(3, 4))
def test_update_conflicts_with_no_gradient(name, jacobian):
    assume(independent(jacobian))
    update = np.asarray(compiled(name, "NON_CONFLICTING")(jacobian))
    assert smallest_gain(update, jacobian) >= -1e-9


@pytest.mark.parametrize("name", ["UPGrad", "DualProj", "MGDA"])
@settings(deadline=None, max_examples=60)
@given(jacobian=gradients(4, 2))
def test_projections_conflict_with_no_gradient_also_where_those_are_dependent(name, jacobian):
    assume(np.abs(jacobian).max() > 0)
    update = np.asarray(compiled(name, "NON_CONFLICTING")(jacobian))
    # Four gradients in a plane may leave no update but zero. The program resolves the *square* of
    # its length to rounding, so the length, and with it the gain, to the root of that.
    assert smallest_gain(update, jacobian) >= -10 * np.sqrt(np.finfo(float).eps)


@pytest.mark.parametrize("name", NON_CONFLICTING_FOR_TWO)
@settings(deadline=None, max_examples=60)
@given(jacobian=gradients(2, 4))
def test_update_of_two_conflicts_with_neither(name, jacobian):
    assume(np.abs(jacobian).max() > 0)
    update = np.asarray(compiled(name, "NON_CONFLICTING_FOR_TWO")(jacobian))
    assert smallest_gain(update, jacobian) >= -1e-12


@pytest.mark.parametrize("name", LINEAR)
@settings(deadline=None, max_examples=60)
@given(
    jacobian=gradients(3, 4),
    first=arrays(float, 3, elements=st.floats(0.1, 10)),
    second=arrays(float, 3, elements=st.floats(0.1, 10)),
)
def test_update_is_linear_in_the_scale_of_each_gradient(name, jacobian, first, second):
    assume(independent(jacobian))
    fn = compiled(name, "LINEAR")
    together = fn((first + second)[:, None] * jacobian)
    apart = fn(first[:, None] * jacobian) + fn(second[:, None] * jacobian)
    np.testing.assert_allclose(together, apart, atol=1e-7 * np.abs(jacobian).max() * 20)


def population():
    return np.random.default_rng(0).standard_normal((100, 3, 3))


@pytest.mark.parametrize("name", CONFLICTING)
def test_some_gradients_conflict_with_the_update(name):
    fn = compiled(name, "CONFLICTING")
    gains = [smallest_gain(np.asarray(fn(jacobian)), jacobian) for jacobian in population()]
    assert min(gains) < -1e-3


def test_config_conflicts_where_dependent_gradients_admit_no_equal_angle():
    fn = jax.jit(sa.ConFIG())
    dependent = np.random.default_rng(0).standard_normal((100, 4, 2))
    assert min(smallest_gain(np.asarray(fn(jacobian)), jacobian) for jacobian in dependent) < -1e-3


@pytest.mark.parametrize("name", NONLINEAR)
def test_some_scales_of_the_gradients_show_in_other_than_a_linear_way(name):
    fn = compiled(name, "NONLINEAR")
    jacobian = population()[0]
    first, second = np.array([[1.0], [2.0], [3.0]]), np.array([[3.0], [0.1], [1.0]])
    together = fn((first + second) * jacobian)
    apart = fn(first * jacobian) + fn(second * jacobian)
    assert np.abs(together - apart).max() > 1e-3


# ConFIG


@settings(deadline=None, max_examples=60)
@given(jacobian=gradients(3, 4))
def test_config_has_the_same_cosine_with_every_gradient(jacobian):
    assume(independent(jacobian))
    update = np.asarray(compiled("ConFIG", "LINEAR")(jacobian))
    cosines = jacobian @ update / np.linalg.norm(jacobian, axis=1) / np.linalg.norm(update)
    np.testing.assert_allclose(cosines, cosines.mean(), atol=1e-7)
    assert cosines.min() > 0


@settings(deadline=None, max_examples=60)
@given(jacobian=gradients(3, 4))
def test_config_is_as_long_as_the_sum_of_the_projections(jacobian):
    assume(independent(jacobian))
    update = np.asarray(compiled("ConFIG", "LINEAR")(jacobian))
    length = np.linalg.norm(update)
    np.testing.assert_allclose(length, (jacobian @ update).sum() / length, rtol=1e-7)


def test_config_of_two_gradients_is_along_their_bisector():
    # Section 3.2 of the paper: the unit normal parts, added; in the plane that is the bisector.
    g = np.array([[3.0, 0.0, 1.0], [-1.0, 2.0, 0.0]])
    unit = g / np.linalg.norm(g, axis=1, keepdims=True)
    bisector = unit.sum(0) / np.linalg.norm(unit.sum(0))
    expected = (g @ bisector).sum() * bisector
    np.testing.assert_allclose(sa.ConFIG()(jnp.asarray(g)), expected, rtol=1e-13)


def test_config_keeps_the_cosines_in_the_ratio_that_is_preferred():
    g = population()[0]
    update = sa.ConFIG(preference=jnp.array([1.0, 2.0, 3.0]))(jnp.asarray(g))
    cosines = g @ np.asarray(update) / np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(cosines / cosines[0], [1, 2, 3], rtol=1e-10)


@pytest.mark.parametrize("shape", [(4, 9), (6, 3)])
def test_config_is_the_pseudo_inverse_of_the_unit_gradients_also_for_duplicates(shape):
    g = np.random.default_rng(1).standard_normal(shape)
    g[-1] = 5 * g[0]
    unit = g / np.linalg.norm(g, axis=1, keepdims=True)
    x = np.linalg.pinv(unit) @ np.ones(shape[0])
    expected = (g @ x).sum() / (x @ x) * x
    np.testing.assert_allclose(sa.ConFIG()(jnp.asarray(g)), expected, rtol=1e-11)


def test_mconfig_renewing_all_momenta_equals_one_at_a_time_in_the_end():
    g = jnp.asarray(population()[0])
    agg = sa.MConFIG(eps=0.0)
    together = agg.init(g)
    one_by_one = agg.init(g)
    _, together = agg.update(g, together)
    update = g[0]
    for i in range(3):
        update, one_by_one = agg.update_one(g[i], i, one_by_one)
    np.testing.assert_allclose(one_by_one.products, together.products, rtol=1e-13)
    # A first step of Adam has the signs of its gradient.
    np.testing.assert_allclose(update, np.sign(sa.ConFIG()(g)), rtol=1e-12)


def test_mconfig_waits_until_every_objective_had_a_turn():
    g = jnp.asarray(population()[0])
    agg = sa.MConFIG()
    update, _ = agg.update_one(g[0], 0, agg.init(g))
    np.testing.assert_array_equal(update, 0)


# Dual cone gradient descent: the paper's formulas for two gradients


@pytest.mark.parametrize("seed", range(5))
def test_dcgd_follows_the_papers_formulas(seed):
    g, h = np.random.default_rng(seed).standard_normal((2, 3)) * np.array([[1.0], [4.0]])
    if g @ h > 0:
        g = -g
    total = g + h
    part_g, part_h = g - (g @ h) / (h @ h) * h, h - (g @ h) / (g @ g) * g
    jacobian = jnp.asarray(np.stack([g, h]))
    bisector = g / np.linalg.norm(g) + h / np.linalg.norm(h)
    center = total @ bisector / (bisector @ bisector) * bisector
    np.testing.assert_allclose(sa.DCGD("center")(jacobian), center, rtol=1e-12)
    outside = min(total @ g, total @ h) < 0
    projected = part_h if total @ g < 0 else part_g
    projection = projected if outside else total
    average = (part_g + part_h) / 2 if outside else total
    np.testing.assert_allclose(sa.DCGD("projection")(jacobian), projection, rtol=1e-12)
    np.testing.assert_allclose(sa.DCGD("average")(jacobian), average, rtol=1e-12)


# Random methods


def test_random_weights_lie_on_the_simplex_and_differ_by_key():
    weights = jax.vmap(lambda key: sa.Random().weights(jnp.eye(4), key=key))(
        jax.random.split(KEY, 1000)
    )
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    assert weights.min() > 0
    # Independent and identical: every objective has the same mean weight.
    np.testing.assert_allclose(weights.mean(axis=0), 0.25, atol=0.02)


def test_graddrop_keeps_the_positive_sign_as_often_as_its_purity_says():
    jacobian = jnp.array([[3.0], [-1.0]])
    updates = jax.vmap(lambda key: sa.GradDrop()(jacobian, key=key))(jax.random.split(KEY, 4000))
    assert set(np.unique(updates)) == {3.0, -1.0}
    # P = (1 + 2 / 4) / 2 = 3 / 4.
    assert np.mean(updates == 3.0) == pytest.approx(0.75, abs=0.03)


def test_graddrop_leaks_the_given_fractions():
    jacobian = jnp.array([[3.0], [-1.0]])
    update = sa.GradDrop(f=jnp.ones_like, leak=jnp.array([0.0, 0.5]))(jacobian, key=KEY)
    np.testing.assert_allclose(update, 2.5)
