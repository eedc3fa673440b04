"""Layers of a training step in bf16 with AMX on one CPU thread, compiled by numba.

A layer is a 3x3 convolution, perhaps a 2x2 max pool, batch norm, an activation, and perhaps a sum.
oneDNN's convolutions leave most of AMX idle, because what they multiply waits for memory. These go
through some images at a time, whose maps lie abreast in the cache (`plan`). There a tile of maps is
a pixel of many images, or some pixels of a few, and the products of tiles with the weights are
those of the convolution, and of its gradients, with no copy for each of the nine shifts
(`meetings`). What is pooled is never in memory whole, nor is the gradient of what is normalized. A
group of images goes through all layers before the next does, so that a prediction keeps the maps of
one group alone. (bench/LOG.md, sections 18 to 22.)
"""

import numpy as np
import torch
from torch import Tensor

from onecycle.jit import address, compiled
from onecycle.model.compiled import plan as p
from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.arrays import as_arrays
from onecycle.model.compiled.meetings import added, convolved, targets
from onecycle.model.compiled.norms import activate, moments, normal, slopes, through
from onecycle.model.compiled.places import (
    WIDE,
    clear,
    first_place,
    lay,
    lay_back,
    pair,
    paired,
    spread_back,
)
from onecycle.model.compiled.plan import Kind, planned
from onecycle.model.compiled.products import add_up, convolve
from onecycle.model.compiled.room import room


def forward(
    x: Tensor,
    sizes: list[int],
    kinds: tuple[Kind, ...],
    packed: list[Tensor],
    affine: Tensor,
    eps: float,
    plus: Tensor | None = None,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Layers of `kinds` of x (N, H, W, C); `plus` is what a last one of `ANOTHER` adds.

    `sizes` are those of the groups that are normalized each by itself, N in all; `packed` are the
    convolutions' weights by `packing.packed`; `affine` (2, all channels) and `eps` are the batch
    norms'. The results are y, the mean and variance (groups, 2, all channels) of what was
    normalized, that of a sample, and what `backward` asks for. If mean and variance are `known`
    (2, all channels), all is normalized by these, and nothing is kept.
    """
    plan = planned(tuple(x.shape[1:]), max(sizes), kinds)
    y = x.new_empty(len(x), *plan.table[-1, p.HIGH : p.OUTPUTS + 1])
    found = torch.empty(len(sizes), 2, plan.channels) if known is None else known[None]
    factors = torch.empty(len(sizes), plan.channels // WIDE, 4, WIDE)
    apart = plan.kept if known is None else 0  # bytes from one group's memory to the next's
    kept = torch.empty(apart * (len(sizes) - 1) + plan.kept, dtype=torch.uint8)
    _forward(
        t.configuration(),
        plan.table,
        np.array(sizes),
        tuple(map(_where, (x, plus, kept, y))),
        np.array(list(map(_where, packed))),
        apart,
        room(*plan.ahead),
        known is not None,
        eps,
        *as_arrays(affine, found, factors),
    )
    return y, found, (kept, factors)


def backward(
    x: Tensor,
    sizes: list[int],
    kinds: tuple[Kind, ...],
    gradient: Tensor,
    kept: tuple[Tensor, Tensor],
    packed: list[Tensor],
    of_x: bool,
) -> tuple[Tensor | None, list[Tensor], Tensor]:
    """The gradients of `forward`'s x, if asked for, convolutions (O, 9, C) and norms (2, all).

    `gradient` is that of its y, `packed` the other of `packing.packed`; C is a multiple of 32, and
    beyond x's zero.
    """
    plan = planned(tuple(x.shape[1:]), max(sizes), kinds)
    parts = plan.table[:, p.PARTS]
    to_x = x.new_empty(*x.shape[:3], parts[0] * WIDE) if of_x else None
    to_weights, to_norms = torch.empty(plan.weights), torch.empty(2, plan.channels)
    memory, factors = kept
    _backward(
        t.configuration(),
        plan.table,
        np.array(sizes),
        tuple(map(_where, (x, gradient, memory, to_x, to_weights))),
        np.array(list(map(_where, packed))),
        plan.kept,
        room(*plan.back),
        *as_arrays(factors, to_norms),
    )
    sizes = (plan.table[:, p.OUTPUTS] * 9 * parts * WIDE).tolist()
    weights = zip(torch.split(to_weights, sizes), kinds, strict=True)
    return to_x, [weight.view(kind.outputs, 9, -1) for weight, kind in weights], to_norms


def _where(tensor: Tensor | None) -> int:
    """Where its numbers begin, 0 if there is nothing."""
    return 0 if tensor is None else tensor.data_ptr()


@compiled
def _forward(config, table, sizes, given, packed, apart, room, known, eps, affine, found, factors):
    x, plus, kept, y = given
    maps, sums = room
    first, last, end = table[0], len(table) - 1, 0
    pixels = first[p.HEIGHT] * first[p.WIDTH] * first[p.INPUTS] * 2
    results = table[last, p.HIGH] * table[last, p.BROAD] * table[last, p.OUTPUTS] * 2
    t.configure(config)
    for group in range(len(sizes)):
        begin, end = end, end + sizes[group]
        memory, statistics = kept + group * apart, found[0 if known else group]
        for layer in range(len(table)):
            row = table[layer]
            start, stop = row[p.CHANNEL], row[p.CHANNEL] + row[p.OUTPUTS]
            source = x + begin * pixels if layer == 0 else memory + table[layer - 1, p.MADE]
            made = y + begin * results if layer == last else memory + row[p.MADE]
            more = np.int64(0)
            if row[p.PLUS] == p.ANOTHER:
                more = plus + begin * results
            elif row[p.PLUS] == 0:
                more = x + begin * pixels
            elif row[p.PLUS] > 0:
                more = memory + table[row[p.PLUS] - 1, p.MADE]
            normed, which = memory + row[p.NORMED], memory + row[p.WHICH] if row[p.POOL] else 0
            of_factors = factors[group, start // WIDE : stop // WIDE]
            of_norm = affine[:, start:stop], statistics[:, start:stop], of_factors
            those = source, packed[layer], more, normed, which, made
            _layer(row, sizes[group], those, maps, sums, known, eps, of_norm)
    t.release()


@compiled
def _layer(row, images, given, maps, sums, known, eps, of_norm):
    """One group's layer."""
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
    if abreast % WIDE or channels % WIDE:
        clear(maps, parts * places * t.ROW)
    for first in range(0, images, abreast):
        here = min(abreast, images - first)
        source, those = x + first * height * width * channels * 2, (here, height, width, channels)
        for line in range(height):
            lay(source, those, line, abreast, maps + start + line * run * t.ROW, parts, apart)
        where = targets(inner, size, which != 0, first, here)
        convolve(maps, shape, pairs, taps, where, packed, sums, normed, which, 0)
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
    activate(normed, outputs, count, row[p.ACTIVATION], address(factors), more, stride, y)
    nothing[0] = 0  # holds it until here


@compiled
def _backward(config, table, sizes, given, packed, apart, room, factors, to_norms):
    x, gradient, kept, to_x, to_weights = given
    gradients = room[6]
    first, last, end = table[0], len(table) - 1, sizes.sum()
    pixels = first[p.HEIGHT] * first[p.WIDTH] * 2
    results = table[last, p.HIGH] * table[last, p.BROAD] * table[last, p.OUTPUTS] * 2
    to_norms[:] = 0
    t.configure(config)
    # What was made last is nearest.
    for group in range(len(sizes) - 1, -1, -1):
        begin, fresh = end - sizes[group], group == len(sizes) - 1
        end, memory = begin, kept + group * apart
        for layer in range(last, -1, -1):
            row = table[layer]
            start, stop = row[p.CHANNEL], row[p.CHANNEL] + row[p.OUTPUTS]
            of_last = gradient + begin * results
            that = of_last if layer == last else gradients + row[p.GRADIENT]
            more, added = np.int64(0), row[p.ADDED]
            if added >= 0:
                more = of_last if added == last else gradients + table[added, p.GRADIENT]
            if layer:
                source = memory + table[layer - 1, p.MADE]
                target = gradients + table[layer - 1, p.GRADIENT]
            else:
                source = x + begin * pixels * row[p.INPUTS]
                target = to_x and to_x + begin * pixels * row[p.PARTS] * WIDE
            normed, which = memory + row[p.NORMED], memory + row[p.WHICH] if row[p.POOL] else 0
            to_weight = to_weights + 4 * row[p.WEIGHTS]
            those = source, that, normed, which, packed[layer], more, target, to_weight
            of_factors = factors[group, start // WIDE : stop // WIDE]
            of_norm = of_factors, to_norms[:, start:stop]
            _layer_back(row, sizes[group], those, room, fresh, of_norm)
    t.release()


@compiled
def _layer_back(row, images, given, room, fresh, of_norm):
    """One group's layer backward; begin the gradient of its weight if `fresh`, else add to it."""
    x, gradient, normed, which, packed, plus, to_x, to_weight = given
    maps, sums, columns, pairs, row_of_y, moved, _ = room
    factors, to_norm = of_norm
    height, width, channels = row[p.HEIGHT], row[p.WIDTH], row[p.INPUTS]
    high, wide, outputs = row[p.HIGH], row[p.BROAD], row[p.OUTPUTS]
    abreast, run = row[p.BACK_ABREAST], row[p.BACK_RUN]
    parts, places, blocks = row[p.PARTS], row[p.BACK_PLACES], outputs // WIDE
    steps, start = -(-height * run // WIDE), first_place(run) * t.ROW
    filled = (2 * high, 2 * wide) if which else (height, width)  # of what has a gradient
    length, apart = paired(abreast, run, steps), places * t.ROW
    inner, size = (height, width, abreast, run), (height, width, parts * WIDE)
    shape = abreast, run, blocks, places, parts * WIDE
    tiles, taps = convolved(inner, filled, size, False)
    meet, begins = added(inner, filled, steps)
    turned, one = np.empty((blocks, 3, WIDE), np.float32), np.empty((2, outputs), np.float32)
    through_to, count = address(turned), images * high * wide
    slopes(normed, gradient, count, row[p.ACTIVATION], factors, moved, one)
    through(factors, one, count, turned)
    to_norm += one
    for first in range(0, images, abreast):
        here = min(abreast, images - first)
        if here < abreast or (abreast % WIDE and first == 0):
            clear(maps, blocks * places * t.ROW)
            clear(pairs, parts * length * 2 * t.ROW)
        number = first * high * wide * outputs
        both = moved + 2 * number, normed + 2 * number, through_to
        for at in range(high):
            those = here, high, wide, outputs
            if which:
                target = maps + start + 2 * at * run * t.ROW
                where = at, abreast, run, target, blocks, apart
                spread_back(both, which + number, row_of_y, those, *where)
            else:
                target = maps + start + at * run * t.ROW
                lay_back(both, those, at, abreast, target, blocks, apart)
        if to_x:
            where = targets(inner, size, False, first, here)
            convolve(maps, shape, tiles, taps, where, packed, sums, to_x, 0, plus)
        source, those = x + first * height * width * channels * 2, (here, height, width, channels)
        pair(source, those, abreast, run, pairs, length)
        begin = fresh and first == 0
        for block in range(blocks):
            for half in range(2):
                source = maps + block * apart + start + half * WIDE
                target = columns + half * steps * t.ROWS * t.ROW
                for _ in range(-(-filled[0] * run // WIDE)):
                    v.transposed(source, t.ROW, target, t.ROW)
                    source, target = source + WIDE * t.ROW, target + t.ROWS * t.ROW
            to = to_weight + block * 9 * parts * 4 * WIDE * WIDE
            of = columns, pairs, length * 2 * t.ROW, meet, begins
            add_up(*of, parts, steps, begin, sums, to)
    turned[0, 0, 0] = 0  # holds it until here
