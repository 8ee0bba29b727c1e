"""What is wrong between the parts of a bridge's case that are valid each."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from .._measures import atoms
from .._measures.schema import Points
from .._model import Complaint, Key
from .schema import Case, Discrete, Exact, Gaussian, Light, Potential, Snapshot


def known(case: Case) -> bool:
    """Whether the true bridge is known."""
    ends = isinstance(case.source, Gaussian) and isinstance(case.target, Gaussian)
    return ends or isinstance(case.target, Potential)


def contradictions(case: Case) -> Iterator[Complaint]:
    """Between ends, process, method and reference."""
    if isinstance(case.target, Potential):
        if case.rate != 0:
            yield ("rate",), "a potential's bridge is that of Brownian motion", "leave it out"
        if isinstance(case.epsilon, tuple):
            message = "a potential's bridge has one for all dimensions"
            yield ("epsilon",), message, "take a number"
    if isinstance(case.reference, Exact) and not known(case):
        hint = "take two ends of {type: gaussian}, target: {type: potential}, or a snapshot"
        yield ("reference", "type"), "the true bridge between these ends is not known", hint
    method = case.method
    if isinstance(method, Light):
        shown = getattr(case.target, "points", None)
        if shown is not None and method.components > shown:
            message = f"there are more components than the {shown} points of the target"
            yield ("method", "components"), message, "take fewer"
        if method.rank != 1 and method.covariance != "low_rank":
            hint = "take covariance: low_rank, or leave it out"
            yield ("method", "rank"), f"a {method.covariance} covariance has none", hint
    yield from _of_several(case)
    for key, end in populations(case).items():
        weighted = isinstance(end, Points) and end.weighted
        if weighted and not isinstance(method, Discrete):
            hint = "take method: {type: discrete}, or points of one weight"
            yield (*key, "weighted"), f"{method.type} takes no weights", hint
    sizes = {
        key: end.dimensions for key, end in populations(case).items() if hasattr(end, "dimensions")
    }
    yield from _in_one_space(case, sizes)


def _of_several(case: Case) -> Iterator[Complaint]:
    """Of laws between the ends, and of ends whose mass may change."""
    times = [0.0, *(shown.time for shown in case.between)]
    for k, (early, late) in enumerate(pairwise(times)):
        if late <= early:
            yield ("between", k, "time"), f"{late:g} does not come after {early:g}", ""
    method = case.method
    if case.between:
        if not isinstance(method, Discrete):
            hint = "take method: {type: discrete}"
            yield ("between",), f"{method.type} has no bridge of several laws in a case", hint
        if isinstance(case.reference, Exact):
            hint = "take reference: {type: snapshot, ...}"
            yield ("reference", "type"), "the true bridge of several laws is not known", hint
    if isinstance(method, Discrete) and not method.balanced:
        name = "tau_a" if method.tau_a < 1 else "tau_b"
        if case.between:
            hint = f"leave {name} out"
            yield ("method", name), "mass that changes between several laws has no chain", hint
        if isinstance(case.reference, Exact) and isinstance(case.target, Potential):
            message = "ends whose weights may change are not those of the true bridge"
            yield ("method", name), message, "take a snapshot for the reference, or none"


def contradictions_of_files(case: Case) -> Iterator[Complaint]:
    """Of what the files hold, each alone and together."""
    sizes: dict[Key, int] = {}
    for key, end in populations(case).items():
        if isinstance(end, Points):
            try:
                points = atoms.read(end).points
            except ValueError as e:
                message, _, hint = str(e).partition("; ")
                yield (*key, "file"), message, hint
                return
            sizes[key] = points.shape[1]
            least = 2 if key[0] == "reference" else 1
            if key == ("target",) and isinstance(case.method, Light):
                least = case.method.components
            if len(points) < least:
                yield (*key, "file"), f"has {len(points)} points; {least} are needed", ""
                return
        elif hasattr(end, "dimensions"):
            sizes[key] = end.dimensions
    yield from _in_one_space(case, sizes)


def populations(case: Case) -> dict[Key, Any]:
    """The ends, and the snapshot where there is one."""
    found: dict[Key, Any] = {("source",): case.source, ("target",): case.target}
    if isinstance(case.reference, Snapshot):
        found[("reference", "population")] = case.reference.population
    for k, shown in enumerate(case.between):
        found[("between", k, "population")] = shown.population
    return found


def _in_one_space(case: Case, sizes: dict[Key, int]) -> Iterator[Complaint]:
    if ("source",) not in sizes:
        return
    d = sizes["source",]
    for key, other in sizes.items():
        if other != d:
            message = f"points have {other} coordinates, and those of the source {d}"
            yield key, message, "all must lie in one space"
    for name in ("epsilon", "rate", "centre"):
        value = getattr(case, name)
        if isinstance(value, tuple) and len(value) != d:
            yield (name,), f"has {len(value)} numbers, and the source {d} coordinates", ""
    for start in case.draw.starts or ():
        if len(start) != d:
            message = f"a start has {len(start)} coordinates, and the source {d}"
            yield ("draw", "starts"), message, ""
            return
