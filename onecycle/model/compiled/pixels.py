"""Batch norm and activation of 32 channels of bf16 maps, by vectors of AVX512.

As `passes` computes them, but what belongs to a channel stays in registers from pixel to pixel,
which the loops that numba makes don't do. Addresses and strides are in bytes; a pixel's 32 channels
are 64 bytes, their factors and sums 128 bytes in fp32 each, one after another.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from onecycle.model.compiled.passes import LOG2_E
from onecycle.model.compiled.tiles import LONG, at, call
from onecycle.model.compiled.vectors import FLOATS, HALVES, WORD, WORDS, floats, fma, keep

HALF, WHOLE = 64, 128  # bytes of 16 and of 32 numbers in fp32
ALL = ir.IntType(16)(-1)  # a mask
# 2 to the power of 0 to 1, of which no relative error is larger than 0.000075.
CONSTANT, LINEAR, SQUARE, CUBIC = 0.9999252, 0.6958335, 0.22606725, 0.07802446


def constant(number):
    """16 times `number`."""
    return ir.Constant(FLOATS, [float(np.float32(number))] * 16)


def sigmoid(builder, x):
    """1 / (1 + exp(-x)) within 0.00014 of itself; bf16 rounds off up to 0.0039."""
    power = builder.fmul(x, constant(-LOG2_E))
    name, down, as_ever = "llvm.x86.avx512.mask.reduce.ps.512", WORD(9), WORD(4)
    rest, part = call(builder, name, FLOATS, power, down, power, ALL, as_ever), constant(CUBIC)
    for factor in (SQUARE, LINEAR, CONSTANT):
        part = fma(builder, part, rest, constant(factor))
    name = "llvm.x86.avx512.mask.scalef.ps.512"  # times 2 to the power, rounded down
    grown = call(builder, name, FLOATS, part, power, part, ALL, as_ever)
    below = builder.fadd(grown, constant(1))
    return call(builder, "llvm.x86.avx512.rcp14.ps.512", FLOATS, below, below, ALL)


def _none(builder, u):
    return u, lambda gradient: gradient


def _relu(builder, u):
    below, zero = builder.fcmp_ordered("<", u, constant(0)), constant(0)
    above = builder.fcmp_ordered(">", u, constant(0))
    return builder.select(below, zero, u), lambda g: builder.select(above, g, zero)


def _silu(builder, u):
    s = sigmoid(builder, u)
    y = builder.fmul(u, s)

    def back(gradient):  # s + u s (1 - s)
        return builder.fmul(gradient, fma(builder, builder.fsub(u, y), s, s))

    return y, back


def widened(builder, address, half):
    """16 numbers in bf16, of one half of a pixel's, as fp32."""
    return as_floats(builder, builder.load(at(builder, address, LONG(32 * half), HALVES), align=2))


def as_floats(builder, numbers):
    """16 numbers in bf16 as fp32."""
    bits = builder.shl(builder.zext(numbers, WORDS), ir.Constant(WORDS, [16] * 16))
    return builder.bitcast(bits, FLOATS)


def two(builder, address, offset=0):
    """Two times 16 numbers in fp32."""
    return [floats(builder, address, offset), floats(builder, address, offset + HALF)]


def _set(builder, address, offset, numbers):
    for half, number in enumerate(numbers):
        builder.store(number, at(builder, address, LONG(offset + half * HALF), FLOATS), align=4)


def place_of(builder, start, stride, loop):
    """Where the loop's is, of what begins at `start`."""
    return builder.add(start, builder.mul(loop.index, stride))


def _sums(builder, address, count):
    """Variables that start as `count` times 32 numbers at `address`, as pairs."""
    kept = []
    for number in range(count):
        kept.append(
            [cgutils.alloca_once_value(builder, f) for f in two(builder, address, number * WHOLE)]
        )
    return kept


def _tops(builder, address):
    """Variables that start as 32 magnitudes at `address`.

    They are compared as whole numbers, by which infinity is larger, and what is no number.
    """
    numbers = (at(builder, address, LONG(half * HALF), WORDS) for half in range(2))
    return [cgutils.alloca_once_value(builder, builder.load(n, align=4)) for n in numbers]


def _note(builder, top, numbers):
    bits = builder.and_(builder.bitcast(numbers, WORDS), ir.Constant(WORDS, [0x7FFFFFFF] * 16))
    most = builder.load(top)
    larger = builder.icmp_unsigned(">", bits, most)
    builder.store(builder.select(larger, bits, most), top)


def _set_tops(builder, address, tops):
    for half, top in enumerate(tops):
        place = at(builder, address, LONG(half * HALF), WORDS)
        builder.store(builder.load(top), place, align=4)


def _activate(kind):
    """activate(x, y, stride, plus, plus_stride, count, factors, most): `kind` of x * scale + shift.

    And plus. `factors` are scale and shift. At `most` the channels' largest magnitudes are kept.
    """

    def typed(context, x, y, stride, plus, plus_stride, count, factors, most):
        def made(context, builder, signature, arguments):
            x, y, stride, plus, plus_stride, count, factors, most = arguments
            scale, shift = two(builder, factors), two(builder, factors, WHOLE)
            tops = _tops(builder, most)
            with cgutils.for_range(builder, count) as loop:
                source, target = (
                    place_of(builder, x, stride, loop),
                    place_of(builder, y, stride, loop),
                )
                more, result = place_of(builder, plus, plus_stride, loop), []
                for half in range(2):
                    u = fma(builder, widened(builder, source, half), scale[half], shift[half])
                    made = kind(builder, u)[0]
                    result.append(builder.fadd(made, widened(builder, more, half)))
                    _note(builder, tops[half], result[-1])
                keep(builder, *result, target)
            _set_tops(builder, most, tops)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), made

    return intrinsic(typed)


def _slopes(kind):
    """slopes(x, gradient, result, stride, count, factors, sums, most): the gradient before `kind`.

    `factors` are scale, shift and mean; added to `sums` are those of the result, and of its
    products with what x is above its mean. At `most` the largest magnitudes of it are kept.
    """

    def typed(context, x, gradient, result, stride, count, factors, sums, most):
        def made(context, builder, signature, arguments):
            x, gradient, result, stride, count, factors, sums, most = arguments
            tops = _tops(builder, most)
            scale, shift, mean = (two(builder, factors, WHOLE * k) for k in range(3))
            ones, products = _sums(builder, sums, 2)
            with cgutils.for_range(builder, count) as loop:
                source, given = (
                    place_of(builder, x, stride, loop),
                    place_of(builder, gradient, stride, loop),
                )
                found = []
                for half in range(2):
                    value = widened(builder, source, half)
                    u = fma(builder, value, scale[half], shift[half])
                    g = kind(builder, u)[1](widened(builder, given, half))
                    found.append(g)
                    _note(builder, tops[half], g)
                    one, product = ones[half], products[half]
                    builder.store(builder.fadd(builder.load(one), g), one)
                    above = builder.fsub(value, mean[half])
                    builder.store(fma(builder, g, above, builder.load(product)), product)
                keep(builder, *found, place_of(builder, result, stride, loop))
            _set(builder, sums, 0, map(builder.load, ones))
            _set(builder, sums, WHOLE, map(builder.load, products))
            _set_tops(builder, most, tops)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), made

    return intrinsic(typed)


activate_none, activate_relu, activate_silu = map(_activate, (_none, _relu, _silu))
slopes_none, slopes_relu, slopes_silu = map(_slopes, (_none, _relu, _silu))


@intrinsic
def add_up(context, x, stride, count, sums):
    """Add the pixels at `x` to `sums`."""

    def made(context, builder, signature, arguments):
        x, stride, count, sums = arguments
        (totals,) = _sums(builder, sums, 1)
        with cgutils.for_range(builder, count) as loop:
            source = place_of(builder, x, stride, loop)
            for half, total in enumerate(totals):
                value = widened(builder, source, half)
                builder.store(builder.fadd(builder.load(total), value), total)
        _set(builder, sums, 0, map(builder.load, totals))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), made


@intrinsic
def add_squares(context, x, stride, count, mean, sums):
    """Add the squares of what the pixels at `x` are above `mean` to `sums`."""

    def made(context, builder, signature, arguments):
        x, stride, count, mean, sums = arguments
        means, (totals,) = two(builder, mean), _sums(builder, sums, 1)
        with cgutils.for_range(builder, count) as loop:
            source = place_of(builder, x, stride, loop)
            for half, total in enumerate(totals):
                above = builder.fsub(widened(builder, source, half), means[half])
                builder.store(fma(builder, above, above, builder.load(total)), total)
        _set(builder, sums, 0, map(builder.load, totals))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), made


@intrinsic
def combine(context, x, y, stride, count, factors, target, target_stride):
    """x * of_x + y * of_y + more at `target`; `factors` are these three."""

    def made(context, builder, signature, arguments):
        x, y, stride, count, factors, target, target_stride = arguments
        of_x, of_y, more = (two(builder, factors, WHOLE * k) for k in range(3))
        with cgutils.for_range(builder, count) as loop:
            first, second = place_of(builder, x, stride, loop), place_of(builder, y, stride, loop)
            result = []
            for half in range(2):
                part = fma(builder, widened(builder, second, half), of_y[half], more[half])
                result.append(fma(builder, widened(builder, first, half), of_x[half], part))
            keep(builder, *result, place_of(builder, target, target_stride, loop))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), made


@intrinsic
def add_rounded(context, source, plus, target):
    """32 numbers in fp32 at `source` plus 32 in bf16 at `plus`, rounded to bf16 at `target`."""

    def made(context, builder, signature, arguments):
        source, plus, target = arguments
        sums = (
            builder.fadd(number, widened(builder, plus, half))
            for half, number in enumerate(two(builder, source))
        )
        keep(builder, *sums, target)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), made
