"""Every aggregator against TorchJD's or conflictfree's, on 240 float64 Jacobians.

`benchmarks/aggregate_oracle.py` ran the peers and wrote `peers.npz`; it says what the families are.
Where a peer is no oracle, the test says why and asks for the better objective.
"""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sciopt.aggregate as sa
from sciopt.aggregate._graddrop import keep_one_sign
from sciopt.aggregate._pcgrad import project_conflicts

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

SHAPES = ["2x5", "4x3", "6x9"]
PEERS = np.load(pathlib.Path(__file__).parent / "peers.npz")


def jacobians(tag, families=None):
    kept = slice(None) if families is None else np.isin(PEERS[f"family_{tag}"], families)
    return PEERS[f"jacobian_{tag}"][kept]


def peer(name, tag, families=None):
    kept = slice(None) if families is None else np.isin(PEERS[f"family_{tag}"], families)
    return PEERS[f"{name}_{tag}"][kept]


def histories(tag):
    """The three Jacobians that methods with a memory see."""
    j = jacobians(tag)
    return np.stack([np.roll(j, -2, 0), np.roll(j, -1, 0), j], axis=1)


def each(fn, *batched):
    return np.asarray(jax.jit(jax.vmap(fn))(*batched))


def third_update(aggregator):
    def fn(history):
        state, updates = aggregator.init(history[0]), []
        for jacobian in history:
            update, state = aggregator.update(jacobian, state)
            updates.append(update)
        return updates[-1]

    return fn


def assert_close(ours, theirs, tolerance=1e-8):
    scale = np.maximum(1, np.abs(theirs).max(axis=1, keepdims=True))
    np.testing.assert_array_less(np.abs(ours - theirs) / scale, tolerance)


def test_there_are_at_least_200_jacobians_of_8_kinds():
    assert sum(len(jacobians(tag)) for tag in SHAPES) >= 200
    assert all(len(set(PEERS[f"family_{tag}"])) == 8 for tag in SHAPES)


@pytest.mark.parametrize("tag", SHAPES)
@pytest.mark.parametrize(
    ("name", "aggregator"),
    [
        ("Mean", sa.Mean()),
        ("Sum", sa.Sum()),
        ("UPGrad", sa.UPGrad()),
        ("DualProj", sa.DualProj()),
        ("IMTLG", sa.IMTLG()),
        ("AlignedMTL", sa.AlignedMTL()),
        ("AlignedMTL_median", sa.AlignedMTL(scale_mode="median")),
    ],
)
def test_stateless_methods_agree_with_torchjd(name, aggregator, tag):
    assert_close(each(aggregator, jacobians(tag)), peer(name, tag))


@pytest.mark.parametrize("tag", SHAPES)
def test_aligned_mtl_rmse_agrees_with_torchjd(tag):
    # The mean eigenvalue over the smallest: relative accuracy is epsilon times the condition
    # number of the Gramian, 1e8 among the badly scaled.
    ours = each(sa.AlignedMTL(scale_mode="rmse"), jacobians(tag))
    assert_close(ours, peer("AlignedMTL_rmse", tag), 1e-7)


@pytest.mark.parametrize("tag", SHAPES[1:])
def test_trimmed_mean_agrees_with_torchjd(tag):
    assert_close(each(sa.TrimmedMean(1), jacobians(tag)), peer("TrimmedMean", tag))


@pytest.mark.parametrize("tag", SHAPES[1:])
def test_krum_agrees_with_torchjd_given_its_power_of_the_distances(tag):
    # Among duplicates scores are equal, and which is selected is a matter of rounding.
    others = [f for f in set(PEERS[f"family_{tag}"]) if f != "duplicated"]
    ours = each(sa.Krum(1, 2, power=1), jacobians(tag, others))
    assert_close(ours, peer("Krum", tag, others))


@pytest.mark.parametrize("tag", SHAPES)
@pytest.mark.parametrize(
    ("name", "aggregator"),
    [
        ("ExcessMTL", sa.ExcessMTL()),
        ("ExcessMTL_warm", sa.ExcessMTL(n_warmup_steps=2)),
        ("PCD", sa.PCD(tau=0.1, beta=0.9)),
        ("CRMOGM", sa.CRMOGM(sa.UPGrad(), alpha=0.7)),
    ],
)
def test_methods_with_a_memory_agree_with_torchjd_at_the_third_step(name, aggregator, tag):
    assert_close(each(third_update(aggregator), histories(tag)), peer(name, tag))


@pytest.mark.parametrize("tag", SHAPES)
def test_modo_and_sdmgrad_agree_with_torchjd_on_products_of_two_batches(tag):
    def modo(history):
        weights = sa.MoDo().init(history[0])
        for first, second in itertools.pairwise(history):
            weights = sa.MoDo().reweigh(first @ second.T, weights)
        return weights

    def sdmgrad(history):
        state, weights = sa.SDMGrad().init(history[0]), None
        for first, second in itertools.pairwise(history):
            weights, state = sa.SDMGrad().reweigh(first @ second.T, state)
        return weights

    assert_close(each(modo, histories(tag)), peer("MoDo", tag))
    assert_close(each(sdmgrad, histories(tag)), peer("SDMGrad", tag))


@pytest.mark.parametrize("tag", SHAPES)
def test_random_methods_agree_with_torchjd_given_its_draws(tag):
    m = jacobians(tag).shape[1]
    surgery = each(lambda j, d: project_conflicts(j @ j.T, d[0]) @ j, *_with("PCGrad", tag))
    assert_close(surgery, peer("PCGrad", tag))
    signs = each(
        lambda j, d: keep_one_sign(j, d[0], lambda p: p, jnp.zeros(m)), *_with("GradDrop", tag)
    )
    assert_close(signs, peer("GradDrop", tag))


def _with(name, tag):
    return jacobians(tag), PEERS[f"{name}_draws_{tag}"]


@pytest.mark.parametrize("tag", SHAPES)
def test_gradvac_agrees_with_torchjd_given_its_draws(tag):
    def third(history, draws):
        state, updates = sa.GradVac().init(history[0]), []
        for jacobian, orders in zip(history, draws, strict=True):
            weights, state = sa.GradVac().vaccinate(jacobian @ jacobian.T, state, orders)
            updates.append(weights @ jacobian)
        return updates[-1]

    ours = each(third, histories(tag), PEERS[f"GradVac_draws_{tag}"])
    # Parallel gradients have a sine of sqrt(rounding), 1e-8, that the gains divide by.
    parallel = np.isin(PEERS[f"family_{tag}"], ["duplicated", "opposed", "deficient"])
    assert_close(ours[~parallel], peer("GradVac", tag)[~parallel])


@pytest.mark.parametrize("name", ["ConFIG", "conflictfree"])
@pytest.mark.parametrize("tag", SHAPES)
def test_config_agrees_with_torchjd_and_conflictfree(name, tag):
    j = jacobians(tag)
    ours = each(sa.ConFIG(), j)
    # Two opposed gradients have no equal cosine but zero: the peers scale up rounding.
    norms = np.linalg.norm(j, axis=2, keepdims=True)
    units = j / np.where(norms > 0, norms, 1)
    opposed = np.abs(units.sum(axis=1)).max(axis=1) < 1e-8
    np.testing.assert_array_equal(ours[opposed], 0)
    assert_close(ours[~opposed], peer(name, tag)[~opposed])


def test_config_of_two_agrees_with_the_closed_form_of_conflictfree():
    # That form divides by the sine of the angle; parallel gradients are no input for it.
    families = ["random", "conflicting", "scaled"]
    ours = each(sa.ConFIG(), jacobians("2x5", families))
    assert_close(ours, peer("conflictfree_double", "2x5", families))


@pytest.mark.parametrize("tag", SHAPES)
def test_mconfig_agrees_with_conflictfree_after_two_rounds(tag):
    m = jacobians(tag).shape[1]

    def last(history):
        agg = sa.MConFIG()
        state, updates = agg.init(history[0]), []
        for step in range(2 * m):
            update, state = agg.update_one(history[step % 3][step % m], step % m, state)
            updates.append(update)
        return updates[-1]

    ours, theirs = each(last, histories(tag)), peer("MConFIG", tag)
    # Where a moment is zero the closed form that conflictfree uses for two objectives is 0 / 0.
    defined = np.isfinite(theirs).all(axis=1)
    assert defined.sum() >= 65
    assert np.isfinite(ours).all()
    assert_close(ours[defined], theirs[defined])


@pytest.mark.parametrize("tag", SHAPES)
def test_mgda_is_never_longer_than_torchjds_and_agrees_where_that_converged(tag):
    # TorchJD runs Frank-Wolfe, here up to 1000 steps, whose error falls as one over the steps.
    ours, theirs = each(sa.MGDA(), jacobians(tag)), peer("MGDA", tag)
    length, bound = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    assert np.all(length <= bound + 1e-14 * np.linalg.norm(jacobians(tag), axis=(1, 2)))
    converged = bound - length < 1e-17
    assert_close(ours[converged], theirs[converged], 1e-7)


@pytest.mark.parametrize("tag", SHAPES)
def test_cagrad_has_the_better_worst_objective_within_the_ball(tag):
    # Clarabel stops at a gap of 1e-8, so its point is off by the root of that.
    j = jacobians(tag)
    ours, theirs = each(sa.CAGrad(c=0.5), j), peer("CAGrad", tag)
    assert_close(ours, theirs, 1e-3)
    moved = np.abs(theirs).max(axis=1) > 0
    np.testing.assert_array_equal(ours[~moved], 0)
    mean = j.mean(axis=1)
    radius = 0.5 * np.linalg.norm(mean, axis=1)
    scale = np.linalg.norm(j, axis=(1, 2))
    assert np.all((np.linalg.norm(ours - mean, axis=1) <= radius + 1e-12 * scale)[moved])
    ours_worst = np.einsum("bmn,bn->bm", j, ours).min(axis=1)
    # A peer outside of the ball by its tolerance is first drawn back to it.
    excess = np.linalg.norm(theirs - mean, axis=1)
    drawn = mean + (theirs - mean) * np.minimum(1, radius / np.maximum(excess, 1e-300))[:, None]
    theirs_worst = np.einsum("bmn,bn->bm", j, drawn).min(axis=1)
    assert np.all((ours_worst >= theirs_worst - 1e-12 * scale**2)[moved])


def has_common_descent(j):
    """Whether the shortest convex combination is safely not zero."""
    unit = j / np.maximum(np.linalg.norm(j, axis=2, keepdims=True), 1e-300)
    return np.linalg.norm(each(sa.MGDA(), unit), axis=1) > 1e-3


@pytest.mark.parametrize("tag", SHAPES)
def test_nash_mtl_solves_its_equation_and_makes_the_better_bargain(tag):
    # TorchJD linearises around the last solution, as the authors do, and stops before it
    # converges.
    j = jacobians(tag)
    bargain = has_common_descent(j)
    gramians = np.einsum("bmn,bkn->bmk", j, j)[bargain]
    alpha = each(sa.NashMTL(max_norm=0.0).weights, gramians)
    scaled = gramians / np.linalg.norm(gramians, axis=(1, 2), keepdims=True)
    residual = alpha * np.einsum("bmk,bk->bm", scaled, alpha) - 1
    assert np.abs(residual).max() < 1e-9
    ours, theirs = each(sa.NashMTL(), j)[bargain], peer("NashMTL", tag)[bargain]
    assert np.all(np.linalg.norm(ours, axis=1) < 1 + 1e-8)

    def product_of_gains(update):
        gains = np.einsum("bmn,bn->bm", j[bargain], update)
        gains = gains / np.linalg.norm(update, axis=1, keepdims=True)
        return np.log(np.maximum(gains, 1e-300)).sum(axis=1)

    assert np.all(product_of_gains(ours) >= product_of_gains(theirs) - 1e-12)


@pytest.mark.parametrize("tag", SHAPES)
def test_fairgrad_solves_its_equation_better_than_torchjd(tag):
    # TorchJD leaves it to scipy's least_squares, which stops at relative changes of 1e-8.
    j = jacobians(tag)
    fair = has_common_descent(j)
    gramians = np.einsum("bmn,bkn->bmk", j, j)[fair]
    w = each(sa.FairGrad(alpha=2.0).weights, gramians)
    assert np.all(w > 0)
    residual = np.einsum("bmk,bk->bm", gramians, w) * np.sqrt(w) - 1
    assert np.abs(residual).max() < 1e-8
    ours, theirs = each(sa.FairGrad(alpha=2.0), j)[fair], peer("FairGrad", tag)[fair]

    def potential(update):
        # alpha-fairness with alpha = 2 maximises minus the sum of inverse gains; along a ray the
        # optimum of its dual fixes the length, so compare directions.
        gains = np.einsum("bmn,bn->bm", j[fair], update)
        gains = gains / np.linalg.norm(update, axis=1, keepdims=True)
        return np.where(gains > 0, 1 / np.maximum(gains, 1e-300), np.inf).sum(axis=1)

    assert np.all(potential(ours) <= potential(theirs) * (1 + 1e-12))
