from ._deeponet import DeepONet as DeepONet
from ._fno import FNO as FNO
from ._fno import SpectralConvolution as SpectralConvolution
from ._random_field import RandomField as RandomField
