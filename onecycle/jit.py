"""How functions are compiled."""

from functools import partial

import numpy as np
from numba import njit


def compiled(function):
    """`function` compiled at its first call, kept on disk where there is a place for it.

    Products and sums may be fused; nothing else of the arithmetic may change, least of all what
    becomes of numbers that are none.
    """
    compile = partial(njit, nogil=True, error_model="numpy", fastmath={"contract"})
    try:
        return compile(function, cache=True)
    except RuntimeError:  # numba found no folder that it may write to
        return compile(function)


@njit(inline="always")
def address(array):
    """Where `array` begins. To be asked once: it counts those who hold the array."""
    return np.int64(array.ctypes.data)
