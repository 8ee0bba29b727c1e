from ._fit import fit as fit
from ._gaussian import GaussianBridge as GaussianBridge
from ._light import LightSB as LightSB
from ._potential import Diagonal as Diagonal
from ._potential import Full as Full
from ._potential import LowRank as LowRank
from ._potential import SumExpQuadratic as SumExpQuadratic
from ._reference import Reference as Reference
