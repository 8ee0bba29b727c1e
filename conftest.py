"""The one place where the test run sets JAX's global switches."""

import jax

jax.config.update("jax_enable_x64", True)
