"""Batch norm and activation of maps in bf16, 32 channels after 32, for `amx`.

Addresses and strides are in bytes. Of 32 channels there are four rows of factors: scale and shift,
which make the normalized number of a given one, mean, and reciprocal deviation.
"""

import numpy as np

from onecycle.jit import address, compiled
from onecycle.model.compiled import pixels as p
from onecycle.model.compiled.passes import RELU, SILU
from onecycle.model.compiled.places import WIDE

FACTORS = 4 * WIDE * 4  # bytes
NEAR = 1024  # bytes in which 32 channels follow others, so that memory is read in its order
LINE = 1024  # pixels whose sums are in fp32; those of all of them are in fp64


@compiled
def moments(x, before, count, mean, squares):
    """Bring `mean` and the squares of what was above it up to date by `count` pixels at `x`.

    They were of `before` pixels (Chan et al. 1983).
    """
    middle, part = np.empty(WIDE, np.float32), np.empty(WIDE, np.float32)
    of_middle, of_part, channels = address(middle), address(part), len(mean)
    for start in range(0, count, LINE):
        some = min(LINE, count - start)
        share = some / (before + start + some)
        for block in range(0, channels, WIDE):
            source = x + 2 * (start * channels + block)
            part[:] = 0
            p.add_up(source, 2 * channels, some, of_part)
            for c in range(WIDE):
                middle[c] = part[c] / some
            part[:] = 0
            p.add_squares(source, 2 * channels, some, of_middle, of_part)
            for c in range(WIDE):
                away = middle[c] - mean[block + c]
                mean[block + c] += share * away
                squares[block + c] += part[c] + share * (before + start) * away * away
    middle[0] = part[0]  # holds both until here


@compiled
def normal(mean, squares, count, weight, bias, eps, factors):
    """The `factors` (channels / 32, 4, 32) of channels with such a mean, and squares above it."""
    for c in range(len(mean)):
        spread = 1 / np.sqrt(squares[c] / count + eps)
        rows = factors[c // WIDE]
        rows[0, c % WIDE] = weight[c] * spread
        rows[1, c % WIDE] = bias[c] - mean[c] * weight[c] * spread
        rows[2, c % WIDE] = mean[c]
        rows[3, c % WIDE] = spread


@compiled
def activate(x, channels, count, activation, factors, plus, plus_stride, y, most):
    """The activation of the normalized `x`, and `plus`, into `y`.

    `most` (channels) gets the largest magnitudes of it, as the bits of fp32.
    """
    most[:] = 0
    tops = address(most)
    stride = 2 * channels
    pixels = max(1, NEAR // stride)
    for start in range(0, count, pixels):
        some = min(pixels, count - start)
        for block in range(channels // WIDE):
            place = start * stride + block * 2 * WIDE
            more = plus + (place if plus_stride else 0)
            given, made, those = x + place, y + place, factors + block * FACTORS
            top = tops + block * 4 * WIDE
            if activation == SILU:
                p.activate_silu(given, made, stride, more, plus_stride, some, those, top)
            elif activation == RELU:
                p.activate_relu(given, made, stride, more, plus_stride, some, those, top)
            else:
                p.activate_none(given, made, stride, more, plus_stride, some, those, top)


@compiled
def slopes(x, gradient, count, activation, factors, moved, to_norm, most):
    """The gradient before the activation into `moved`, from that of its result.

    `to_norm` gets the gradients of the batch norm's weight and bias, `most` (channels) the largest
    magnitudes of `moved`, as the bits of fp32.
    """
    most[:] = 0
    tops = address(most)
    channels = to_norm.shape[1]
    stride, blocks = 2 * channels, channels // WIDE
    part, total = np.empty((blocks, 2, WIDE), np.float32), np.zeros((blocks, 2, WIDE))
    of_part, of_factors, pixels = address(part), address(factors), max(1, NEAR // stride)
    for line in range(0, count, LINE):
        part[:] = 0
        until = min(line + LINE, count)
        for start in range(line, until, pixels):
            some = min(pixels, until - start)
            for block in range(blocks):
                place = start * stride + block * 2 * WIDE
                given, that, made = x + place, gradient + place, moved + place
                those, sums = of_factors + block * FACTORS, of_part + block * 8 * WIDE
                top = tops + block * 4 * WIDE
                if activation == SILU:
                    p.slopes_silu(given, that, made, stride, some, those, sums, top)
                elif activation == RELU:
                    p.slopes_relu(given, that, made, stride, some, those, sums, top)
                else:
                    p.slopes_none(given, that, made, stride, some, those, sums, top)
        total += part
    for c in range(channels):
        to_norm[0, c] = total[c // WIDE, 1, c % WIDE] * factors[c // WIDE, 3, c % WIDE]
        to_norm[1, c] = total[c // WIDE, 0, c % WIDE]


@compiled
def through(factors, to_norm, count, result):
    """What makes the gradient of what was normalized from `slopes`'s `moved` and from itself.

    Two factors and a sum, (channels / 32, 3, 32): a number changes its channel's mean and variance.
    """
    for c in range(to_norm.shape[1]):
        rows, out = factors[c // WIDE], result[c // WIDE]
        scale, mean, spread = rows[0, c % WIDE], rows[2, c % WIDE], rows[3, c % WIDE]
        of_normed = -scale * spread * to_norm[0, c] / count
        out[0, c % WIDE] = scale
        out[1, c % WIDE] = of_normed
        out[2, c % WIDE] = -scale * to_norm[1, c] / count - mean * of_normed
