"""One layer of `amx`, forward and backward, of a group of images that are normalized together."""

import numpy as np

from onecycle.jit import address, compiled
from onecycle.model.compiled import int8 as i
from onecycle.model.compiled import plan as p
from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.meetings import added, convolved, targets
from onecycle.model.compiled.norms import activate, moments, normal, slopes, through
from onecycle.model.compiled.places import (
    WIDE,
    clear,
    first_place,
    fours,
    lay,
    lay_back,
    lay_whole,
    pair,
    paired,
    spread_back,
)
from onecycle.model.compiled.products import add_up, convolve
from onecycle.model.compiled.steps import largest, of_gradient, of_sums, steps


@compiled
def layer_forward(row, images, given, maps, sums, known, eps, of_norm, top):
    """One group's layer; the largest magnitude of what it makes, if `top` is that of x."""
    x, packed, plus, normed, which, y = given
    affine, found, factors = of_norm
    height, width, channels = row[p.HEIGHT], row[p.WIDTH], row[p.INPUTS]
    high, wide, outputs = row[p.HIGH], row[p.BROAD], row[p.OUTPUTS]
    abreast, run = row[p.ABREAST], row[p.RUN]
    parts, places = row[p.PARTS], row[p.PLACES]
    inner, size, apart = (height, width, abreast, run), (high, wide, outputs), places * t.ROW
    start, shape = first_place(run) * t.ROW, (abreast, run, parts, places, outputs)
    pairs, taps = convolved(inner, (height, width), size, which != 0)
    mean, squares = np.zeros(outputs), np.zeros(outputs)
    step, factor = steps(np.float32(top))
    scales, most = np.empty(outputs, np.float32), np.empty(outputs, np.uint32)
    of_scales = of_sums(packed[1], step, scales) if row[p.INT8] else 0
    if abreast % WIDE or channels % WIDE:
        clear(maps, parts * places * t.ROW)
    for first in range(0, images, abreast):
        here = min(abreast, images - first)
        source, those = x + first * height * width * channels * 2, (here, height, width, channels)
        for line in range(height):
            target = maps + start + line * run * t.ROW
            if row[p.INT8]:
                lay_whole(source, those, line, abreast, factor, target, parts, apart)
            else:
                lay(source, those, line, abreast, target, parts, apart)
        where = targets(inner, size, which != 0, first, here)
        convolve(maps, shape, pairs, taps, where, packed[0], of_scales, sums, normed, which, 0)
        if known:
            continue
        before, count = first * high * wide, here * high * wide
        moments(normed + before * 2 * outputs, before, count, mean, squares)
    count = images * high * wide
    if known:
        mean[:], squares[:] = found[0], found[1] * count
    else:
        found[0], found[1] = mean, squares / (count - 1)
    normal(mean, squares, count, affine[0], affine[1], eps, factors)
    nothing = np.zeros(WIDE, np.uint16)
    more, stride = (plus, 2 * outputs) if plus else (address(nothing), 0)
    activate(normed, outputs, count, row[p.ACTIVATION], address(factors), more, stride, y, most)
    scales[0] = nothing[0]  # holds both until here
    return largest(most)


@compiled
def layer_backward(row, images, given, room, fresh, of_norm, top):
    """One group's layer backward; begin the gradient of its weight if `fresh`, else add to it.

    `top` is the largest magnitude of x.
    """
    x, gradient, normed, which, packed, plus, to_x, to_weight = given
    maps, sums, columns, pairs, row_of_y, moved, _ = room
    factors, to_norm = of_norm
    height, width, channels = row[p.HEIGHT], row[p.WIDTH], row[p.INPUTS]
    high, wide, outputs = row[p.HIGH], row[p.BROAD], row[p.OUTPUTS]
    abreast, run, int8 = row[p.BACK_ABREAST], row[p.BACK_RUN], row[p.BACK_INT8]
    parts, places, blocks = row[p.BLOCKS], row[p.BACK_PLACES], outputs // WIDE
    each = 2 * WIDE if int8 else WIDE
    chunks, start = -(-height * run // each), first_place(run) * t.ROW
    filled = (2 * high, 2 * wide) if which else (height, width)  # of what has a gradient
    length, apart = paired(abreast, run, chunks), places * t.ROW
    inner, size = (height, width, abreast, run), (height, width, parts * WIDE)
    shape = abreast, run, row[p.BACK_PARTS], places, parts * WIDE
    tiles, taps = convolved(inner, filled, size, False)
    meet, begins = added(inner, filled, chunks, each)
    turned, one = np.empty((blocks, 3, WIDE), np.float32), np.empty((2, outputs), np.float32)
    most, scales = np.empty(outputs, np.uint32), np.empty(parts * WIDE, np.float32)
    through_to, count = address(turned), images * high * wide
    slopes(normed, gradient, count, row[p.ACTIVATION], factors, moved, one, most)
    through(factors, one, count, turned)
    to_norm += one
    of_scales, scale, factor = np.int64(0), np.float32(0), np.float32(0)
    if int8:
        step = of_gradient(turned, most)
        step_of_x, factor = steps(np.float32(top))
        scale, of_scales = step * step_of_x, of_sums(packed[1], step, scales)
    for first in range(0, images, abreast):
        here = min(abreast, images - first)
        if here < abreast or (first == 0 and (abreast % WIDE or outputs % each)):
            clear(maps, row[p.BACK_PARTS] * apart)
            clear(pairs, parts * length * 2 * t.ROW)
        number = first * high * wide * outputs
        both = moved + 2 * number, normed + 2 * number, through_to
        for at in range(high):
            those = here, high, wide, outputs
            if which:
                target = maps + start + 2 * at * run * t.ROW
                where = at, abreast, run, target, blocks, apart, int8
                spread_back(both, which + number, row_of_y, those, *where)
            else:
                target = maps + start + at * run * t.ROW
                lay_back(both, those, at, abreast, target, blocks, apart, int8)
        if to_x:
            where = targets(inner, size, False, first, here)
            convolve(maps, shape, tiles, taps, where, packed[0], of_scales, sums, to_x, 0, plus)
        source, those = x + first * height * width * channels * 2, (here, height, width, channels)
        if int8:
            fours(source, those, abreast, run, factor, pairs, length)
        else:
            pair(source, those, abreast, run, pairs, length)
        begin = fresh and first == 0
        for block in range(blocks):
            here = maps + start
            here += block // 2 * apart + block % 2 * WIDE if int8 else block * apart
            turn(here, -(-filled[0] * run // each), columns, chunks, int8)
            to = to_weight + block * 9 * parts * 4 * WIDE * WIDE
            of = columns, pairs, length * 2 * t.ROW, meet, begins
            add_up(*of, parts, chunks, begin, sums, to, int8 != 0, scale)
    scales[0] = turned[0, 0, 0]  # holds both until here


@compiled
def turn(source, steps, columns, chunks, int8):
    """The columns of 32 channels at `source`, 16 by 16, of so many `steps` of places."""
    for half in range(2):
        target = columns + half * chunks * t.ROWS * t.ROW
        if int8:
            this = source + half * t.ROWS
            for _ in range(steps):
                i.transposed(this, t.ROW, target, t.ROW)
                this, target = this + 2 * WIDE * t.ROW, target + t.ROWS * t.ROW
        else:
            this = source + half * WIDE
            for _ in range(steps):
                v.transposed(this, t.ROW, target, t.ROW)
                this, target = this + WIDE * t.ROW, target + t.ROWS * t.ROW
