"""What tests of the aggregators share."""

import jax
import pytest


@pytest.fixture(scope="module")
def compiled_in_haste():
    """Without XLA's optimisations: for tests of many small programs, whose time is compilation."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
