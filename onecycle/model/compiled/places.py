"""Maps laid side by side in the cache, for `products`: a place of 64 bytes a pixel and 32 channels.

All is counted in bytes, of numbers of 16 bits.
"""

from onecycle.jit import compiled
from onecycle.model.compiled import pixels as p
from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v

WIDE = 32  # channels of a place
THROUGH = 3 * WIDE * 4  # bytes of what `norms.through` tells of them


@compiled
def clear(target, size):
    """Zeros in `size` bytes, a multiple of 64."""
    for place in range(target, target + size, t.ROW):
        v.clear64(place)


@compiled
def lay(source, shape, row, pitch, run, target, blocks, apart):
    """The `row` of maps of `shape` at `source` side by side at `target`, zeros after them.

    32 channels after 32, which are `apart` bytes from one another.
    """
    images, height, width, channels = shape
    pixel = 2 * channels
    for image in range(images):
        for block in range(blocks):
            parts = min(WIDE, channels - block * WIDE) // 8
            this = source + (image * height + row) * width * pixel + block * t.ROW
            to = target + block * apart + image * pitch * t.ROW
            for _ in range(width):
                if parts == 4:
                    v.copy64(this, to)
                else:
                    for part in range(parts):
                        v.copy16(this + 16 * part, to + 16 * part)
                this, to = this + pixel, to + t.ROW
    for block in range(blocks):
        clear(target + block * apart + images * pitch * t.ROW, (run - images * pitch) * t.ROW)


@compiled
def lay_back(given, shape, row, pitch, run, target, blocks, apart):
    """As `lay`, the gradient of what was normalized.

    `given` are the addresses of the two that it is made of, and of what `norms.through` tells.
    """
    images, height, width, channels = shape
    moved, normed, factors = given
    pixel = 2 * channels
    for image in range(images):
        for block in range(blocks):
            those = factors + block * THROUGH
            place = (image * height + row) * width * pixel + block * t.ROW
            to = target + block * apart + image * pitch * t.ROW
            p.combine(moved + place, normed + place, pixel, width, those, to, t.ROW)
    for block in range(blocks):
        clear(target + block * apart + images * pitch * t.ROW, (run - images * pitch) * t.ROW)


@compiled
def spread_back(given, told, line, shape, row, pitch, run, target, blocks, apart):
    """As `lay_back`, a row as two of maps twice as large: a number is where `told` has it.

    `line` has room for a row of 32 channels.
    """
    images, high, wide, channels = shape
    moved, normed, factors = given
    for image in range(images):
        for block in range(blocks):
            those = factors + block * THROUGH
            above = target + block * apart + image * pitch * t.ROW
            below = above + run * t.ROW
            number = (image * high + row) * wide * channels + block * WIDE
            first, second = moved + 2 * number, normed + 2 * number
            p.combine(first, second, 2 * channels, wide, those, line, t.ROW)
            this, which = line, told + number
            for _ in range(wide):
                v.chosen(this, which, 0, above)
                v.chosen(this, which, 1, above + t.ROW)
                v.chosen(this, which, 2, below)
                v.chosen(this, which, 3, below + t.ROW)
                this, which = this + t.ROW, which + channels
                above, below = above + 2 * t.ROW, below + 2 * t.ROW
    for block in range(blocks):
        for lower in range(2):
            rest = target + block * apart + (lower * run + images * pitch) * t.ROW
            clear(rest, (run - images * pitch) * t.ROW)


@compiled
def pair(line, places, parts, first, target, length, phase, start, count):
    """Places two and two of `line` (parts, places, 32), from `first`, in turn.

    `count` pairs in `target` (2, parts, length, 32) of 32 bits, from `start`.
    """
    for part in range(parts):
        low = line + (part * places + first) * t.ROW
        out = target + ((phase * parts + part) * length + start) * 2 * t.ROW
        for _ in range(count):
            v.paired(low, low + t.ROW, out)
            low, out = low + 2 * t.ROW, out + 2 * t.ROW
