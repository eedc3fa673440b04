"""What is done with vectors of AVX512 around `tiles`, where numba's loops make none or slow ones.

Addresses and strides are in bytes.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from onecycle.model.compiled.tiles import BYTE, LONG, at, call

WORD = ir.IntType(32)
HALVES, WORDS = ir.VectorType(ir.IntType(16), 16), ir.VectorType(WORD, 16)
FLOATS, BYTES = ir.VectorType(ir.FloatType(), 16), ir.VectorType(BYTE, 16)


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, BFloat)

    def __hash__(self):
        return hash(BFloat)


BFLOATS = ir.VectorType(BFloat(), 32)


def floats(builder, address, offset):
    """The 16 numbers in fp32 at `offset` bytes after `address`."""
    return builder.load(at(builder, address, LONG(offset), FLOATS), align=4)


def keep(builder, low, high, address):
    """Store two times 16 numbers in fp32 as 32 in bf16."""
    name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
    result = builder.bitcast(call(builder, name, BFLOATS, high, low), WORDS)
    builder.store(result, at(builder, address, LONG(0), WORDS), align=2)


def fma(builder, x, y, z):
    """x * y + z."""
    return call(builder, "llvm.fma.v16f32", FLOATS, x, y, z)


def everywhere(builder, number):
    """A number in fp32, 16 times."""
    nothing = ir.Constant(FLOATS, ir.Undefined)
    first = builder.insert_element(nothing, number, WORD(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(WORDS, [0] * 16))


def _copied(size):
    """An instruction that copies `size` bytes."""
    kind = ir.VectorType(BYTE, size)

    def typed(context, source, target):
        def made(context, builder, signature, arguments):
            source, target = (at(builder, address, LONG(0), kind) for address in arguments)
            builder.store(builder.load(source, align=1), target, align=1)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), made

    return intrinsic(typed)


copy16, copy64 = _copied(16), _copied(64)  # copy64(source, target)


@intrinsic
def clear64(context, target):
    """64 bytes of zero at `target`."""

    def made(context, builder, signature, arguments):
        place = at(builder, arguments[0], LONG(0), WORDS)
        builder.store(ir.Constant(WORDS, [0] * 16), place, align=1)
        return context.get_dummy_value()

    return types.void(types.intp), made


@intrinsic
def number(context, address):
    """The number of 64 bits at `address`."""

    def made(context, builder, signature, arguments):
        return builder.load(at(builder, arguments[0], LONG(0), LONG), align=8)

    return types.int64(types.intp), made


@intrinsic
def single(context, address):
    """The number in fp32 at `address`."""

    def made(context, builder, signature, arguments):
        place = at(builder, arguments[0], LONG(0), ir.FloatType())
        return builder.load(place, align=4)

    return types.float32(types.intp), made


@intrinsic
def rounded(context, source, target):
    """32 numbers in fp32 at `source` rounded to bf16 at `target`."""

    def made(context, builder, signature, arguments):
        source, target = arguments
        keep(builder, floats(builder, source, 0), floats(builder, source, 64), target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), made


@intrinsic
def add(context, source, target):
    """Add 32 numbers in fp32 at `source` to those at `target`."""

    def made(context, builder, signature, arguments):
        source, target = arguments
        for half in (0, 64):
            total = builder.fadd(floats(builder, source, half), floats(builder, target, half))
            builder.store(total, at(builder, target, LONG(half), FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), made


@intrinsic
def largest(context, first, beside, below, target, place):
    """Of four times 32 numbers in fp32 the largest each, in bf16 at `target`.

    They are at `first`, and so many bytes `beside` and `below` it. At `place` a byte for each says
    which it was. The first of equal ones counts, and the last that is no number, as torch's max
    pool has it.
    """

    def made(context, builder, signature, arguments):
        first, beside, below, target, place = arguments
        under = builder.add(first, below)
        others = builder.add(first, beside), under, builder.add(under, beside)
        found = []
        for half in (0, 64):
            most = floats(builder, first, half)
            which = ir.Constant(BYTES, [0] * 16)
            for number, address in enumerate(others, start=1):
                other = floats(builder, address, half)
                larger = builder.fcmp_ordered(">", other, most)
                take = builder.or_(larger, builder.fcmp_unordered("uno", other, other))
                most = builder.select(take, other, most)
                which = builder.select(take, ir.Constant(BYTES, [number] * 16), which)
            found.append(most)
            builder.store(which, at(builder, place, LONG(half // 4), BYTES), align=1)
        keep(builder, *found, target)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), made


@intrinsic
def paired(context, low, high, target):
    """Two times 32 numbers of 16 bits as 32 pairs at `target`."""

    def made(context, builder, signature, arguments):
        low, high, target = arguments
        for part in range(2):
            halves = (
                builder.load(at(builder, address, LONG(32 * part), HALVES), align=2)
                for address in (low, high)
            )
            place = at(builder, target, LONG(64 * part), WORDS)
            builder.store(_pairs(builder, *halves), place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), made


def some(builder, address, offset, mask):
    """16 numbers of 16 bits of which only those of `mask` are read, and the others zero."""
    name, nothing = "llvm.masked.load.v16i16.p0v16i16", ir.Constant(HALVES, [0] * 16)
    place = at(builder, address, LONG(offset), HALVES)
    return call(builder, name, HALVES, place, WORD(2), mask, nothing)


@intrinsic
def paired_some(context, low, high, count, target):
    """As `paired`, of the first `count` numbers each, with zeros for the others."""

    def made(context, builder, signature, arguments):
        low, high, count, target = arguments
        ones = builder.sub(builder.shl(LONG(1), count), LONG(1))
        for part in range(2):
            bits = builder.trunc(builder.lshr(ones, LONG(16 * part)), ir.IntType(16))
            mask = builder.bitcast(bits, ir.VectorType(ir.IntType(1), 16))
            found = [some(builder, address, 32 * part, mask) for address in (low, high)]
            place = at(builder, target, LONG(64 * part), WORDS)
            builder.store(_pairs(builder, *found), place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), made


@intrinsic(prefer_literal=True)
def chosen(context, source, places, number, target):
    """The 32 numbers of 16 bits at `source` of which `places` says `number`, else zero."""

    def made(context, builder, signature, arguments):
        for part in range(2):
            told = builder.load(at(builder, arguments[1], LONG(16 * part), BYTES), align=1)
            numbers = builder.load(at(builder, arguments[0], LONG(32 * part), HALVES), align=2)
            same = builder.icmp_unsigned(
                "==", told, ir.Constant(BYTES, [number.literal_value] * 16)
            )
            result = builder.select(same, numbers, ir.Constant(HALVES, [0] * 16))
            builder.store(result, at(builder, arguments[3], LONG(32 * part), HALVES), align=2)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, number, types.intp), made


@intrinsic
def transposed(context, source, stride, target, target_stride):
    """32 rows of 16 numbers of 16 bits at `source` as 16 rows of 32 at `target`."""

    def made(context, builder, signature, arguments):
        source, stride, target, target_stride = arguments
        rows = [
            builder.load(at(builder, source, builder.mul(stride, LONG(row)), HALVES), align=2)
            for row in range(32)
        ]
        pairs = [
            _pairs(builder, low, high) for low, high in zip(rows[::2], rows[1::2], strict=True)
        ]
        for row, words in enumerate(as_columns(builder, pairs)):
            place = at(builder, target, builder.mul(target_stride, LONG(row)), WORDS)
            builder.store(words, place, align=2)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), made


@intrinsic
def turned(context, source, stride, target, target_stride):
    """16 rows of 16 numbers of 32 bits at `source` as their columns at `target`."""

    def made(context, builder, signature, arguments):
        source, stride, target, target_stride = arguments
        rows = [
            builder.load(at(builder, source, builder.mul(stride, LONG(row)), WORDS), align=4)
            for row in range(16)
        ]
        for row, words in enumerate(as_columns(builder, rows)):
            place = at(builder, target, builder.mul(target_stride, LONG(row)), WORDS)
            builder.store(words, place, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), made


def _pairs(builder, low, high):
    """Two vectors of 16 numbers of 16 bits as one of 32 bits each."""
    shifted = builder.shl(builder.zext(high, WORDS), ir.Constant(WORDS, [16] * 16))
    return builder.or_(builder.zext(low, WORDS), shifted)


def as_columns(builder, rows):
    """16 vectors of 16 numbers as the columns of their matrix: blocks of 1 to 8 change places."""
    for side in (1, 2, 4, 8):
        upper = [lane if not lane & side else 16 + (lane ^ side) for lane in range(16)]
        lower = [lane ^ side if not lane & side else 16 + lane for lane in range(16)]
        result = list(rows)
        for row in (row for row in range(16) if not row & side):
            first, second = rows[row], rows[row + side]
            for place, lanes in ((row, upper), (row + side, lower)):
                mask = ir.Constant(WORDS, lanes)
                result[place] = builder.shuffle_vector(first, second, mask)
        rows = result
    return rows
