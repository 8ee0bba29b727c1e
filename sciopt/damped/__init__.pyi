from ._cholesky import Cholesky
from ._orthogonal import QR, SVD
from ._solver import AbstractDampedSolver, AbstractDampedSystem

__all__ = ["QR", "SVD", "AbstractDampedSolver", "AbstractDampedSystem", "Cholesky"]
