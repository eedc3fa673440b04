"""The first layer of `speednet` by vectors of AVX512: 2x2 pixels, 12 filters and their negatives.

Of SiLU's values at v and -v the second is the first less v, so that one sigmoid does for two.
"""

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from onecycle.jit import address, compiled
from onecycle.model.compiled.arrays import as_arrays
from onecycle.model.compiled.pixels import sigmoid
from onecycle.model.compiled.tiles import LONG, at, call
from onecycle.model.compiled.vectors import BFLOATS, WORD, everywhere, floats, fma

FILTERS, TAPS = 12, 12  # of which each has a negative; the numbers of 2x2 pixels
AT_ONCE = 4  # pixels, whose results are three vectors
FLOAT = ir.FloatType()
SHORTS, PLACES = ir.VectorType(ir.IntType(16), 32), ir.VectorType(WORD, 32)


def whiten_activate(pixels: Tensor, weight: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """SiLU of the filters `weight` (24, 3, 2, 2) of standardized `pixels`, in bf16.

    `pixels` are (N, H, W, 3) on the 0-255 scale, of at least 5 columns; `mean` and `std` are (3,).
    The result is (N, H - 1, W - 1, 24).
    """
    images, height, width, _ = pixels.shape
    one = weight[:FILTERS].permute(2, 3, 1, 0) / std.view(3, 1)
    filters = torch.zeros(TAPS + 1, 16)  # and what they make of the mean, with the other sign
    filters[:TAPS, :FILTERS] = one.reshape(TAPS, FILTERS)
    filters[TAPS, :FILTERS] = -(one * mean.view(3, 1)).sum((0, 1, 2))
    lines = torch.empty(2, 3 * width)
    y = torch.empty(images, height - 1, width - 1, 2 * FILTERS, dtype=torch.bfloat16)
    _whiten(*as_arrays(pixels.flatten(2), filters, lines, y))
    return y


@compiled
def _whiten(pixels, filters, lines, y):
    images, height, _ = pixels.shape
    of_lines, of_filters, to_y = address(lines), address(filters), address(y)
    size, columns, pixel = lines.strides[0], y.shape[2], y.strides[2]
    for image in range(images):
        for row in range(height):
            line, given = lines[row % 2], pixels[image, row]
            for k in range(len(line)):
                line[k] = given[k]
            if row == 0:
                continue
            above, below = of_lines + (row - 1) % 2 * size, of_lines + row % 2 * size
            target = to_y + (image * (height - 1) + row - 1) * columns * pixel
            for start in range(0, columns, AT_ONCE):
                column = min(start, columns - AT_ONCE)
                place = 12 * column
                four(above + place, below + place, of_filters, target + column * pixel)


@intrinsic
def four(context, above, below, filters, target):
    """Four pixels' results from two rows of their numbers in fp32."""

    def made(context, builder, signature, arguments):
        above, below, filters, target = arguments
        shift = floats(builder, filters, TAPS * 64)
        sums = [shift] * AT_ONCE
        for tap in range(TAPS):
            factor, row = floats(builder, filters, tap * 64), (above, below)[tap // 6]
            for pixel in range(AT_ONCE):
                place = at(builder, row, LONG(4 * (3 * pixel + tap % 6)), FLOAT)
                number = everywhere(builder, builder.load(place, align=4))
                sums[pixel] = fma(builder, number, factor, sums[pixel])
        results = []
        for value in sums:
            y = builder.fmul(value, sigmoid(builder, value))
            name, other = "llvm.x86.avx512bf16.cvtne2ps2bf16.512", builder.fsub(y, value)
            results.append(builder.bitcast(call(builder, name, BFLOATS, other, y), SHORTS))
        # Of each result 12 of the first 16 numbers, and of the last.
        lanes = [(p, lane) for p in range(AT_ONCE) for lane in (*range(12), *range(16, 28))]
        for part in range(3):
            mine = lanes[32 * part : 32 * part + 32]
            first, second = mine[0][0], mine[-1][0]
            taken = [lane if pixel == first else 32 + lane for pixel, lane in mine]
            mask = ir.Constant(PLACES, taken)
            numbers = builder.shuffle_vector(results[first], results[second], mask)
            builder.store(numbers, at(builder, target, LONG(64 * part), SHORTS), align=2)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), made
