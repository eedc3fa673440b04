"""Images of nothing, to look at a network or to time it without data."""

import numpy as np

from onecycle.datasets.dataset import Dataset, Split

COUNT, PIXELS = 1024, 64  # images, and different ones among them


def noise(classes: int, size: int) -> Dataset:
    """Random images of `size` pixels and `classes` labels, which take next to no memory."""
    pixels = np.random.default_rng(0).integers(0, 256, (PIXELS, size, size, 3), dtype=np.uint8)
    rows = np.arange(COUNT)
    split = Split(pixels, rows % PIXELS, rows % classes)
    return Dataset("noise", tuple(str(i) for i in range(classes)), split, split, digest="")
