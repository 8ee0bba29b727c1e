r"""Sinkhorn-Newton-Sparse: a few Sinkhorn sweeps, then Newton steps on a sparsified Hessian.

Follows Tang, Shavlovsky, Rahmanian, Tardini, Thekumparampil, Xiao and Ying, *Accelerating Sinkhorn
Algorithm with Sparse Newton Iterations* (ICLR 2024), algorithm 1 and section 4, in the log domain.
The columns are scaled exactly in each evaluation, so that Newton acts on the semi-dual; and the
regularisation is lowered in stages, as in Schmitzer, *Stabilized Sparse Scaling Algorithms for
Entropy Regularized Transport Problems* (2019).
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import core, lax
from jaxtyping import Array, Bool, Float, Scalar
from ott.geometry.geometry import Geometry
from ott.geometry.grid import Grid
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import SinkhornOutput

from ._grid import GridSemidual, soft_sums
from ._implicit import at_optimum, at_optimum_on_grid, centred
from ._online import OnlineSemidual, cells, in_blocks, taken, total_mass
from ._semidual import Iterate, Semidual, dual_value, masses_of

# Online: rows of a tile of the plan at most, and points for each that stands for them one level up.
TILE, LADDER = 256, 8


class History(eqx.Module):
    r"""What each iteration did: arrays of length `max_iterations`, -1 after the last.

    **Attributes:**

    - `error`: marginal error $\|P1 - a\|_1$ after the iteration, at that iteration's epsilon.
    - `epsilon`: the regularisation at which it ran.
    - `newton`: whether it was a Newton step (else a Sinkhorn sweep).
    """

    error: Float[Array, " iterations"]
    epsilon: Float[Array, " iterations"]
    newton: Bool[Array, " iterations"]

    @classmethod
    def empty(cls, length: int, dtype) -> "History":
        none = jnp.full(length, -1, dtype)
        return cls(none, none, jnp.zeros(length, bool))

    def append(self, k, error: Scalar, epsilon: Scalar, newton: bool) -> "History":
        return History(
            self.error.at[k].set(error),
            self.epsilon.at[k].set(epsilon),
            self.newton.at[k].set(newton),
        )


class SinkhornNewtonSparse(eqx.Module):
    r"""Entropic optimal transport to machine precision, called as ott's `Sinkhorn` is.

    Solves $\min_{P1 = a,\, P^\top 1 = b} \langle C, P \rangle + \varepsilon\,
    \mathrm{KL}(P \,|\, a b^\top)$ through its concave dual. At each of a few decreasing
    regularisations, Sinkhorn sweeps bring the marginal error below `handover`; Newton steps with
    backtracking follow, and their convergence is quadratic. Sinkhorn's linear rate degrades like
    $e^{-1/\varepsilon}$ at worst, Newton's does not.

    A Newton step solves with $\mathrm{diag}(P1) - P\,\mathrm{diag}(1/b) P^\top$, made on the
    smaller side of the plan. The plan is sparsified and the system solved by preconditioned
    conjugate gradients, to a tolerance that falls with the marginal error. Where that side is at
    most `direct_below` the dense system is factorised instead, which on a CPU is no slower up to
    about a hundred atoms; `direct_below=0` is the paper's algorithm at every size.

    The whole is one compiled program; it works under `jax.vmap` and `jax.grad`. `reg_ot_cost` is
    differentiated by the envelope theorem and `f`, `g` and `matrix` implicitly, with respect to
    the cost (hence points), the weights and epsilon.

    On a `Grid` of more than `direct_below` points nothing of the plan's size is made: all goes axis
    by axis, Newton's step as well, which drops no entries (`density` has no effect) and has
    products of $O(n^{1 + 1/d})$ operations on as many numbers. Derivatives are the same.

    Of other geometries the cost matrix is held in memory, but for a `PointCloud` with a
    `batch_size`: its costs are recomputed in blocks of at most that many columns, in $O(n)$ memory
    a column. Points are put in the order of a k-d tree. The regularisation is lowered on `coarse`
    points of each cloud only, and their potentials extended, over levels of eight times as many
    points, to all. A Newton step multiplies with those tiles of the plan that hold an entry that
    matters, `density` notwithstanding, and ends with a sweep. `x` and `a` may be sharded over
    devices along their rows. Of the outputs `reg_ot_cost` is differentiable then, once.

    **Arguments:**

    - `threshold`: marginal error $\|P1 - a\|_1$, relative to the mass, at which to stop. An
        error that rounding does not let fall further also stops, with `converged` false.
    - `max_iterations`: the most sweeps and Newton steps, together.
    - `handover`: relative marginal error below which sweeps give way to Newton steps.
    - `min_sweeps`, `max_sweeps`: bounds on the sweeps at each regularisation; online, where the
        start comes from fewer points, at most one need be made.
    - `decay`: the factor between successive regularisations.
    - `density`: the fraction $\rho$ of the plan's entries that the sparse Hessian may hold; by
        default, 16 for each atom of the larger side. A plan not as sparse as this is used whole.
    - `direct_below`: smaller side of the plan up to which the system is factorised.
    - `coarse`: online, the number of points of each cloud that the first potentials come from.

    !!! Example

        ```python
        >>> import jax, transport
        >>> from ott.geometry.pointcloud import PointCloud
        >>> from ott.problems.linear.linear_problem import LinearProblem
        >>> x, y = jax.random.normal(jax.random.key(0), (2, 30, 2))
        >>> problem = LinearProblem(PointCloud(x, y, epsilon=1e-2))
        >>> out = transport.SinkhornNewtonSparse(threshold=1e-4)(problem)
        >>> bool(out.converged), out.matrix.shape
        (True, (30, 30))

        ```
    """

    threshold: float = eqx.field(default=1e-9, static=True)
    max_iterations: int = eqx.field(default=1000, static=True)
    handover: float = eqx.field(default=0.5, static=True)
    min_sweeps: int = eqx.field(default=2, static=True)
    max_sweeps: int = eqx.field(default=50, static=True)
    decay: float = eqx.field(default=2.0, static=True)
    density: float | None = eqx.field(default=None, static=True)
    direct_below: int = eqx.field(default=100, static=True)
    coarse: int = eqx.field(default=1024, static=True)

    def __check_init__(self):
        if self.threshold < 0 or self.max_iterations < 1:
            raise ValueError("`threshold` must not be negative, `max_iterations` at least 1.")
        if self.decay <= 1:
            raise ValueError(f"`decay` divides epsilon and must exceed 1; got {self.decay}.")
        if self.density is not None and not 0 < self.density <= 1:
            raise ValueError(f"`density` is a fraction in (0, 1]; got {self.density}.")
        if self.coarse < 1:
            raise ValueError(f"`coarse` is a number of points; got {self.coarse}.")
        if not 0 <= self.min_sweeps <= self.max_sweeps:
            raise ValueError("`min_sweeps` must be between 0 and `max_sweeps`.")

    def __call__(self, ot_prob: LinearProblem) -> SinkhornOutput:
        """Solves `ot_prob`.

        **Arguments:**

        - `ot_prob`: a balanced problem on any geometry, $n \\times m$. Weights may be zero, and
            need not sum to one.

        **Returns:**

        ott's `SinkhornOutput`. Its `errors` are those of [`transport.History`][]; atoms without
        mass have a potential of minus infinity, as in ott.

        **Raises:**

        `ValueError` for unbalanced problems and shapes that do not match; a runtime error for
        costs that are not finite, weights that are negative or not finite, marginals of different
        mass, or an epsilon that is not positive.
        """
        return self.run(ot_prob)[0]

    def run(self, ot_prob: LinearProblem) -> tuple[SinkhornOutput, History]:
        """As calling it, with the record of every iteration beside the output."""
        check_balanced(ot_prob, "SinkhornNewtonSparse")
        geometry, a, b = ot_prob.geom, ot_prob.a, ot_prob.b
        epsilon = jnp.asarray(ot_prob.epsilon)
        if isinstance(geometry, PointCloud) and geometry.batch_size is not None:
            clouds = (geometry.x, geometry.y, geometry.cost_fn, geometry.inv_scale_cost)
            groups = groups_of(jnp.asarray(geometry.x))
            out, history = _solve_online(self, *clouds, a, b, epsilon, geometry.batch_size, groups)
        elif isinstance(geometry, Grid) and a.size > self.direct_below:
            out, history = _solve_grid(self, geometry.x, geometry.cost_fns, a, b, epsilon)
        else:
            # Whatever the geometry, one program for each shape.
            out, history = _solve(self, cost_matrix(geometry), a, b, epsilon)
        return out.set(ot_prob=ot_prob), history


def check_balanced(ot_prob: LinearProblem, solver: str) -> None:
    """Raises a `ValueError` for what `solver` cannot solve whatever the values are."""
    if not ot_prob.is_balanced:
        raise ValueError(
            f"{solver} solves balanced problems: tau_a = tau_b = 1; got "
            f"tau_a={ot_prob.tau_a}, tau_b={ot_prob.tau_b}."
        )
    shape = (*ot_prob.a.shape, *ot_prob.b.shape)
    if shape != tuple(ot_prob.geom.shape) or 0 in shape:
        raise ValueError(f"Weights of sizes {shape} for a cost of shape {ot_prob.geom.shape}.")


def cost_matrix(geometry: Geometry) -> Float[Array, "n m"]:
    """Every cost; a grid, which makes no matrix of its own, is applied to the identity."""
    if isinstance(geometry, Grid):
        return geometry.apply_cost(jnp.eye(geometry.shape[0]), axis=1)
    return geometry.cost_matrix


@eqx.filter_jit
def _solve(solver: SinkhornNewtonSparse, cost, a, b, epsilon):
    dtype = cost.dtype
    a, b, epsilon = a.astype(dtype), b.astype(dtype), epsilon.astype(dtype)
    data = checked(*lax.stop_gradient((cost, a, b, epsilon)))

    f, g, history, converged = _descend(solver, *data)
    f, g = centred(f, g)
    mass = jnp.sum(masses_of(f[:, None] + g - cost, epsilon))
    value = dual_value(f, g, a, b, epsilon, mass)
    f, g = at_optimum(f, g, cost, a, b, epsilon)
    return _output(solver, f, g, value, converged, history), history


@eqx.filter_jit
def _solve_grid(solver: SinkhornNewtonSparse, x, cost_fns, a, b, epsilon):
    cost_fns = (*cost_fns, *[cost_fns[-1]] * (len(x) - len(cost_fns)))

    def along_axes(x):
        return tuple(
            fn.all_pairs(t[:, None], t[:, None]) for fn, t in zip(cost_fns, x, strict=True)
        )

    fixed, moving = along_axes(lax.stop_gradient(x)), along_axes(x)
    # Where it is differentiated, ott 0.6's norm of zero is one: of that only derivatives are taken.
    costs = jax.tree.map(lambda c, moves: c + (moves - lax.stop_gradient(moves)), fixed, moving)
    a, b, epsilon = (v.astype(fixed[0].dtype) for v in (a, b, epsilon))
    a_, b_, epsilon_ = lax.stop_gradient((a, b, epsilon))
    ends = jnp.stack([sum(map(jnp.min, fixed)), sum(map(jnp.max, fixed))])
    (low, high), a_, b_, epsilon_ = checked(ends, a_, b_, epsilon_)

    dual = GridSemidual(costs=fixed, a=a_, b=b_)
    f, g, history, converged = _lower(solver, dual, high - low, epsilon_)
    f, g = centred(f, g)
    total = soft_sums(f, costs, epsilon)[1]
    value = dual_value(f, g, a, b, epsilon, jnp.sum(masses_of(g + total, epsilon)))
    f, g = at_optimum_on_grid(f, g, costs, a, b, epsilon)
    return _output(solver, f, g, value, converged, history), history


def _output(solver: SinkhornNewtonSparse, f, g, value, converged, history) -> SinkhornOutput:
    return SinkhornOutput(
        (f, g),
        errors=history.error,
        reg_ot_cost=value,
        threshold=jnp.asarray(solver.threshold, f.dtype),
        converged=converged,
        inner_iterations=1,
    )


def groups_of(x: Array) -> int:
    """Each device sorts its own rows, so that none move; a tracer may be on all of them."""
    traced = isinstance(x, core.Tracer)
    devices = jax.device_count() if traced else len(x.sharding.device_set)
    return devices if len(x) % devices == 0 else 1


@eqx.filter_jit
def _solve_online(
    solver: SinkhornNewtonSparse, x, y, cost_fn, scale, a, b, epsilon, block: int, groups: int
):
    dtype = x.dtype
    a, b, epsilon, scale = (jnp.asarray(v, dtype) for v in (a, b, epsilon, scale))
    x_, a_ = x.reshape(groups, -1, x.shape[1]), a.reshape(groups, -1)
    rows, columns = jax.vmap(lambda x: cells(x, TILE))(x_), cells(y, block)
    x_ = jax.vmap(taken)(x_, rows).reshape(-1, x.shape[1])
    a_ = jax.vmap(lambda a, rows: taken(a, rows, 0))(a_, rows).ravel()
    y_, b_ = taken(y, columns), taken(b, columns, 0)
    live = OnlineSemidual(x_, y_, a_, b_, cost_fn, scale, rows.shape[-1], groups)
    dual, epsilon_ = lax.stop_gradient((live, epsilon))
    (low, high), *weights, epsilon_ = checked(jnp.stack(dual.spread()), dual.a, dual.b, epsilon_)
    dual = eqx.tree_at(lambda d: (d.a, d.b), dual, tuple(weights))

    mass = jnp.sum(dual.a)
    target = solver.threshold * mass
    floor = _floor(high - low, epsilon_, mass)
    history = History.empty(solver.max_iterations, dtype)
    it = dual.at(_from_coarse(solver, dual, epsilon_), epsilon_)
    # The start is near: a sweep for what the extension has wrong in single rows is enough.
    solver = dataclasses.replace(solver, min_sweeps=min(1, solver.min_sweeps))
    it, _, history = climb(solver, dual, it, epsilon_, target, floor, jnp.array(0), history)
    f_, g_ = centred(it.f, it.g)
    total = total_mass(live, f_, g_, epsilon)

    def unsorted(values, index, like):
        return jnp.zeros_like(like).at[index].set(values.reshape(index.shape), mode="drop")

    f = jax.vmap(unsorted)(f_.reshape(groups, -1), rows.reshape(groups, -1), a.reshape(groups, -1))
    f, g = f.ravel(), unsorted(g_, columns, b)
    value = dual_value(f, g, a, b, epsilon, total)
    return _output(solver, f, g, value, it.error <= target, history), history


def _from_coarse(solver: SinkhornNewtonSparse, dual: OnlineSemidual, epsilon):
    """A row potential to begin with: that of the problem between every so many of the points.

    Points are in the order of a tree: every so many of them are spread over the cloud, and each
    bears the weight of those that it stands for.
    """
    n, m, block = len(dual.x), dual.b.size, dual.y.shape[1]
    loose = dataclasses.replace(solver, threshold=max(solver.threshold, 1e-2))

    def some(points, weights, fewest):
        stride = -(-len(points) // fewest)
        return points[::stride], jnp.sum(in_blocks(weights, stride, 0), axis=1)

    middle = max(n, m) > 2 * LADDER * solver.coarse
    x, a = some(dual.x, dual.a, -(-n // LADDER) if middle else solver.coarse)
    points = dual.y.reshape(m, -1)
    y, b = some(points, dual.b.ravel(), -(-m // LADDER) if middle else solver.coarse)
    tile, block = min(dual.tile, len(x)), min(block, len(y))
    blocks = in_blocks(y, block, y[-1])
    if middle:
        x, a = (in_blocks(v, tile, fill) for v, fill in ((x, x[-1]), (a, 0)))
        x, a = x.reshape(-1, x.shape[-1]), a.ravel()
        b = in_blocks(b, block, 0)
        few = OnlineSemidual(x, blocks, a, b, dual.cost_fn, dual.scale, tile, 1)
        it = few.at(_from_coarse(solver, few, epsilon), epsilon)
        mass = jnp.sum(a)
        history = History.empty(solver.max_iterations, a.dtype)
        it, *_ = climb(loose, few, it, epsilon, loose.threshold * mass, 0, jnp.array(0), history)
        g = it.g
    else:
        cost = dual.scale * dual.cost_fn.all_pairs(x, y)
        g = in_blocks(_descend(loose, cost, a, b, epsilon)[1], block, -jnp.inf)
    return dual.extended(blocks, g, epsilon)


def _floor(spread, epsilon, mass) -> Scalar:
    """No marginal is better: potentials of size `spread`, divided by epsilon, are rounded."""
    return 30 * jnp.finfo(mass.dtype).eps * jnp.maximum(spread / epsilon, 1) * mass


def checked(cost, a, b, epsilon):
    """The data, or a runtime error that says what is wrong with them."""
    mass_a, mass_b = jnp.sum(a), jnp.sum(b)
    slack = jnp.sqrt(jnp.finfo(cost.dtype).eps) * mass_a
    for wrong, message in (
        (~jnp.all(jnp.isfinite(cost)), "The cost matrix has entries that are NaN or infinite."),
        (
            ~(jnp.all(jnp.isfinite(a) & (a >= 0)) & jnp.all(jnp.isfinite(b) & (b >= 0))),
            "Weights must be finite and not negative.",
        ),
        (~((mass_a > 0) & (mass_b > 0)), "A marginal has no mass."),
        (
            ~(jnp.abs(mass_a - mass_b) <= slack),
            "The marginals have different masses: normalise them, for there is no coupling.",
        ),
        (~((epsilon > 0) & jnp.isfinite(epsilon)), "epsilon must be positive and finite."),
    ):
        cost = eqx.error_if(cost, wrong, message)
    return cost, a, b * (mass_a / mass_b), epsilon


def climb(
    solver: SinkhornNewtonSparse, dual, it, epsilon, target, floor, k, history, reach=float("inf")
):
    """Sweeps, then Newton steps, at one epsilon, until the marginal error is below `target`.

    A step that no longer halves an error below `floor`, that of rounding, ends it as well. No
    potential moves farther than `reach` epsilons in a Newton step.
    """
    mass = jnp.sum(dual.a)

    def more_sweeps(carry):
        it, k, _, swept = carry
        wanted = (swept < solver.min_sweeps) | (it.error > solver.handover * mass)
        enough = (swept >= solver.max_sweeps) | (k >= solver.max_iterations)
        return wanted & ~enough & (it.error > target)

    def sweep(carry):
        it, k, history, swept = carry
        it = dual.sweep(it, epsilon)
        return it, k + 1, history.append(k, it.error, epsilon, False), swept + 1

    it, k, history, _ = lax.while_loop(more_sweeps, sweep, (it, k, history, 0))

    def more_steps(carry):
        it, k, _, stalled = carry
        return (it.error > target) & (k < solver.max_iterations) & ~stalled

    def step(carry):
        it, k, history, _ = carry
        new = _newton_step(solver, dual, it, epsilon, reach)
        stalled = (new.error > 0.5 * it.error) & (new.error < floor)
        better = new.error < it.error
        new = jax.tree.map(lambda x, y: jnp.where(stalled & ~better, y, x), new, it)
        return new, k + 1, history.append(k, new.error, epsilon, True), stalled

    it, k, history, _ = lax.while_loop(more_steps, step, (it, k, history, jnp.array(False)))
    return it, k, history


def _newton_step(solver: SinkhornNewtonSparse, dual, it: Iterate, epsilon, reach) -> Iterate:
    """A damped Newton step with backtracking; a sweep where no length is accepted."""
    direction = dual.direction(it, epsilon, solver.density, solver.direct_below)
    # A factorisation that failed gives no direction, and a sweep is made in its place.
    direction = jnp.where(jnp.all(jnp.isfinite(direction)), direction, 0)
    slope = direction @ (dual.a - it.row)

    def unaccepted(carry):
        _, _, tried, accepted = carry
        return ~accepted & (tried < 10)

    def shorten(carry):
        _, length, tried, _ = carry
        new = dual.at(it.f + length * direction, epsilon)
        ascent = dual.gain(it, new, length * direction) >= 1e-4 * length * slope
        # Near the optimum the gain is lost in rounding before the gradient is.
        accepted = (ascent & (slope > 0)) | (new.error <= 0.5 * it.error)
        return new, length / 2, tried + 1, accepted

    longest = jnp.max(jnp.abs(direction)) / epsilon
    first = jnp.minimum(1, reach / jnp.where(longest > 0, longest, 1))
    start = (it, first, jnp.array(0), jnp.array(False))
    new, _, _, accepted = lax.while_loop(unaccepted, shorten, start)
    return lax.cond(accepted, lambda: dual.settled(new, epsilon), lambda: dual.sweep(it, epsilon))


def _descend(solver: SinkhornNewtonSparse, cost, a, b, epsilon):
    """Potentials, history and convergence; on the side of the plan with fewer atoms."""
    if cost.shape[0] > cost.shape[1]:
        g, f, *rest = _descend(solver, cost.T, b, a, epsilon)
        return f, g, *rest
    return _lower(solver, Semidual(cost, a, b), jnp.ptp(cost), epsilon)


def _lower(solver: SinkhornNewtonSparse, dual, spread, epsilon):
    """As `_descend`, of a dual whose costs differ by `spread` at most."""
    mass = jnp.sum(dual.a)
    floor = _floor(spread, epsilon, mass)

    def stage(carry):
        it, eps, k, history, _ = carry
        eps = jnp.maximum(epsilon, eps / solver.decay)
        last = eps <= epsilon
        target = mass * jnp.where(last, solver.threshold, 0.1)
        it = dual.at(it.f, eps)
        it, k, history = climb(solver, dual, it, eps, target, floor, k, history)
        return it, eps, k, history, last

    def unfinished(carry):
        _, _, k, _, last = carry
        return ~last & (k < solver.max_iterations)

    # At a twentieth of the spread Sinkhorn contracts in a few sweeps from anywhere.
    first = jnp.maximum(epsilon, spread / 20)
    f = jnp.where(dual.a > 0, jnp.zeros_like(dual.a), -jnp.inf)
    history = History.empty(solver.max_iterations, f.dtype)
    begin = (dual.at(f, first), first * solver.decay, jnp.array(0), history, jnp.array(False))
    it, _, _, history, last = lax.while_loop(unfinished, stage, begin)
    return it.f, it.g, history, last & (it.error <= solver.threshold * mass)
