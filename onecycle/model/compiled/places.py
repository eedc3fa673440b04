"""Maps of images abreast in the cache, for `products`: a place of 64 bytes a pixel and 32 channels,
or 64 in int8.

Places of a column are one after another, as many as there are images abreast, then those of the
next. All else is counted in bytes, of numbers of 16 bits.
"""

from onecycle.jit import compiled
from onecycle.model.compiled import int8 as i
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
def lay(source, shape, row, abreast, target, blocks, apart):
    """The `row` of maps of `shape` at `source` at `target`, so many images `abreast`.

    32 channels after 32, which are `apart` bytes from one another.
    """
    images, height, width, channels = shape
    pixel = 2 * channels
    for image in range(images):
        for block in range(blocks):
            parts = min(WIDE, channels - block * WIDE) // 8
            this = source + (image * height + row) * width * pixel + block * t.ROW
            to = target + block * apart + image * t.ROW
            for _ in range(width):
                if parts == 4:
                    v.copy64(this, to)
                else:
                    for part in range(parts):
                        v.copy16(this + 16 * part, to + 16 * part)
                this, to = this + pixel, to + abreast * t.ROW


@compiled
def lay_whole(source, shape, row, abreast, factor, target, blocks, apart):
    """As `lay` in int8, times `factor`; 64 channels after 64."""
    images, height, width, channels = shape
    for image in range(images):
        for block in range(2 * blocks):
            this = source + ((image * height + row) * width * channels + block * WIDE) * 2
            to = target + block // 2 * apart + block % 2 * WIDE + image * t.ROW
            for _ in range(width):
                i.whole(this, factor, to)
                this, to = this + 2 * channels, to + abreast * t.ROW


@compiled
def lay_back(given, shape, row, abreast, target, blocks, apart, whole):
    """As `lay`, the gradient of what was normalized; if `whole` in int8.

    `given` are the addresses of the two that it is made of, and of what `norms.through` tells.
    """
    images, height, width, channels = shape
    moved, normed, factors = given
    pixel = 2 * channels
    for image in range(images):
        for block in range(blocks):
            those = factors + block * THROUGH
            place = (image * height + row) * width * pixel + block * t.ROW
            if whole:
                to = target + block // 2 * apart + block % 2 * WIDE + image * t.ROW
                i.combine(moved + place, normed + place, pixel, width, those, to, abreast * t.ROW)
            else:
                to = target + block * apart + image * t.ROW
                p.combine(moved + place, normed + place, pixel, width, those, to, abreast * t.ROW)


@compiled
def spread_back(given, told, line, shape, row, abreast, run, target, blocks, apart, whole):
    """As `lay_back`, a row as two of maps twice as large: a number is where `told` has it.

    `line` has room for a row of 32 channels.
    """
    images, high, wide, channels = shape
    moved, normed, factors = given
    beside = abreast * t.ROW
    for image in range(images):
        for block in range(blocks):
            those = factors + block * THROUGH
            part, rest = (block // 2, block % 2 * WIDE) if whole else (block, 0)
            above = target + part * apart + rest + image * t.ROW
            below = above + run * t.ROW
            number = (image * high + row) * wide * channels + block * WIDE
            first, second = moved + 2 * number, normed + 2 * number
            this, which = line, told + number
            if whole:
                i.combine(first, second, 2 * channels, wide, those, line, t.ROW)
                for _ in range(wide):
                    i.chosen(this, which, 0, above)
                    i.chosen(this, which, 1, above + beside)
                    i.chosen(this, which, 2, below)
                    i.chosen(this, which, 3, below + beside)
                    this, which = this + t.ROW, which + channels
                    above, below = above + 2 * beside, below + 2 * beside
                continue
            p.combine(first, second, 2 * channels, wide, those, line, t.ROW)
            for _ in range(wide):
                v.chosen(this, which, 0, above)
                v.chosen(this, which, 1, above + beside)
                v.chosen(this, which, 2, below)
                v.chosen(this, which, 3, below + beside)
                this, which = this + t.ROW, which + channels
                above, below = above + 2 * beside, below + 2 * beside


@compiled
def first_place(run):
    """The place of the first pixel, before which a row is read."""
    return run + t.ROWS


@compiled
def lead(abreast, run):
    """Places before the first pixel that a shift reads."""
    return run + abreast


@compiled
def paired(abreast, run, steps):
    """How many pairs of places of 32 channels `pair` makes room for, with what is read beyond."""
    return lead(abreast, run) + steps * t.ROWS + WIDE


@compiled
def pair(source, shape, abreast, run, target, length):
    """The maps of `shape` at `source` as `lay` has them, but two images' numbers in turn.

    Into `target` (channels / 32, length, 32) of 32 bits; `abreast` is even.
    """
    images, height, width, channels = shape
    pixel = 2 * channels
    other, apart = height * width * pixel, length * 2 * t.ROW
    for image in range(0, images, 2):
        gap = other if image + 1 < images else 0  # then nobody asks for the second
        for row in range(height):
            low = source + (image * height + row) * width * pixel
            to = target + (lead(abreast, run) + row * run + image) // 2 * 2 * t.ROW
            for _ in range(width):
                for start in range(0, channels, WIDE):
                    here, out = low + 2 * start, to + start // WIDE * apart
                    if start + WIDE <= channels:
                        v.paired(here, here + gap, out)
                    else:
                        v.paired_some(here, here + gap, channels - start, out)
                low, to = low + pixel, to + abreast * t.ROW


@compiled
def fours(source, shape, abreast, run, factor, target, length):
    """As `pair` in int8, times `factor`, of four images in turn; `abreast` is a multiple of 4."""
    images, height, width, channels = shape
    pixel, apart = 2 * channels, length * 2 * t.ROW
    whole = height * width * pixel
    for image in range(0, images, 4):
        # Where there are no more, nobody asks for what is there.
        gaps = [min(k, images - 1 - image) * whole for k in range(1, 4)]
        second, third, fourth = gaps[0], gaps[1], gaps[2]
        for row in range(height):
            low = source + (image * height + row) * width * pixel
            to = target + (lead(abreast, run) + row * run + image) // 4 * 2 * t.ROW
            for _ in range(width):
                for block in range(-(-channels // WIDE)):
                    here, out = low + 2 * WIDE * block, to + block * apart
                    count = min(WIDE, channels - WIDE * block)
                    i.fours(here, second, third, fourth, count, factor, out)
                low, to = low + pixel, to + abreast * t.ROW // 2
