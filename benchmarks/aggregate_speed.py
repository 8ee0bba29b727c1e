"""Aggregators against TorchJD's and conflictfree's, side by side in one process.

    OPENBLAS_THREAD_TIMEOUT=4 python benchmarks/aggregate_speed.py [--seconds 4]
        [--objectives 2 8 64 512] [--methods UPGrad MGDA ...] [--columns-512 1000000]

writes `benchmarks/results/aggregate_speed.json`; rows that are not measured anew are kept. Wants
`torch`, `torchjd` with its solvers (`quadprog`, `qpsolvers`, `cvxpy`, `clarabel`, `ecos`) and
`conflictfree` installed. Gradients are float32 and conflicting: normal ones, less 1.1 times their
mean. After a warm-up, calls of either side alternate, up to 20 of each or as many as fit in the
seconds given; each row says how many. A pause before each call lets the threads of the other side,
which spin for a while, go to sleep. `passes` is our time in units of one pass over the Jacobian
(its sum). The compiled function takes and gives arrays on the device, its state donated; peers get
a tensor.
"""

# pyright: reportMissingImports=false
import argparse
import json
import os
import pathlib
import statistics
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import torch
from _machine import write
from conflictfree.grad_operator import ConFIG_update
from torchjd import aggregation

import sciopt.aggregate as sa

RESULTS = pathlib.Path(__file__).parent / "results/aggregate_speed.json"


def pairs(m):
    """Ours and the peer for each method."""
    both = {
        "Mean": (sa.Mean(), aggregation.Mean()),
        "Sum": (sa.Sum(), aggregation.Sum()),
        "Constant": (
            sa.Constant(np.linspace(0, 1, m)),
            aggregation.Constant(torch.linspace(0, 1, m)),
        ),
        "UPGrad": (sa.UPGrad(), aggregation.UPGrad()),
        "DualProj": (sa.DualProj(), aggregation.DualProj()),
        "MGDA": (sa.MGDA(), aggregation.MGDA()),
        "PCGrad": (sa.PCGrad(), aggregation.PCGrad()),
        "CAGrad": (sa.CAGrad(c=0.5), aggregation.CAGrad(c=0.5)),
        "NashMTL": (sa.NashMTL(), aggregation.NashMTL(n_tasks=m)),
        "IMTLG": (sa.IMTLG(), aggregation.IMTLG()),
        "AlignedMTL": (sa.AlignedMTL(), aggregation.AlignedMTL()),
        "ConFIG": (sa.ConFIG(), aggregation.ConFIG()),
        "GradDrop": (sa.GradDrop(), aggregation.GradDrop()),
        "GradVac": (sa.GradVac(), aggregation.GradVac()),
        "Random": (sa.Random(), aggregation.Random()),
        "ExcessMTL": (sa.ExcessMTL(), aggregation.ExcessMTL()),
        "FairGrad": (sa.FairGrad(alpha=2.0), aggregation.FairGrad(alpha=2.0)),
        "PCD": (sa.PCD(), aggregation.PCD()),
        "CRMOGM": (
            sa.CRMOGM(sa.UPGrad()),
            aggregation.GramianWeightedAggregator(
                aggregation.CRMOGMWeighting(aggregation.UPGradWeighting())
            ),
        ),
    }
    if m >= 3:
        both["Krum"] = (sa.Krum(0), aggregation.Krum(0))
        both["TrimmedMean"] = (sa.TrimmedMean(1), aggregation.TrimmedMean(1))
    # MoDo and SDMGrad have no aggregator in TorchJD, only weightings of a product.
    return both


def gradients(m, n):
    matrix = np.random.default_rng(0).standard_normal((m, n), dtype=np.float32)
    return matrix - np.float32(1.1) * matrix.mean(0)


def ours(aggregator, jacobian):
    # The state is given away, as a training loop does: large ones are renewed where they lie.
    step = jax.jit(lambda j, state, key: aggregator.update(j, state, key=key), donate_argnums=1)
    memory = {"state": aggregator.init(jacobian), "key": jax.random.key(0)}

    def call():
        update, memory["state"] = step(jacobian, memory["state"], memory["key"])
        jax.block_until_ready(update)

    return call


def clock(call):
    time.sleep(0.01)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(first, second, seconds, repeats=20):
    clock(first)
    once = clock(first) + clock(second)
    count = int(max(1, min(repeats, seconds // max(once, 1e-9))))
    times = [(clock(first), clock(second)) for _ in range(count)]
    a, b = (statistics.median(each) for each in zip(*times, strict=True))
    return a, b, count


def row(method, peer, m, n, a, b, count, one_pass):
    out = {
        "method": method,
        "peer": peer,
        "m": m,
        "n": n,
        "ours_ms": round(a * 1e3, 3),
        "peer_ms": round(b * 1e3, 3),
        "ratio": round(b / a, 2),
        "passes": round(a / one_pass, 1),
        "repeats": count,
    }
    print(out, flush=True)
    return out


def main():
    parser = argparse.ArgumentParser(description="Time the aggregators against their peers.")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--columns-512", type=int, default=1_000_000)
    parser.add_argument("--objectives", type=int, nargs="+", default=[2, 8, 64, 512])
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    total = jax.jit(jnp.sum)
    old = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    rows, floors = {}, {}
    for each in old.get("rows", []):
        rows[each["method"], each["peer"], each["m"], each["n"]] = each
    for each in old.get("floors", []):
        floors[each["m"], each["n"]] = each

    def measure(m, n, methods):
        matrix = gradients(m, n)
        jacobian, tensor = jnp.asarray(matrix), torch.from_numpy(matrix)
        gram = jax.jit(sa.gramian)
        one_pass, product, count = compare(
            lambda: total(jacobian).block_until_ready(),
            lambda: gram(jacobian).block_until_ready(),
            arguments.seconds,
        )
        floors[m, n] = {
            "m": m,
            "n": n,
            "pass_ms": round(one_pass * 1e3, 3),
            "gramian_ms": round(product * 1e3, 3),
            "repeats": count,
        }
        print(floors[m, n], flush=True)
        for method, (mine, theirs, peer) in methods(tensor).items():
            if arguments.methods and method not in arguments.methods:
                continue
            try:
                a, b, count = compare(ours(mine, jacobian), theirs, arguments.seconds)
            except ValueError as error:  # a peer's solver that gives up
                print(method, m, n, error)
                continue
            rows[method, peer, m, n] = row(method, peer, m, n, a, b, count, one_pass)
            save()

    def against_torchjd(tensor):
        m = len(tensor)
        return {
            name: (mine, lambda peer=peer: peer(tensor), "torchjd")
            for name, (mine, peer) in pairs(m).items()
            # Its cvxpy problem of 512 logarithms takes minutes.
            if not (m == 512 and name == "NashMTL")
        }

    def against_conflictfree(tensor):
        return {"ConFIG": (sa.ConFIG(), lambda: ConFIG_update(tensor), "conflictfree")}

    def save():
        result = {
            "threads": threads,
            "load_at_end": round(os.getloadavg()[0], 1),
            "dtype": "float32",
            "floors": list(floors.values()),
            "rows": list(rows.values()),
        }
        write(arguments.out, result, "torch", "torchjd", "conflictfree")

    if arguments.methods is None or "ConFIG" in arguments.methods:
        for m in (3, 8, 64):
            for n in (10_000, 1_000_000):
                measure(m, n, against_conflictfree)
    for m in arguments.objectives:
        measure(m, arguments.columns_512 if m == 512 else 1_000_000, against_torchjd)


if __name__ == "__main__":
    main()
