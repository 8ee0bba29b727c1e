from ._cg import CG
from ._chebyshev import Chebyshev
from ._iteration import AbstractIteration
from ._multigrid import Multigrid
from ._relaxation import SOR, SSOR, AbstractRelaxation, AbstractSmoother, IncompleteCholesky, Jacobi
from ._sparse import Sparse
from ._stencil import Stencil
from ._theory import (
    energy_norm_rate,
    jacobi_radius,
    near_asymptotic_bound,
    optimal_omega,
    sor_radius,
)

__all__ = [
    "CG",
    "SOR",
    "SSOR",
    "AbstractIteration",
    "AbstractRelaxation",
    "AbstractSmoother",
    "Chebyshev",
    "IncompleteCholesky",
    "Jacobi",
    "Multigrid",
    "Sparse",
    "Stencil",
    "energy_norm_rate",
    "jacobi_radius",
    "near_asymptotic_bound",
    "optimal_omega",
    "sor_radius",
]
