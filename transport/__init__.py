"""Optimal transport and Schrödinger bridges.

Nothing is exported yet: the static solvers come with Sinkhorn-Newton-Sparse.
"""
