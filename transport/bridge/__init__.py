"""Schrödinger bridges: between Gaussians, from mixtures of quadratics, from discrete potentials."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
