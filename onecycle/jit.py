"""How functions are compiled."""

from functools import partial

import numpy as np
from numba import njit


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
