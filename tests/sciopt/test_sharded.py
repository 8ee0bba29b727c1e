"""Claims about residuals whose points are spread over devices, and over processes."""

import os
import socket
import subprocess
import sys

# Both runs below: a step over all devices there are, against a step on one of them.
STEP = r"""
import re, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
if len(sys.argv) > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]))
import sciopt
from sciopt._linearised import linearise

mesh = Mesh(np.array(jax.devices()), ("d",))
assert mesh.size == (2 if len(sys.argv) > 1 else 4)

def spread(tree, spec):
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda i: np.asarray(x)[i]), tree
    )

def collectives(compiled):
    # The sizes of what each kind of collective operation gives.
    sizes = {}
    for line in compiled.as_text().splitlines():
        if found := re.search(r"= (.*?) (all-reduce|all-gather|all-to-all)(-start)?\(", line):
            for dims in re.findall(r"\w+\[([\d,]+)\]", found[1]):
                sizes.setdefault(found[2], []).append(np.prod([int(n) for n in dims.split(",")]))
    return sizes

def value(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]

blocks = {"r": lambda p, x: value(p, x) - jnp.sin(x[0]), "e": value}
# More residuals than parameters, and fewer; neither divides by the number of devices.
for width, count in [(6, 256), (61, 64)]:
    key = jax.random.key(0)
    params = {"w": jax.random.normal(key, (3, width)), "v": jnp.ones(width) / width}
    x = jax.random.normal(jax.random.key(1), (count, 3))
    points = {"r": x, "e": x[: count // 4] + 1}

    def step(residuals, params, points, linear_solver=sciopt.damped.Cholesky()):
        solver = sciopt.GaussNewton(linear_solver=linear_solver)
        jac = residuals.operator if solver.matrix_free else residuals.jacobian
        problem = linearise(residuals.scaled, params, points, jac)
        return solver.advance(problem, solver.start(jnp.zeros(4 * width)))[0]

    plain, over = (sciopt.Residuals(blocks, {"e": 3.0}, m) for m in (None, mesh))
    one = jax.jit(lambda p, x: step(plain, p, x))(params, points)
    everywhere = NamedSharding(mesh, P())
    program = jax.jit(lambda p, x: step(over, p, x), out_shardings=everywhere)
    compiled = program.lower(spread(params, P()), spread(points, P("d"))).compile()
    found = compiled(spread(params, P()), spread(points, P("d"))).addressable_data(0)
    assert np.abs(one).max() > 1e-2
    np.testing.assert_allclose(found, one, rtol=0, atol=1e-10)

    sizes = collectives(compiled)
    rows, columns, smaller = count * 5 // 4, 4 * width, min(count * 5 // 4, 4 * width)
    # The Gramian (its blocks) is summed; of the Jacobian nothing but vectors is gathered, and
    # where its columns are spread each device sends what others are to hold of its rows.
    assert smaller**2 in sizes["all-reduce"], sizes
    gathered = max(sizes.get("all-gather", [0]))
    assert gathered <= max(rows, columns) < rows * columns / mesh.size, sizes
    if rows > columns:
        assert "all-to-all" not in sizes, sizes
    else:
        assert sum(sizes["all-to-all"]) <= rows * -(-columns // mesh.size), sizes
    print("same", sizes)

    # Without the matrix: J^T J summed over chunks of points, and CG in chunks.
    full = sciopt.damped.NystromPreconditioner(rank=smaller)
    if rows > columns:
        free = [sciopt.damped.Cholesky(memory=2**14)]
    else:
        free = [sciopt.damped.CG(1e-14, preconditioner=full, memory=2**16)]
    # In two processes the sum over chunks is enough.
    for linear_solver in free if len(sys.argv) == 1 else free[: rows > columns]:
        program = jax.jit(lambda p, x: step(over, p, x, linear_solver), out_shardings=everywhere)
        compiled = program.lower(spread(params, P()), spread(points, P("d"))).compile()
        found = compiled(spread(params, P()), spread(points, P("d"))).addressable_data(0)
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-10)
        sizes = collectives(compiled)
        most = max(max(rows, columns), smaller**2)
        assert max(max(s) for s in sizes.values()) <= most < rows * columns, sizes
        print("free", sizes)
"""


def test_four_devices_make_the_step_of_one_and_sum_the_gramian(on_four_devices):
    done = on_four_devices(STEP)
    assert done.stdout.count("same") == 2, done.stdout + done.stderr[-3000:]
    assert done.stdout.count("free") == 2, done.stdout + done.stderr[-3000:]


def test_two_processes_make_the_step_of_one():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # One device each, whatever the environment says.
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STEP, str(port), str(process)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for process in range(2)
    ]  # fmt: skip
    try:
        for process in processes:
            out, error = process.communicate(timeout=120)
            assert out.count("same") == 2, out + error[-3000:]
            assert out.count("free") == 1, out + error[-3000:]
    finally:
        for process in processes:
            process.kill()
