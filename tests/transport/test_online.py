"""Claims about the online mode: the dense answer, in blocks, on any number of devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.costs import SqEuclidean
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem

from transport import SinkhornNewtonSparse
from transport._online import OnlineSemidual

pytestmark = pytest.mark.usefixtures("compiled_in_haste")

RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(40, 3))), jnp.asarray(RNG.normal(size=(30, 3)) + 0.5)
A, B = (jnp.asarray(RNG.dirichlet(np.full(k, 3.0))) for k in (40, 30))
A, B = A.at[2].set(0) / (1 - A[2]), B.at[29].set(0) / (1 - B[29])


def solve(x, a, epsilon, **options) -> Any:
    # Blocks of 7 do not divide 30 columns; levels of 2, 5 and 40 points.
    solver = SinkhornNewtonSparse(threshold=1e-12, coarse=2)
    problem = LinearProblem(PointCloud(x, Y, epsilon=epsilon, **options), a, B)
    out, history = solver.run(problem)
    return out.reg_ot_cost, (out, history)


slopes = jax.value_and_grad(solve, argnums=(0, 1, 2), has_aux=True)


def test_blocks_give_the_dense_potentials_cost_and_derivatives():
    at = (X, A, jnp.asarray(0.1))
    (value, (out, history)), ours = slopes(*at, batch_size=7)
    (expected, (dense, _)), theirs = slopes(*at)
    assert out.converged
    assert int(history.newton.sum()) > 0
    assert jnp.allclose(out.f, dense.f, atol=1e-10)
    assert jnp.allclose(out.g, dense.g, atol=1e-10)
    assert jnp.allclose(value, expected, atol=1e-11)
    assert jnp.allclose(ours[0], theirs[0], atol=1e-9)
    assert jnp.allclose(ours[2], theirs[2], atol=1e-9)
    of_a, expected = ours[1][A > 0], theirs[1][A > 0]  # up to a constant: masses stay equal
    assert jnp.allclose(of_a - of_a[0], expected - expected[0], atol=1e-9)
    assert jnp.abs(out.matrix.sum(1) - A).sum() <= 1e-11


def test_a_product_is_that_with_the_tiles_that_matter():
    groups, tiles, tile, blocks, block = 2, 4, 5, 6, 32
    x, y = RNG.uniform(size=(groups * tiles * tile, 2)), RNG.uniform(size=(blocks, block, 2))
    a, b = np.full(len(x), 1 / len(x)), np.full((blocks, block), 1 / (blocks * block))
    x_, y_, a_, b_ = map(jnp.asarray, (x, y, a, b))
    dual = OnlineSemidual(x_, y_, a_, b_, SqEuclidean(), jnp.ones(()), tile, groups)
    it = dual.at(jnp.asarray(RNG.uniform(size=len(x))), jnp.asarray(0.1))
    matters = RNG.uniform(size=(blocks, groups, tiles)) < 0.2
    by_row, s = RNG.uniform(size=len(x)), RNG.normal(size=len(x))
    product = dual.tiled_product(it, jnp.asarray(0.1), jnp.asarray(by_row), jnp.asarray(matters))

    cost = np.sum((x[:, None] - y.reshape(-1, 2)) ** 2, axis=-1)
    plan = np.exp((np.asarray(it.f)[:, None] + np.asarray(it.g).ravel() - cost) / 0.1)
    # Two blocks of 32 columns are one; a tile in one group brings others into the other.
    pairs = matters.reshape(3, 2, groups, tiles).any(1)
    most = pairs.sum(-1).max(-1)
    order = np.argsort(~pairs, axis=-1, kind="stable")
    used = np.zeros_like(pairs)
    for k, g in np.ndindex(3, groups):
        used[k, g, order[k, g, : most[k]]] = True
    mask = np.repeat(np.repeat(used.reshape(3, -1), tile, axis=1), 2 * block, axis=0).T
    q = mask * by_row[:, None] * plan * np.sqrt(blocks * block)
    assert used.any()
    assert not used.all()
    np.testing.assert_allclose(product(jnp.asarray(s)), q @ (s @ q), rtol=1e-10, atol=1e-14)


def test_costs_that_are_not_finite_and_masses_that_differ_are_refused():
    with pytest.raises(Exception, match="NaN or infinite"):
        slopes(X.at[3, 0].set(jnp.nan), A, jnp.asarray(0.1), batch_size=7)
    with pytest.raises(Exception, match="different masses"):
        slopes(X, 2 * A, jnp.asarray(0.1), batch_size=7)
    with pytest.raises(ValueError, match="coarse"):
        SinkhornNewtonSparse(coarse=0)


def test_rows_over_four_devices_give_one_device_s_answer_and_are_never_gathered(on_four_devices):
    script = """
    import re
    import jax, jax.numpy as jnp, numpy as np
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from transport import SinkhornNewtonSparse
    from transport._sinkhorn_newton_sparse import groups_of

    solver = SinkhornNewtonSparse(threshold=1e-10, coarse=8)
    n, m = 512, 60
    x, y = (jax.random.normal(jax.random.key(i), (k, 3)) for i, k in enumerate((n, m)))
    a, b = jnp.ones(n) / n, jnp.ones(m) / m

    @jax.jit
    def solve(x, y, a, b):
        problem = LinearProblem(PointCloud(x, y, epsilon=0.05, batch_size=16), a, b)
        out, history = solver.run(problem)
        return out.f, out.g, out.reg_ot_cost, out.converged, history.newton.sum()

    mesh = Mesh(np.array(jax.devices()), ("rows",))
    rows, whole = NamedSharding(mesh, P("rows")), NamedSharding(mesh, P())
    put = jax.device_put
    assert (groups_of(put(x, rows)), groups_of(x)) == (4, 1)
    compiled = solve.lower(put(x, rows), put(y, whole), put(a, rows), put(b, whole)).compile()
    four = compiled(put(x, rows), put(y, whole), put(a, rows), put(b, whole))
    one = solve(x, y, a, b)
    assert one[3] and four[3] and one[4] == four[4] > 0, (one[3:], four[3:])
    for p, q in zip(one[:3], four[:3]):
        np.testing.assert_allclose(p, q, rtol=0, atol=1e-12)
    sizes = [
        np.prod([int(k) for k in shape.split(",") if k] or [1])
        for shape in re.findall(r"f64\\[([\\d,]*)\\][^=]*? all-gather", compiled.as_text())
    ]
    assert max(sizes, default=0) < n, sizes
    assert "all-reduce" in compiled.as_text()
    print("same", four[0].sharding.spec, sizes)
    """
    done = on_four_devices(script)
    assert done.stdout.startswith("same"), done.stderr[-3000:]
