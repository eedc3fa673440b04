"""How functions are compiled."""

from functools import partial

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic


def compiled(function, fuse=True):
    """`function` compiled at its first call, kept on disk where there is a place for it.

    Products and sums may be fused, unless they mustn't; nothing else of the arithmetic may change,
    least of all what becomes of numbers that are none.
    """
    fastmath = {"contract"} if fuse else False
    compile = partial(njit, nogil=True, error_model="numpy", fastmath=fastmath)
    try:
        return compile(function, cache=True)
    except RuntimeError:  # numba found no folder that it may write to
        return compile(function)


@njit(inline="always")
def address(array):
    """Where `array` begins. To be asked once: it counts those who hold the array."""
    return np.int64(array.ctypes.data)


@intrinsic
def pointer(context, address):
    """What is at `address`, for `numba.carray`."""

    def made(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), made
