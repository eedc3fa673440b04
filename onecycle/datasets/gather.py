"""Pixels picked and lit on a CPU, in loops that numba compiles, faster than torch does it."""

import numpy as np

from onecycle.jit import compiled


@compiled
def pick(pixels, rows, ys, xs, result):
    """Rows `ys` and columns `xs` (n, side) of images `rows` (n,) of `pixels` (M, H, W, 3).

    Into `result` (n, side, side, 3); all are in range.
    """
    for image in range(len(rows)):
        columns = xs[image]
        for row in range(ys.shape[1]):
            line, target = pixels[rows[image], ys[image, row]], result[image, row]
            for column in range(len(columns)):
                source = columns[column]
                for channel in range(3):
                    target[column, channel] = line[source, channel]


def _light(images, factors, more, result):
    """Each of `images` (n, numbers) uint8 times its one of `factors`, plus its one of `more`.

    Into `result`, in fp32, with the roundings of torch's two operations.
    """
    for image in range(len(images)):
        source, target, factor, added = images[image], result[image], factors[image], more[image]
        for k in range(len(source)):
            target[k] = np.float32(source[k]) * factor + added


light = compiled(_light, fuse=False)
