"""Layers of a training step by AMX's tiles: convolution, pool, batch norm, activation and sum."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from onecycle.machine import has_tiles
from onecycle.model.convolution import Conv3x3

WHOLE, LEAST = 32, 16  # channels that are computed together, and inputs that are worth it
MOST = 128  # pixels a side, beyond which a single image's maps leave the cache
JUDGED = 128  # images of a prediction that go through all layers together


class TiledLayer(NamedTuple):
    """A convolution, perhaps max pooled by 2, and its batch norm's weight and bias (C,).

    To the activation is added what an earlier layer made, the nth if `plus` is n; 0 stands for what
    the first layer is given.
    """

    conv: Conv3x3
    pool: bool
    weight: Tensor
    bias: Tensor
    activation: str
    plus: int | None


def here(x: Tensor) -> bool:
    """Whether `x` is computed by tiles: in bf16 by one thread of a CPU that has them."""
    bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    alone = torch.get_num_threads() == 1
    return (bf16 or x.dtype is torch.bfloat16) and alone and x.device.type == "cpu" and has_tiles()


def possible(x: Tensor, sizes: list[int], layers: Sequence[TiledLayer]) -> bool:
    """Whether `in_turn` can take `x` (N, C, H, W) in groups of `sizes`, where tiles are.

    Smaller or larger maps, and other channels, are torch's. A channel of a single number has no
    variance.
    """
    height, width = x.shape[2:]
    for layer in layers:
        high, broad = (height // 2, width // 2) if layer.pool else (height, width)
        inputs, outputs = layer.conv.in_channels, layer.conv.out_channels
        channels = inputs >= LEAST and inputs % 8 == 0 and outputs % WHOLE == 0
        fits = min(sizes) * high * broad > 1 and max(height, width) <= MOST
        if not (channels and fits and layer.conv.weight.dtype is torch.float32):
            return False
        height, width = high, broad
    return True


def in_turn(
    x: Tensor,
    sizes: list[int],
    layers: Sequence[TiledLayer],
    eps: float,
    plus: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The `layers` of x (N, C, H, W), one after another; `plus` is added to what the last makes.

    Groups of `sizes` images are normalized each by itself; `eps` is the batch norms'. The results
    are y (N, C, H, W) in bf16, and the mean and variance (groups, 2, all layers' C) of what was
    normalized, as running statistics take them: the variance is that of a sample. They have no
    gradient. Of the convolutions' biases nothing is left but in the means.
    """
    more = None if plus is None else plus.to(torch.bfloat16)
    told = sizes, _kinds(layers, plus), _packed(layers), eps
    learnt = ((each.conv.weight, each.conv.bias, each.weight, each.bias) for each in layers)
    flat = (each for layer in learnt for each in layer)
    y, found = _InTurn.apply(x.to(torch.bfloat16), more, told, *flat)  # type: ignore[no-untyped-call]
    start = 0
    for layer in layers:
        end = start + layer.conv.out_channels
        if layer.conv.bias is not None:
            found[:, 0, start:end] += layer.conv.bias.detach()
        start = end
    return y, found


@torch.no_grad()
def judged(
    x: Tensor,
    layers: Sequence[TiledLayer],
    statistics: Sequence[tuple[Tensor, Tensor]],
    eps: float,
    plus: Tensor | None,
) -> Tensor:
    """As `in_turn`, normalized by the running means and variances (C,); nothing is to learn."""
    from onecycle.model.compiled import amx  # slow to import

    biases = [layer.conv.bias for layer in layers]
    means = [
        mean if bias is None else mean - bias
        for (mean, _), bias in zip(statistics, biases, strict=True)
    ]
    known = torch.stack([torch.cat(means), torch.cat([variance for _, variance in statistics])])
    maps, more = (
        None if each is None else each.to(torch.bfloat16).permute(0, 2, 3, 1).contiguous()
        for each in (x, plus)
    )
    assert maps is not None
    sizes = [len(part) for part in torch.split(maps, JUDGED)]
    ahead = [each for each, _ in _packed(layers)]
    affine = _affine([layer.weight for layer in layers], [layer.bias for layer in layers])
    y, _, _ = amx.forward(maps, sizes, _kinds(layers, plus), ahead, affine, eps, more, known)
    return y.permute(0, 3, 1, 2)


def _packed(layers: Sequence[TiledLayer]) -> list[tuple[Any, Any]]:
    """The convolutions' weights by `packing.packed`; several lanes share the work."""
    from onecycle.model.compiled import packing, plan  # slow to import

    convs, make = [layer.conv for layer in layers], []
    for conv in convs:
        whole = conv.int8 and conv.training
        int8 = plan.in_int8(conv.in_channels, conv.out_channels) if whole else (False, False)
        make.append((conv, partial(packing.packed, conv.weight.detach(), int8)))
    # The largest first, so that no lane waits for one at the end.
    for conv, packed in sorted(make, key=lambda both: -both[0].weight.numel()):
        if conv.training:
            conv.made.ahead("packed", packed)
    return [conv.once("packed", packed) for conv, packed in make]


def _affine(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.cat(list(weights)), torch.cat(list(biases))])


def _kinds(layers: Sequence[TiledLayer], plus: Tensor | None) -> tuple[Any, ...]:
    """The layers as `compiled.amx` knows them."""
    from onecycle.model.compiled import plan  # slow to import
    from onecycle.model.compiled.passes import ACTIVATIONS

    kinds = [
        plan.Kind(
            layer.conv.out_channels,
            layer.pool,
            ACTIVATIONS.index(layer.activation),
            plan.NOTHING if layer.plus is None else layer.plus,
            layer.conv.int8 and layer.conv.training,
        )
        for layer in layers
    ]
    if plus is not None:
        kinds[-1] = kinds[-1]._replace(plus=plan.ANOTHER)
    return tuple(kinds)


class _InTurn(torch.autograd.Function):
    """As `in_turn`; what is learnt are each layer's four, the second a convolution's bias."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, plus: Tensor | None, told: Any, *learnt: Tensor
    ) -> tuple[Tensor, Tensor]:
        from onecycle.model.compiled import amx  # slow to import

        sizes, kinds, packed, eps = told
        maps = x.permute(0, 2, 3, 1).contiguous()
        more = None if plus is None else plus.permute(0, 2, 3, 1).contiguous()
        affine = _affine(learnt[2::4], learnt[3::4])
        ahead = [each for each, _ in packed]
        y, found, kept = amx.forward(maps, sizes, kinds, ahead, affine, eps, more)
        ctx.save_for_backward(maps, *kept)
        ctx.back = [each for _, each in packed]
        ctx.told = sizes, kinds, [each.shape[1] for each in learnt[::4]], learnt[1::4]
        ctx.mark_non_differentiable(found)
        return y.permute(0, 3, 1, 2), found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from onecycle.model.compiled import amx  # slow to import

        maps, *kept = ctx.saved_tensors
        sizes, kinds, inputs, shifts = ctx.told
        of_x, of_plus = ctx.needs_input_grad[:2]
        given = gradients[0].permute(0, 2, 3, 1).contiguous()
        found = amx.backward(maps, sizes, kinds, given, tuple(kept), ctx.back, of_x)
        to_x, to_weights, to_norms = found
        learnt: list[Tensor | None] = []
        start = 0
        for kind, channels, weight, shift in zip(kinds, inputs, to_weights, shifts, strict=True):
            end = start + kind.outputs
            learnt.append(weight[..., :channels].view(len(weight), 3, 3, -1).permute(0, 3, 1, 2))
            learnt.append(None if shift is None else torch.zeros_like(shift))  # the mean takes it
            learnt += to_norms[0, start:end], to_norms[1, start:end]
            start = end
        result = None if to_x is None else to_x[..., : maps.shape[3]].permute(0, 3, 1, 2)
        return result, gradients[0] if of_plus else None, None, *learnt
