"""Maps laid side by side in the cache, for `products`: a place of 64 bytes a pixel and 32 channels.

All is counted in bytes, of numbers of 16 bits.
"""

from onecycle.model.compiled import tiles as t
from onecycle.model.compiled import vectors as v
from onecycle.model.compiled.jit import address, compiled

WIDE = 32  # channels of a place


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
    for block in range(blocks):
        parts = min(WIDE, channels - block * WIDE) // 8
        for image in range(images):
            this = source + (image * height + row) * width * pixel + block * t.ROW
            to = target + block * apart + image * pitch * t.ROW
            for _ in range(width):
                if parts == 4:
                    v.copy64(this, to)
                else:
                    for part in range(parts):
                        v.copy16(this + 16 * part, to + 16 * part)
                this, to = this + pixel, to + t.ROW
        clear(target + block * apart + images * pitch * t.ROW, (run - images * pitch) * t.ROW)


@compiled
def spread(source, told, shape, row, width, pitch, run, target, blocks, apart):
    """As `lay`, of maps twice as large, with a number where it says at `told` that it was."""
    images, high, wide, channels = shape
    for block in range(blocks):
        for image in range(images):
            to = target + block * apart + image * pitch * t.ROW
            number = (image * high + row // 2) * wide * channels + block * WIDE
            this, which = source + 2 * number, told + number
            filled = wide if row // 2 < high else 0
            for _ in range(filled):
                if row % 2 == 0:
                    v.chosen(this, which, 0, to)
                    v.chosen(this, which, 1, to + t.ROW)
                else:
                    v.chosen(this, which, 2, to)
                    v.chosen(this, which, 3, to + t.ROW)
                this, which, to = this + 2 * channels, which + channels, to + 2 * t.ROW
            clear(to, (width - 2 * filled) * t.ROW)
        clear(target + block * apart + images * pitch * t.ROW, (run - images * pitch) * t.ROW)


@compiled
def pair(line, first, target, phase, start, count):
    """Places two and two of `line` (channels / 32, places, 32), from `first`, in turn.

    `count` pairs in `target` (2, channels / 32, pairs, 32) of 32 bits, from `start`.
    """
    of_line, to_target = address(line), address(target)
    for block in range(len(line)):
        low = of_line + (block * line.shape[1] + first) * t.ROW
        out = to_target + ((phase * len(line) + block) * target.shape[2] + start) * 2 * t.ROW
        for _ in range(count):
            v.paired(low, low + t.ROW, out)
            low, out = low + 2 * t.ROW, out + 2 * t.ROW
