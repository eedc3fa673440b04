"""Weights of 3x3 convolutions as `products` takes them: two and two, or four, by blocks of 32."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onecycle.jit import address, compiled
from onecycle.model.compiled import int8 as i
from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.arrays import as_arrays
from onecycle.model.compiled.meetings import FACTOR
from onecycle.model.compiled.places import WIDE
from onecycle.model.compiled.steps import magnitude, steps


class Weights(NamedTuple):
    """Weights in bf16, or in int8, of which an output's step is its of `scales`."""

    numbers: Tensor
    scales: Tensor | None = None


def packed(weight: Tensor, int8: tuple[bool, bool] = (False, False)) -> tuple[Weights, Weights]:
    """`weight` (O, C, 3, 3) in fp32 for the convolution and for the gradient of its input.

    The first is (O / 32, C / 32, 9, 16, 32), in which two inputs are a number of 32 bits; the other
    has inputs and outputs the other way round, and the shifts. O is a multiple of 32; C is filled
    up with zeros. Either may be in `int8`: (O / 32, C / 64, 9, 16, 32), four inputs a number.
    """
    lines = weight.permute(0, 2, 3, 1).contiguous()
    found = [_packed(lines, whole) if whole in int8 else None for whole in (False, True)]
    ahead, back = (found[whole] for whole in int8)
    assert ahead is not None and back is not None
    return ahead[0], back[1]


def _packed(lines: Tensor, int8: bool) -> tuple[Weights, Weights]:
    """Weights (O, 3, 3, C), both ways; ahead in int8 only if C is a multiple of 64."""
    outputs, _, _, inputs = lines.shape
    blocks, parts = outputs // WIDE, -(-inputs // WIDE)
    if not int8:
        ahead = torch.empty(blocks, parts, 9, t.ROWS, WIDE, dtype=torch.int32)
        back = torch.empty(parts, blocks, 9, t.ROWS, WIDE, dtype=torch.int32)
        _pack(*as_arrays(lines, ahead, back))
        return Weights(ahead), Weights(back)
    if inputs % WIDE:
        lines = F.pad(lines, (0, WIDE * parts - inputs))
    ahead = torch.empty(blocks, parts // 2, 9, t.ROWS, WIDE, dtype=torch.int32)
    # Zeros for the outputs that there aren't.
    back = torch.zeros(parts, -(-blocks // 2), 9, t.ROWS, WIDE, dtype=torch.int32)
    scales, back_scales = torch.empty(outputs), torch.empty(WIDE * parts)
    _pack_whole(*as_arrays(lines, ahead, back, scales, back_scales))
    return Weights(ahead, scales), Weights(back, back_scales)


@compiled
def _pack_whole(weight, ahead, back, scales, back_scales):
    outputs, _, _, inputs = weight.shape
    by_output, factors = np.empty(outputs, np.float32), np.empty(inputs, np.float32)
    _largest(weight.reshape(outputs, 9, inputs), scales, back_scales)
    for found, result in ((scales, by_output), (back_scales, factors)):
        for c in range(len(found)):
            found[c], result[c] = steps(found[c])
    rows = np.empty((t.ROWS, t.ROW), np.int8)
    of_weight, to_rows, of_factors = address(weight), address(rows), address(factors)
    to_ahead, to_back = address(ahead), address(back)
    row, parts, depths = 9 * inputs * 4, ahead.shape[1], back.shape[1]
    for o in range(0, outputs, t.ROWS):
        for k in range(9):
            source = of_weight + (o * 9 + k) * inputs * 4
            for part in range(parts):
                for r in range(t.ROWS):
                    here = source + r * row + part * 2 * WIDE * 4
                    i.weights(here, by_output[o + r], to_rows + r * t.ROW)
                target = to_ahead + ((o // WIDE * parts + part) * 9 + k) * FACTOR + o % WIDE * 4
                v.turned(to_rows, t.ROW, target, 4 * WIDE)
            depth = o // (2 * WIDE)
            for block in range(inputs // WIDE):
                target = to_back + ((block * depths + depth) * 9 + 8 - k) * FACTOR
                for r in range(0, t.ROWS, 4):
                    here, those = source + r * row + block * WIDE * 4, of_factors + block * WIDE * 4
                    to = target + (o % (2 * WIDE) + r) // 4 * 2 * t.ROW
                    i.weights_in_turn(here, row, those, to)
    rows[0, 0] = 0  # holds it until here
    factors[0] = 0


@compiled
def _largest(weight, of_outputs, of_inputs):
    """The largest magnitude of each output's weights, and of each input's."""
    outputs, _, inputs = weight.shape
    most = np.zeros(inputs, np.uint32)
    for o in range(outputs):
        top = np.uint32(0)
        for k in range(9):
            bits = weight[o, k].view(np.uint32)
            for c in range(inputs):
                this = np.uint32(bits[c] & np.uint32(0x7FFFFFFF))
                most[c] = max(most[c], this)
                top = max(top, this)
        of_outputs[o] = magnitude(top)
    for c in range(inputs):
        of_inputs[c] = magnitude(most[c])


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
