"""What a solver of damped least-squares problems is."""

import abc
from collections.abc import Callable
from typing import Self

import equinox as eqx
import lineax as lx
from jaxtyping import Array, Float, Int, Scalar


class AbstractDampedSystem(eqx.Module):
    """A Jacobian that has been made ready for solving with any right-hand side and damping."""

    jacobian: eqx.AbstractVar[lx.AbstractLinearOperator]
    """As the solver holds it: a matrix, where it has made one."""

    @abc.abstractmethod
    def solve(self, vector: Float[Array, " m"], damping: Scalar) -> Float[Array, " n"]:
        r"""$\operatorname{argmin}_s |Js - b|^2 + \mu |s|^2$ for `vector` $b$ and `damping` $\mu$.

        A factorisation that breaks down gives NaN, never a wrong step.
        """

    def with_damping(self, damping: Scalar) -> Callable[[Float[Array, " m"]], Float[Array, " n"]]:
        """`solve` for several right-hand sides, whose factorisation is made once if it can be."""
        return lambda vector: self.solve(vector, damping)

    @property
    @abc.abstractmethod
    def floor(self) -> Scalar:
        r"""The damping below which rounding hides it.

        Of a solver without a Gramian it is $(k \epsilon |J|)^2$, with $k = \min(m, n)$ and a norm
        that the solver has: what rounding does to singular values, squared, so that a singular
        system with this damping can be solved. Of one with a Gramian it is $\epsilon |J|^2$; the
        factor $k$ of the worst case is left out, for rounding is seldom that large and a floor too
        high bounds the accuracy, whereas a factorisation that breaks down is mended.
        """


class AbstractDampedSolver(eqx.Module):
    """How damped problems are solved; a step makes one system a Jacobian and tries dampings."""

    @property
    def matrix_free(self) -> bool:
        """Whether the Jacobian is to come as an operator whose matrix has not been made."""
        return False

    @abc.abstractmethod
    def factor(self, jacobian: lx.AbstractLinearOperator) -> AbstractDampedSystem:
        """Make the Jacobian ready: all work that no right-hand side or damping changes."""

    def at(self, step: Int[Array, ""]) -> Self:
        """This solver, with whatever it draws at random drawn for this step of a method."""
        return self
