"""Memory that is kept from step to step on a CPU.

What a step frees, glibc gives back to the system where it is large, and the system clears it page
by page when the next step asks for as much: a sixth of the time of a network that computes a whole
batch at once, a fifth of that of `folder` at 128 pixels (bench/LOG.md, section 8).
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

# mallopt(3): its parameters, and values that keep all memory in the heap and the heap as it is.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8
KEEP = {TRIM_THRESHOLD: 2**31 - 1, MMAP_MAX: 0}
# What glibc sets by itself in a process that frees large pieces.
AS_BEFORE = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25, MMAP_MAX: 2**16}

_lock = Lock()
_keeping = 0


def one_heap() -> None:
    """Let threads that begin after this share the first one's heap: others hold no large pieces.

    To be called before there are threads, because none gives up a heap that it has.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(ARENA_MAX, 1)


@contextmanager
def keeping(device: str) -> Iterator[None]:
    """The block in which freed memory is kept for the next allocation, if `device` is the CPU.

    It goes back to the system at the end of the outermost of such blocks. Without glibc nothing
    happens.
    """
    libc = ctypes.CDLL(None)
    if device != "cpu" or not hasattr(libc, "mallopt"):
        yield
        return
    _enter(libc, 1)
    try:
        yield
    finally:
        _enter(libc, -1)


def _enter(libc: ctypes.CDLL, change: int) -> None:
    """One block more or less."""
    global _keeping
    with _lock:
        before, _keeping = _keeping, _keeping + change
        if before and _keeping:
            return
        for parameter, value in (KEEP if _keeping else AS_BEFORE).items():
            libc.mallopt(parameter, value)
        if not _keeping:
            libc.malloc_trim(0)
