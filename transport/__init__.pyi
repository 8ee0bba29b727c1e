from . import gaussian as gaussian
from ._mirror_sinkhorn import MirrorSinkhorn as MirrorSinkhorn
from ._mirror_sinkhorn import MirrorSinkhornOutput as MirrorSinkhornOutput
from ._rounding import round_to_polytope as round_to_polytope
from ._sinkhorn_newton_sparse import History as History
from ._sinkhorn_newton_sparse import SinkhornNewtonSparse as SinkhornNewtonSparse
from ._sorted import sorted_transport as sorted_transport
