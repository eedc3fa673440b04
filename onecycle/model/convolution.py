"""3x3 convolutions of small maps on a CPU: the maps of many images side by side, as one wide map.

oneDNN's convolutions of narrow maps leave much of a CPU idle, most of all that for the gradient of
the weights with AMX: for 256 to 512 channels it takes as long for a map of 9 pixels as for four of
them side by side, copies included. What is faster where is in bench/LOG.md, sections 14 and 15.
"""

import copy
import platform
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from onecycle.machine import AMX

T = TypeVar("T")

X86 = platform.machine().lower() in ("x86_64", "amd64")  # elsewhere nothing was measured
# Pixels a side, up to which wide maps are faster: in bf16 with AMX for all three convolutions, and
# for the gradient of the weights alone; on any x86 for the latter.
ALL_FOR_AMX, WEIGHT_FOR_AMX, WEIGHT = 6, 10, 3
ABREAST = 32  # images of a wide map, so that its rows fill the tiles of AMX


class Made:
    """What was made of a `weight` since it last moved, for all who share its memory."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self._version, self._made, self._lock = -1, dict[Any, Any](), Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Made":
        return Made(copy.deepcopy(self.weight, memo))

    def forget(self) -> None:
        """Forget all; a fused optimizer, for one, moves the weight and tells nobody."""
        with self._lock:
            self._version = -1

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` made, now or before."""
        with self._lock:
            return self._once(key, make)

    def ahead(self, key: Any, make: Callable[[], object]) -> None:
        """Make what `once` will be asked for, unless another thread is at it."""
        if self._lock.acquire(blocking=False):
            try:
                self._once(key, make)
            finally:
                self._lock.release()

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        version = self.weight._version
        if self._version != version:
            self._version, self._made = version, {}
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made


class Conv3x3(nn.Conv2d):
    """A convolution of 3x3 pixels at stride 1 that keeps the map's size; (N, C, H, W) in and out.

    The same as `nn.Conv2d`, but for the order of its sums: on an x86 CPU, where maps are small,
    some or all of it is computed of maps side by side.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)
        self.made = Made(self.weight)
        self.int8 = False  # in training, where that is faster

    def train(self, mode: bool = True) -> "Conv3x3":
        self.made.forget()
        return super().train(mode)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` makes of the weight; while it is trained, once for all groups of a step."""
        return self.made.once(key, make) if self.training else make()

    def rounded(self, dtype: torch.dtype) -> Tensor:
        """The weight in `dtype`."""
        return self.once(dtype, lambda: self.weight.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of `x`."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        amx, side = AMX and dtype is torch.bfloat16, max(x.shape[-2:])
        whole = amx and side <= ALL_FOR_AMX
        learns = self.training and side <= (WEIGHT_FOR_AMX if amx else WEIGHT)
        if not (X86 and x.device.type == "cpu" and (whole or learns)):
            return super().forward(x)
        y: Tensor = Abreast.apply(x.to(dtype), self.weight, self.rounded(dtype), whole)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias.to(dtype).view(1, -1, 1, 1)


class Abreast(torch.autograd.Function):
    """The convolution of x (N, C, H, W) with a weight (O, C, 3, 3), padded by a pixel.

    If `whole`, all of it is computed of wide maps, else the gradient of the weight alone. The
    weight comes twice: as it is learnt, and in the type of x, which products have.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, learnt: Tensor, weight: Tensor, whole: bool) -> Tensor:
        ctx.dtype, ctx.whole = learnt.dtype, whole
        kept = wide(x) if whole else x
        ctx.save_for_backward(kept, weight)
        y = F.conv2d(kept, weight, padding=1)
        return apart(y, x) if whole else y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        kept, weight = ctx.saved_tensors
        (gradient,) = gradients
        across, to_x = wide(gradient), None
        if ctx.needs_input_grad[0]:
            to_x = F.conv_transpose2d(across if ctx.whole else gradient, weight, padding=1)
            to_x = apart(to_x, gradient) if ctx.whole else to_x
        seen = kept if ctx.whole else wide(kept)
        to_weight = conv2d_weight(  # type: ignore[no-untyped-call]
            seen, weight.shape, across, padding=1
        )
        return to_x, to_weight.to(ctx.dtype), None, None


def wide(maps: Tensor) -> Tensor:
    """The maps (N, C, H, W) in rows of 32, (ceil(N / 32), C, H, 32 * (W + 1)); zeros between."""
    rows = torch.split(maps.permute(0, 2, 3, 1), ABREAST)
    _, height, width, channels = rows[0].shape
    result = maps.new_zeros(len(rows), height, ABREAST, width + 1, channels)
    for place, row in zip(result, rows, strict=True):
        place[:, : len(row), :width] = row.transpose(0, 1)
    return result.flatten(2, 3).permute(0, 3, 1, 2)


def apart(across: Tensor, like: Tensor) -> Tensor:
    """The maps of `wide` one by one again, as many and as large as those of `like`."""
    images, _, height, width = like.shape
    maps = across.permute(0, 2, 3, 1).reshape(len(across), height, ABREAST, width + 1, -1)
    whole: Tensor = maps[:, :, :, :width].transpose(1, 2).flatten(0, 1)[:images]
    return whole.permute(0, 3, 1, 2)
