"""Max pooling, batch norm and activation of a training step on one CPU thread, in fewer passes.

What torch does by an operation each, reading and writing whole maps and keeping more than it was
given, is a fifth of a step of `fast` and a third of DavidNet's where matrix products are fast; here
it takes half of that (bench/LOG.md, section 17).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from onecycle.model.compiled.arrays import as_arrays

DTYPES = (torch.bfloat16, torch.float32)


def possible(x: Tensor, pool: bool) -> bool:
    """Whether `pool_norm_activate` can take `x` (N, C, H, W) here, where `pool` is as there.

    It has one thread: an operation that several threads share is torch's. A channel of a single
    number has no variance.
    """
    here = x.device.type == "cpu" and x.dtype in DTYPES and torch.get_num_threads() == 1
    height, width = (side // 2 if pool else side for side in x.shape[2:])
    return here and len(x) * height * width > 1


def pool_norm_activate(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, pool: bool, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The `activation` of the batch norm of x (N, C, H, W), which is max pooled by 2 if `pool`.

    `weight` and `bias` (C,) and `eps` are the batch norm's. The results are y, in the type of x,
    and the mean and variance (C,) of what was normalized, as running statistics take them: the
    variance is that of a sample. They have no gradient.
    """
    result: tuple[Tensor, Tensor, Tensor] = _PoolNormActivate.apply(
        x, weight, bias, eps, pool, activation
    )  # type: ignore[no-untyped-call]
    return result


class _PoolNormActivate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, pool: bool, activation: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        from onecycle.model.compiled import passes  # slow to import

        maps = x.permute(0, 2, 3, 1).contiguous()
        images, height, width, channels = maps.shape
        normed, which = maps, torch.empty((0, 0, 0, 0), dtype=torch.uint8)
        if pool:
            normed = maps.new_empty(images, height // 2, width // 2, channels)
            which = torch.empty_like(normed, dtype=torch.uint8)
        mean, variance, spread = torch.empty(3, channels).unbind()
        y = torch.empty_like(normed)
        kind = passes.ACTIVATIONS.index(activation)
        found = as_arrays(normed, which, mean, variance, spread, y)
        passes.forward(*as_arrays(maps, weight, bias), eps, kind, *found)
        ctx.save_for_backward(weight, bias, normed, which, mean, spread)
        ctx.kind, ctx.shape = kind, maps.shape
        ctx.mark_non_differentiable(mean, variance)
        return y.permute(0, 3, 1, 2), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from onecycle.model.compiled import passes  # slow to import

        weight, bias, normed, which, mean, spread = ctx.saved_tensors
        given = gradients[0].permute(0, 2, 3, 1).contiguous()
        moved = torch.empty_like(normed)
        result = moved.new_empty(ctx.shape) if which.numel() else moved
        to_weight, to_bias = torch.empty_like(weight), torch.empty_like(bias)
        found = as_arrays(normed, which, mean, spread, moved, to_weight, to_bias, result)
        passes.backward(*as_arrays(given, weight, bias), ctx.kind, *found)
        return result.permute(0, 3, 1, 2), to_weight, to_bias, None, None, None
