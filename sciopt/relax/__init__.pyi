from ._cg import CG
from ._chebcb import ChebCB
from ._chebyshev import Chebyshev
from ._iteration import AbstractIteration
from ._learned import (
    black_box_gradient,
    fixed_steps_loss,
    relative_residuals,
    steps_to_tolerance,
    surrogate_steps,
)
from ._meta import Instance, MetaSolver, MetaState, MetaTraining
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
    "ChebCB",
    "Chebyshev",
    "Constant",
    "EpsilonGreedy",
    "IncompleteCholesky",
    "Instance",
    "Jacobi",
    "MetaSolver",
    "MetaState",
    "MetaTraining",
    "Multigrid",
    "Nystrom",
    "Sparse",
    "Stencil",
    "Thompson",
    "TsallisINF",
    "Tuned",
    "black_box_gradient",
    "energy_norm_rate",
    "fixed_steps_loss",
    "hindsight_best",
    "jacobi_radius",
    "near_asymptotic_bound",
    "optimal_omega",
    "relative_residuals",
    "sor_radius",
    "steps_to_tolerance",
    "surrogate_steps",
]
