"""Where all is that `amx` computes layers with: their maps, abreast in the cache or in memory.

Maps are (images, rows, columns, channels), channels a multiple of 32 for what is made; numbers are
in bf16, as 16 bits. In the cache a pixel has a place: `run` places a row, of which so many images
`abreast` have theirs one after another, column after column, of 32 channels, or 64 in int8.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onecycle.model.compiled import tiles as t
from onecycle.model.compiled.places import WIDE, paired
from onecycle.model.compiled.products import SUMS, TOGETHER

AT_ONCE = 2400  # places of some images abreast, at most; more if two images have more
ALIKE = 1.04  # times as many products are as good
NOTHING, ANOTHER = -1, -2  # in place of an earlier result


class Kind(NamedTuple):
    """What a layer of a sequence does, but for its numbers.

    To its activation is added what it is given, if that is `NOTHING` or `ANOTHER` tensor, or
    the result of an earlier layer: 0 stands for what the first is given, n for what the nth made.
    """

    outputs: int
    pool: bool
    activation: int  # its place among `passes.ACTIVATIONS`
    plus: int
    int8: bool = False  # in training, as far as `in_int8` has it


# What a table has a number for, a row a layer. A layer's maps and those of what it makes:
HEIGHT, WIDTH, INPUTS, HIGH, BROAD, OUTPUTS, ACTIVATION, POOL, PLUS = range(9)
# its maps in the cache forward, and those of its gradient backward, 32 channels after 32:
ABREAST, RUN, PARTS, PLACES, BACK_ABREAST, BACK_RUN, BACK_PLACES = range(9, 16)
# where in a group's memory what is normalized begins, which pixels it was, and what is made:
NORMED, WHICH, MADE = range(16, 19)
# its first channel among all that are normalized, where its weights' gradient begins, and in the
# room for gradients that of what it made; and the layer whose sum its input was also part of.
CHANNEL, WEIGHTS, GRADIENT, ADDED = range(19, 23)
# and whether it is computed in int8, forward and backward; channels of its input, 32 after 32, and
# of the gradient of its output, 32 or 64 after another.
INT8, BACK_INT8, BLOCKS, BACK_PARTS = range(23, 27)
NUMBERS = 27


@dataclass(frozen=True)
class Plan:
    """The layers' `table`, and the sizes of what they share."""

    table: NDArray[np.int64]
    kept: int  # bytes for a group, from forward to backward
    channels: int  # all that are normalized
    weights: int  # numbers of all gradients of weights
    ahead: tuple[int, ...]  # bytes of room forward
    back: tuple[int, ...]  # and backward


def in_int8(inputs: int, outputs: int) -> tuple[bool, bool]:
    """Whether a convolution of so many channels is faster in int8, forward and backward.

    Forward only inputs fill its tiles, 64 by 64; backward places do, for the weights' gradient.
    """
    return inputs % (2 * WIDE) == 0, outputs % WIDE == 0


@cache
def planned(shape: tuple[int, int, int], images: int, kinds: tuple[Kind, ...]) -> Plan:
    """How groups of at most so many `images` of `shape` (H, W, C) go through layers of `kinds`."""
    table = np.zeros((len(kinds), NUMBERS), np.int64)
    height, width, inputs = shape
    kept = channels = weights = 0
    for row, kind in zip(table, kinds, strict=True):
        high, broad = (height // 2, width // 2) if kind.pool else (height, width)
        row[HEIGHT : PLUS + 1] = height, width, inputs, high, broad, *_numbers(kind)
        int8 = in_int8(inputs, kind.outputs) if kind.int8 else (False, False)
        ahead = layout(images, height, width, kind.pool)
        back = layout(images, height, width, False, int8[1])
        row[INT8 : BACK_INT8 + 1], row[BLOCKS] = int8, -(-inputs // WIDE)
        row[BACK_PARTS] = -(-kind.outputs // (WIDE << int8[1]))
        row[ABREAST : PARTS + 1] = *ahead, -(-inputs // (WIDE << int8[0]))
        row[PLACES], row[BACK_PLACES] = _places(height, ahead[1]), _places(height, back[1])
        row[BACK_ABREAST : BACK_RUN + 1] = back
        numbers = images * high * broad * kind.outputs
        row[NORMED], row[WHICH] = kept, kept + 2 * numbers
        row[MADE] = row[WHICH] + (-(-numbers // t.ROW) * t.ROW if kind.pool else 0)
        kept = int(row[MADE] + 2 * numbers)
        row[CHANNEL], row[WEIGHTS] = channels, weights
        channels += kind.outputs
        weights += int(kind.outputs * 9 * row[BLOCKS] * WIDE)
        height, width, inputs = high, broad, kind.outputs
    made = 2 * images * int((table[:, HIGH] * table[:, BROAD] * table[:, OUTPUTS]).max())
    gradients = _gradients(table, kinds, made)
    return Plan(table, kept, channels, weights, _ahead(table), (*_back(table), made, gradients))


@cache
def layout(
    images: int, height: int, width: int, pooled: bool, int8: bool = False
) -> tuple[int, int]:
    """How many images lie abreast, and the places of a row: many, and few products.

    A tile of 32 images and more is one pixel, of fewer a part of a row, with zeros after it; it has
    all four pixels of what is pooled, or one of the upper two and the lower two. Of a gradient in
    `int8` 64 places are multiplied at once, which belong to a pixel of so many images, or to a row.
    """
    least, most = (4, 2 * AT_ONCE) if int8 else (2, AT_ONCE)
    together = WIDE << int8
    broad, taps = width + (width > 1), (3 * height - 2) * (3 * width - 2)
    whole = -(-images // together) * together
    found = []
    for abreast in (least, *(n for n in (4, 8, 16) if n > least and not (pooled and n == 16))):
        if height * broad * abreast <= most or abreast == least:
            tiles = 9 * height * -(-abreast * width // t.ROWS)
            found.append((-(-images // abreast) * tiles, abreast, abreast * broad))
    for abreast in range(together, whole + 1, together):
        if height * width * abreast <= most:
            tiles = taps * abreast // t.ROWS
            found.append((-(-images // abreast) * tiles, abreast, abreast * width))
    fewest = min(tiles for tiles, _, _ in found)
    return max((abreast, run) for tiles, abreast, run in found if tiles <= ALIKE * fewest)


def _numbers(kind: Kind) -> tuple[int, int, int, int]:
    return kind.outputs, kind.activation, kind.pool, kind.plus


def _places(height: int, run: int) -> int:
    """Places for some images' maps, with what is read before and after them."""
    return 2 * run + (-(-height * run // WIDE) + 2) * WIDE + t.ROWS


def _gradients(table: NDArray[np.int64], kinds: tuple[Kind, ...], size: int) -> int:
    """Note where each layer's gradient is in a room for few of `size` bytes; the whole room's."""
    table[:, ADDED] = NOTHING
    for layer, kind in enumerate(kinds):
        if kind.plus >= 0:
            table[kind.plus, ADDED] = layer
    free: list[int] = []
    slots = 0
    for layer in range(len(kinds) - 1, -1, -1):
        if layer:  # the gradient of its input
            if not free:
                free.append(slots)
                slots += 1
            table[layer - 1, GRADIENT] = free.pop() * size
        # Now nobody asks for its own any more, unless it is also that of an earlier input.
        done = [layer] if kinds[layer].plus < 0 or kinds[layer].plus == layer else []
        later = int(table[layer, ADDED])
        done += [later] if later > layer else []
        free += [int(table[each, GRADIENT]) // size for each in done if each < len(kinds) - 1]
    return slots * size


def _ahead(table: NDArray[np.int64]) -> tuple[int, int]:
    """Bytes of room forward: maps, and sums."""
    return int((table[:, PARTS] * table[:, PLACES]).max()) * t.ROW, TOGETHER * SUMS


def _back(table: NDArray[np.int64]) -> tuple[int, ...]:
    """Bytes of room backward: maps, sums, columns of 32 channels, pairs, a row of results."""
    run, each = table[:, BACK_RUN], WIDE << table[:, BACK_INT8]
    steps = -(-table[:, HEIGHT] * run // each)
    sizes = (
        table[:, BACK_PARTS] * table[:, BACK_PLACES] * t.ROW,
        np.array(TOGETHER * SUMS),
        WIDE * steps * t.ROW,
        table[:, BLOCKS] * paired(table[:, BACK_ABREAST], run, steps) * 2 * t.ROW,
        table[:, BROAD] * t.ROW,
    )
    return tuple(int(size.max()) for size in sizes)
