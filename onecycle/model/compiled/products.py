"""Products of tiles: a convolution of maps that lie side by side, and its weights' gradient.

AMX multiplies at its full rate if half of its tiles come from the first cache, and sums that go
through the second one take as long as some products. So some tiles of pixels meet all weights
before the next do, 32 channels after 32, and as many pixels as fit meet all shifts of others.
"""

import numpy as np
from numba import njit

from onecycle.jit import address, compiled
from onecycle.model.compiled import pixels as p
from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.places import WIDE, clear

FACTOR = 2048  # bytes of 32 weights for 32 outputs
TOGETHER = 4  # tiles of pixels whose sums, and weights for 32 channels, the first cache holds
HELD = 56  # weights of 32 channels for 32 that stay in the second cache beside the maps
UNITS = t.ROWS // 2  # of sums that are put where they belong, one with each product at most
STEPS = 18  # products of 32 pixels one after another, whose columns stay in the first cache


@compiled
def convolve(maps, shape, rows, packed, sums, size, y, which, plus, first, here):
    """The convolution of `maps` (channels / 32, places, 32), perhaps max pooled.

    Into `y` (images, *size), for `here` images from the `first`; `shape` is the maps' height,
    width, pitch, run, channels / 32 and places. Of the maps all rows after so many `rows` are zero.
    Unless `which` is 0, it is pooled; unless `plus` is 0, it is added to that.
    """
    _, width, pitch, run, parts, places = shape
    high, wide, outputs = size
    side = 2 if which else 1
    # Where the pixels of a row of y belong that are made from each place of a row, or -1.
    targets = np.full(run + 2 * t.ROWS, -1)
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
    of_targets, of_taps, before = address(targets), address(taps), run + t.ROWS
    nowhere = of_targets + 8 * before
    groups, blocks = -(-count // TOGETHER), outputs // WIDE
    # The sums that are complete, which are put where they belong while the next are made.
    done = sums, (nowhere, y, plus), (nowhere, y, plus), which
    for turn in range(groups * blocks):
        if parts * blocks <= HELD:
            group, block = turn // blocks * TOGETHER, turn % blocks * WIDE
        else:
            group, block = turn % groups * TOGETHER, turn // groups * WIDE
        for part in range(parts):
            word = maps + (part * places + before) * t.ROW
            weights = packed + (block // WIDE * parts + part) * 9 * FACTOR
            for pair in range(group, min(group + TOGETHER, count), 2):
                # Two tiles of 16 places: one above the other, if they are pooled.
                if which:
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
                over = min(3, rows + 1 - row) * across
                result = sums + (pair - group) * t.ROWS * 4 * WIDE
                begin(result, 4 * WIDE, part == 0)
                multiply(above, below, weights, of_taps, low, over, done)
                end(result, 4 * WIDE)
                done = sums, (nowhere, y, plus), (nowhere, y, plus), which
                if part == parts - 1:
                    start = row // side * wide * outputs + block
                    to = of_targets + column * 128, y + 2 * start, plus and plus + 2 * start
                    start = other_row // side * wide * outputs + block
                    at = of_targets + other_column * 128 if pair + 1 < count else nowhere
                    other_to = at, y + 2 * start, plus and plus + 2 * start
                    done = result, to, other_to, which and which + start
    for unit in range(UNITS):
        put(done, unit)
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
def multiply(above, below, weights, taps, low, over, done):
    """Add to the sums the products of two tiles of pixels with weights, from `low` to `over`.

    Meanwhile `put` what is `done`.
    """
    unit = 0
    for k in range(low, over):
        shift, weight = v.number(taps + 16 * k), weights + v.number(taps + 16 * k + 8)
        t.load(4, above + shift, t.ROW)
        t.load(6, weight, 2 * t.ROW)
        t.dot(0, 4, 6)
        t.load(7, weight + t.ROW, 2 * t.ROW)
        t.dot(1, 4, 7)
        t.load(5, below + shift, t.ROW)
        t.dot(2, 5, 6)
        t.dot(3, 5, 7)
        if unit < UNITS:
            put(done, unit)
            unit += 1
    for rest in range(unit, UNITS):
        put(done, rest)


@njit(inline="always")
def put(done, unit):
    """Two pixels each of two tiles of sums in bf16 to where they belong: one of `UNITS` such.

    `done` are where the sums are, what they go to: for either tile a list of places, counted from
    an address, and one of what is added, if it isn't 0; and where it is noted which pixel it was,
    if the largest of the four counts, else 0.
    """
    sums, (targets, y, plus), (other_targets, other_y, other_plus), which = done
    for pixel in range(2 * unit, 2 * unit + 2):
        source = sums + pixel * 4 * WIDE
        target = v.number(targets + 8 * pixel)
        if which:
            if target >= 0:
                v.largest(source, source + FACTOR, y + 2 * target, which + target)
            continue
        if target >= 0 and plus:
            p.add_rounded(source, plus + 2 * target, y + 2 * target)
        elif target >= 0:
            v.rounded(source, y + 2 * target)
        target = v.number(other_targets + 8 * pixel)
        if target >= 0 and plus:
            p.add_rounded(source + FACTOR, other_plus + 2 * target, other_y + 2 * target)
        elif target >= 0:
            v.rounded(source + FACTOR, other_y + 2 * target)


@compiled
def add_up(columns, rows, pairs, shape, outputs, steps, fresh, sums, to_weight):
    """Add to `to_weight`, or begin it if `fresh`, the products of `columns` and shifted `pairs`.

    `shape` is as for `convolve`, of what is in `pairs`, `rows` as for it, of what is in `columns`;
    `sums` is room for two times 32x32.
    """
    height, width, _, run, parts, _ = shape
    row, length, lead = parts * WIDE * 4, run + 2 + steps * t.ROWS, run + 2
    size, turn = WIDE * WIDE * 4, 0
    together = -(-steps // -(-steps // STEPS))
    # The sums that are complete, which are added while the next are made; as yet none.
    done = sums, np.int64(0), True
    for block in range(0, outputs, WIDE):
        for part in range(parts):
            for step in range(0, steps, together):
                for tap in range(9):
                    ky, kx = tap // 3, tap % 3
                    result = to_weight + (block * 9 + tap) * row + part * 4 * WIDE
                    # Rows of which both are within the maps, in steps.
                    low, high = max(0, 1 - ky), min(rows, height + 1 - ky)
                    if low >= high or (width == 1 and kx != 1):  # it met no pixel
                        for o in range(WIDE if fresh and step == 0 else 0):
                            clear(result + o * 9 * row, 4 * WIDE)
                        continue
                    low, high = low * run // WIDE, -(-high * run // WIDE)
                    at, count = max(low, step), min(high, step + together) - max(low, step)
                    if count <= 0:
                        continue
                    left = columns + (block * steps + at * t.ROWS) * t.ROW
                    place = lead + (ky - 1) * run + kx - 1 + at * WIDE
                    right = pairs + ((place % 2 * parts + part) * length + place // 2) * 2 * t.ROW
                    made = sums + turn % 2 * size
                    begin(made, 4 * WIDE, True)
                    each = -(-WIDE // count)
                    for k in range(count):
                        further = k * t.ROWS * t.ROW
                        follow(left + further, steps, right + 2 * further, 1)
                        add_rows(done, k * each, k * each + each, 9 * row)
                    end(made, 4 * WIDE)
                    done, turn = (made, result, fresh and at == low), turn + 1
    add_rows(done, 0, WIDE, 9 * row)


@njit(inline="always")
def add_rows(done, first, last, stride):
    """Add rows of what is `done` to where it belongs, if anywhere, or let it be the first there."""
    source, target, fresh = done
    for r in range(first, min(last, WIDE) if target else first):
        of, to = source + r * 4 * WIDE, target + r * stride
        if fresh:
            v.copy64(of, to)
            v.copy64(of + t.ROW, to + t.ROW)
        else:
            v.add(of, to)


@njit(inline="always")
def follow(left, steps, right, count):
    """Add to the sums `count` products of two tiles at `left` and `right`, one after another.

    The other tile on the left is `steps` further on. What is on the left is needed again soon.
    """
    tile = t.ROWS * t.ROW
    for _ in range(count):
        t.load_once(6, right, 2 * t.ROW)
        t.load_once(7, right + t.ROW, 2 * t.ROW)
        t.load(4, left, t.ROW)
        t.load(5, left + steps * tile, t.ROW)
        t.dot(0, 4, 6)
        t.dot(1, 4, 7)
        t.dot(2, 5, 6)
        t.dot(3, 5, 7)
        left, right = left + tile, right + FACTOR
