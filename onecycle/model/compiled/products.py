"""Products of tiles: a convolution of maps that lie side by side, and its weights' gradient.

AMX multiplies while tiles are loaded, but a load waits for those who still read what it replaces,
and a line from the second cache takes twice as long as the products need. So weights for 32
channels, which the first cache holds, meet all pixels before the next 32 do.
"""

import numpy as np
from numba import njit

from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.jit import address, compiled
from onecycle.model.compiled.places import WIDE

FACTOR = 2048  # bytes of 32 weights for 32 outputs
STEPS = 8  # products of 32 pixels one after another, whose factors stay in the first cache


@compiled
def convolve(maps, shape, packed, sums, y, which, first, here):
    """The convolution of `maps` (channels / 32, places, 32), perhaps max pooled.

    Into `y` (images, rows, columns, outputs), for `here` images from the `first`; `shape` is the
    maps' height, width, pitch and run.
    """
    height, width, pitch, run = shape
    _, high, wide, outputs = y.shape
    pooled = which.size > 0
    side = 2 if pooled else 1
    # Where the pixels of a row of y belong to that are made from each place of a row, or -1.
    targets = np.full(run + t.ROWS, -1)
    for image in range(here):
        for j in range(wide):
            targets[image * pitch + j * side] = ((first + image) * high * wide + j) * outputs
    columns = -(-(here * pitch - (pitch - width)) // t.ROWS)
    count = high * side * columns
    # Where the pixels are that each weight meets, and where the weight is, both in bytes.
    across = 1 if width == 1 else 3
    taps = np.zeros((3 * across + 1, 2), np.int64)
    for k in range(3 * across):
        ky, kx = k // across, 1 if width == 1 else k % across
        taps[k, 0], taps[k, 1] = ((ky - 1) * run + kx - 1) * t.ROW, (3 * ky + kx) * FACTOR
    parts, before = len(maps), run + t.ROWS
    of_maps, of_weights, of_sums = address(maps), address(packed), address(sums)
    of_targets, of_taps, to_y, to_which = (
        address(targets),
        address(taps),
        address(y),
        address(which),
    )
    for block in range(0, outputs, WIDE):
        for part in range(parts):
            word = of_maps + (part * maps.shape[1] + before) * t.ROW
            weights = of_weights + (block // WIDE * parts + part) * 9 * FACTOR
            for pair in range(0, count, 2):
                # Two tiles of 16 places: one above the other, if they are pooled.
                if pooled:
                    row, column = pair // (2 * columns) * 2, pair // 2 % columns
                    other_row, other_column = row + 1, column
                else:
                    row, column = pair // columns, pair % columns
                    other = min(pair + 1, count - 1)
                    other_row, other_column = other // columns, other % columns
                above = word + (row * run + column * t.ROWS) * t.ROW
                below = word + (other_row * run + other_column * t.ROWS) * t.ROW
                # Rows of weights that meet a pixel.
                low = across if other_row == 0 else 0
                over = 2 * across if row == height - 1 else 3 * across
                result = of_sums + (pair * t.ROWS * 4 * WIDE if parts > 1 else 0)
                begin(result, 4 * WIDE, part == 0)
                multiply(above, below, weights, of_taps, low, over)
                end(result, 4 * WIDE)
                if part < parts - 1:
                    continue
                start, places = row // side * wide * outputs + block, of_targets + column * 128
                if pooled:
                    pool(result, places, to_y + 2 * start, to_which + start)
                else:
                    keep(result, places, to_y + 2 * start)
                    if pair + 1 < count:
                        start = other_row * wide * outputs + block
                        places = of_targets + other_column * 128
                        keep(result + FACTOR, places, to_y + 2 * start)
    targets[0] = taps[0, 0]  # holds both until here


@njit(inline="always")
def begin(result, stride, fresh):
    """32x32 sums in four tiles: zero if `fresh`, else those at `result`."""
    if fresh:
        t.zero(0)
        t.zero(1)
        t.zero(2)
        t.zero(3)
    else:
        t.load(0, result, stride)
        t.load(1, result + t.ROW, stride)
        t.load(2, result + t.ROWS * stride, stride)
        t.load(3, result + t.ROWS * stride + t.ROW, stride)


@njit(inline="always")
def end(result, stride):
    """Store the sums of `begin`."""
    t.store(0, result, stride)
    t.store(1, result + t.ROW, stride)
    t.store(2, result + t.ROWS * stride, stride)
    t.store(3, result + t.ROWS * stride + t.ROW, stride)


@njit(inline="always")
def multiply(above, below, weights, taps, low, over):
    """Add to the sums the products of two tiles of pixels with weights, from `low` to `over`.

    A tile is loaded for the next products as soon as nothing asks for the one that it replaces,
    and those loaded last are multiplied last: so their order changes from weight to weight.
    """
    shift, weight = v.number(taps + 16 * low), weights + v.number(taps + 16 * low + 8)
    t.load(4, above + shift, t.ROW)
    t.load(6, weight, 2 * t.ROW)
    t.load(7, weight + t.ROW, 2 * t.ROW)
    t.load(5, below + shift, t.ROW)
    for k in range(low + 1, over + 1):
        shift, weight = v.number(taps + 16 * k), weights + v.number(taps + 16 * k + 8)
        if (k - low) % 2 == 1:
            t.dot(0, 4, 6)
            t.dot(1, 4, 7)
            t.load(4, above + shift, t.ROW)
            t.dot(3, 5, 7)
            t.load(7, weight + t.ROW, 2 * t.ROW)
            t.dot(2, 5, 6)
            t.load(6, weight, 2 * t.ROW)
        else:
            t.dot(1, 4, 7)
            t.dot(0, 4, 6)
            t.load(4, above + shift, t.ROW)
            t.dot(2, 5, 6)
            t.load(6, weight, 2 * t.ROW)
            t.dot(3, 5, 7)
            t.load(7, weight + t.ROW, 2 * t.ROW)
        t.load(5, below + shift, t.ROW)


@njit(inline="always")
def keep(product, targets, y):
    """The 16 pixels of `product` in bf16, to where it says at `targets`, counted from `y`."""
    for p in range(t.ROWS):
        target = v.number(targets + 8 * p)
        if target >= 0:
            v.rounded(product + p * 4 * WIDE, y + 2 * target)


@njit(inline="always")
def pool(product, targets, y, which):
    """As `keep`, of the largest of 2x2 pixels: two of the first 16, and the two 16 further on."""
    for p in range(0, t.ROWS, 2):
        target = v.number(targets + 8 * p)
        if target >= 0:
            above = product + p * 4 * WIDE
            v.largest(above, above + FACTOR, y + 2 * target, which + target)


@compiled
def add_up(columns, pairs, height, width, run, steps, fresh, to_weight):
    """Add to `to_weight`, or begin it if `fresh`, the products of `columns` and shifted `pairs`."""
    outputs, _, channels = to_weight.shape
    apart, lead = to_weight.strides[0], run + 2
    of_columns, of_pairs, results = address(columns), address(pairs), address(to_weight)
    for block in range(0, outputs, WIDE):
        for c in range(0, channels, WIDE):
            for step in range(0, steps, STEPS):
                for tap in range(9):
                    ky, kx = tap // 3, tap % 3
                    if (height == 1 and ky != 1) or (width == 1 and kx != 1):
                        for o in range(block, block + WIDE):
                            for i in range(c, c + WIDE):
                                to_weight[o, tap, i] = 0  # it met no pixel
                        continue
                    result = results + block * apart + 4 * (tap * channels + c)
                    left = of_columns + (block * steps + step * t.ROWS) * t.ROW
                    place = lead + (ky - 1) * run + kx - 1 + step * WIDE
                    part = place % 2 * pairs.shape[1] + c // WIDE
                    right = of_pairs + (part * pairs.shape[2] + place // 2) * 2 * t.ROW
                    begin(result, apart, fresh and step == 0)
                    follow(left, steps, right, min(STEPS, steps - step))
                    end(result, apart)


@njit(inline="always")
def follow(left, steps, right, count):
    """Add to the sums `count` products of two tiles at `left` and `right`, one after another.

    In the order of `multiply`; the other tile on the left is `steps` further on.
    """
    tile = t.ROWS * t.ROW
    below = left + steps * tile
    t.load(4, left, t.ROW)
    t.load(6, right, 2 * t.ROW)
    t.load(7, right + t.ROW, 2 * t.ROW)
    t.load(5, below, t.ROW)
    for k in range(count):
        # After the last what is there already.
        ahead = min(k + 1, count - 1)
        factor = right + ahead * FACTOR
        if k % 2 == 0:
            t.dot(0, 4, 6)
            t.dot(1, 4, 7)
            t.load(4, left + ahead * tile, t.ROW)
            t.dot(3, 5, 7)
            t.load(7, factor + t.ROW, 2 * t.ROW)
            t.dot(2, 5, 6)
            t.load(6, factor, 2 * t.ROW)
        else:
            t.dot(1, 4, 7)
            t.dot(0, 4, 6)
            t.load(4, left + ahead * tile, t.ROW)
            t.dot(2, 5, 6)
            t.load(6, factor, 2 * t.ROW)
            t.dot(3, 5, 7)
            t.load(7, factor + t.ROW, 2 * t.ROW)
        t.load(5, below + ahead * tile, t.ROW)
