"""Weights of 3x3 convolutions as `products` takes them: in bf16, two and two, by blocks of 32."""

import numpy as np
import torch
from torch import Tensor

from onecycle.jit import address, compiled
from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.arrays import as_arrays
from onecycle.model.compiled.meetings import FACTOR
from onecycle.model.compiled.places import WIDE


def packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` (O, C, 3, 3) in fp32 for the convolution and for the gradient of its input.

    The first is (O / 32, C / 32, 9, 16, 32), in which two inputs are a number of 32 bits; the other
    has inputs and outputs the other way round, and the shifts. O is a multiple of 32; C is filled
    up with zeros.
    """
    outputs, inputs = weight.shape[:2]
    blocks, parts = outputs // WIDE, -(-inputs // WIDE)
    ahead = torch.empty(blocks, parts, 9, t.ROWS, WIDE, dtype=torch.int32)
    back = torch.empty(parts, blocks, 9, t.ROWS, WIDE, dtype=torch.int32)
    _pack(*as_arrays(weight.permute(0, 2, 3, 1).contiguous(), ahead, back))
    return ahead, back


@compiled
def _pack(weight, ahead, back):
    outputs, _, _, inputs = weight.shape
    blocks, parts = ahead.shape[:2]
    line, rows = np.zeros(WIDE, np.float32), np.empty((t.ROWS, WIDE), np.uint16)
    of_weight, of_line, to_rows = address(weight), address(line), address(rows)
    to_ahead, to_back = address(ahead), address(back)
    for o in range(0, outputs, t.ROWS):
        for place in range(9 * parts):
            k, part = place // parts, place % parts
            for r in range(t.ROWS):
                source = of_weight + (((o + r) * 9 + k) * inputs + part * WIDE) * 4
                if part * WIDE + WIDE > inputs:
                    for c in range(inputs - part * WIDE):
                        line[c] = weight[o + r, k // 3, k % 3, part * WIDE + c]
                    source = of_line
                v.rounded(source, to_rows + r * t.ROW)
            target = to_ahead + ((o // WIDE * parts + part) * 9 + k) * FACTOR + o % WIDE * 4
            v.turned(to_rows, t.ROW, target, 4 * WIDE)
            target = to_back + ((part * blocks + o // WIDE) * 9 + 8 - k) * FACTOR
            for r in range(0, t.ROWS, 2):
                low, high = to_rows + r * t.ROW, to_rows + (r + 1) * t.ROW
                v.paired(low, high, target + (o % WIDE + r) // 2 * 2 * t.ROW)
    rows[0, 0] = 0  # holds it until here
