"""Claims about reading case files, and about what is said when they are wrong."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from case_files import complaint, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cases

BURGERS = cases.shipped()["burgers"].read_text()


@pytest.mark.parametrize("name", cases.shipped())
def test_every_shipped_case_loads_and_round_trips(name, tmp_path):
    case = cases.load(name)
    for key in case.files():
        copy = shutil.copy(case.get(key), tmp_path)
        case = case.with_value(key, Path(copy))
    assert cases.load(written(tmp_path, cases.dump(case))) == case
    assert case.description
    # Networks between functions are judged by a simulation of their own.
    promise = case.evaluate if hasattr(case, "evaluate") else case.reference
    assert case.kind in ("neural_solver", "experts") or case.reference is not None
    assert promise.tolerance is not None


def test_an_error_names_file_line_column_key_and_the_right_word(tmp_path):
    path = written(tmp_path, BURGERS.replace("  steps: ", "  stepz: "))
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "stepz" in text)
    said = complaint(path)
    assert f"{path}:{line}:3: train.stepz: unknown key; did you mean 'steps'?" in said
    assert "train.steps: is required" in said  # all that is wrong is said at once


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=many", "train.steps: expected a whole number, got 'many'"),
        ("train.stepz=1", "did you mean 'steps'?"),
        ("equation=burger", "did you mean 'burgers'?"),
        ("train.optimizer.type=adma", "did you mean 'adam"),
        ("train.optimizer={type: adam, damping: 1}", "train.optimizer.damping: unknown key"),
        ("train.optimizer=[{type: adam}, {type: bfgs}]", "but the last needs its steps"),
        ("train.optimizer.steps=5", "takes what train.steps leaves it"),
        ("train.optimizer=[{type: soap, stepz: 5}, {type: bfgs}]", "did you mean 'steps'?"),
        ("train.optimizer=[{type: soap, steps: 5}, {type: ssbroydn}]", "did you mean 'ssbroyden'?"),
        ("train.optimizer=[{type: adam, steps: 5}]", "at least 2"),
        ("conditions.walls.type=neuman", "did you mean 'neumann'?"),
        ("conditions.walls.at.x=0.5", "0.5 is no face of the domain; faces are at -1 and 1"),
        ("conditions.start.values.u=sin(q)", "'q' is not known here"),
        ("conditions.start.values.u=u_x", "is a derivative, which cannot stand here"),
        ("conditions.start.values={w: 0}", "there is no such unknown"),
        ("conditions.more={type: initial, values: {u: 1}, hard: true}", "the same as the hard"),
        ("domain.x=[1, -1]", "the interval [1.0, -1.0] is empty"),
        ("parameters.nu=1/0", "the value is inf"),
        ("parameters.u=1", "'u' is used twice"),
        (
            "kind=pin",
            "simulate, control, minimise, experts, got 'pin'; did you mean 'pinn'?",
        ),
        ("seed=-1", "seed: should be greater than or equal to 0, got -1"),
        ("weights.mass=2", "no equation has this name"),
        ("evaluate.grid={x: 3}", "must name each coordinate once: x, t"),
        ("conditions.start.values.u=cos(pi*x)", "cole_hopf is the solution of"),
        ("reference={type: file, path: ../../etc/passwd}", "lies outside the case's folder"),
        ("reference={type: file, path: /etc/hostname}", "lies outside the case's folder"),
        ("network={type: pirate, width: 32, embedding: {features: 16}}", "must be the network's"),
        ("train.steps", "expected KEY=VALUE"),
        ("description.a.b=1", "has no keys below it"),
    ],
)
def test_overrides_that_make_no_sense_are_refused_in_words(override, message):
    assert message in complaint(Path("burgers"), override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("equations.load=laplacian(w)", "laplacian(w) is of no unknown; known are u"),
        ("equations.load=laplacian(u) - x", "the vector x stands outside of sum, mean and prod"),
        ("equations.load=u_x", "'u_x' is not known here"),
        ("equations.load=u_x6", "'u_x6' is not known here"),
        ("conditions.faces.values.u=laplacian(u)", "cannot stand here"),
        ("conditions.faces.at.x=2", "2 is no face of the domain; faces are at 0 and 1"),
        ("conditions.faces.at={x9: 0}", "there is no such coordinate"),
        ("conditions.more={type: dirichlet, at: {x3: 0}, values: {u: 0}, hard: true}", ""),
        ("domain.x.dimensions=0", "domain.x.dimensions: should be greater"),
        ("domain.x={dimension: 5}", "did you mean 'dimensions'?"),
        ("domain.x1=[0, 1]", "the coordinate 'x1' is given twice"),
        ("evaluate.points=null", "or give evaluate.points"),
        ("evaluate.grid={x9: 3}", "evaluate.grid.x9: there is no such coordinate"),
        ("evaluate.grid={x1: 90000, x2: 90000}", "has 8.1e+09 points"),
        ("reference={type: cole_hopf}", "cannot judge random points"),
    ],
)
def test_mistakes_about_vectors_are_said_in_words(override, message):
    if not message:
        cases.load("poisson5d", [override])
        return
    assert message in complaint(Path("poisson5d"), override)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.steps=7", lambda case: case.train.steps == 7),
        ("parameters.nu=1e-3", lambda case: case.parameters["nu"] == 1e-3),
        ("parameters.nu=1/pi^2", lambda case: case.parameters["nu"] == 1 / np.pi**2),
        ("sampler.adapt=null", lambda case: case.sampler.adapt is None),
        ("description=no", lambda case: case.description == "no"),  # YAML 1.2: no is a word
        (
            "train.optimizer={type: adam, learning_rate: 1e-2}",
            lambda case: case.train.optimizer.learning_rate == 1e-2,
        ),
        (
            "train.optimizer=[{type: soap, steps: 5}, {type: fadam, steps: 6}, {type: ssbfgs}]",
            lambda case: case.train.ends == (5, 11),
        ),
    ],
)
def test_overrides_change_any_key(override, read):
    assert read(cases.load("burgers", [override]))


def test_an_equation_of_ones_own_equals_the_known_one(tmp_path):
    own = "unknowns: [u]\nequations: {momentum: 'u_t + u*u_x - nu*u_xx'}"
    path = written(tmp_path, BURGERS.replace("equation: burgers ", own + " "))
    assert cases.load(path, ["name=burgers"]) == cases.load("burgers")


def test_sizes_that_exhaust_memory_are_refused_with_estimate_and_limit():
    said = complaint(Path("burgers"), "sampler.points=1000000000")
    assert "would need about 2.38e+04 GB" in said
    assert "the limit is" in said
    with pytest.raises(cases.CaseError, match=r"the limit is 0\.4 GB"):
        cases.load("burgers", memory_limit=400_000_000)


def test_a_limited_memory_is_counted_for_what_it_holds():
    wide = [
        "train.optimizer={type: ssbroyden}", "network={type: mlp, width: 2000, depth: 4}",
        "sampler.adapt.candidates=5000",
    ]  # fmt: skip
    with pytest.raises(cases.CaseError, match="would need about"):
        cases.load("burgers", wide, memory_limit=10**11)
    cases.load("burgers", [*wide, "train.optimizer.history_length=10"], memory_limit=10**11)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    secret = tmp_path / "secret.npz"
    np.savez(secret, x=np.arange(3.0))
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "ref.npz").symlink_to(secret)
    path = written(inner, BURGERS.replace("{type: cole_hopf}", "{type: file, path: ref.npz}"))
    assert "lies outside the case's folder" in complaint(path)


def problems_of(path: Path, *sets: str) -> tuple:
    """What is wrong with a case, if anything: any other exception fails the test."""
    try:
        cases.load(path, sets)
    except cases.CaseError as e:
        return e.problems
    return ()


HOSTILE = {
    "empty": b"",
    "comment": b"# nothing\n",
    "scalar": b"hello",
    "list": b"[1, 2]",
    "binary": bytes(range(256)) * 8,
    "not utf-8": b"a: \xff\xfe",
    "nul": b"a: \x00",
    "brackets": b"[" * 200_000,
    "million brackets": b"[" * 1_000_000,
    "braces": b"{a: " * 50_000,
    "dashes": b"- " * 100_000,
    "questions": b"? " * 100_000,
    "many keys": b"".join(b"k%d: 1\n" % i for i in range(20_000)),
    "bomb": b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
    "merge": b"a: &a {x: 1}\nb: {<<: *a}\n",
    "python tag": b"a: !!python/object/apply:os.system ['true']\n",
    "tag": b"!foo {a: 1}",
    "two documents": b"a: 1\n---\nb: 2\n",
    "directive": b"%FOO bar\n---\na: 1\n",
    "twice": b"seed: 1\nseed: 2\n",
    "tabs": b"a:\n\t- b\n",
    "unclosed": b"a: 'b\nc: d\n",
    "long digits": b"seed: " + b"9" * 100_000,
    "list key": b"? [1, 2]\n: 3\n",
    "null key": b"~: 3\n",
    "timestamp": b"seed: 2001-01-01\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_a_clear_error_and_soon(name, tmp_path):
    path = written(tmp_path, HOSTILE[name])
    before = time.process_time()  # other tests may have most of the core
    said = complaint(path)
    assert time.process_time() - before < 2
    assert said.startswith(str(path))
    assert len(said) < 2000


def test_a_folder_and_a_missing_file_are_clear_errors(tmp_path):
    assert "cannot be read" in complaint(tmp_path)
    assert "did you mean the shipped case 'burgers'?" in complaint(tmp_path / "burgrs.yaml")


@pytest.mark.parametrize("name", ["million brackets", "bomb", "many keys", "long digits"])
def test_hostile_text_takes_little_memory(name, tmp_path):
    """In a process of its own, under a limit of 500 MB of address space beyond the start."""
    path = written(tmp_path, HOSTILE[name])
    script = (
        "import cases, pathlib, re, resource, sys\n"
        "try: cases.load(sys.argv[1])\n"
        "except cases.CaseError: pass\n"
        "else: sys.exit(1)\n"
        # Linux counts into ru_maxrss what the parent held at the fork; VmHWM begins with the exec.
        "status = pathlib.Path('/proc/self/status')\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', status.read_text()) if status.exists() else None\n"
        "print(peak[1] if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 500e6


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
        st.sampled_from(["u_xx", "__import__('os')", "x.y", "9^9^9^9", "(" * 50, "mlp", "adam"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
KEYS = [
    "kind", "seed", "precision", "unknowns", "equations", "domain", "domain.x", "conditions",
    "conditions.walls", "conditions.walls.at", "conditions.walls.at.x", "conditions.start.values",
    "reference", "network", "network.width", "sampler", "sampler.adapt", "train", "train.optimizer",
    "evaluate", "evaluate.grid", "parameters", "parameters.nu", "weights", "units", "name",
]  # fmt: skip


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KEYS), values)
def test_any_value_under_any_key_loads_or_is_a_case_error(key, value):
    problems = problems_of(Path("burgers"), f"{key}={json.dumps(value)}")
    assert all(str(problem) for problem in problems)
    assert len("".join(map(str, problems))) < 10_000


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mangled_files_load_or_are_a_case_error(tmp_path_factory, data):
    text = bytearray(BURGERS.encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 12))] = data.draw(st.binary(max_size=12))
    path = written(tmp_path_factory.getbasetemp(), bytes(text))
    assert all(str(problem).startswith(str(path)) for problem in problems_of(path))


def test_loading_does_not_import_jax():
    script = "import cases, sys; cases.load('burgers'); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_the_json_schema_accepts_the_shipped_cases_and_refuses_a_typo():
    import jsonschema
    from ruamel.yaml import YAML

    schema = cases.json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    for path in cases.shipped().values():
        raw = YAML(typ="safe", pure=True).load(path)
        assert not list(validator.iter_errors(raw)), path.stem
        assert list(validator.iter_errors({**raw, "trian": {}}))
    for kind in ("pinn", "transport"):
        properties = schema["$defs"][kind]["properties"]
        assert all("description" in field for field in properties.values()), kind
