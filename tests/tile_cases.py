"""What the tests of AMX's tiles share: layers, maps, and how near two results are."""

import pytest
import torch

from onecycle.machine import has_tiles
from onecycle.model.convolution import Conv3x3
from onecycle.model.layers import GhostBatchNorm

with_amx = pytest.mark.skipif(not has_tiles(), reason="this CPU has no AMX")
ROUNDED = 2**-8  # of a number in bf16, at most


def maps(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    made = torch.randn(shape, generator=draw).bfloat16().float()  # nothing is lost in bf16
    return made.to(memory_format=torch.channels_last)


def layer(inputs, outputs, *, bias=False, groups=1):
    conv = Conv3x3(inputs, outputs, bias=bias).to(memory_format=torch.channels_last)
    conv.weight.data = maps(outputs, inputs, 3, 3, seed=1) / 8
    norm = GhostBatchNorm(outputs)
    norm.weight.data, norm.bias.data = torch.rand(outputs) + 0.5, torch.randn(outputs)
    norm.groups = groups
    return conv.train(), norm.train()


def close(ours, theirs, most=3 * ROUNDED):
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape and mine.stride() == other.stride()
        assert (mine - other).norm() < most * other.norm()
