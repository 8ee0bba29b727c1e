"""The one place where the test run sets JAX's global switches."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

# As the command line has it: idle threads of OpenBLAS are to sleep, not to spin.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
# Before JAX and NumPy size their thread pools: workers that share cores spend them on waiting.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    first = int(worker.removeprefix("gw")) % len(cores)
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, cores[first::count])

# XLA's new emitters of fused loops take half as long again to compile as those before them, and
# tests are mostly compilation. XLA dies of a flag that it does not know: it is asked first.
if "PYTEST_XDIST_WORKER" not in os.environ and "XLA_FLAGS" not in os.environ:
    older = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
    attempt = [sys.executable, "-c", "import jax; jax.devices()"]
    if not subprocess.run(attempt, env=os.environ | older, capture_output=True).returncode:
        os.environ.update(older)

# Runs of the same case, in tests and in processes that they start, compile it once. Workers inherit
# the folder from the process that made it, which also removes it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="sciopt-tests-")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest

jax.config.update("jax_enable_x64", True)


def pytest_unconfigure(config):
    folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
    if "sciopt-tests-" in folder and not hasattr(config, "workerinput"):
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items):
    """The longest first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


_compilations: list[str] = []


@pytest.fixture(scope="session")
def _listening() -> None:
    def listen(event: str, *_: object, **__: object) -> None:
        if "backend_compile" in event:
            _compilations.append(event)

    # For the whole session: older versions of JAX cannot take a listener back.
    jax.monitoring.register_event_duration_secs_listener(listen)


@pytest.fixture
def compilations(_listening: None) -> list[str]:
    """Compilations by XLA, as they happen; empty at first."""
    _compilations.clear()
    return _compilations


@pytest.fixture(scope="module", autouse=True)
def _mappings():
    """Let go of compiled programs before the kernel runs out of mappings for them.

    Each takes a dozen, of 65530 that Linux gives a process; XLA crashes at the end of them.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def compiled_in_haste():
    """Without XLA's optimisations: for tests of many small programs, whose time is compilation.

    In processes that they start as well.
    """
    before = jax.config.read("jax_disable_most_optimizations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def on_four_devices():
    """Runs a script in a process of its own, in which the CPU counts as four devices."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
        environment = {**os.environ, "XLA_FLAGS": flags}
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run
