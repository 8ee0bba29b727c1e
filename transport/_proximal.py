r"""Proximal Sinkhorn-Newton: past the entropic bias, to the optimum of the linear programme.

Follows Wu, Liang and Yang, *PINS: Proximal Iterations with Sparse Newton and Sinkhorn for Optimal
Transport* (2025): an entropic proximal point method outside, each subproblem entropic transport
with a shifted cost, and inside Sinkhorn sweeps, then sparse Newton steps. That much is in its
abstract; its equations were not to be had, and what is below is derived here. The steps $\eta_k$
fall geometrically, and the stopping rule is the duality gap.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Scalar
from ott.problems.linear.linear_problem import LinearProblem

from ._implicit import centred
from ._rounding import round_to_polytope
from ._semidual import Semidual
from ._sinkhorn_newton_sparse import (
    History,
    SinkhornNewtonSparse,
    check_balanced,
    checked,
    climb,
    cost_matrix,
)

# Where the plan nearly falls into blocks, Newton's model of exponentials asks for steps without
# bound: ten halvings do not bring them back, this does.
REACH = 20.0
# An optimum below this fraction of the largest cost counts as that: it may be zero.
SMALL = 1e-6


class ProximalOutput(eqx.Module):
    r"""A feasible plan and feasible potentials, which bound the optimum from both sides.

    **Attributes:**

    - `matrix`: the plan; its marginals are exact up to rounding.
    - `f`, `g`: potentials with $f_i + g_j \le C_ij$ up to rounding, finite for every atom.
    - `primal_cost`: $\langle C, P \rangle$, differentiable.
    - `gap`: $\langle P, C - f \oplus g \rangle \ge 0$, primal minus dual cost, summed without
        cancellation. The optimum is in `[primal_cost - gap, primal_cost]`.
    - `errors`: the gap after each outer iteration; -1 after the last.
    - `converged`: whether the gap is within the solver's `threshold`.
    - `n_iters`: the number of outer iterations.
    """

    matrix: Float[Array, "n m"]
    f: Float[Array, " n"]
    g: Float[Array, " m"]
    primal_cost: Scalar
    gap: Scalar
    errors: Float[Array, " iterations"]
    converged: Bool[Array, ""]
    n_iters: Int[Array, ""]

    @property
    def reg_ot_cost(self) -> Scalar:
        """`primal_cost`, under the name that ott's solvers give to what they minimise."""
        return self.primal_cost

    @property
    def dual_cost(self) -> Scalar:
        r"""$\langle a, f \rangle + \langle b, g \rangle$, a lower bound on the optimum."""
        return self.primal_cost - self.gap

    def apply(self, inputs: Float[Array, "... n"], axis: int = 0) -> Float[Array, "... m"]:
        """The plan applied to vectors, as ott has it: `inputs @ matrix`, or its transpose's."""
        return inputs @ (self.matrix if axis == 0 else self.matrix.T)


class ProximalSinkhornNewton(eqx.Module):
    r"""Optimal transport without regularisation, by entropic proximal steps.

    Iterates $P_{k+1} = \arg\min_{P1 = a, P^\top 1 = b} \langle C, P\rangle + \eta_k\,
    \mathrm{KL}(P \,|\, P_k)$, each an entropic problem with the cost $C - \eta_k \log P_k$ that
    Sinkhorn sweeps and sparse Newton steps solve. With exact steps $P_k$ is the entropic plan at
    $\varepsilon_k = 1 / \sum_{j \le k} \eta_j^{-1}$, and its marginals stay exact where those of
    the entropic problem drown in rounding: a step computes only increments of the potentials,
    $P_{k+1} = P_k \exp((u \oplus v - S) / \eta_k)$ with the slack $S = C - f \oplus g$, and all of
    these are small where there is mass. An error in $P_k$ is another proximal centre: harmless.

    Each iterate is rounded to a feasible plan and its potentials are made feasible by two
    c-transforms; the duality gap between them is the stopping rule and comes with the output. It
    need not know where the optimum is, so `converged` is a proof up to rounding.

    The epsilon of the problem is not used. One compiled program; works under `jax.vmap`, and
    `primal_cost` under `jax.grad` (once, by the envelope theorem: the plan is the derivative with
    respect to the cost, `f` and `g` those with respect to the weights, where it is smooth). About
    five matrices of the cost's size are held in memory.

    **Arguments:**

    - `threshold`: duality gap at which to stop, relative to the plan's cost, or to a millionth of
        the largest cost where that is more, for the optimum may be zero. Steps too small for the
        costs' precision also end the iteration, with `converged` false.
    - `max_iterations`: the most proximal steps.
    - `decay`: $\eta_k / \eta_{k+1}$, the factor between successive proximal steps.
    - `inner`: solves the subproblems; all its arguments count but `threshold` and `decay`.

    !!! Example

        ```python
        >>> import jax, transport
        >>> from ott.geometry.pointcloud import PointCloud
        >>> from ott.problems.linear.linear_problem import LinearProblem
        >>> x, y = jax.random.normal(jax.random.key(0), (2, 30, 2))
        >>> out = transport.ProximalSinkhornNewton(1e-3)(LinearProblem(PointCloud(x, y)))
        >>> bool(out.converged), bool(out.gap <= 1e-3 * out.primal_cost)
        (True, True)

        ```
    """

    threshold: float = eqx.field(default=1e-9, static=True)
    max_iterations: int = eqx.field(default=50, static=True)
    decay: float = eqx.field(default=4.0, static=True)
    # Where the plan falls apart into blocks the Hessian is singular: CG stands that.
    inner: SinkhornNewtonSparse = eqx.field(
        default=SinkhornNewtonSparse(max_iterations=2000, direct_below=0), static=True
    )

    def __check_init__(self):
        if self.threshold < 0 or self.max_iterations < 1:
            raise ValueError("`threshold` must not be negative, `max_iterations` at least 1.")
        if self.decay <= 1:
            raise ValueError(f"`decay` divides epsilon and must exceed 1; got {self.decay}.")

    def __call__(self, ot_prob: LinearProblem) -> ProximalOutput:
        """Solves `ot_prob` without its regularisation.

        **Arguments:**

        - `ot_prob`: a balanced problem on any geometry, $n \\times m$. Weights may be zero, and
            need not sum to one.

        **Raises:**

        `ValueError` for unbalanced problems and shapes that do not match; a runtime error for
        costs that are not finite, weights that are negative or not finite, and marginals of
        different mass.
        """
        return self.run(ot_prob)[0]

    def run(self, ot_prob: LinearProblem) -> tuple[ProximalOutput, History]:
        r"""As calling it, with the record of every inner iteration; its `epsilon` is $\eta_k$."""
        check_balanced(ot_prob, "ProximalSinkhornNewton")
        return _solve(self, cost_matrix(ot_prob.geom), ot_prob.a, ot_prob.b)


@eqx.filter_jit
def _solve(solver: ProximalSinkhornNewton, cost, a, b):
    a, b = a.astype(cost.dtype), b.astype(cost.dtype)
    frozen, fixed_a, fixed_b, _ = checked(*lax.stop_gradient((cost, a, b)), jnp.ones(()))
    matrix, f, g, gap, errors, n_iters, history = _iterate(solver, frozen, fixed_a, fixed_b)
    value = jnp.sum(matrix * cost)
    out = ProximalOutput(
        matrix,
        f,
        g,
        # Zero in value: the potentials are the derivatives with respect to the weights.
        primal_cost=value + f @ (a - lax.stop_gradient(a)) + g @ (b - lax.stop_gradient(b)),
        gap=gap,
        errors=errors,
        converged=gap <= _tolerance(solver, frozen, fixed_a, lax.stop_gradient(value)),
        n_iters=n_iters,
    )
    return out, history


def _tolerance(solver: ProximalSinkhornNewton, cost, a, value) -> Scalar:
    return solver.threshold * jnp.maximum(
        jnp.abs(value), SMALL * jnp.max(jnp.abs(cost)) * jnp.sum(a)
    )


def _iterate(solver: ProximalSinkhornNewton, cost, a, b):
    """Plan, potentials, gap, gaps, count and history; on the side with fewer atoms."""
    if cost.shape[0] > cost.shape[1]:
        matrix, g, f, *rest = _iterate(solver, cost.T, b, a)
        return matrix.T, f, g, *rest

    eps = jnp.finfo(cost.dtype).eps
    mass = jnp.sum(a)
    spread = jnp.max(cost) - jnp.min(cost)
    spread = jnp.where(spread > 0, spread, 1)

    def proximal_step(carry):
        best, gap, (f, g, log_plan), eta, k, errors, count, history = carry
        shifted = cost - f[:, None] - g - eta * log_plan
        dual = Semidual(shifted, a, b)
        # As exact as the gap left can tell: rounding to the polytope moves the error anywhere.
        floor = 1e3 * eps * mass
        target = jnp.maximum(1e-2 * gap / spread, floor)
        it = dual.at(jnp.where(a > 0, jnp.zeros_like(a), -jnp.inf), eta)
        it, count, history = climb(
            solver.inner, dual, it, eta, target, floor, count, history, REACH
        )
        # Atoms without mass stay where they are, and finite.
        u, v = jnp.where(a > 0, it.f, 0), jnp.where(b > 0, it.g, 0)
        f, g, log_plan = f + u, g + v, (u[:, None] + v - shifted) / eta

        *pair, gap = _feasible(cost, a, b, f, it.plan)
        better = gap < best[-1]
        best = jax.tree.map(lambda x, y: jnp.where(better, x, y), (*pair, gap), best)
        errors = errors.at[k].set(gap)
        state = (f, g, log_plan)
        return best, gap, state, eta / solver.decay, k + 1, errors, count, history

    def unfinished(carry):
        (matrix, *_, least), _, _, eta, k, *_ = carry
        wanted = ~(least <= _tolerance(solver, cost, a, jnp.sum(matrix * cost)))
        # Smaller steps than the rounding of the cost tell nothing more.
        return wanted & (k < solver.max_iterations) & (eta > eps * spread)

    zeros = (jnp.zeros_like(a), jnp.zeros_like(b))
    best = (jnp.outer(a, b) / mass, *zeros, jnp.asarray(jnp.inf, cost.dtype))
    state = (*zeros, jnp.zeros_like(cost))
    errors = jnp.full(solver.max_iterations, -1, cost.dtype)
    history = History.empty(solver.inner.max_iterations, cost.dtype)
    count = jnp.array(0)
    # At a twentieth of the spread Sinkhorn contracts in a few sweeps from anywhere.
    begin = (best, spread * mass, state, spread / 20, count, errors, count, history)
    best, _, _, _, k, errors, _, history = lax.while_loop(unfinished, proximal_step, begin)
    matrix, f, g, gap = best
    return matrix, *centred(f, g), gap, errors, k, history


def _feasible(cost, a, b, f, plan):
    """The plan rounded to its marginals, `f` and `g` to the cost, and the gap between them."""
    f = jnp.where(a > 0, f, -jnp.inf)
    g = jnp.where(b > 0, jnp.min(cost - f[:, None], axis=0), -jnp.inf)
    f = jnp.min(cost - g, axis=1)
    g = jnp.min(cost - f[:, None], axis=0)
    plan = round_to_polytope(plan, a, b)
    return plan, f, g, jnp.sum(plan * (cost - f[:, None] - g))
