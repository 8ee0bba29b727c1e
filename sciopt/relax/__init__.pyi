from ._cg import CG
from ._chebyshev import Chebyshev
from ._iteration import AbstractIteration
from ._multigrid import Multigrid
from ._nystrom import Nystrom
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
from ._tuned import Tuned
from ._tuners import (
    EXP3,
    UCB1,
    AbstractTuner,
    Binned,
    Constant,
    EpsilonGreedy,
    Thompson,
    TsallisINF,
    hindsight_best,
)

__all__ = [
    "CG",
    "EXP3",
    "SOR",
    "SSOR",
    "UCB1",
    "AbstractIteration",
    "AbstractRelaxation",
    "AbstractSmoother",
    "AbstractTuner",
    "Binned",
    "Chebyshev",
    "Constant",
    "EpsilonGreedy",
    "IncompleteCholesky",
    "Jacobi",
    "Multigrid",
    "Nystrom",
    "Sparse",
    "Stencil",
    "Thompson",
    "TsallisINF",
    "Tuned",
    "energy_norm_rate",
    "hindsight_best",
    "jacobi_radius",
    "near_asymptotic_bound",
    "optimal_omega",
    "sor_radius",
]
