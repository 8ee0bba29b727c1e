"""Self-scaled quasi-Newton methods: BFGS and Broyden's family with Al-Baali's scalings.

Follows Al-Baali, *Numerical experience with a class of self-scaling quasi-Newton algorithms*
(1998), and Al-Baali and Khalfan, *A wide interval for efficient self-scaling quasi-Newton
algorithms* (2005), in the form that Urban, Stefanou and Pons (J. Comput. Phys. 523, 2025) train
physics-informed networks with: their equations (11) and (13)-(23). Kiyani et al. (2025) compare
both with other methods.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Int, PyTree, Scalar

from ._inverse_hessian import AbstractInverseHessian, DenseInverse, LimitedInverse
from ._wolfe import Evaluation, wolfe


class SelfScaledState(eqx.Module):
    """What a self-scaled method carries from one step to the next.

    - `at`: value, gradient (flat) and auxiliary output at the current point.
    - `hessian_inv`: $H$.
    - `stale`: the function has changed, and `at` is to be evaluated anew.
    - `identity`: $H$ is the identity, not yet scaled to the function.
    - `decrease`: of the function's value in the last step, infinite where there was none.
    """

    at: Evaluation
    hessian_inv: AbstractInverseHessian
    stale: Bool[Array, ""]
    identity: Bool[Array, ""]
    decrease: Scalar
    num_evaluations: Int[Array, ""]
    terminate: Bool[Array, ""]
    result: optx.RESULTS


class AbstractSelfScaled(optx.AbstractMinimiser):
    """The step that both methods share; what they differ in is `weigh`."""

    rtol: eqx.AbstractVar[float]
    atol: eqx.AbstractVar[float]
    norm: eqx.AbstractVar[Callable[[PyTree], Scalar]]
    initial_scaling: eqx.AbstractVar[bool]
    history_length: eqx.AbstractVar[int | None]
    c1: eqx.AbstractVar[float]
    c2: eqx.AbstractVar[float]
    max_evaluations: eqx.AbstractVar[int]
    rounding: eqx.AbstractVar[float]

    @abstractmethod
    def weigh(self, b: Scalar, h: Scalar, dimension: int) -> tuple[Scalar, Scalar, Scalar]:
        r"""$\tau$, $\theta$ and $\sigma = 1 + \theta (b h - 1)$ of an update."""

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> SelfScaledState:
        flat, _ = ravel_pytree(y)
        aux = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), aux_struct)
        if self.history_length is None:
            hessian_inv = DenseInverse.identity(flat)
        else:
            hessian_inv = LimitedInverse.identity(flat, self.history_length)
        return SelfScaledState(
            # Evaluated in the first step, so that the function is compiled once less.
            at=Evaluation(jnp.zeros(f_struct.shape, f_struct.dtype), jnp.zeros_like(flat), aux),
            hessian_inv=hessian_inv,
            stale=jnp.array(True),
            identity=jnp.array(True),
            decrease=jnp.array(jnp.inf, f_struct.dtype),
            num_evaluations=jnp.array(0),
            terminate=jnp.array(False),
            result=optx.RESULTS.successful,
        )

    def step(self, fn, y, args, options, state: SelfScaledState, tags):
        flat, unravel = ravel_pytree(y)

        def evaluate(point):
            function = jax.value_and_grad(lambda p: fn(unravel(p), args), has_aux=True)
            (value, aux), grad = function(point)
            return Evaluation(value, grad, aux)

        at = jax.lax.cond(state.stale, evaluate, lambda _: state.at, flat)
        direction = -state.hessian_inv.mv(at.grad)
        # Rounding may cost H its definiteness; then it is the identity again. NaN is no descent.
        descends = direction @ at.grad < 0
        identity = state.identity | ~descends
        direction = jnp.where(descends, direction, -at.grad)
        slope, length = direction @ at.grad, jnp.sqrt(direction @ direction)
        # Try the step that would decrease the value as the last one did, if shorter than H's own:
        # N&W (3.60). The identity knows nothing of the function's scale: move by no more than one.
        first = jnp.minimum(1, -2.02 * state.decrease / slope)
        first = jnp.where(identity, jnp.minimum(first, 1 / length), first).astype(flat.dtype)
        # Hager and Zhang go by slopes once a step has changed the value by little; here each search
        # for itself, by what it promises, since the function may change.
        error = self.rounding * jnp.abs(at.value)
        error = jnp.where(-first * slope <= 1e3 * error, error, 0)
        search = wolfe(
            evaluate, flat, at, direction, first,
            c1=self.c1, c2=self.c2, error=error, max_evaluations=self.max_evaluations,
        )  # fmt: skip
        size, after = search.low.size, search.at_low
        moved = size > 0
        # A direction that is not finite leaves everything where it is.
        step = jnp.where(moved, size * direction, 0)
        change = after.grad - at.grad
        b = -size * (step @ at.grad) / (change @ step)

        def weigh(h):
            tau, theta, sigma = self.weigh(b, h, flat.size)
            if self.initial_scaling:
                # The first H is h times smaller, before the update: N&W (6.20) for BFGS.
                tau = jnp.where(identity, h / sigma, tau)
            return tau, (1 - theta) / sigma

        def updated(h):
            return h.updated(step, change, weigh)

        eps = jnp.finfo(flat.dtype).eps
        curved = change @ step > eps * jnp.sqrt((change @ change) * (step @ step))
        update = moved & curved & jnp.isfinite(b)
        # Without a step down along H's direction, what is left is to start it afresh. One switch,
        # since each time H passes through a branch it is copied.
        keep = ~update & moved & descends
        hessian_inv = jax.lax.switch(
            jnp.select([update & descends, update, keep], [0, 1, 2], 3),
            [updated, lambda h: updated(h.fresh()), lambda h: h, lambda h: h.fresh()],
            state.hessian_inv,
        )
        now_identity = ~update & (identity | ~moved)

        new_y = unravel(flat + step)
        small_step = self.norm(unravel(step)) <= self.atol + self.rtol * self.norm(y)
        # The parabola with both slopes, where the values' difference is their error.
        parabola = -(slope + search.low.slope) / 2 * size
        decrease = jnp.where(error > 0, parabola, at.value - after.value)
        small_decrease = decrease <= self.atol + self.rtol * jnp.abs(at.value)
        # Where the model promises a decrease below the rounding of the value, this is the minimum.
        flat_here = -slope <= 100 * eps * jnp.abs(at.value)
        finite = jnp.isfinite(at.value) & jnp.isfinite(length)
        result = optx.RESULTS.where(
            finite & (moved | flat_here | ~identity),
            optx.RESULTS.successful,
            optx.RESULTS.where(finite, optx.RESULTS.nonlinear_divergence, optx.RESULTS.nonfinite),
        )
        state = SelfScaledState(
            at=after,
            hessian_inv=hessian_inv,
            stale=jnp.array(False),
            identity=now_identity,
            decrease=jnp.where(moved & (decrease > 0), decrease, jnp.inf),
            num_evaluations=state.num_evaluations + state.stale + search.num_evaluations,
            terminate=jnp.where(moved, small_step & small_decrease, flat_here),
            result=result,
        )
        return new_y, state, after.aux

    def renew(self, state: SelfScaledState) -> SelfScaledState:
        """The state for a function that has changed, as when points are drawn anew: $H$ is kept."""
        unknown = jnp.full_like(state.decrease, jnp.inf)
        return eqx.tree_at(lambda s: (s.stale, s.decrease), state, (jnp.array(True), unknown))

    def terminate(self, fn, y, args, options, state: SelfScaledState, tags):
        return state.terminate, state.result

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, aux, {"num_evaluations": state.num_evaluations}


class SSBFGS(AbstractSelfScaled):
    r"""Self-scaled BFGS, dense or with limited memory, and a line search to Wolfe conditions.

    BFGS's update of $H / \tau$ in the place of $H$, with $b = s^\top H^{-1} s / y^\top s$ and,
    by `scaling`,

    - `"al_baali"`: $\tau = \min(1, 1/b)$, Urban et al. (2025) equation (11);
    - `"oren_luenberger"`: $\tau = 1/b$ (Oren and Luenberger 1974);
    - `"none"`: $\tau = 1$, which is BFGS.

    Each step is one line search, of one evaluation of the value and gradient in most cases, and
    $O(n^2)$ work and memory for $n$ parameters; with `history_length` $m$, as in
    [`optimistix.LBFGS`][], $O(mn)$ of both. Where no step down can be found, $H$ is the identity
    again; it is so too after rounding has cost it its definiteness, and an update without
    curvature is left out.

    **Arguments:**

    - `rtol`, `atol`: terminate once both the last step and the last decrease are below
        `atol + rtol * size`. The defaults never stop early: training loops count steps.
    - `norm`: measures steps for termination, `PyTree -> Scalar`.
    - `scaling`: as above.
    - `initial_scaling`: scale the identity by $y^\top s / y^\top y$ before the first update
        (Nocedal and Wright (6.20)).
    - `history_length`: keep so many updates in the place of $H$: the method is the same until they
        are more. From then on the oldest is forgotten, and the identity that the others update is
        scaled by $y^\top s / y^\top y$ of the newest (Liu and Nocedal 1989), which makes of
        `scaling="none"` L-BFGS.
    - `c1`, `c2`: of the Wolfe conditions, $0 < c_1 < c_2 < 1$.
    - `max_evaluations`: in one line search; then the best step so far is taken.
    - `rounding`: the relative error that values may have. A search that promises a decrease of less
        than a thousand times it goes by slopes, to approximate Wolfe conditions, which a value so
        much above the last one may satisfy (Hager and Zhang 2005; their constants). At zero all
        searches go by values, and end where a value cannot tell a decrease.

    **Returns**, as all minimisers of Optimistix, through [`optimistix.minimise`][]; the solution's
    `stats["num_evaluations"]` counts values with gradients. Its `result` is `nonfinite` where the
    function is not finite at the start, `nonlinear_divergence` where not even steepest descent
    finds a decrease although the gradient promises one, and `nonlinear_max_steps_reached`.

    **Raises:** `ValueError` for another `scaling`, no history at all, or constants out of order.

    !!! Example

        ```python
        >>> import jax.numpy as jnp, optimistix, sciopt
        >>> def rosenbrock(y, args):
        ...     return 100 * (y[1] - y[0] ** 2) ** 2 + (1 - y[0]) ** 2
        >>> solver = sciopt.SSBFGS(rtol=1e-8, atol=1e-8)
        >>> sol = optimistix.minimise(rosenbrock, solver, jnp.array([-1.2, 1.0]))
        >>> bool(jnp.allclose(sol.value, 1.0, atol=1e-6))
        True

        ```
    """

    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[PyTree], Scalar] = optx.max_norm
    scaling: Literal["al_baali", "oren_luenberger", "none"] = "al_baali"
    initial_scaling: bool = True
    history_length: int | None = None
    c1: float = 1e-4
    c2: float = 0.9
    max_evaluations: int = 25
    rounding: float = 1e-6

    def __check_init__(self):
        _check(self, ("al_baali", "oren_luenberger", "none"))

    def weigh(self, b: Scalar, h: Scalar, dimension: int) -> tuple[Scalar, Scalar, Scalar]:
        one = jnp.ones_like(b)
        tau = {"al_baali": jnp.minimum(1, 1 / b), "oren_luenberger": 1 / b, "none": one}
        return tau[self.scaling], jnp.zeros_like(b), one


class SSBroyden(AbstractSelfScaled):
    r"""Self-scaled Broyden, dense or with limited memory, and a line search to Wolfe conditions.

    As [`sciopt.SSBFGS`][], with a member of Broyden's family that each step chooses for itself:
    Urban et al. (2025) equations (13)-(23), their `SSBroyden2`. With
    $b = s^\top H^{-1} s / y^\top s$, $h = y^\top H y / y^\top s$, $a = b h - 1$ and
    $c = \sqrt{a / (1 + a)}$,

    $$\rho^- = \min(1, h (1 - c)), \quad \theta^- = \frac{\rho^- - 1}{a}, \quad
    \theta^+ = \frac{1}{\rho^-}, \quad
    \theta = \max\left(\theta^-, \min\left(\theta^+, \frac{1 - b}{b}\right)\right),$$

    and, with $\rho = \min(1, 1/b)$ and $\sigma = 1 + \theta a$, the weight of $v v^\top$ is
    $\phi = (1 - \theta) / \sigma$ and the scale

    $$\tau = \begin{cases} \rho \min(\sigma^{-1/(n-1)}, 1/\theta) & \theta > 0, \\
    \min(\rho \, \sigma^{-1/(n-1)}, \sigma) & \theta \le 0. \end{cases}$$

    **Arguments:** those of [`sciopt.SSBFGS`][], with

    - `scaling`: `"al_baali"`, the above, or `"none"`: $\tau = 1$, Broyden's family unscaled.

    Both methods may be restarted from many points at once by `jax.vmap`, as here; all go on until
    the last of them ends.

    !!! Example

        ```python
        >>> import jax, jax.numpy as jnp, optimistix, sciopt
        >>> def rosenbrock(y, args):
        ...     return 100 * (y[1] - y[0] ** 2) ** 2 + (1 - y[0]) ** 2
        >>> solver = sciopt.SSBroyden(rtol=1e-8, atol=1e-8)
        >>> solve = jax.vmap(lambda y0: optimistix.minimise(rosenbrock, solver, y0).value)
        >>> ends = solve(jnp.array([[-1.2, 1.0], [2.0, 2.0]]))
        >>> best = ends[jnp.argmin(jax.vmap(rosenbrock, (0, None))(ends, None))]
        >>> bool(jnp.allclose(best, 1.0, atol=1e-6))
        True

        ```
    """

    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[PyTree], Scalar] = optx.max_norm
    scaling: Literal["al_baali", "none"] = "al_baali"
    initial_scaling: bool = True
    history_length: int | None = None
    c1: float = 1e-4
    c2: float = 0.9
    max_evaluations: int = 25
    rounding: float = 1e-6

    def __check_init__(self):
        _check(self, ("al_baali", "none"))

    def weigh(self, b: Scalar, h: Scalar, dimension: int) -> tuple[Scalar, Scalar, Scalar]:
        # Cauchy-Schwarz has a >= 0, with equality where H y and s are parallel; then every member
        # of the family is the same, and what stands in for a / a does not matter.
        a = jnp.maximum(b * h - 1, jnp.finfo(b.dtype).eps)
        lowest = jnp.minimum(1, h * (1 - jnp.sqrt(a / (1 + a))))
        theta = jnp.maximum((lowest - 1) / a, jnp.minimum(1 / lowest, (1 - b) / b))
        sigma = 1 + theta * a
        if self.scaling == "none":
            return jnp.ones_like(b), theta, sigma
        rho = jnp.minimum(1, 1 / b)
        root = sigma ** (-1 / (dimension - 1)) if dimension > 1 else jnp.ones_like(sigma)
        tau = jnp.where(
            theta > 0, rho * jnp.minimum(root, 1 / theta), jnp.minimum(rho * root, sigma)
        )
        return tau, theta, sigma


def _check(solver: SSBFGS | SSBroyden, scalings: tuple[str, ...]) -> None:
    name = type(solver).__name__
    if solver.scaling not in scalings:
        names = ", ".join(repr(s) for s in scalings)
        raise ValueError(f"{name}'s scaling must be one of {names}; got {solver.scaling!r}.")
    if solver.history_length is not None and solver.history_length < 1:
        raise ValueError(
            f"{name}'s history must be of one update or more; got length {solver.history_length}."
        )
    if not 0 < solver.c1 < solver.c2 < 1:
        raise ValueError(
            f"{name} needs 0 < c1 < c2 < 1; got c1 = {solver.c1} and c2 = {solver.c2}."
        )
