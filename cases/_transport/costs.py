"""Cost matrices from files. NumPy alone."""

from .._measures.atoms import Numbers, arrays, finite
from .schema import CostFile


def cost_matrix(spec: CostFile, shape: tuple[int, int]) -> Numbers:
    """The matrix in the file of `spec`.

    Raises:
        ValueError: it cannot be read, or is no matrix of finite numbers of this shape.
    """
    cost = finite("cost", arrays(spec.file, "cost")["cost"])
    if cost.shape != shape:
        n, m = shape
        raise ValueError(
            f"the array `cost` has shape {cost.shape}; source and target have {n} and {m} atoms"
        )
    return cost
