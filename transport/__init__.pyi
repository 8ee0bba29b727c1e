from ._sinkhorn_newton_sparse import History as History
from ._sinkhorn_newton_sparse import SinkhornNewtonSparse as SinkhornNewtonSparse
