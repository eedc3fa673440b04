"""The passes over memory of `fused`, compiled by numba for the processor that they run on.

Maps lie channels last: (images, rows, columns, channels), or (pixels, channels) where it doesn't
matter which pixel is whose. They are in fp32, or in bf16 as numbers of 16 bits; sums are in fp32
over an image and in fp64 over images. Inner loops run over channels, upwards, and write one array
of a caller's, so that the compiler makes vectors of them.
"""

import numpy as np
from numba import njit, types
from numba.extending import overload

from onecycle.jit import compiled

ACTIVATIONS = ("none", "relu", "silu")
RELU, SILU = 1, 2  # their places

# 2 to the power of 0 to 1: least squares of the relative error, which is below 1e-7.
P0, P1, P2, P3, P4, P5 = (
    np.float32(c) for c in (0.99999994, 0.69315309, 0.24015361, 0.05582632, 0.00898934, 0.00187757)
)
LOG2_E = np.float32(np.log2(np.e))
MOST = np.float32(126)  # 2 to this power is no infinity yet
ZERO, ONE = np.float32(0), np.float32(1)


def number(stored):
    """A number of a map as fp32."""


def stored(value, like):
    """The fp32 `value` as maps like `like` hold it; in bf16 rounded to nearest, ties to even."""


@overload(number, inline="always")
def _number(stored):
    def widened(stored):
        return np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)

    def same(stored):
        return stored

    return widened if stored == types.uint16 else same


@overload(stored, inline="always")
def _stored(value, like):
    def rounded(value, like):
        bits = np.float32(value).view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    def same(value, like):
        return value

    return rounded if like == types.uint16 else same


@njit(inline="always")
def sigmoid(x):
    """1 / (1 + exp(-x)), to 3e-7 of itself."""
    power = min(max(-LOG2_E * x, -MOST), MOST)
    whole = np.floor(power)
    f = power - whole
    part = P0 + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * P5))))
    scale = np.uint32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return ONE / (ONE + scale * part)


@njit(inline="always")
def activated(u, activation):
    """The activation of `u`."""
    if activation == SILU:
        return u * sigmoid(u)
    if activation == RELU:
        return ZERO if u < ZERO else u
    return u


@njit(inline="always")
def slope(u, activation):
    """The derivative of the activation at `u`."""
    if activation == SILU:
        s = sigmoid(u)
        return s + u * s * (ONE - s)
    if activation == RELU:
        return ONE if u > ZERO else ZERO
    return ONE


@compiled
def forward(x, weight, bias, eps, activation, normed, which, mean, variance, spread, y):
    """The batch norm of `x` with its activation, into `y`; max pooled first if `which` has a place.

    `normed` gets what was pooled, or is `x` itself; `mean`, `variance` (that of a sample) and
    `spread`, the reciprocal deviation, are of its channels.
    """
    if which.size:
        max_pool(x, normed, which)
    images, high, wide, channels = normed.shape
    count = images * high * wide
    moments(normed.reshape(images, high * wide, channels), mean, variance)
    scale, shift = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for c in range(channels):
        spread[c] = 1 / np.sqrt(variance[c] + eps)
        variance[c] *= count / (count - 1)
        scale[c], shift[c] = factors(weight[c], bias[c], mean[c], spread[c])
    pixels = (count, channels)
    activate(normed.reshape(pixels), scale, shift, activation, y.reshape(pixels))


@compiled
def backward(
    gradient, weight, bias, activation, normed, which, mean, spread, moved, to_weight, to_bias, to_x
):
    """The gradients of `forward`'s `x`, `weight` and `bias` from that of its `y`.

    `moved` is memory like `normed`, and `to_x` the same where nothing was pooled.
    """
    images, high, wide, channels = normed.shape
    scale, shift = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for c in range(channels):
        scale[c], shift[c] = factors(weight[c], bias[c], mean[c], spread[c])
    by_image = (images, high * wide, channels)
    normed_images, moved_images = normed.reshape(by_image), moved.reshape(by_image)
    slopes(
        normed_images,
        gradient.reshape(by_image),
        scale,
        shift,
        activation,
        mean,
        moved_images,
        to_weight,
        to_bias,
    )
    # What a number does to its channel's mean and variance, beside its own gradient.
    count = np.float32(images * high * wide)
    of_normed, more = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for c in range(channels):
        to_weight[c] *= spread[c]
        of_normed[c] = -scale[c] * spread[c] * to_weight[c] / count
        more[c] = -scale[c] * to_bias[c] / count - mean[c] * of_normed[c]
    pixels = (images * high * wide, channels)
    combine(moved.reshape(pixels), normed.reshape(pixels), scale, of_normed, more)
    if which.size:
        unpool(moved, which, to_x)


@njit(inline="always")
def factors(weight, bias, mean, spread):
    """A batch norm as a product and a sum."""
    scale = spread * weight
    return scale, bias - mean * scale


@compiled
def max_pool(x, y, which):
    """The largest of each 2x2 pixels of `x` into `y`, and in `which`, 0 to 3, the one that it was.

    The first of equal ones counts, and the last that is no number, as torch's.
    """
    images, _, width, channels = x.shape
    high, wide = y.shape[1:3]
    larger, lower = np.empty((width, channels), x.dtype), np.empty((width, channels), np.uint8)
    long, lows = larger.reshape(width * channels), lower.reshape(width * channels)
    line, place = np.empty((wide, channels), x.dtype), np.empty((wide, channels), np.uint8)
    for row in range(images * high):
        image, i = row // high, row % high
        above = x[image, 2 * i].reshape(width * channels)
        below = x[image, 2 * i + 1].reshape(width * channels)
        for k in range(width * channels):
            a, b = number(above[k]), number(below[k])
            take = b > a or b != b
            long[k] = below[k] if take else above[k]
            lows[k] = 2 if take else 0
        for j in range(wide):
            left, right, out = larger[2 * j], larger[2 * j + 1], line[j]
            low_left, low_right, spot = lower[2 * j], lower[2 * j + 1], place[j]
            for c in range(channels):
                a, b = number(left[c]), number(right[c])
                first = low_right[c] < low_left[c]
                take = b > a or b != b or (b == a and first)
                out[c] = right[c] if take else left[c]
                spot[c] = low_right[c] + 1 if take else low_left[c]
        y[image, i] = line
        which[image, i] = place


@compiled
def unpool(gradient, which, result):
    """Every number of `gradient` at the place where `which` says it was; zero elsewhere."""
    images, height, width, channels = result.shape
    high, wide = gradient.shape[1:3]
    zero = stored(ZERO, gradient[0, 0, 0, 0])
    for image in range(images):
        for i in range(high):
            for j in range(wide):
                pixel, place = gradient[image, i, j], which[image, i, j]
                for k in range(4):
                    there = result[image, 2 * i + k // 2, 2 * j + k % 2]
                    for c in range(channels):
                        there[c] = pixel[c] if place[c] == k else zero
            for k in range(2 * wide, width):
                result[image, 2 * i, k, :] = zero
                result[image, 2 * i + 1, k, :] = zero
        for k in range(2 * high, height):
            result[image, k, :, :] = zero


@compiled
def moments(x, mean, variance):
    """The mean and the (biased) variance of each channel of `x` (images, pixels, channels)."""
    images, pixels, channels = x.shape
    part, middle = np.empty(channels, np.float32), np.empty(channels, np.float32)
    total = np.zeros(channels)
    for image in range(images):
        part[:] = ZERO
        for i in range(pixels):
            for c in range(channels):
                part[c] += number(x[image, i, c])
        for c in range(channels):
            total[c] += part[c]
    for c in range(channels):
        middle[c] = total[c] / (images * pixels)
    total[:] = 0
    for image in range(images):
        part[:] = ZERO
        for i in range(pixels):
            for c in range(channels):
                away = number(x[image, i, c]) - middle[c]
                part[c] += away * away
        for c in range(channels):
            total[c] += part[c]
    for c in range(channels):
        mean[c], variance[c] = middle[c], total[c] / (images * pixels)


@compiled
def activate(x, scale, shift, activation, y):
    """The activation of `x` (pixels, channels) times `scale` plus `shift` into `y`."""
    for i in range(len(x)):
        for c in range(x.shape[1]):
            u = number(x[i, c]) * scale[c] + shift[c]
            y[i, c] = stored(activated(u, activation), x[i, c])


@compiled
def slopes(x, gradient, scale, shift, activation, mean, result, above, total):
    """The gradient before the activation into `result`, all (images, pixels, channels).

    Its sums into `total`, and those of its products with what `x` is above its `mean` into `above`.
    """
    images, pixels, channels = x.shape
    one, product = np.empty(channels, np.float32), np.empty(channels, np.float32)
    ones, products = np.zeros(channels), np.zeros(channels)
    for image in range(images):
        one[:] = ZERO
        product[:] = ZERO
        for i in range(pixels):
            for c in range(channels):
                value = number(x[image, i, c])
                u = value * scale[c] + shift[c]
                g = number(gradient[image, i, c]) * slope(u, activation)
                result[image, i, c] = stored(g, x[image, i, c])
                one[c] += g
                product[c] += g * (value - mean[c])
        for c in range(channels):
            ones[c] += one[c]
            products[c] += product[c]
    for c in range(channels):
        total[c], above[c] = ones[c], products[c]


@compiled
def combine(x, y, of_x, of_y, more):
    """`x` (pixels, channels) becomes x * of_x + y * of_y + more."""
    for i in range(len(x)):
        for c in range(x.shape[1]):
            moved = number(x[i, c]) * of_x[c] + (number(y[i, c]) * of_y[c] + more[c])
            x[i, c] = stored(moved, x[i, c])
