"""Layers of a training step in bf16 or int8 with AMX on one CPU thread, compiled by numba.

A layer is a 3x3 convolution, perhaps a 2x2 max pool, batch norm, an activation, and perhaps a sum.
oneDNN's convolutions leave most of AMX idle, because what they multiply waits for memory. These go
through some images at a time, whose maps lie abreast in the cache (`plan`). There a tile of maps is
a pixel of many images, or some pixels of a few, and the products of tiles with the weights are
those of the convolution, and of its gradients, with no copy for each of the nine shifts
(`meetings`). What is pooled is never in memory whole, nor is the gradient of what is normalized. A
group of images goes through all layers before the next does, so that a prediction keeps the maps of
one group alone. (bench/LOG.md, sections 18 to 24.)
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onecycle.jit import compiled
from onecycle.model.compiled import plan as p
from onecycle.model.compiled import tiles as t
from onecycle.model.compiled.arrays import as_arrays
from onecycle.model.compiled.layer import layer_backward, layer_forward
from onecycle.model.compiled.packing import Weights
from onecycle.model.compiled.places import WIDE
from onecycle.model.compiled.plan import Kind, planned
from onecycle.model.compiled.room import room
from onecycle.model.compiled.steps import largest_of


def forward(
    x: Tensor,
    sizes: list[int],
    kinds: tuple[Kind, ...],
    packed: list[Weights],
    affine: Tensor,
    eps: float,
    plus: Tensor | None = None,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Layers of `kinds` of x (N, H, W, C); `plus` is what a last one of `ANOTHER` adds.

    `sizes` are those of the groups that are normalized each by itself, N in all; `packed` are the
    convolutions' weights by `packing.packed`; `affine` (2, all channels) and `eps` are the batch
    norms'. The results are y, the mean and variance (groups, 2, all channels) of what was
    normalized, that of a sample, and what `backward` asks for. If mean and variance are `known`
    (2, all channels), all is normalized by these, and nothing is kept.
    """
    plan = planned(tuple(x.shape[1:]), max(sizes), kinds)
    y = x.new_empty(len(x), *plan.table[-1, p.HIGH : p.OUTPUTS + 1])
    found = torch.empty(len(sizes), 2, plan.channels) if known is None else known[None]
    factors = torch.empty(len(sizes), plan.channels // WIDE, 4, WIDE)
    largest = torch.empty(len(sizes), len(kinds))  # magnitude of what each layer is given
    apart = plan.kept if known is None else 0  # bytes from one group's memory to the next's
    kept = torch.empty(apart * (len(sizes) - 1) + plan.kept, dtype=torch.uint8)
    _forward(
        t.configuration(),
        plan.table,
        np.array(sizes),
        tuple(map(_where, (x, plus, kept, y))),
        _of_weights(packed),
        apart,
        room(*plan.ahead),
        known is not None,
        eps,
        *as_arrays(affine, found, factors, largest),
    )
    return y, found, (kept, factors, largest)


def backward(
    x: Tensor,
    sizes: list[int],
    kinds: tuple[Kind, ...],
    gradient: Tensor,
    kept: tuple[Tensor, Tensor, Tensor],
    packed: list[Weights],
    of_x: bool,
) -> tuple[Tensor | None, list[Tensor], Tensor]:
    """The gradients of `forward`'s x, if asked for, convolutions (O, 9, C) and norms (2, all).

    `gradient` is that of its y, `packed` the other of `packing.packed`; C is a multiple of 32, and
    beyond x's zero.
    """
    plan = planned(tuple(x.shape[1:]), max(sizes), kinds)
    blocks = plan.table[:, p.BLOCKS]
    to_x = x.new_empty(*x.shape[:3], blocks[0] * WIDE) if of_x else None
    to_weights, to_norms = torch.empty(plan.weights), torch.empty(2, plan.channels)
    memory, factors, largest = kept
    _backward(
        t.configuration(),
        plan.table,
        np.array(sizes),
        tuple(map(_where, (x, gradient, memory, to_x, to_weights))),
        _of_weights(packed),
        plan.kept,
        room(*plan.back),
        *as_arrays(factors, to_norms, largest),
    )
    sizes = (plan.table[:, p.OUTPUTS] * 9 * blocks * WIDE).tolist()
    weights = zip(torch.split(to_weights, sizes), kinds, strict=True)
    return to_x, [weight.view(kind.outputs, 9, -1) for weight, kind in weights], to_norms


def _where(tensor: Tensor | None) -> int:
    """Where its numbers begin, 0 if there is nothing."""
    return 0 if tensor is None else tensor.data_ptr()


def _of_weights(packed: list[Weights]) -> NDArray[np.int64]:
    """Where each layer's weights begin, and their scales, or 0."""
    return np.array([[_where(each.numbers), _where(each.scales)] for each in packed])


@compiled
def _forward(
    config, table, sizes, given, packed, apart, room, known, eps, affine, found, factors, largest
):
    x, plus, kept, y = given
    maps, sums = room
    first, last, end = table[0], len(table) - 1, 0
    pixels = first[p.HEIGHT] * first[p.WIDTH] * first[p.INPUTS] * 2
    results = table[last, p.HIGH] * table[last, p.BROAD] * table[last, p.OUTPUTS] * 2
    t.configure(config)
    for group in range(len(sizes)):
        begin, end = end, end + sizes[group]
        memory, statistics = kept + group * apart, found[0 if known else group]
        tops = largest[group]
        if first[p.INT8] or first[p.BACK_INT8]:
            tops[0] = largest_of(x + begin * pixels, sizes[group] * pixels // 2)
        for layer in range(len(table)):
            row = table[layer]
            start, stop = row[p.CHANNEL], row[p.CHANNEL] + row[p.OUTPUTS]
            source = x + begin * pixels if layer == 0 else memory + table[layer - 1, p.MADE]
            made = y + begin * results if layer == last else memory + row[p.MADE]
            more = np.int64(0)
            if row[p.PLUS] == p.ANOTHER:
                more = plus + begin * results
            elif row[p.PLUS] == 0:
                more = x + begin * pixels
            elif row[p.PLUS] > 0:
                more = memory + table[row[p.PLUS] - 1, p.MADE]
            normed, which = memory + row[p.NORMED], memory + row[p.WHICH] if row[p.POOL] else 0
            of_factors = factors[group, start // WIDE : stop // WIDE]
            of_norm = affine[:, start:stop], statistics[:, start:stop], of_factors
            those = source, packed[layer], more, normed, which, made
            top = layer_forward(
                row, sizes[group], those, maps, sums, known, eps, of_norm, tops[layer]
            )
            if layer != last:
                tops[layer + 1] = top
    t.release()


@compiled
def _backward(config, table, sizes, given, packed, apart, room, factors, to_norms, largest):
    x, gradient, kept, to_x, to_weights = given
    gradients = room[6]
    first, last, end = table[0], len(table) - 1, sizes.sum()
    pixels = first[p.HEIGHT] * first[p.WIDTH] * 2
    results = table[last, p.HIGH] * table[last, p.BROAD] * table[last, p.OUTPUTS] * 2
    to_norms[:] = 0
    t.configure(config)
    # What was made last is nearest.
    for group in range(len(sizes) - 1, -1, -1):
        begin, fresh = end - sizes[group], group == len(sizes) - 1
        end, memory = begin, kept + group * apart
        for layer in range(last, -1, -1):
            row = table[layer]
            start, stop = row[p.CHANNEL], row[p.CHANNEL] + row[p.OUTPUTS]
            of_last = gradient + begin * results
            that = of_last if layer == last else gradients + row[p.GRADIENT]
            more, added = np.int64(0), row[p.ADDED]
            if added >= 0:
                more = of_last if added == last else gradients + table[added, p.GRADIENT]
            if layer:
                source = memory + table[layer - 1, p.MADE]
                target = gradients + table[layer - 1, p.GRADIENT]
            else:
                source = x + begin * pixels * row[p.INPUTS]
                target = to_x and to_x + begin * pixels * row[p.BLOCKS] * WIDE
            normed, which = memory + row[p.NORMED], memory + row[p.WHICH] if row[p.POOL] else 0
            to_weight = to_weights + 4 * row[p.WEIGHTS]
            those = source, that, normed, which, packed[layer], more, target, to_weight
            of_factors = factors[group, start // WIDE : stop // WIDE]
            of_norm = of_factors, to_norms[:, start:stop]
            top = largest[group, layer]
            layer_backward(row, sizes[group], those, room, fresh, of_norm, top)
    t.release()
