"""Products of tiles: a convolution of maps that lie abreast, and its weights' gradient.

AMX multiplies at its full rate if half of its tiles come from the first cache, and sums that go
through the second one take as long as some products. So some tiles of pixels meet all weights
before the next do, 32 channels after 32, and as many pixels as fit meet all shifts of others.
"""

import numpy as np
from numba import njit

from onecycle.jit import address, compiled
from onecycle.model.compiled import int8 as i
from onecycle.model.compiled import meetings as m
from onecycle.model.compiled import pixels as p
from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.meetings import FACTOR
from onecycle.model.compiled.places import WIDE, clear, first_place

TOGETHER = 4  # pairs of tiles whose sums, and weights for 32 channels, the first cache holds
HELD = 56  # weights of 32 channels for 32 that stay in the second cache beside the maps
UNITS = t.ROWS // 2  # of sums that are put where they belong, one with each product at most
SUMS = 2 * t.ROWS * 4 * WIDE  # bytes of a pair's


@compiled
def convolve(maps, shape, pairs, taps, targets, packed, scales, sums, y, which, plus):
    """The convolution of `maps` (channels / 32, places, 32), perhaps max pooled, into `y`.

    `shape` is the maps' abreast, run, channels / 32 and places, and how many channels y has;
    `pairs`, `taps` and `targets` are by `meetings`. Unless `which` is 0, it is pooled; unless
    `plus` is 0, it is added to that. Unless `scales` is 0, maps are in int8, of 64 channels for 32,
    and sums are multiplied by their channel's of these.
    """
    abreast, run, parts, places, outputs = shape
    of_pairs, of_taps, of_targets = address(pairs), address(taps), address(targets)
    nowhere = of_targets + 8 * (len(targets) - t.ROWS), y, plus
    # Where, from a sum, those are that it is pooled with.
    if abreast % WIDE == 0:
        beside, below = SUMS, 2 * SUMS
    else:
        beside, below = abreast * 4 * WIDE, FACTOR
    groups, blocks = -(-len(pairs) // TOGETHER), outputs // WIDE
    # The sums that are complete, which are put where they belong while the next are made.
    nothing = sums, beside, below, nowhere, nowhere, which, scales
    done = nothing
    for turn in range(groups * blocks):
        if parts * blocks <= HELD:
            group, block = turn // blocks * TOGETHER, turn % blocks * WIDE
        else:
            group, block = turn % groups * TOGETHER, turn // groups * WIDE
        for part in range(parts):
            word = maps + (part * places + first_place(run)) * t.ROW
            weights = packed + (block // WIDE * parts + part) * 9 * FACTOR
            for pair in range(group, min(group + TOGETHER, len(pairs))):
                told, result = of_pairs + pair * 8 * m.PAIR, sums + (pair - group) * SUMS
                tiles = word + v.number(told + m.ABOVE), word + v.number(told + m.BELOW)
                low, over = v.number(told + m.LOW), v.number(told + m.OVER)
                begin(result, 4 * WIDE, part == 0)
                multiply(tiles, weights, of_taps, low, over, done, scales != 0)
                end(result, 4 * WIDE)
                done, ago = nothing, v.number(told + m.AGO)
                if part == parts - 1 and ago >= 0:
                    start = v.number(told + m.AT) + block
                    where, noted = of_targets + v.number(told + m.TO), which and which + start
                    to = where, y + 2 * start, plus and plus + 2 * start
                    start = v.number(told + m.OTHER_AT) + block
                    where = of_targets + v.number(told + m.OTHER_TO)
                    other_to = where, y + 2 * start, plus and plus + 2 * start
                    these = scales and scales + 4 * block
                    done = result - ago * SUMS, beside, below, to, other_to, noted, these
    for unit in range(UNITS):
        put(done, unit)


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
def multiply(tiles, weights, taps, low, over, done, whole):
    """Add to the sums the products of two tiles with weights, by the taps from `low` to `over`.

    Meanwhile `put` what is `done`.
    """
    above, below = tiles
    unit = 0
    for k in range(low, over):
        shift, weight = v.number(taps + 16 * k), weights + v.number(taps + 16 * k + 8)
        t.load(4, above + shift, t.ROW)
        t.load(6, weight, 2 * t.ROW)
        t.load(7, weight + t.ROW, 2 * t.ROW)
        t.load(5, below + shift, t.ROW)
        dot_four(whole)
        if unit < UNITS:
            put(done, unit)
            unit += 1
    for rest in range(unit, UNITS):
        put(done, rest)


@njit(inline="always")
def dot_four(whole):
    """Add to the sums of `begin` the products of tiles 4 and 5 with 6 and 7, in int8 if `whole`."""
    if whole:
        t.dot_whole(0, 4, 6)
        t.dot_whole(1, 4, 7)
        t.dot_whole(2, 5, 6)
        t.dot_whole(3, 5, 7)
    else:
        t.dot(0, 4, 6)
        t.dot(1, 4, 7)
        t.dot(2, 5, 6)
        t.dot(3, 5, 7)


@njit(inline="always")
def put(done, unit):
    """Two rows each of two tiles of sums in bf16 to where they belong: one of `UNITS` such.

    `done` are where the sums are, and, if the largest of four counts, how many bytes beside and
    below them the others are; what they go to: for either tile a list of places, counted from an
    address, and one of what is added, if it isn't 0; where it is noted which it was, or 0;
    and the `scales` of sums of whole numbers, or 0.
    """
    sums, beside, below, to, other_to, which, scales = done
    for row in range(2 * unit, 2 * unit + 2):
        _put(sums + row * 4 * WIDE, beside, below, row, to, which, scales)
        _put(sums + FACTOR + row * 4 * WIDE, beside, below, row, other_to, which, scales)


@njit(inline="always")
def _put(source, beside, below, row, to, which, scales):
    targets, y, plus = to
    target = v.number(targets + 8 * row)
    if target >= 0:
        if scales:
            if which:
                i.largest(source, beside, below, scales, y + 2 * target, which + target)
            elif plus:
                i.add_rounded(source, scales, plus + 2 * target, y + 2 * target)
            else:
                i.rounded(source, scales, y + 2 * target)
        elif which:
            v.largest(source, beside, below, y + 2 * target, which + target)
        elif plus:
            p.add_rounded(source, plus + 2 * target, y + 2 * target)
        else:
            v.rounded(source, y + 2 * target)


@compiled
def add_up(
    columns, pairs, apart, places, begins, parts, steps, fresh, sums, to_weight, whole, scale
):
    """Add to `to_weight`, or begin it if `fresh`, the products of `columns` and shifted `pairs`.

    Of 32 outputs, whose `columns` are 32 places after 32, so many `steps`, and of all inputs, whose
    `pairs` are so many bytes `apart`, 32 after 32. `places` and `begins` are by `meetings.added`;
    `sums` is room for two times 32x32. If they are `whole` numbers, columns are of 64 places and
    pairs four in turn, in int8, and sums are multiplied by `scale`.
    """
    row, size, turn = parts * WIDE * 4, WIDE * WIDE * 4, 0
    of_places, chunks = address(places), begins.shape[1] - 1
    # The sums that are complete, which are added while the next are made; as yet none.
    done = sums, np.int64(0), True
    for part in range(parts):
        right = pairs + part * apart
        for chunk in range(chunks):
            for tap in range(9):
                result = to_weight + tap * row + part * 4 * WIDE
                start, low, over = begins[tap, 0], begins[tap, chunk], begins[tap, chunk + 1]
                if start == begins[tap, chunks]:  # it met no pixel
                    for o in range(WIDE if fresh and chunk == 0 else 0):
                        clear(result + o * 9 * row, 4 * WIDE)
                if low == over:
                    continue
                made = sums + turn % 2 * size
                begin(made, 4 * WIDE, True)
                each = -(-WIDE // (over - low))
                for k in range(over - low):
                    told = of_places + (low + k) * 16
                    follow(columns + v.number(told), steps, right + v.number(told + 8), 1, whole)
                    add_rows(done, k * each, k * each + each, 9 * row, whole, scale)
                end(made, 4 * WIDE)
                done, turn = (made, result, fresh and low == start), turn + 1
    add_rows(done, 0, WIDE, 9 * row, whole, scale)


@njit(inline="always")
def add_rows(done, first, last, stride, whole, scale):
    """Add rows of what is `done` to where it belongs, if anywhere, or let it be the first there.

    Sums of `whole` numbers are multiplied by `scale`.
    """
    source, target, fresh = done
    for r in range(first, min(last, WIDE) if target else first):
        of, to = source + r * 4 * WIDE, target + r * stride
        if whole:
            if fresh:
                i.put(of, scale, to)
            else:
                i.add(of, scale, to)
        elif fresh:
            v.copy64(of, to)
            v.copy64(of + t.ROW, to + t.ROW)
        else:
            v.add(of, to)


@njit(inline="always")
def follow(left, steps, right, count, whole):
    """Add to the sums `count` products of two tiles at `left` and `right`, one after another.

    The other tile on the left is `steps` further on. What is on the left is needed again soon.
    """
    tile = t.ROWS * t.ROW
    for _ in range(count):
        t.load_once(6, right, 2 * t.ROW)
        t.load_once(7, right + t.ROW, 2 * t.ROW)
        t.load(4, left, t.ROW)
        t.load(5, left + steps * tile, t.ROW)
        dot_four(whole)
        left, right = left + tile, right + FACTOR
