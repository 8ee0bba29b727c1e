from . import aggregate as aggregate
from ._fit import Fit as Fit
from ._fit import FitState as FitState
from ._fit import Optimizer as Optimizer
from ._gauss_newton import GaussNewton as GaussNewton
from ._residuals import Residuals as Residuals
from ._self_scaled import SSBFGS as SSBFGS
from ._self_scaled import SSBroyden as SSBroyden
