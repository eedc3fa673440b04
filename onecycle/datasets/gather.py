"""Pixels moved and lit on a CPU, in loops that numba compiles, faster than torch does it."""

import numpy as np

from onecycle.jit import compiled


@compiled
def move(pixels, rows, choices, top, left, flip, result, pad, zero):
    """Images `rows` (n,) of `pixels` (M, H, W, 3) moved and mirrored, into `result` (n, H, W, 3).

    `choices` (n,) says which of `top`, `left` (N,), the first row and column in the image with a
    border of `pad`, and of `flip` (N,). The border is 0, if `zero`, else reflected.
    """
    height, width = pixels.shape[1:3]
    columns, lines = np.empty(width, np.int64), np.empty(height, np.int64)
    for image in range(len(rows)):
        source, target, choice = pixels[rows[image]], result[image], choices[image]
        _places(lines, top[choice] - pad, False, zero)
        _places(columns, left[choice] - pad, flip[choice], zero)
        for row in range(height):
            if lines[row] < 0:
                target[row] = 0
            else:
                _line(source[lines[row]], columns, target[row])


@compiled
def _line(source, columns, target):
    """The pixels of a line (W, 3) at `columns` (W,), 0 for those below 0."""
    for column in range(len(columns)):
        place = columns[column]
        if place < 0:
            target[column] = 0
        else:
            for channel in range(3):
                target[column, channel] = source[place, channel]


@compiled
def _places(line, first, flip, zero):
    """Where each place of a `line` that begins at `first` lies in an image; -1 for nowhere."""
    size = len(line)
    for k in range(size):
        place = (size - 1 - k if flip else k) + first
        if not 0 <= place < size:
            place = -1 if zero else abs(place)
            if place >= size:
                place = 2 * (size - 1) - place
        line[k] = place


def _light(images, choices, light, result):
    """Each of `images` (n, numbers) uint8 times one number of `light`, plus another.

    `choices` (n,) says which rows of `light` (N, 2). Into `result`, in fp32, with the roundings of
    torch's two operations.
    """
    for image in range(len(images)):
        source, target, choice = images[image], result[image], choices[image]
        factor, more = light[choice, 0], light[choice, 1]
        for k in range(len(source)):
            target[k] = np.float32(source[k]) * factor + more


light = compiled(_light, fuse=False)
