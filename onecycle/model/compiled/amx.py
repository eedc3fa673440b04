"""Layers of a training step in bf16 with AMX on one CPU thread, compiled by numba.

A layer is a 3x3 convolution, perhaps a 2x2 max pool, batch norm, an activation, and perhaps a sum.
oneDNN's convolutions leave most of AMX idle, because what they multiply waits for memory. These go
through some images at a time, laid side by side so that their maps, padded, stay in the cache.
There the products of a map's shifted pixels with the weights are those of the convolution, and of
its gradients, with no copy for each of the nine shifts. What is pooled is never in memory whole,
nor is the gradient of what is normalized. (bench/LOG.md, sections 18 and 19.)

Maps are (images, rows, columns, channels), channels a multiple of 32 for what is made; numbers are
in bf16, as 16 bits. In the cache a pixel has a place: `run` places a row, `pitch` an image in it,
of which those after its columns are zero, as are the rows above and below.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.arrays import as_arrays
from onecycle.model.compiled.jit import address, compiled
from onecycle.model.compiled.norms import activate, moments, normal, slopes, through
from onecycle.model.compiled.passes import ACTIVATIONS
from onecycle.model.compiled.places import WIDE, clear, lay, lay_back, pair, spread_back
from onecycle.model.compiled.products import TOGETHER, add_up, convolve
from onecycle.model.compiled.room import room

AT_ONCE = 1100  # places of some images side by side, about; more if one image has more
SUMS = TOGETHER * t.ROWS * 4 * WIDE  # bytes of `convolve`'s sums


@cache
def layout(images: int, height: int, width: int, pooled: bool) -> tuple[int, int, int]:
    """How many images lie side by side, and their `pitch` and `run`: few places left empty."""
    best = None
    for abreast in range(1, images + 1):
        pitch = width + (width > 1)
        if pooled and abreast > 1:
            pitch += pitch % 2  # so that each image begins at an even place
        run = abreast * pitch + abreast * pitch % 2
        if best and height * run > AT_ONCE:
            break
        used = abreast * pitch - (pitch - width)
        tiles = -(-images // abreast) * height * -(-used // t.ROWS)
        if best is None or tiles < 1.04 * best[0]:
            best = tiles, abreast, pitch, run
    assert best
    return best[1:]


def forward(
    x: Tensor,
    sizes: list[int],
    packed: Tensor,
    pool: bool,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    activation: str,
    plus: Tensor | None,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """A layer of x (N, H, W, C), to which `plus`, of its result's shape, is added.

    `sizes` are those of the groups that are normalized each by itself, N in all; `packed` is the
    convolution's weight by `packing.packed`; `weight`, `bias` (O,) and `eps` are the batch norm's.
    The results are y, the mean and variance (groups, 2, O) of what was normalized, that of a
    sample, and what `backward` asks for: what was normalized, which pixels it was, if it was
    pooled, and the groups' and channels' factors. If mean and variance are `known` (2, O), all is
    normalized by these.
    """
    images, height, width, channels = x.shape
    size = (height // 2, width // 2) if pool else (height, width)
    outputs, parts = len(packed) * WIDE, packed.shape[1]
    normed = x.new_empty(images, *size, outputs)
    which = torch.empty(normed.shape if pool else (0,), dtype=torch.uint8)
    found = torch.empty(len(sizes), 2, outputs) if known is None else known.clone()[None]
    factors = torch.empty(len(sizes), outputs // WIDE, 4, WIDE)
    y = torch.empty_like(normed)
    place = layout(sizes[0], height, width, pool)
    places = _places(height, place[2])
    given = x, packed, plus, normed, which, y
    _forward(
        t.configuration(),
        np.array(sizes),
        (height, width, channels, *size, outputs),
        (*place, parts, places),
        tuple(map(_where, given)),
        room(parts * places * t.ROW, SUMS),
        eps,
        ACTIVATIONS.index(activation),
        known is not None,
        *as_arrays(weight, bias, found, factors),
    )
    return y, found, (normed, which, factors)


def backward(
    x: Tensor,
    sizes: list[int],
    gradient: Tensor,
    kept: tuple[Tensor, Tensor, Tensor],
    packed: Tensor,
    activation: str,
    of_x: bool,
    added: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `forward`'s x, if asked for, convolution (O, 9, C) and norm (2, O).

    `gradient` is that of its y, `packed` the other of `packing.packed`; C is a multiple of 32,
    and beyond x's zero. If `added`, x was also what was added.
    """
    normed, which, factors = kept
    images, height, width, inputs = x.shape
    parts, blocks = packed.shape[:2]
    channels, outputs = parts * WIDE, blocks * WIDE
    to_x = x.new_empty(images, height, width, channels) if of_x else None
    to_weight, to_norm = torch.empty(outputs, 9, channels), torch.empty(2, outputs)
    place = layout(sizes[0], height, width, False)
    run, places = place[2], _places(height, place[2])
    steps = -(-height * run // WIDE)
    given = x, gradient, normed, which, packed, gradient if added else None, to_x, to_weight
    _backward(
        t.configuration(),
        np.array(sizes),
        (height, width, inputs, *normed.shape[1:]),
        (*place, blocks, places),
        tuple(map(_where, given)),
        room(
            blocks * places * t.ROW,
            SUMS,
            outputs * steps * t.ROW,
            2 * parts * (run + 2 + steps * t.ROWS) * 2 * t.ROW,
            parts * (run + 1) * t.ROW,
            normed.shape[2] * t.ROW,
            normed.numel() * 2,
        ),
        parts,
        ACTIVATIONS.index(activation),
        *as_arrays(factors, to_norm),
    )
    return x.new_empty(0) if to_x is None else to_x, to_weight, to_norm


def _places(height: int, run: int) -> int:
    """Places of 32 channels for some images' maps, with what is read before and after them."""
    return 2 * run + (-(-height * run // WIDE) + 1) * WIDE + t.ROWS


def _where(tensor: Tensor | None) -> int:
    """Where its numbers begin, 0 if there is nothing."""
    return 0 if tensor is None else tensor.data_ptr()


@compiled
def _forward(
    config,
    sizes,
    shape,
    place,
    given,
    room,
    eps,
    activation,
    known,
    weight,
    bias,
    found,
    factors,
):
    height, width, channels, high, wide, outputs = shape
    abreast, pitch, run, parts, places = place
    x, packed, plus, normed, which, y = given
    maps, sums = room
    start = (run + t.ROWS) * t.ROW  # of the first pixel
    inner, size = (height, width, pitch, run, parts, places), (high, wide, outputs)
    nothing, end = np.zeros(WIDE, np.uint16), 0
    of_factors, zeros = address(factors), address(nothing)
    clear(maps, parts * places * t.ROW)
    for group in range(len(sizes)):
        begin, end = end, end + sizes[group]
        mean, squares = np.zeros(outputs), np.zeros(outputs)
        t.configure(config)
        for first in range(begin, end, abreast):
            here = min(abreast, end - first)
            source = x + first * height * width * channels * 2
            for row in range(height):
                target = maps + start + row * run * t.ROW
                those = here, height, width, channels
                lay(source, those, row, pitch, run, target, parts, places * t.ROW)
            convolve(maps, inner, packed, sums, size, normed, which, 0, first, here)
            if known:
                continue
            before, count = (first - begin) * high * wide, here * high * wide
            some = normed + first * high * wide * 2 * outputs
            moments(some, before, count, mean, squares)
        t.release()
        count, offset = sizes[group] * high * wide, begin * high * wide * 2 * outputs
        if known:
            mean[:], squares[:] = found[group, 0], found[group, 1] * count
        normal(mean, squares, count, weight, bias, eps, factors[group], found[group])
        those = of_factors + group * factors.strides[0]
        more, stride = (plus + offset, 2 * outputs) if plus else (zeros, 0)
        activate(normed + offset, outputs, count, activation, those, more, stride, y + offset)
    nothing[0] = 0  # holds them until here


@compiled
def _backward(config, sizes, shape, place, given, room, parts, activation, factors, to_norm):
    height, width, channels, high, wide, outputs = shape
    abreast, pitch, run, blocks, places = place
    x, gradient, normed, which, packed, plus, to_x, to_weight = given
    maps, sums, columns, pairs, line, row_of_y, moved = room
    steps, start = -(-height * run // WIDE), (run + t.ROWS) * t.ROW
    length, apart = run + 2 + steps * t.ROWS, places * t.ROW
    inner, size = (height, width, pitch, run, blocks, places), (height, width, parts * WIDE)
    outer = height, width, pitch, run, parts, places
    clear(maps, blocks * places * t.ROW)
    clear(line, parts * (run + 1) * t.ROW)
    clear(pairs, 2 * parts * length * 2 * t.ROW)
    turned, one, end = np.empty((blocks, 3, WIDE), np.float32), np.empty_like(to_norm), 0
    through_to = address(turned)
    to_norm[:] = 0
    for group in range(len(sizes)):
        begin, end = end, end + sizes[group]
        count, offset = sizes[group] * high * wide, begin * high * wide * 2 * outputs
        seen, that, made = normed + offset, gradient + offset, moved + offset
        slopes(seen, that, count, activation, factors[group], made, one)
        through(factors[group], one, count, turned)
        to_norm += one
        t.configure(config)
        for first in range(begin, end, abreast):
            here = min(abreast, end - first)
            number = first * high * wide * outputs
            both = moved + 2 * number, normed + 2 * number, through_to
            for row in range(high):
                those = here, high, wide, outputs
                if which:
                    target = maps + start + 2 * row * run * t.ROW
                    where = row, pitch, run, target, blocks, apart
                    spread_back(both, which + number, row_of_y, those, *where)
                else:
                    target = maps + start + row * run * t.ROW
                    lay_back(both, those, row, pitch, run, target, blocks, apart)
            if to_x:
                convolve(maps, inner, packed, sums, size, to_x, 0, plus, first, here)
            for c in range(0, outputs, t.ROWS):
                source = maps + c // WIDE * apart + start + c % WIDE * 2
                target = columns + c * steps * t.ROW
                for _ in range(steps):
                    v.transposed(source, t.ROW, target, t.ROW)
                    source, target = source + WIDE * t.ROW, target + t.ROWS * t.ROW
            for row in range(height):
                those = here, height, width, channels
                source = x + first * height * width * channels * 2
                lay(source, those, row, pitch, run, line + t.ROW, parts, (run + 1) * t.ROW)
                at = ((row + 1) * run + 2) // 2
                pair(line, run + 1, parts, 1, pairs, length, 0, at, run // 2)
                pair(line, run + 1, parts, 0, pairs, length, 1, at - 1, run // 2)
            add_up(columns, pairs, outer, outputs, steps, first == 0, to_weight)
        t.release()
    turned[0, 0, 0] = 0  # holds it until here
