"""Tensors as arrays, for kernels that numba compiles."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def as_arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """The memory of `tensors` as arrays; bf16, which numpy doesn't know, as numbers of 16 bits."""
    same = (t.view(torch.uint16) if t.dtype is torch.bfloat16 else t for t in tensors)
    return [tensor.detach().numpy() for tensor in same]
