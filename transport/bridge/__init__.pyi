from ._gaussian import GaussianBridge as GaussianBridge
from ._reference import Reference as Reference
