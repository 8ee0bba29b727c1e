"""What the peers' aggregators give on 240 Jacobians, kept for tests that run without them.

    python benchmarks/aggregate_oracle.py

writes `tests/sciopt/aggregate/peers.npz`. Wants `torch`, `torchjd` with its solvers (`quadprog`,
`qpsolvers`, `cvxpy`, `clarabel`, `ecos`) and `conflictfree` installed. The Jacobians have three
shapes and come in eight families: random, conflicting, ill-conditioned, of unequal scale,
rank-deficient, duplicated, opposed, and with zeros. Methods with a memory see three Jacobians in
turn, of which the last update is kept; methods that draw at random are given draws that are kept
too.
"""

# pyright: reportMissingImports=false
import itertools
import pathlib
import warnings

import numpy as np
import torch
import torchjd
from conflictfree.grad_operator import ConFIG_update, ConFIG_update_double
from conflictfree.momentum_operator import PseudoMomentumOperator
from torchjd import aggregation

SHAPES = [(2, 5), (4, 3), (6, 9)]
FAMILIES = [
    "random",
    "conflicting",
    "ill_conditioned",
    "scaled",
    "deficient",
    "duplicated",
    "opposed",
    "zero",
]
STEPS = 3
TARGET = pathlib.Path(__file__).parents[1] / "tests/sciopt/aggregate/peers.npz"


def jacobian(rng, family, m, n):
    matrix = rng.standard_normal((m, n))
    if family == "conflicting":
        matrix -= 1.2 * matrix.mean(0)
    elif family == "ill_conditioned":
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        matrix = u * np.logspace(0, -3, len(s)) @ vt
    elif family == "scaled":
        matrix *= 10 ** rng.uniform(-3, 1, (m, 1))
    elif family == "deficient":
        rank = max(m // 2, 1)
        matrix = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
    elif family == "duplicated":
        matrix[m // 2 :] = matrix[: m - m // 2]
    elif family == "opposed":
        matrix[-1] = -2 * matrix[0]
    elif family == "zero":
        matrix[: rng.integers(1, m + 1)] = 0
    return matrix


def last_update(make, matrices):
    aggregator = make()
    try:
        return [aggregator(torch.from_numpy(matrix)) for matrix in matrices][-1].numpy()
    except ValueError:
        # NashMTL's solver refuses the zero matrix.
        return np.full(matrices[-1].shape[1], np.nan)


def stateless():
    return {
        "Mean": aggregation.Mean(),
        "Sum": aggregation.Sum(),
        "UPGrad": aggregation.UPGrad(),
        "DualProj": aggregation.DualProj(),
        "MGDA": aggregation.MGDA(epsilon=1e-12, max_iters=1000),
        "CAGrad": aggregation.CAGrad(c=0.5),
        "IMTLG": aggregation.IMTLG(),
        "AlignedMTL": aggregation.AlignedMTL(),
        "AlignedMTL_median": aggregation.AlignedMTL(scale_mode="median"),
        "AlignedMTL_rmse": aggregation.AlignedMTL(scale_mode="rmse"),
        "ConFIG": aggregation.ConFIG(),
        "FairGrad": aggregation.FairGrad(alpha=2.0),
    }


def memory(m):
    return {
        "NashMTL": (lambda: aggregation.NashMTL(n_tasks=m), 1),
        "ExcessMTL": (aggregation.ExcessMTL, STEPS),
        "ExcessMTL_warm": (lambda: aggregation.ExcessMTL(n_warmup_steps=2), STEPS),
        "PCD": (lambda: aggregation.PCD(tau=0.1, beta=0.9), STEPS),
    }


def weights_of_products(weighting, matrices):
    """MoDo's and SDMGrad's weights from the product of two batches' Jacobians."""
    products = [first @ second.T for first, second in itertools.pairwise(matrices)]
    return [weighting(torch.from_numpy(product)) for product in products][-1].numpy()


def conflictfree(matrix):
    grads = torch.from_numpy(matrix)
    # The package makes its weights in float32.
    torch.set_default_dtype(torch.float64)
    update = ConFIG_update(grads, use_least_square=False).numpy()
    double = ConFIG_update_double(grads[0], grads[1]).numpy() if len(grads) == 2 else update
    torch.set_default_dtype(torch.float32)
    return update, double


def momentum_config(matrices):
    torch.set_default_dtype(torch.float64)
    m = len(matrices[0])
    operator = PseudoMomentumOperator(m)
    updates = [
        operator.calculate_gradient(step % m, torch.from_numpy(matrices[step % STEPS][step % m]))
        for step in range(2 * m)
    ]
    torch.set_default_dtype(torch.float32)
    return updates[-1].numpy()


def drawn(name, aggregator, matrices, seed):
    """The update after the given Jacobians, and the draws that led to it."""
    m, n = matrices[0].shape
    torch.manual_seed(seed)
    if name == "GradDrop":
        draws = [torch.rand(n, dtype=torch.float64).numpy() for _ in matrices]
    elif name == "PCGrad":
        draws = [[torch.randperm(m).numpy() for _ in range(m)] for _ in matrices]
    else:
        draws = []
        for _ in matrices:
            others = [[j for j in range(m) if j != i] for i in range(m)]
            draws.append(
                [[i, *(others[i][k] for k in torch.randperm(m - 1).tolist())] for i in range(m)]
            )
    torch.manual_seed(seed)
    updates = [aggregator(torch.from_numpy(matrix)) for matrix in matrices]
    return updates[-1].numpy(), np.asarray(draws)


def main():
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    out = {"versions": np.array([f"torchjd {torchjd_version()}", f"torch {torch.__version__}"])}
    for m, n in SHAPES:
        tag = f"{m}x{n}"
        families = [family for family in FAMILIES for _ in range(10)]
        matrices = [jacobian(rng, family, m, n) for family in families]
        out[f"family_{tag}"] = np.array(families)
        out[f"jacobian_{tag}"] = np.array(matrices)
        # Methods with a memory see each Jacobian after its two successors in the list.
        runs = [[matrices[(i + 2 - k) % len(matrices)] for k in range(STEPS)] for i in range(80)]
        for name, aggregator in stateless().items():
            updates = [aggregator(torch.from_numpy(matrix)).numpy() for matrix in matrices]
            out[f"{name}_{tag}"] = np.array(updates)
        for name, (make, steps) in memory(m).items():
            out[f"{name}_{tag}"] = np.array([last_update(make, run[-steps:]) for run in runs])
        for name, make in {
            "MoDo": lambda: aggregation.MoDoWeighting(),
            "SDMGrad": lambda: aggregation.SDMGradWeighting(),
        }.items():
            out[f"{name}_{tag}"] = np.array([weights_of_products(make(), run) for run in runs])
        out[f"CRMOGM_{tag}"] = np.array(
            [
                last_update(
                    lambda: aggregation.GramianWeightedAggregator(
                        aggregation.CRMOGMWeighting(aggregation.UPGradWeighting(), alpha=0.7)
                    ),
                    run,
                )
                for run in runs
            ]
        )
        both = [conflictfree(matrix) for matrix in matrices]
        out[f"conflictfree_{tag}"] = np.array([update for update, _ in both])
        out[f"conflictfree_double_{tag}"] = np.array([double for _, double in both])
        out[f"MConFIG_{tag}"] = np.array([momentum_config(run) for run in runs])
        for name, make, steps in [
            ("PCGrad", aggregation.PCGrad, 1),
            ("GradVac", aggregation.GradVac, STEPS),
            ("GradDrop", aggregation.GradDrop, 1),
        ]:
            results = [drawn(name, make(), run[-steps:], 7 * i) for i, run in enumerate(runs)]
            out[f"{name}_{tag}"] = np.array([update for update, _ in results])
            draws = np.array([draws for _, draws in results])
            out[f"{name}_draws_{tag}"] = draws if name == "GradDrop" else draws.astype(np.int8)
        if m >= 4:
            krum = aggregation.Krum(n_byzantine=1, n_selected=2)
            trimmed = aggregation.TrimmedMean(trim_number=1)
            out[f"Krum_{tag}"] = np.array([krum(torch.from_numpy(j)).numpy() for j in matrices])
            out[f"TrimmedMean_{tag}"] = np.array(
                [trimmed(torch.from_numpy(j)).numpy() for j in matrices]
            )
    np.savez_compressed(TARGET, **out)  # pyright: ignore[reportArgumentType]
    print(f"{TARGET.stat().st_size / 1e3:.0f} kB")


def torchjd_version():
    from importlib.metadata import version

    return version(torchjd.__name__)


if __name__ == "__main__":
    main()
