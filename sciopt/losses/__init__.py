"""Losses of a network's outputs, for [`sciopt.EGN`][]: each knows the root of its Hessian."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
