"""What Lineax asks of every operator, answered from the operator's tags."""

from typing import TypeVar

import lineax as lx

T = TypeVar("T", bound=lx.AbstractLinearOperator)

_IMPLIED_BY = {
    lx.is_symmetric: {
        lx.symmetric_tag, lx.diagonal_tag,
        lx.positive_semidefinite_tag, lx.negative_semidefinite_tag,
    },
    lx.is_diagonal: {lx.diagonal_tag},
    lx.is_tridiagonal: {lx.tridiagonal_tag, lx.diagonal_tag},
    lx.has_unit_diagonal: {lx.unit_diagonal_tag},
    lx.is_lower_triangular: {lx.lower_triangular_tag, lx.diagonal_tag},
    lx.is_upper_triangular: {lx.upper_triangular_tag, lx.diagonal_tag},
    lx.is_positive_semidefinite: {lx.positive_semidefinite_tag},
    lx.is_negative_semidefinite: {lx.negative_semidefinite_tag},
}  # fmt: skip


def tagged(operator_class: type[T]) -> type[T]:
    """Decorates a real linear operator that has `tags`."""
    for check, tags in _IMPLIED_BY.items():
        check.register(operator_class)(lambda operator, tags=tags: bool(operator.tags & tags))
    for same in (lx.linearise, lx.conj):
        same.register(operator_class)(lambda operator: operator)
    lx.materialise.register(operator_class)(
        lambda operator: lx.MatrixLinearOperator(operator.as_matrix(), operator.tags)
    )
    return operator_class
