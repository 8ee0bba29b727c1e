from ._auto import Auto
from ._cholesky import Cholesky
from ._chunked import AbstractChunkedJacobian
from ._iterative import CG, Stacked
from ._orthogonal import QR, SVD
from ._preconditioner import NystromPreconditioner
from ._solver import AbstractDampedSolver, AbstractDampedSystem

__all__ = [
    "CG",
    "QR",
    "SVD",
    "AbstractChunkedJacobian",
    "AbstractDampedSolver",
    "AbstractDampedSystem",
    "Auto",
    "Cholesky",
    "NystromPreconditioner",
    "Stacked",
]
