"""Instructions of AMX, for functions that numba compiles.

A tile is a register of 16 rows of 64 bytes; there are eight, named by literal numbers. Addresses
and strides are in bytes. What each does is in Intel's "64 and IA-32 Architectures Software
Developer's Manual", volume 2 (TILELOADD, TDPBF16PS and so on).
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS, ROW = 16, 64  # of a tile; bytes
BYTE, LONG = ir.IntType(8), ir.IntType(64)


@cache
def _configuration():
    told = np.zeros(64, np.uint8)
    told[0] = 1  # the palette
    told[16:32:2], told[48:56] = ROW, ROWS
    return told, told.ctypes.data


def configuration():
    """Where the 64 bytes are that `configure` takes: eight tiles of full size."""
    return _configuration()[1]


def call(builder, name, result, *operands):
    """What LLVM's function `name` makes of `operands`."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)


def at(builder, address, offset, kind):
    """A pointer to `kind` at `offset` bytes after `address`."""
    return builder.inttoptr(builder.add(address, offset), ir.PointerType(kind))


def _told(name, count):
    """An instruction about `count` tiles and no memory."""

    def typed(*tiles):
        numbers = [BYTE(tile.literal_value) for tile in tiles]

        def made(context, builder, signature, arguments):
            call(builder, name, ir.VoidType(), *numbers)
            return context.get_dummy_value()

        return types.void(*tiles), made

    forms = [
        lambda context: typed(),
        lambda context, tile: typed(tile),
        None,
        lambda context, result, left, right: typed(result, left, right),
    ]
    return intrinsic(prefer_literal=True)(forms[count])


def _moved(name):
    """An instruction that moves a tile, whose rows begin `stride` bytes after one another."""

    def typed(context, tile, address, stride):
        def made(context, builder, signature, arguments):
            place = at(builder, arguments[1], LONG(0), BYTE)
            call(builder, name, ir.VoidType(), BYTE(tile.literal_value), place, arguments[2])
            return context.get_dummy_value()

        return types.void(tile, types.intp, types.intp), made

    return intrinsic(prefer_literal=True)(typed)


release = _told("llvm.x86.tilerelease", 0)  # no tiles any more
zero = _told("llvm.x86.tilezero", 1)  # zero(tile)
# dot(result, left, right) adds to 16x16 numbers in fp32 the product of a 16x32 and a 32x16 matrix
# in bf16; row i of the latter's tile has its rows 2i and 2i + 1, number by number in turn.
dot = _told("llvm.x86.tdpbf16ps", 3)
# As `dot`, whole numbers of 32 bits, of a 16x64 and a 64x16 matrix in int8, four rows in turn.
dot_whole = _told("llvm.x86.tdpbssd", 3)
load = _moved("llvm.x86.tileloadd64")  # load(tile, address, stride)
load_once = _moved("llvm.x86.tileloaddt164")  # and leave the first cache to others
store = _moved("llvm.x86.tilestored64")  # store(tile, address, stride)


@intrinsic
def configure(context, address):
    """Have the thread's tiles, as 64 bytes at `address` tell."""

    def made(context, builder, signature, arguments):
        place = at(builder, arguments[0], LONG(0), BYTE)
        call(builder, "llvm.x86.ldtilecfg", ir.VoidType(), place)
        return context.get_dummy_value()

    return types.void(types.intp), made
