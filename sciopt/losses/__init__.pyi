from ._families import Huber, Logistic, Poisson, SoftmaxCrossEntropy, Squares
from ._loss import AbstractLoss, Differentiated

__all__ = [
    "AbstractLoss", "Differentiated", "Huber", "Logistic", "Poisson", "SoftmaxCrossEntropy",
    "Squares",
]  # fmt: skip
