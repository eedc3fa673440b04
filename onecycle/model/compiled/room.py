"""Memory that a thread keeps for what is computed in between, so that it stays in its cache."""

import threading
from math import prod

import torch
from torch import Tensor

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


def tensors(*kinds: tuple[tuple[int, ...], torch.dtype]) -> list[Tensor]:
    """As `room`, uninitialized tensors, each of a shape and a type."""
    sizes = [prod(shape) * dtype.itemsize for shape, dtype in kinds]
    made = []
    for place, size, (shape, dtype) in zip(room(*sizes), sizes, kinds, strict=True):
        start = place - _kept.memory.data_ptr()
        made.append(_kept.memory[start : start + size].view(dtype).view(shape))
    return made
