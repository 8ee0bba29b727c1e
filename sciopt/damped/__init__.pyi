from ._cholesky import Cholesky
from ._nystrom import Nystrom, nystrom
from ._solver import AbstractDampedSolver, AbstractDampedSystem

__all__ = ["AbstractDampedSolver", "AbstractDampedSystem", "Cholesky", "Nystrom", "nystrom"]
