"""What goes into an aggregator: pytrees, precisions, batches, and what it refuses."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sciopt.aggregate as sa

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

KEY = jax.random.key(0)
# Every method with settings that suit four objectives.
ALL = {
    "Mean": sa.Mean(),
    "Sum": sa.Sum(),
    "Constant": sa.Constant(np.array([1.0, 2.0, 3.0, 4.0])),
    "UPGrad": sa.UPGrad(),
    "DualProj": sa.DualProj(),
    "MGDA": sa.MGDA(),
    "PCGrad": sa.PCGrad(),
    "CAGrad": sa.CAGrad(c=0.5),
    "NashMTL": sa.NashMTL(),
    "IMTLG": sa.IMTLG(),
    "AlignedMTL": sa.AlignedMTL(),
    "ConFIG": sa.ConFIG(),
    "GradDrop": sa.GradDrop(),
    "GradVac": sa.GradVac(),
    "Random": sa.Random(),
    "Krum": sa.Krum(1),
    "TrimmedMean": sa.TrimmedMean(1),
    "ExcessMTL": sa.ExcessMTL(),
    "FairGrad": sa.FairGrad(alpha=2.0),
    "PCD": sa.PCD(),
    "MoDo": sa.MoDo(),
    "SDMGrad": sa.SDMGrad(),
    "CRMOGM": sa.CRMOGM(sa.UPGrad()),
    "MConFIG": sa.MConFIG(),
}
# These look at each coordinate alone, or at none: a NaN stays where it is and reaches the update.
COORDINATEWISE = ["Mean", "Sum", "Constant", "Random", "GradDrop", "TrimmedMean"]
RANDOM = ["PCGrad", "GradVac", "GradDrop", "Random"]


def matrix(dtype: type = float, seed=0):
    return np.random.default_rng(seed).standard_normal((4, 6)).astype(dtype)


def tree(j):
    return {"w": jnp.asarray(j[:, :4]).reshape(4, 2, 2), "b": (jnp.asarray(j[:, 4:]),)}


@pytest.mark.parametrize("name", ALL)
def test_update_is_like_the_parameters_whatever_their_tree(name):
    if name == "GradDrop":
        pytest.skip("draws per leaf, so another tree is another draw")
    update = ALL[name](tree(matrix()), key=KEY)
    assert update["w"].shape == (2, 2)
    flat = jnp.concatenate([update["w"].ravel(), update["b"][0]])
    expected = ALL[name](jnp.asarray(matrix()), key=KEY)
    np.testing.assert_allclose(flat, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_compiled_float32_and_batched_updates_agree_with_plain_float64(name):
    fn = eqx.filter_jit(lambda j: ALL[name](j, key=KEY))
    expected = fn(jnp.asarray(matrix()))
    single = fn(jnp.asarray(matrix(np.float32)))
    assert single.dtype == jnp.float32
    assert expected.dtype == jnp.float64
    # Draws depend on the precision they are drawn in.
    if name not in ("GradDrop", "Random"):
        np.testing.assert_allclose(single, expected, rtol=2e-3, atol=2e-3)
    batch = jnp.stack([matrix(), matrix(seed=1)])
    batched = eqx.filter_jit(jax.vmap(lambda j: ALL[name](j, key=KEY)))(batch)
    np.testing.assert_allclose(batched[0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_zero_gradients_give_a_zero_update(name):
    update = ALL[name](jnp.zeros((4, 6)), key=KEY)
    np.testing.assert_array_equal(update, 0)


@pytest.mark.parametrize("name", [name for name in ALL if name not in COORDINATEWISE])
def test_nan_in_one_gradient_is_an_error_under_jit(name):
    bad = matrix()
    bad[2, 1] = np.nan
    with pytest.raises(Exception, match="A gradient is NaN"):
        jax.block_until_ready(eqx.filter_jit(lambda j: ALL[name](j, key=KEY))(jnp.asarray(bad)))


@pytest.mark.parametrize("name", COORDINATEWISE)
def test_nan_in_one_gradient_reaches_the_update_of_coordinatewise_methods(name):
    bad = matrix()
    bad[2, 1] = np.nan
    update = ALL[name](jnp.asarray(bad), key=KEY)
    assert np.flatnonzero(np.isnan(update)).tolist() == [1]


@pytest.mark.parametrize("name", ALL)
def test_leaves_with_other_numbers_of_objectives_are_refused(name):
    with pytest.raises(ValueError, match="share a leading axis"):
        ALL[name]({"w": jnp.ones((4, 2)), "b": jnp.ones((3, 2))}, key=KEY)


@pytest.mark.parametrize("name", ALL)
def test_no_objectives_and_no_leaves_are_refused(name):
    with pytest.raises(ValueError, match="at least one objective"):
        ALL[name](jnp.ones((0, 2)), key=KEY)
    with pytest.raises(ValueError, match="at least one array"):
        ALL[name]({}, key=KEY)


def test_two_batches_of_other_structure_are_refused():
    with pytest.raises(ValueError, match="differ in structure"):
        sa.gramian({"w": jnp.eye(2)}, {"b": jnp.eye(2)})


@pytest.mark.parametrize(
    "aggregator",
    [
        sa.Mean(),
        sa.Sum(),
        sa.UPGrad(),
        sa.DualProj(),
        sa.MGDA(),
        sa.PCGrad(),
        sa.IMTLG(),
        sa.AlignedMTL(),
        sa.ConFIG(),
        sa.GradDrop(),
        sa.GradVac(),
        sa.Random(),
        sa.TrimmedMean(0),
        sa.ExcessMTL(),
        sa.PCD(),
        sa.MoDo(),
        sa.SDMGrad(),
        sa.CRMOGM(sa.UPGrad()),
    ],
    ids=lambda aggregator: type(aggregator).__name__,
)
def test_one_objective_is_plain_gradient_descent(aggregator):
    gradient = jnp.array([3.0, -4.0])
    np.testing.assert_allclose(aggregator(gradient[None], key=KEY), gradient, rtol=1e-12)


def test_one_objective_of_methods_that_choose_their_length():
    gradient = jnp.array([3.0, -4.0])
    np.testing.assert_allclose(sa.CAGrad(c=0.5)(gradient[None]), 1.5 * gradient, rtol=1e-12)
    np.testing.assert_allclose(sa.NashMTL()(gradient[None]), gradient / 5, rtol=1e-12)
    # ||g||^2 w = w^(-1/2)
    expected = 25 ** (-2 / 3) * gradient
    np.testing.assert_allclose(sa.FairGrad(alpha=2.0)(gradient[None]), expected, rtol=1e-12)


@pytest.mark.parametrize("name", RANDOM)
def test_random_methods_want_a_key(name):
    with pytest.raises(ValueError, match=f"{name} draws at random: pass a key"):
        ALL[name](jnp.asarray(matrix()))


@pytest.mark.parametrize(
    ("aggregator", "message"),
    [
        (sa.Krum(2), "needs at least 5 objectives"),
        (sa.TrimmedMean(2), "needs at least 5 objectives"),
        (sa.DCGD(), "two objectives"),
        (sa.UPGrad(preference=jnp.ones(3)), r"weights of shape \(4,\)"),
        (sa.Constant(np.ones(3)), r"weights of shape \(4,\)"),
    ],
)
def test_a_number_of_objectives_that_does_not_suit_is_refused(aggregator, message):
    with pytest.raises(ValueError, match=message):
        aggregator(jnp.asarray(matrix()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: sa.CAGrad(c=-1.0),
        lambda: sa.FairGrad(alpha=-1.0),
        lambda: sa.Krum(-1),
        lambda: sa.TrimmedMean(-1),
        lambda: sa.ExcessMTL(robust_step_size=0.0),
        lambda: sa.AlignedMTL(scale_mode="max"),  # pyright: ignore
        lambda: sa.DCGD("middle"),  # pyright: ignore
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"wants|is "):
        make()


def test_long_leaves_have_the_gramian_of_short_ones():
    rng = np.random.default_rng(0)
    for m in (1, 2, 3, 64, 65):
        leaf = rng.standard_normal((m, 3, 7001))
        expected = np.einsum("iab,jab->ij", leaf, leaf)
        np.testing.assert_allclose(sa.gramian(jnp.asarray(leaf)), expected, rtol=1e-9, atol=1e-9)


def test_half_precision_gradients_have_a_single_precision_gramian():
    products = sa.gramian(jnp.full((2, 4000), 0.1, jnp.bfloat16))
    assert products.dtype == jnp.float32
    np.testing.assert_allclose(products, 4000 * float(jnp.bfloat16(0.1)) ** 2, rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_half_precision_gradients_give_a_half_precision_update(name):
    aggregator, jacobian = ALL[name], jnp.asarray(matrix(), jnp.bfloat16)
    state = aggregator.init(jacobian)
    update, after = aggregator.update(jacobian, state, key=KEY)
    assert update.dtype == jnp.bfloat16
    assert jnp.isfinite(update).all()
    # A state that changed its types would be recompiled for, or refused by a scan.
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)


def test_trimmed_mean_is_not_drowned_by_an_outlier():
    column = np.array([1.0, 2.0, 3.0, 1e30])
    assert float(sa.TrimmedMean(1)(jnp.asarray(column[:, None]))[0]) == 2.5


def test_importing_every_aggregator_touches_no_device():
    names = ", ".join(name for name in dir(sa) if name[0].isupper())
    code = (
        f"from sciopt.aggregate import {names}\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
