"""Optimal transport: static solvers on ott's problems, and the closed forms that check them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
