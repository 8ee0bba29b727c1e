"""Relaxation: iterative linear solvers with a parameter, and bandits that set it as they solve."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
