"""Equations on grids: finite differences in space, implicit steps in time, gradients through it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
