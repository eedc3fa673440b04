"""Numbers in int8 around `tiles`, by vectors of AVX512: rounded, put in their order, taken back.

A number in int8 stands for so many steps; what divides by the step is a factor, or is in the
factors of others. Addresses and strides are in bytes.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from onecycle.model.compiled.pixels import ALL, WHOLE, as_floats, place_of, two, widened
from onecycle.model.compiled.tiles import BYTE, LONG, at, call
from onecycle.model.compiled.vectors import (
    BYTES,
    FLOATS,
    WORD,
    WORDS,
    as_columns,
    everywhere,
    floats,
    fma,
    keep,
    some,
)

GOLDEN = -0x61C88647  # 2^32 over the golden ratio, whose product's upper bits depend on all others
THIRTY_TWO = ir.VectorType(BYTE, 32)


def _nearest(builder, numbers):
    """16 numbers in fp32 as whole ones of 32 bits."""
    name, nothing = "llvm.x86.avx512.mask.cvtps2dq.512", ir.Constant(WORDS, [0] * 16)
    return call(builder, name, WORDS, numbers, nothing, ALL, WORD(4))


def _saturated(builder, whole, address, offset):
    """Store 16 whole numbers in a byte each."""
    name, nothing = "llvm.x86.avx512.mask.pmovs.db.512", ir.Constant(BYTES, [0] * 16)
    found = call(builder, name, BYTES, whole, nothing, ALL)
    builder.store(found, at(builder, address, LONG(offset), BYTES), align=1)


def _steps(builder, address, half, factor):
    return _nearest(builder, builder.fmul(widened(builder, address, half), factor))


@intrinsic
def whole(context, source, factor, target):
    """32 numbers in bf16 at `source`, times `factor`, as whole ones in int8 at `target`."""

    def made(context, builder, signature, arguments):
        source, factor, target = arguments
        factors = everywhere(builder, factor)
        for half in range(2):
            _saturated(builder, _steps(builder, source, half, factors), target, 16 * half)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp), made


@intrinsic
def weights(context, source, factor, target):
    """64 numbers in fp32 at `source`, times `factor`, as whole ones in int8 at `target`."""

    def made(context, builder, signature, arguments):
        source, factor, target = arguments
        factors = everywhere(builder, factor)
        for part in range(4):
            numbers = builder.fmul(floats(builder, source, 64 * part), factors)
            _saturated(builder, _nearest(builder, numbers), target, 16 * part)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp), made


def _in_turn(builder, numbers):
    """Four times 16 whole numbers as the bytes of 16."""
    low, words = ir.Constant(WORDS, [255] * 16), ir.Constant(WORDS, [0] * 16)
    for place, this in enumerate(numbers):
        moved = builder.shl(builder.and_(this, low), ir.Constant(WORDS, [8 * place] * 16))
        words = builder.or_(words, moved)
    return words


@intrinsic
def weights_in_turn(context, source, stride, factors, target):
    """Four rows of 32 numbers in fp32 at `source`, each times its of `factors`, in int8 in turn."""

    def made(context, builder, signature, arguments):
        source, stride, factors, target = arguments
        rows = [builder.add(source, builder.mul(stride, LONG(row))) for row in range(4)]
        for half in (0, 64):
            factor = floats(builder, factors, half)
            found = (
                _nearest(builder, builder.fmul(floats(builder, row, half), factor)) for row in rows
            )
            place = at(builder, target, LONG(half), WORDS)
            builder.store(_in_turn(builder, found), place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), made


@intrinsic
def fours(context, source, second, third, fourth, count, factor, target):
    """The first `count` of 32 numbers in bf16 at `source`, and of three others, in turn.

    They are multiplied by `factor`, of which none is too large, and in int8 at `target`, with zeros
    after them. The others are so many bytes behind.
    """

    def made(context, builder, signature, arguments):
        source, *gaps, count, factor, target = arguments
        factors = everywhere(builder, factor)
        starts = [source, *(builder.add(source, gap) for gap in gaps)]
        ones = builder.sub(builder.shl(LONG(1), count), LONG(1))
        for half in range(2):
            bits = builder.trunc(builder.lshr(ones, LONG(16 * half)), ir.IntType(16))
            mask = builder.bitcast(bits, ir.VectorType(ir.IntType(1), 16))
            found = []
            for start in starts:
                numbers = some(builder, start, 32 * half, mask)
                found.append(_nearest(builder, builder.fmul(as_floats(builder, numbers), factors)))
            words = _in_turn(builder, found)
            builder.store(words, at(builder, target, LONG(64 * half), WORDS), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5, types.float32, types.intp), made


@intrinsic
def combine(context, x, y, stride, count, factors, target, target_stride):
    """As `pixels.combine`, rounded up or down to int8, the nearer the likelier.

    By chance, or small numbers would always become zero: a hash of the number itself decides, so
    that the same numbers become the same wherever and whenever.
    """

    def made(context, builder, signature, arguments):
        x, y, stride, count, factors, target, target_stride = arguments
        of_x, of_y, more = (two(builder, factors, WHOLE * k) for k in range(3))
        golden = ir.Constant(WORDS, [GOLDEN] * 16)
        with cgutils.for_range(builder, count) as loop:
            first, second = place_of(builder, x, stride, loop), place_of(builder, y, stride, loop)
            to = place_of(builder, target, target_stride, loop)
            for half in range(2):
                part = fma(builder, widened(builder, second, half), of_y[half], more[half])
                steps = fma(builder, widened(builder, first, half), of_x[half], part)
                chance = builder.mul(builder.bitcast(steps, WORDS), golden)
                chance = builder.sitofp(chance, FLOATS)  # from -1/2 to 1/2, times 2^32
                scale = ir.Constant(FLOATS, [2.0**-32] * 16)
                moved = fma(builder, chance, scale, steps)
                _saturated(builder, _nearest(builder, moved), to, 16 * half)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), made


@intrinsic(prefer_literal=True)
def chosen(context, source, places, number, target):
    """The 32 numbers in int8 at `source` of which `places` says `number`, else zero."""

    def made(context, builder, signature, arguments):
        source, places, _, target = arguments
        told = builder.load(at(builder, places, LONG(0), THIRTY_TWO), align=1)
        numbers = builder.load(at(builder, source, LONG(0), THIRTY_TWO), align=1)
        same = builder.icmp_unsigned(
            "==", told, ir.Constant(THIRTY_TWO, [number.literal_value] * 32)
        )
        result = builder.select(same, numbers, ir.Constant(THIRTY_TWO, [0] * 32))
        builder.store(result, at(builder, target, LONG(0), THIRTY_TWO), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, number, types.intp), made


@intrinsic
def transposed(context, source, stride, target, target_stride):
    """64 rows of 16 numbers in int8 at `source` as 16 rows of 64 at `target`."""

    def made(context, builder, signature, arguments):
        source, stride, target, target_stride = arguments
        fours = []
        for row in range(0, 64, 4):
            rows = (
                at(builder, source, builder.mul(stride, LONG(row + k)), BYTES) for k in range(4)
            )
            numbers = (builder.zext(builder.load(each, align=1), WORDS) for each in rows)
            fours.append(_in_turn(builder, numbers))
        for row, words in enumerate(as_columns(builder, fours)):
            place = at(builder, target, builder.mul(target_stride, LONG(row)), WORDS)
            builder.store(words, place, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), made


def _whole_sums(builder, address, half):
    """16 sums of products, whole numbers of 32 bits."""
    return builder.load(at(builder, address, LONG(64 * half), WORDS), align=4)


def _scaled(builder, sums, half, scales):
    """Sums in fp32, each times its channel's scale."""
    return builder.fmul(builder.sitofp(sums, FLOATS), floats(builder, scales, 64 * half))


@intrinsic
def rounded(context, source, scales, target):
    """32 sums at `source`, each times its of `scales`, rounded to bf16 at `target`."""

    def made(context, builder, signature, arguments):
        source, scales, target = arguments
        found = (_scaled(builder, _whole_sums(builder, source, h), h, scales) for h in range(2))
        keep(builder, *found, target)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), made


@intrinsic
def add_rounded(context, source, scales, plus, target):
    """As `rounded`, plus 32 numbers in bf16 at `plus`."""

    def made(context, builder, signature, arguments):
        source, scales, plus, target = arguments
        found = (
            fma(
                builder,
                builder.sitofp(_whole_sums(builder, source, half), FLOATS),
                floats(builder, scales, 64 * half),
                widened(builder, plus, half),
            )
            for half in range(2)
        )
        keep(builder, *found, target)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), made


@intrinsic
def largest(context, first, beside, below, scales, target, place):
    """As `vectors.largest`, of sums, each times its of `scales`, which are above zero."""

    def made(context, builder, signature, arguments):
        first, beside, below, scales, target, place = arguments
        under = builder.add(first, below)
        others = builder.add(first, beside), under, builder.add(under, beside)
        found = []
        for half in range(2):
            most = _whole_sums(builder, first, half)
            which = ir.Constant(BYTES, [0] * 16)
            for number, address in enumerate(others, start=1):
                other = _whole_sums(builder, address, half)
                larger = builder.icmp_signed(">", other, most)
                most = builder.select(larger, other, most)
                which = builder.select(larger, ir.Constant(BYTES, [number] * 16), which)
            found.append(_scaled(builder, most, half, scales))
            builder.store(which, at(builder, place, LONG(16 * half), BYTES), align=1)
        keep(builder, *found, target)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), made


def _taken(fresh):
    def typed(context, source, scale, target):
        """32 sums at `source` times `scale`, to `target` in fp32."""

        def made(context, builder, signature, arguments):
            source, scale, target = arguments
            scales = everywhere(builder, scale)
            for half in range(2):
                sums = builder.sitofp(_whole_sums(builder, source, half), FLOATS)
                if fresh:
                    total = builder.fmul(sums, scales)
                else:
                    total = fma(builder, sums, scales, floats(builder, target, 64 * half))
                builder.store(total, at(builder, target, LONG(64 * half), FLOATS), align=4)
            return context.get_dummy_value()

        return types.void(types.intp, types.float32, types.intp), made

    return intrinsic(typed)


put, add = _taken(True), _taken(False)  # 32 sums times a scale, or added, in fp32
