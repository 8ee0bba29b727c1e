"""Damped least squares, $\\min_s |Js - b|^2 + \\mu |s|^2$: the linear algebra of every step."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
