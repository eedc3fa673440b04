"""A layer of a training step by AMX's tiles: convolution, pool, batch norm, activation and sum."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from onecycle.machine import has_tiles
from onecycle.model.convolution import Conv3x3

WHOLE, LEAST = 32, 16  # channels that are computed together, and inputs that are worth it
MOST = 128  # pixels a side, beyond which a single image's maps leave the cache


def here(x: Tensor) -> bool:
    """Whether `x` is computed by tiles: in bf16 by one thread of a CPU that has them."""
    bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    alone = torch.get_num_threads() == 1
    return (bf16 or x.dtype is torch.bfloat16) and alone and x.device.type == "cpu" and has_tiles()


def possible(x: Tensor, sizes: list[int], conv: Conv3x3, pool: bool) -> bool:
    """Whether `layer` can take `x` (N, C, H, W) in groups of `sizes` here.

    Smaller or larger maps, and other channels, are torch's. A channel of a single number has no
    variance.
    """
    if not here(x) or conv.weight.dtype is not torch.float32:
        return False
    height, width = x.shape[2:]
    size = min(sizes) * ((height // 2) * (width // 2) if pool else height * width)
    inputs, outputs = conv.in_channels, conv.out_channels
    channels = inputs >= LEAST and inputs % 8 == 0 and outputs % WHOLE == 0
    return channels and size > 1 and max(height, width) <= MOST


def layer(
    x: Tensor,
    sizes: list[int],
    conv: Conv3x3,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    pool: bool,
    activation: str,
    plus: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`plus` and the `activation` of the batch norm of `conv` of x, max pooled by 2 if `pool`.

    Groups of `sizes` images are normalized each by itself; `weight`, `bias` (C,) and `eps` are the
    batch norm's. The results are y (N, C, H, W) in bf16, and the mean and variance (groups, 2, C)
    of what was normalized, as running statistics take them: the variance is that of a sample. They
    have no gradient. Of the convolution's bias nothing is left but in the mean.
    """
    own = plus is x
    more = None if own or plus is None else plus.to(torch.bfloat16)
    packed = conv.once("packed", lambda: _packed(conv.weight.detach()))
    y, found = _Layer.apply(
        x.to(torch.bfloat16),
        more,
        conv.weight,
        conv.bias,
        weight,
        bias,
        (packed, sizes, eps, pool, activation, own),
    )  # type: ignore[no-untyped-call]
    if conv.bias is not None:
        found[:, 0] += conv.bias.detach()
    return y, found


@torch.no_grad()
def judged(
    x: Tensor,
    conv: Conv3x3,
    statistics: tuple[Tensor, Tensor],
    weight: Tensor,
    bias: Tensor,
    eps: float,
    pool: bool,
    activation: str,
    plus: Tensor | None,
) -> Tensor:
    """As `layer`, normalized by the running mean and variance (C,), and with nothing to learn."""
    from onecycle.model.compiled import amx  # slow to import

    mean, variance = statistics
    mean = mean if conv.bias is None else mean - conv.bias
    maps, more = (
        None if each is None else each.to(torch.bfloat16).permute(0, 2, 3, 1).contiguous()
        for each in (x, plus)
    )
    assert maps is not None
    ahead, _ = conv.once("packed", lambda: _packed(conv.weight.detach()))
    known = torch.stack([mean, variance])
    y, _, _ = amx.forward(maps, [len(x)], ahead, pool, weight, bias, eps, activation, more, known)
    return y.permute(0, 3, 1, 2)


def _packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    from onecycle.model.compiled import packing  # slow to import

    return packing.packed(weight)


class _Layer(torch.autograd.Function):
    """As `layer`, whose other arguments are `told`, with the convolution's weight also packed.

    `shift` is the convolution's bias.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        plus: Tensor | None,
        learnt: Tensor,
        shift: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        told: tuple[tuple[Tensor, Tensor], list[int], float, bool, str, bool],
    ) -> tuple[Tensor, Tensor]:
        from onecycle.model.compiled import amx  # slow to import

        (ahead, back), sizes, eps, pool, activation, own = told
        maps = x.permute(0, 2, 3, 1).contiguous()
        more = maps if own else None if plus is None else plus.permute(0, 2, 3, 1).contiguous()
        norm = weight, bias, eps, activation
        y, found, kept = amx.forward(maps, sizes, ahead, pool, *norm, more)
        ctx.save_for_backward(maps, back, *kept)
        ctx.told = sizes, activation, own, learnt.shape[1], shift
        ctx.mark_non_differentiable(found)
        return y.permute(0, 3, 1, 2), found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from onecycle.model.compiled import amx  # slow to import

        maps, back, *kept = ctx.saved_tensors
        sizes, activation, own, inputs, shift = ctx.told
        of_x, of_plus = ctx.needs_input_grad[:2]
        given = gradients[0].permute(0, 2, 3, 1).contiguous()
        found = amx.backward(maps, sizes, given, kept, back, activation, of_x, own)
        to_x, to_weight, to_norm = found
        result = to_x[..., :inputs].permute(0, 3, 1, 2) if of_x else None
        weight = to_weight[..., :inputs].view(len(to_weight), 3, 3, -1).permute(0, 3, 1, 2)
        plus = gradients[0] if of_plus else None
        nothing = None if shift is None else torch.zeros_like(shift)  # the mean takes it away
        return result, plus, weight, nothing, to_norm[0], to_norm[1], None
