"""Memory that a thread keeps for what is computed in between, so that it stays in its cache."""

import threading

import torch

LINE = 64  # bytes of the cache's lines, on which all begins


class _Kept(threading.local):
    memory = torch.empty(0, dtype=torch.uint8)


_kept = _Kept()


def room(*sizes: int) -> tuple[int, ...]:
    """Addresses of so many bytes each, for this thread, until it asks again."""
    whole = [-(-size // LINE) * LINE for size in sizes]
    if _kept.memory.numel() < sum(whole):
        _kept.memory = torch.empty(sum(whole), dtype=torch.uint8)
    places, start = [], _kept.memory.data_ptr()
    for size in whole:
        places.append(start)
        start += size
    return tuple(places)
