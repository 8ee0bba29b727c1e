"""A pair in the plane whose bridge is known, and how far from it the others are."""

import equinox as eqx
import jax.numpy as jnp

from transport.bridge import Diagonal, LightSB, Reference, SumExpQuadratic

REFERENCE = Reference(1.0, 0.5)
# When controls are compared.
TIMES = (0.25, 0.7)


def to_two_clusters() -> LightSB:
    """Under Ornstein-Uhlenbeck noise; the potential has two Gaussians."""
    r = jnp.array([[2.0, 0.5], [-1.5, -1.0]])
    return LightSB(REFERENCE, SumExpQuadratic(jnp.zeros(2), r, Diagonal(jnp.full((2, 2), -1.5))))


@eqx.filter_jit
def control_error(bridge, true: LightSB, points):
    """Relative to the control's size, root mean square over points (times, n, 2) of true paths."""
    t = jnp.array(TIMES)[:, None]
    wanted = true.control(t, points)
    return jnp.sqrt(jnp.mean((bridge.control(t, points) - wanted) ** 2) / jnp.mean(wanted**2))
