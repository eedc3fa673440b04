"""What meets in `products`: which tiles of maps meet which weights, and each other.

Where so many images lie abreast that a tile is one pixel of 16 of them, a shift that leads out of
the map is left out. Else a tile goes along a row, and what lies beyond the map is zero. Maps are of
a `shape` (height, width, abreast, run), of which so many rows and columns are `filled`: all others
are zero. Places in the cache are in bytes.
"""

import numpy as np

from onecycle.jit import compiled
from onecycle.model.compiled import tiles as t
from onecycle.model.compiled.places import WIDE, lead

FACTOR = 2048  # bytes of 32 weights for 32 outputs
STEPS = 24  # products of 32 places one after another, whose columns stay in the first cache
# What a table tells of a pair of tiles that `convolve` computes together: where they are, from
# where to where its taps are told, how many pairs ago the sums begin that are complete after it, or
# -1, and for either tile of these which of `targets` are its, and a number that is added to those.
PAIR = 9
ABOVE, BELOW, LOW, OVER, AGO, TO, AT, OTHER_TO, OTHER_AT = range(0, 8 * PAIR, 8)


@compiled
def convolved(shape, filled, size, pooled):
    """The pairs of tiles of a convolution, (pairs, `PAIR`), and their taps.

    A tap is a shift of the maps and a place among a block's weights. `size` is that of the results
    (height, width, channels), which come from four pixels each, if they are `pooled`: these are
    four pairs, or of each tile in a pair neighbours.
    """
    if shape[2] % WIDE == 0:
        return _by_pixel(shape, filled, size, pooled)
    return _by_line(shape, filled, size, pooled)


@compiled
def _by_pixel(shape, filled, size, pooled):
    _, _, abreast, run = shape
    rows, columns = filled
    high, wide, outputs = size
    side = 2 if pooled else 1
    corners, each = side * side, abreast // WIDE
    pairs = np.empty((high * wide * each * corners, PAIR), np.int64)
    taps = np.empty((9 * len(pairs), 2), np.int64)
    over = 0
    for number in range(len(pairs)):
        corner, images = number % corners, number // corners % each * WIDE
        pixel = number // corners // each
        row, column = pixel // wide * side + corner // 2, pixel % wide * side + corner % 2
        place = row * run + column * abreast + images
        pair = pairs[number]
        pair[0], pair[1], pair[2] = place * t.ROW, (place + t.ROWS) * t.ROW, over
        for ky in range(max(0, 1 - row), min(3, rows + 1 - row)):
            for kx in range(max(0, 1 - column), min(3, columns + 1 - column)):
                taps[over, 0] = ((ky - 1) * run + (kx - 1) * abreast) * t.ROW
                taps[over, 1] = (3 * ky + kx) * FACTOR
                over += 1
        pair[3], pair[4] = over, corners - 1 if corner == corners - 1 else -1
        pair[5], pair[6] = 8 * images, pixel * outputs
        pair[7], pair[8] = 8 * (images + t.ROWS), pixel * outputs
    return pairs, taps


@compiled
def _by_line(shape, filled, size, pooled):
    _, width, abreast, run = shape
    high, wide, outputs = size
    side = 2 if pooled else 1
    columns = -(-abreast * wide * side // t.ROWS)
    count = high * side * columns
    pairs = np.empty((-(-count // 2), PAIR), np.int64)
    taps = np.empty((9 * len(pairs), 2), np.int64)
    over = 0
    for number in range(len(pairs)):
        if pooled:
            row, column = number // columns * 2, number % columns
            other_row, other_column = row + 1, column
        else:
            other = min(2 * number + 1, count - 1)
            row, column = 2 * number // columns, 2 * number % columns
            other_row, other_column = other // columns, other % columns
        pair = pairs[number]
        pair[0] = (row * run + column * t.ROWS) * t.ROW
        pair[1], pair[2] = (other_row * run + other_column * t.ROWS) * t.ROW, over
        for ky in range(1 if other_row == 0 else 0, min(3, filled[0] + 1 - row)):
            for kx in range(3):
                if width > 1 or kx == 1:
                    taps[over, 0] = ((ky - 1) * run + (kx - 1) * abreast) * t.ROW
                    taps[over, 1] = (3 * ky + kx) * FACTOR
                    over += 1
        pair[3], pair[4] = over, 0
        pair[5], pair[6] = 8 * t.ROWS * column, row // side * wide * outputs
        nowhere = pooled or 2 * number + 1 == count
        pair[7] = 8 * (run + t.ROWS) if nowhere else 8 * t.ROWS * other_column
        pair[8] = other_row // side * wide * outputs
    return pairs, taps


@compiled
def targets(shape, size, pooled, first, here):
    """Which number of all results each row of a tile begins, or -1; for `here` images from `first`.

    Those of a pixel's tiles, or of a row's, then 16 of -1.
    """
    _, _, abreast, run = shape
    high, wide, outputs = size
    if abreast % WIDE == 0:
        found, columns, apart = np.full(abreast + t.ROWS, -1), 1, 0
    else:
        columns, apart = wide, 2 * abreast if pooled else abreast
        found = np.full(run + 2 * t.ROWS, -1)
    for image in range(here):
        for column in range(columns):
            number = ((first + image) * high * wide + column) * outputs
            found[column * apart + image] = number
    return found


@compiled
def added(shape, filled, steps, each):
    """Which columns and pairs of `add_up` a tap lets meet, (products, 2), tap after tap.

    And where those of a tap (9) and of some steps that go together begin among them, and the last
    end. Of `shape` is what is in the pairs; columns, `steps` of `each` places, are `filled`.
    """
    height, width, abreast, run = shape
    rows, columns = filled
    chunks = -(-steps // STEPS)
    together = -(-steps // chunks)
    places, begins = np.empty((9 * steps, 2), np.int64), np.zeros((9, chunks + 1), np.int64)
    count = 0
    for tap in range(9):
        ky, kx = tap // 3, tap % 3
        low, high = max(0, 1 - ky), min(rows, height + 1 - ky)
        left, right = max(0, 1 - kx), min(columns, width + 1 - kx)
        shift = lead(abreast, run) + (ky - 1) * run + (kx - 1) * abreast
        begins[tap, 0], chunk = count, 0
        for row in range(low, high if left < right else low):
            start, end = row * run + left * abreast, row * run + right * abreast
            if abreast % WIDE:  # all rows at once, because they needn't begin with a step
                start, end = low * run, high * run
            for step in range(start // each, -(-end // each)):
                while step >= (chunk + 1) * together:
                    chunk += 1
                    begins[tap, chunk] = count
                places[count, 0] = step * t.ROWS * t.ROW
                places[count, 1] = (shift + step * each) // (each // t.ROWS) * 2 * t.ROW
                count += 1
            if abreast % WIDE:
                break
        begins[tap, chunk + 1 :] = count
    return places, begins
