from ._deeponet import DeepONet as DeepONet
from ._deeponet import OnGrid as OnGrid
from ._fno import FNO as FNO
from ._fno import SpectralConvolution as SpectralConvolution
from ._modes import resample as resample
from ._propagator import Propagator as Propagator
from ._random_field import RandomField as RandomField
