r"""Sinkhorn-Newton-Sparse: a few Sinkhorn sweeps, then Newton steps on a sparsified Hessian.

Follows Tang, Shavlovsky, Rahmanian, Tardini, Thekumparampil, Xiao and Ying, *Accelerating Sinkhorn
Algorithm with Sparse Newton Iterations* (ICLR 2024), algorithm 1 and section 4, in the log domain.
The columns are scaled exactly in each evaluation, so that Newton acts on the semi-dual; and the
regularisation is lowered in stages, as in Schmitzer, *Stabilized Sparse Scaling Algorithms for
Entropy Regularized Transport Problems* (2019).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Scalar
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import SinkhornOutput, compute_kl_reg_cost

from ._implicit import at_optimum, centred
from ._schur import direct, normalised, sparse


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

    def append(self, k, error: Scalar, epsilon: Scalar, newton: bool) -> "History":
        return History(
            self.error.at[k].set(error),
            self.epsilon.at[k].set(epsilon),
            self.newton.at[k].set(newton),
        )


class Iterate(eqx.Module):
    """A row potential, and what scaling the columns exactly makes of it."""

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    plan: Float[Array, "n m"]
    row: Float[Array, " n"]
    error: Scalar


class _Semidual(eqx.Module):
    r"""$\phi(f) = \langle a, f \rangle + \langle b, g(f) \rangle$, $g(f)$ the soft c-transform.

    Its gradient is $a - P1$; the mass of $P$ is constant and drops out.
    """

    cost: Float[Array, "n m"]
    a: Float[Array, " n"]
    b: Float[Array, " m"]

    def at(self, f: Float[Array, " n"], epsilon: Scalar) -> Iterate:
        logits = (f[:, None] - self.cost) / epsilon
        top = jnp.max(logits, axis=0)
        kernel = jnp.exp(logits - top)
        total = jnp.sum(kernel, axis=0)
        plan = kernel * (self.b / total)
        row = jnp.sum(plan, axis=1)
        g = epsilon * (jnp.log(self.b) - top - jnp.log(total))
        return Iterate(f, g, plan, row, jnp.sum(jnp.abs(row - self.a)))

    def sweep(self, it: Iterate, epsilon: Scalar) -> Iterate:
        """One Sinkhorn iteration: scale the rows, then the columns; the dual never decreases."""
        # A row whose sum underflowed is raised as far as the smallest number warrants.
        row = jnp.maximum(it.row, jnp.finfo(it.row.dtype).tiny)
        return self.at(it.f + epsilon * (jnp.log(self.a) - jnp.log(row)), epsilon)

    def gain(self, old: Iterate, new: Iterate, step: Float[Array, " n"]) -> Scalar:
        """The increase of the dual, summed from differences so that large potentials cancel."""
        rise = jnp.where(self.b > 0, self.b * (new.g - old.g), 0)
        return jnp.sum(rise) + self.a @ step


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
    the cost (hence points), the weights and epsilon. The cost matrix is held in memory.

    **Arguments:**

    - `threshold`: marginal error $\|P1 - a\|_1$, relative to the mass, at which to stop. An
        error that rounding does not let fall further also stops, with `converged` false.
    - `max_iterations`: the most sweeps and Newton steps, together.
    - `handover`: relative marginal error below which sweeps give way to Newton steps.
    - `min_sweeps`, `max_sweeps`: bounds on the sweeps at each regularisation.
    - `decay`: the factor between successive regularisations.
    - `density`: the fraction $\rho$ of the plan's entries that the sparse Hessian may hold; by
        default, 16 for each atom of the larger side. A plan not as sparse as this is used whole.
    - `direct_below`: smaller side of the plan up to which the system is factorised.

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
    min_sweeps: int = eqx.field(default=5, static=True)
    max_sweeps: int = eqx.field(default=50, static=True)
    decay: float = eqx.field(default=2.0, static=True)
    density: float | None = eqx.field(default=None, static=True)
    direct_below: int = eqx.field(default=100, static=True)

    def __check_init__(self):
        if self.threshold < 0 or self.max_iterations < 1:
            raise ValueError("`threshold` must not be negative, `max_iterations` at least 1.")
        if self.decay <= 1:
            raise ValueError(f"`decay` divides epsilon and must exceed 1; got {self.decay}.")
        if self.density is not None and not 0 < self.density <= 1:
            raise ValueError(f"`density` is a fraction in (0, 1]; got {self.density}.")
        if not 0 <= self.min_sweeps <= self.max_sweeps:
            raise ValueError("`min_sweeps` must be between 0 and `max_sweeps`.")

    def __call__(self, ot_prob: LinearProblem) -> SinkhornOutput:
        """Solves `ot_prob`.

        **Arguments:**

        - `ot_prob`: a balanced problem on any geometry that has a `cost_matrix`, $n \\times m$.
            Weights may be zero, and need not sum to one.

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
        if not ot_prob.is_balanced:
            raise ValueError(
                "SinkhornNewtonSparse solves balanced problems: tau_a = tau_b = 1; got "
                f"tau_a={ot_prob.tau_a}, tau_b={ot_prob.tau_b}."
            )
        shape = (*ot_prob.a.shape, *ot_prob.b.shape)
        if shape != tuple(ot_prob.geom.shape) or 0 in shape:
            raise ValueError(f"Weights of sizes {shape} for a cost of shape {ot_prob.geom.shape}.")
        out, history = _solve(self, jax.tree.map(jnp.asarray, ot_prob))
        return out.set(ot_prob=ot_prob), history


@eqx.filter_jit
def _solve(solver: SinkhornNewtonSparse, problem: LinearProblem):
    cost = problem.geom.cost_matrix
    dtype = cost.dtype
    a, b = problem.a.astype(dtype), problem.b.astype(dtype)
    epsilon = jnp.asarray(problem.epsilon, dtype)
    data = _checked(*lax.stop_gradient((cost, a, b, epsilon)))

    f, g, history, converged = _descend(solver, *data)
    f, g = centred(f, g)
    frozen = (f, g)
    f, g = at_optimum(f, g, cost, a, b, epsilon)
    out = SinkhornOutput(
        (f, g),
        errors=history.error,
        reg_ot_cost=compute_kl_reg_cost(*frozen, problem, lse_mode=True),
        threshold=jnp.asarray(solver.threshold, dtype),
        converged=converged,
        inner_iterations=1,
    )
    return out, history


def _checked(cost, a, b, epsilon):
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


def _descend(solver: SinkhornNewtonSparse, cost, a, b, epsilon):
    """Potentials, history and convergence; on the side of the plan with fewer atoms."""
    if cost.shape[0] > cost.shape[1]:
        g, f, *rest = _descend(solver, cost.T, b, a, epsilon)
        return f, g, *rest

    n, m = cost.shape
    dtype = cost.dtype
    mass = jnp.sum(a)
    dual = _Semidual(cost, a, b)
    spread = jnp.max(cost) - jnp.min(cost)
    # Potentials of size `spread`, divided by epsilon, are rounded: no marginal is better than this.
    floor = 30 * jnp.finfo(dtype).eps * jnp.maximum(spread / epsilon, 1) * mass
    wanted = 16 * m if solver.density is None else int(solver.density * n * m)
    capacity = min(max(n + m, wanted), n * m)

    def newton_direction(it: Iterate, epsilon):
        q, by_row = normalised(it.plan, jnp.where(a > 0, it.row, 0), b)
        rhs = by_row * (a - it.row)
        error = it.error / mass
        # Proportional to the error: it tames the far field and leaves convergence superlinear.
        damping = 1e-2 * error + 500 * jnp.finfo(dtype).eps
        if n <= solver.direct_below:
            s = direct(q, rhs, damping)
        else:
            tightness = jnp.minimum(1e-2, error)
            s = sparse(
                q,
                rhs,
                damping,
                threshold=1e-2 * tightness / m,
                capacity=capacity,
                rtol=jnp.maximum(tightness, 10 * jnp.finfo(dtype).eps),
                max_steps=2 * n,
            )
        direction = epsilon * by_row * s
        # A factorisation that failed gives no direction, and a sweep is made in its place.
        return jnp.where(jnp.all(jnp.isfinite(direction)), direction, 0)

    def newton_step(it: Iterate, epsilon):
        direction = newton_direction(it, epsilon)
        slope = direction @ (a - it.row)

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

        start = (it, jnp.ones((), dtype), jnp.array(0), jnp.array(False))
        new, _, _, accepted = lax.while_loop(unaccepted, shorten, start)
        return lax.cond(accepted, lambda: new, lambda: dual.sweep(it, epsilon))

    def stage(carry):
        it, eps, k, history, _ = carry
        eps = jnp.maximum(epsilon, eps / solver.decay)
        last = eps <= epsilon
        target = mass * jnp.where(last, solver.threshold, 0.1)
        it = dual.at(it.f, eps)

        def more_sweeps(carry):
            it, k, _, swept = carry
            wanted = (swept < solver.min_sweeps) | (it.error > solver.handover * mass)
            enough = (swept >= solver.max_sweeps) | (k >= solver.max_iterations)
            return wanted & ~enough & (it.error > target)

        def sweep(carry):
            it, k, history, swept = carry
            it = dual.sweep(it, eps)
            return it, k + 1, history.append(k, it.error, eps, False), swept + 1

        it, k, history, _ = lax.while_loop(more_sweeps, sweep, (it, k, history, 0))

        def more_steps(carry):
            it, k, _, stalled = carry
            return (it.error > target) & (k < solver.max_iterations) & ~stalled

        def step(carry):
            it, k, history, _ = carry
            new = newton_step(it, eps)
            stalled = (new.error > 0.5 * it.error) & (new.error < floor)
            better = new.error < it.error
            new = jax.tree.map(lambda x, y: jnp.where(stalled & ~better, y, x), new, it)
            return new, k + 1, history.append(k, new.error, eps, True), stalled

        it, k, history, _ = lax.while_loop(more_steps, step, (it, k, history, jnp.array(False)))
        return it, eps, k, history, last

    def unfinished(carry):
        _, _, k, _, last = carry
        return ~last & (k < solver.max_iterations)

    # At a twentieth of the spread Sinkhorn contracts in a few sweeps from anywhere.
    first = jnp.maximum(epsilon, spread / 20)
    none = jnp.full(solver.max_iterations, -1, dtype)
    history = History(none, none, jnp.zeros(solver.max_iterations, bool))
    f = jnp.where(a > 0, jnp.zeros_like(a), -jnp.inf)
    begin = (dual.at(f, first), first * solver.decay, jnp.array(0), history, jnp.array(False))
    it, _, _, history, last = lax.while_loop(unfinished, stage, begin)
    return it.f, it.g, history, last & (it.error <= solver.threshold * mass)
