"""The steps of int8: how large one is for some numbers, and what sums of their products are.

A number in int8 is so many steps, from -127 to 127, of which the largest of all numbers has 127.
Magnitudes are kept as the bits of fp32, because as whole numbers infinity is larger than all, and
what is no number larger still: neither is lost.
"""

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from onecycle.jit import address, compiled, pointer
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.places import WIDE

MOST = 127


@compiled
def steps(top):
    """The step of int8 for numbers of which `top` is the largest, and what divides by it."""
    factor = np.float32(MOST) / top if top != 0 else np.float32(0)
    return top / np.float32(MOST), factor


@njit(inline="always")
def magnitude(bits):
    """What has such `bits`."""
    return np.uint32(bits).view(np.float32)


@compiled
def largest(most):
    """Of magnitudes as bits the largest."""
    return magnitude(most.max())


@compiled
def largest_of(x, count):
    """Of `count` numbers in bf16 at `x` the largest magnitude."""
    bits = np.uint16(0)
    for value in carray(pointer(x), (count,), np.uint16):
        bits = max(bits, np.uint16(value & np.uint16(0x7FFF)))
    return magnitude(np.uint32(np.uint32(bits) << np.uint32(16)))


@compiled
def of_gradient(through, most):
    """The step for the gradient of what was normalized; divide what makes it by that.

    `through` is by `norms.through`, `most` by `norms.slopes`. What a number does to mean and
    variance is little beside the rest.
    """
    top = np.float32(0)
    for c in range(len(most)):
        this = abs(through[c // WIDE, 0, c % WIDE]) * magnitude(most[c])
        top = top if top != top or this <= top else this
    step, factor = steps(top)
    for block in through:
        block *= factor
    return step


@compiled
def of_sums(scales, step, result):
    """The product of two steps: that of each output's weights, at `scales`, and of what they meet.

    Into `result`, and where that is.
    """
    for c in range(len(result)):
        result[c] = v.single(scales + 4 * c) * step
    return address(result)
