"""Make the two pictures of `cases/ot_color_transfer.yaml`: a sunset at sea, and a wood in fog.

python docs/img/make_colours.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 120, 180
CASES = Path(__file__).resolve().parents[2] / "cases"
y, x = np.mgrid[:HEIGHT, :WIDTH] / [[[HEIGHT - 1]], [[WIDTH - 1]]]


def mix(first, second, share):
    """Colours between two, by a share at each pixel."""
    return np.array(first) * (1 - share[..., None]) + np.array(second) * share[..., None]


def sunset() -> np.ndarray:
    """A low sun over the sea."""
    sky = mix([0.16, 0.10, 0.34], [0.98, 0.52, 0.18], np.clip(y / 0.58, 0, 1) ** 1.4)
    glow = np.exp(-((x - 0.62) ** 2 * 2.2 + (y - 0.52) ** 2) / 0.03)
    sky = sky + glow[..., None] * [0.5, 0.4, 0.15]
    disc = np.hypot((x - 0.62) * WIDTH / HEIGHT, y - 0.5) < 0.075
    sky[disc] = [1.0, 0.93, 0.62]
    depth = np.clip((y - 0.58) / 0.42, 0, 1)
    sea = mix([0.86, 0.42, 0.22], [0.09, 0.09, 0.27], depth**0.7)
    ripple = np.sin(70 * y + 6 * np.sin(9 * x)) * np.exp(-((x - 0.62) ** 2) / (0.01 + 0.05 * depth))
    sea = sea + np.clip(ripple, 0, 1)[..., None] * [0.5, 0.33, 0.12]
    picture = np.where((y < 0.58)[..., None], sky, sea)
    hill = y > 0.58 - 0.1 * np.exp(-((x - 0.12) ** 2) / 0.02) - 0.06 * np.exp(
        -((x - 0.3) ** 2) / 0.01
    )
    picture[hill & (y < 0.58)] = [0.15, 0.08, 0.2]
    return picture


def wood() -> np.ndarray:
    """Rows of firs that fade into fog."""
    picture = mix([0.80, 0.89, 0.90], [0.58, 0.76, 0.68], y)
    rng = np.random.default_rng(0)
    for layer, depth in enumerate(np.linspace(0.25, 0.85, 5)):
        tint = np.array([0.52, 0.72, 0.64]) * (1 - depth) + np.array([0.03, 0.22, 0.12]) * depth
        ground = 0.42 + 0.1 * layer + 0.025 * np.sin(5 * x + 2 * layer)
        picture[y > ground] = tint * (0.85 + 0.15 * rng.uniform())
        for centre in rng.uniform(0, 1, 9):
            size = 0.16 + 0.16 * depth
            top = ground - size
            wide = 0.28 * size * np.clip((y - top) / size, 0, 1) * (0.75 + 0.25 * np.sin(90 * y))
            tree = (np.abs(x - centre) * WIDTH / HEIGHT < wide) & (y > top) & (y < ground + 0.02)
            picture[tree] = tint
    shade = 0.06 * np.sin(23 * x + 17 * y)[..., None] * y[..., None]
    return picture + shade * [0.4, 1.0, 0.4]


if __name__ == "__main__":
    for name, picture in (("source", sunset()), ("target", wood())):
        levels = np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
        Image.fromarray(levels).save(CASES / f"ot_color_{name}.png", optimize=True)
