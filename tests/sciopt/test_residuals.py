"""Claims about `sciopt.Residuals`: what blocks of several residuals mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sciopt import Residuals


def pair(p, x):
    return {"up": p["a"] * x + p["b"], "down": jnp.array([p["a"] - x, p["b"] * x])}


ALONE = {
    "up": lambda p, x: pair(p, x)["up"],
    "down": lambda p, x: pair(p, x)["down"],
    "edge": lambda p, x: p["b"] ** 2 * x,
}
WEIGHTS = {"down": 3.0, "edge": 0.5}
PARAMS = {"a": jnp.array(0.7), "b": jnp.array(-1.3)}


def test_a_block_of_several_is_the_blocks_alone():
    x, edge = jnp.linspace(0, 1, 5), jnp.linspace(2, 3, 3)
    grouped = Residuals({"pair": pair, "edge": ALONE["edge"]}, WEIGHTS)
    points = {"pair": x, "edge": edge}
    alone = Residuals(ALONE, WEIGHTS)
    apart = {"up": x, "down": x, "edge": edge}
    for have, want in zip(
        jax.tree.leaves((grouped.jacobian(PARAMS, points), grouped.objectives(PARAMS, points))),
        jax.tree.leaves((alone.jacobian(PARAMS, apart), alone.objectives(PARAMS, apart))),
        strict=True,
    ):
        np.testing.assert_allclose(have, want, rtol=1e-14)
    scaled, jacobian = grouped.jacobian(PARAMS, points)
    flat, unravel = ravel_pytree(PARAMS)
    dense = jax.jacobian(lambda p: ravel_pytree(grouped.scaled(unravel(p), points))[0])(flat)
    assert jacobian.shape == (5 + 10 + 3, 2) == dense.shape
    np.testing.assert_allclose(jacobian, dense, rtol=1e-14)
    np.testing.assert_allclose(
        grouped.loss(PARAMS, points), sum(jnp.sum(r**2) for r in scaled.values()), rtol=1e-14
    )


def test_names_that_clash_or_do_not_exist_are_refused():
    x = jnp.ones(2)
    with pytest.raises(ValueError, match="at least one block"):
        Residuals({})
    with pytest.raises(ValueError, match="Two blocks give residuals named up"):
        Residuals({"pair": pair, "up": ALONE["up"]})(PARAMS, {"pair": x, "up": x})
    for name in ("pair", "left"):
        with pytest.raises(ValueError, match=f"do not exist: {name}"):
            Residuals({"pair": pair}, {name: 1.0}).jacobian(PARAMS, {"pair": x})
