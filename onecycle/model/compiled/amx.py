"""3x3 convolutions of a training step in bf16 with AMX, one CPU thread, compiled by numba.

oneDNN's leave most of AMX idle, because what they multiply waits for memory. These go through some
images at a time, laid side by side so that their maps, padded, stay in the cache. There the
products of a map's shifted pixels with the weights are those of the convolution, and of its
gradients, with no copy for each of the nine shifts. Where a 2x2 max pool follows, the larger map
never gets to memory. (bench/LOG.md, section 18.)

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
from onecycle.model.compiled.places import WIDE, clear, lay, pair, spread
from onecycle.model.compiled.products import add_up, convolve

AT_ONCE = 1100  # places of some images side by side, about; more if one image has more


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


def convolved(x: Tensor, packed: Tensor, pool: bool) -> tuple[Tensor, Tensor]:
    """The convolution of x (N, H, W, C), and of each pixel, if max pooled, which it was.

    `packed` is a weight as `pack` has it.
    """
    images, height, width, _ = x.shape
    size = (height // 2, width // 2) if pool else (height, width)
    y = x.new_empty(images, *size, len(packed) * WIDE)
    which = torch.empty(y.shape if pool else (0, 0, 0, 0), dtype=torch.uint8)
    place = layout(images, height, width, pool)
    shared = _shared_room(height, place, packed.shape[1])
    forward(t.configuration(), *as_arrays(x, packed), *place, *as_arrays(*shared, y, which))
    return y, which


def gradients(
    x: Tensor, gradient: Tensor, which: Tensor, packed: Tensor, of_x: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of `convolved`'s x, if asked for, and weight (O, 9, C) from that of its result.

    `packed` is the weight as `pack_back` has it; C is a multiple of 32, and beyond x's zero.
    """
    images, height, width, _ = x.shape
    channels, outputs = packed.shape[0] * WIDE, packed.shape[1] * WIDE
    to_x = x.new_empty(images if of_x else 0, height, width, channels)
    to_weight = torch.empty(outputs, 9, channels)
    place = layout(images, height, width, False)
    run, steps = place[2], -(-height * place[2] // WIDE)
    columns = x.new_empty(outputs, steps * WIDE)
    pairs = torch.empty(2, channels // WIDE, run + 2 + steps * t.ROWS, WIDE, dtype=torch.uint32)
    line = x.new_empty(channels // WIDE, run + 1, WIDE)
    room = *_shared_room(height, place, packed.shape[1]), columns, pairs, line
    given = as_arrays(x, gradient, which, packed)
    backward(t.configuration(), *given, *place, *as_arrays(*room, to_x, to_weight))
    return to_x, to_weight


def _shared_room(height: int, place: tuple[int, int, int], blocks: int) -> tuple[Tensor, Tensor]:
    """Memory for `blocks` times 32 channels of some images' maps, and for sums."""
    run = place[2]
    places = 2 * run + (-(-height * run // WIDE) + 1) * WIDE + t.ROWS
    maps = torch.empty(blocks, places, WIDE, dtype=torch.bfloat16)
    return maps, torch.empty(height * (run + t.ROWS) + t.ROWS, WIDE)


@compiled
def pack(weight, packed):
    """`weight` (O, 3, 3, I) as `forward` takes it: (O / 32, I / 32, 9, 16, 32) pairs of numbers."""
    outputs, _, _, channels = weight.shape
    pairs = weight.view(np.uint32)
    whole = channels // 2 // t.ROWS * t.ROWS
    for k in range(9):
        for o in range(0, outputs, t.ROWS):
            for c in range(0, whole, t.ROWS):
                source = pairs[o:, k // 3, k % 3, c:].ctypes.data
                target = packed[o // WIDE, c // t.ROWS, k, 0, o % WIDE :].ctypes.data
                v.turned(source, weight.strides[0], target, 4 * WIDE)
        for o in range(outputs):
            for c in range(whole, channels // 2):
                place = o // WIDE, c // t.ROWS, k, c % t.ROWS, o % WIDE
                packed[place] = pairs[o, k // 3, k % 3, c]


@compiled
def pack_back(weight, packed):
    """`weight` (O, 3, 3, I) as `backward` takes it: (I / 32, O / 32, 9, 16, 32) such pairs."""
    outputs, _, _, channels = weight.shape
    for o in range(0, outputs, 2):
        for k in range(9):
            low, high = weight[o, k // 3, k % 3], weight[o + 1, k // 3, k % 3]
            for c in range(0, channels, WIDE):
                out = packed[c // WIDE, o // WIDE, 8 - k, o % WIDE // 2]
                for i in range(min(WIDE, channels - c)):
                    out[i] = np.uint32(low[c + i]) | np.uint32(high[c + i]) << np.uint32(16)


@compiled
def forward(config, x, packed, abreast, pitch, run, maps, sums, y, which):
    """The convolution of `x` into `y`; max pooled, where `which` has a place, and which it was."""
    images, height, width, channels = x.shape
    blocks, places, _ = maps.shape
    start = (run + t.ROWS) * t.ROW  # of the first pixel
    of_x, to_maps = address(x), address(maps)
    clear(to_maps, maps.size * 2)
    t.configure(config.ctypes.data)
    for first in range(0, images, abreast):
        here = min(abreast, images - first)
        source = of_x + first * height * width * channels * 2
        for row in range(height):
            shape = here, height, width, channels
            target = to_maps + start + row * run * t.ROW
            lay(source, shape, row, pitch, run, target, blocks, places * t.ROW)
        shape = height, width, pitch, run
        convolve(maps, shape, packed, sums, y, which, first, here)
    t.release()


@compiled
def backward(
    config,
    x,
    gradient,
    which,
    packed,
    abreast,
    pitch,
    run,
    maps,
    sums,
    columns,
    pairs,
    line,
    to_x,
    to_weight,
):
    """The gradients of `forward`'s `x`, unless it has no place, and weight, from that of its `y`.

    `to_weight` is (O, 9, channels) in fp32.
    """
    images, height, width, channels = x.shape
    _, high, wide, outputs = gradient.shape
    blocks, places, _ = maps.shape
    steps, start = -(-height * run // WIDE), (run + t.ROWS) * t.ROW
    of_x, of_gradient, of_which = address(x), address(gradient), address(which)
    to_maps, to_columns, to_line = address(maps), address(columns), address(line)
    none = which[:0]
    clear(to_maps, maps.size * 2)
    clear(to_line, line.size * 2)
    clear(address(pairs), pairs.size * 4)
    t.configure(config.ctypes.data)
    for first in range(0, images, abreast):
        here = min(abreast, images - first)
        number = first * high * wide * outputs
        for row in range(height):
            target = to_maps + start + row * run * t.ROW
            shape = here, high, wide, outputs
            source = of_gradient + 2 * number
            if which.size:
                told = of_which + number
                spread(source, told, shape, row, width, pitch, run, target, blocks, places * t.ROW)
            else:
                lay(source, shape, row, pitch, run, target, blocks, places * t.ROW)
        if to_x.size:
            convolve(maps, (height, width, pitch, run), packed, sums, to_x, none, first, here)
        for c in range(0, outputs, t.ROWS):
            source = to_maps + c // WIDE * places * t.ROW + start + c % WIDE * 2
            target = to_columns + c * steps * t.ROW
            for _ in range(steps):
                v.transposed(source, t.ROW, target, t.ROW)
                source, target = source + WIDE * t.ROW, target + t.ROWS * t.ROW
        for row in range(height):
            shape = here, height, width, channels
            source = of_x + first * height * width * channels * 2
            lay(source, shape, row, pitch, run, to_line + t.ROW, len(line), (run + 1) * t.ROW)
            at = ((row + 1) * run + 2) // 2
            pair(line, 1, pairs, 0, at, run // 2)
            pair(line, 0, pairs, 1, at - 1, run // 2)
        add_up(columns, pairs, height, width, run, steps, first == 0, to_weight)
    t.release()
