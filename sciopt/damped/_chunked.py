"""What a Jacobian must offer so that it never has to be held as a whole."""

import abc

import lineax as lx
from jaxtyping import Array, Float


class AbstractChunkedJacobian(lx.AbstractLinearOperator):
    """A Jacobian whose rows can be made a chunk at a time, such as that of `sciopt.Residuals`."""

    @abc.abstractmethod
    def within(self, memory: int) -> "AbstractChunkedJacobian":
        """The same operator, whose chunks of rows fill at most `memory` bytes."""

    @abc.abstractmethod
    def gramian(self) -> Float[Array, "n n"]:
        r"""$J^\top J$, summed over the chunks."""


def within(jacobian: lx.AbstractLinearOperator, memory: int | None) -> lx.AbstractLinearOperator:
    """The same operator, in chunks that fill at most `memory` bytes if it has any."""
    if memory is not None and isinstance(jacobian, AbstractChunkedJacobian):
        return jacobian.within(memory)
    return jacobian


for _property in (
    lx.is_symmetric, lx.is_diagonal, lx.is_tridiagonal, lx.has_unit_diagonal,
    lx.is_lower_triangular, lx.is_upper_triangular, lx.is_positive_semidefinite,
    lx.is_negative_semidefinite,
):  # fmt: skip
    _property.register(AbstractChunkedJacobian)(lambda operator: False)
for _same in (lx.linearise, lx.conj):
    _same.register(AbstractChunkedJacobian)(lambda operator: operator)


@lx.materialise.register(AbstractChunkedJacobian)
def _(operator: AbstractChunkedJacobian) -> lx.MatrixLinearOperator:
    return lx.MatrixLinearOperator(operator.as_matrix())
