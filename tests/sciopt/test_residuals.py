"""Claims about `sciopt.Residuals`: what blocks of several residuals mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sciopt import Residuals, damped


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


def test_a_left_preconditioner_mixes_points_alike_in_residuals_matrix_and_products():
    mix = jnp.arange(25.0).reshape(5, 5) / 25
    mixed = Residuals({"pair": pair}, {"up": 4.0}, left={"up": lambda r: mix @ r})
    plain = Residuals({"pair": pair}, {"up": 4.0})
    points = {"pair": jnp.linspace(0, 1, 5)}
    (scaled, jacobian), (r, rows) = (f.jacobian(PARAMS, points) for f in (mixed, plain))
    np.testing.assert_allclose(scaled["up"], mix @ r["up"], rtol=1e-14)
    np.testing.assert_allclose(scaled["down"], r["down"], rtol=1e-14)
    np.testing.assert_allclose(jacobian[10:], mix @ rows[10:], rtol=1e-14)
    operator = mixed.operator(PARAMS, points)[1].within(16)
    for have, want in (
        (operator.as_matrix(), jacobian),
        (operator.mv(jnp.array([0.3, -2.0])), jacobian @ jnp.array([0.3, -2.0])),
        (operator.transpose().mv(jnp.arange(15.0)), jacobian.T @ jnp.arange(15.0)),
        (operator.gramian(), jacobian.T @ jacobian),
    ):
        np.testing.assert_allclose(have, want, rtol=1e-12)


def test_products_in_chunks_are_those_of_the_matrix():
    grouped = Residuals({"pair": pair, "edge": ALONE["edge"]}, WEIGHTS)
    points = {"pair": jnp.linspace(0, 1, 13), "edge": jnp.linspace(2, 3, 7)}
    _, matrix = grouped.jacobian(PARAMS, points)
    residuals, operator = grouped.operator(PARAMS, points)
    scaled = grouped.scaled(PARAMS, points)
    assert isinstance(scaled, dict)
    for name, residual in scaled.items():
        np.testing.assert_array_equal(residuals[name], residual)
    v, w = jnp.array([0.3, -2.0]), jnp.sin(jnp.arange(len(matrix)))
    # All at once; in chunks of which the last is padded; point by point.
    for chunked, sizes in ((operator, None), (operator.within(200), 4), (operator.within(1), 1)):
        chunks = chunked._chunks("pair")
        assert (chunks and chunks[0].shape[1]) == sizes

        @jax.jit
        def products(v, w, chunked=chunked):
            return chunked.mv(v), chunked.T.mv(w), chunked.T.T.mv(v), chunked.gramian()

        found = products(v, w)
        for have, want in zip(
            found, (matrix @ v, matrix.T @ w, matrix @ v, matrix.T @ matrix), strict=True
        ):
            np.testing.assert_allclose(have, want, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(operator.as_matrix(), matrix)


@pytest.mark.parametrize("solver", [damped.Cholesky, damped.CG])
def test_the_jacobian_is_never_held_above_the_budget(solver):
    """Of the compiled linear algebra, by XLA's own account: it is not run."""
    residuals = Residuals({"r": lambda p, x: jnp.sum(jnp.tanh(p["w"] @ jnp.cos(p["b"] * x)))})
    params = {"w": jnp.zeros((12, 12)), "b": jnp.zeros(12)}
    points, right = {"r": jnp.zeros(20_000)}, jnp.zeros(20_000)

    def temporaries(memory):
        def step(params, points, right):
            _, operator = residuals.operator(params, points)
            return solver(memory=memory).factor(operator).solve(right, 1.0)

        analysis = jax.jit(step).lower(params, points, right).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    whole = 20_000 * 156 * 8
    assert temporaries(whole // 20) < whole / 2
    if solver is damped.Cholesky:
        assert temporaries(None) > whole
