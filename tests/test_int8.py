"""Convolutions that learn in int8 by AMX's tiles, against bf16 and fp32."""

import numpy as np
import pytest
import torch
from test_amx import step
from tile_cases import layer, maps, with_amx
from torch import nn

from onecycle.model.build import build
from onecycle.model.compiled.arrays import as_arrays
from onecycle.model.compiled.plan import in_int8
from onecycle.model.convolution import Conv3x3
from onecycle.model.layers import Layer, in_turn
from onecycle.recipe import book

BOTH = pytest.mark.parametrize("pool", [False, True], ids=["as it is", "pooled"])
SHAPES = [  # images, inputs, outputs, side
    (9, 64, 64, 15),
    (40, 64, 192, 7),
    (125, 128, 64, 7),
    (70, 128, 128, 5),
    (130, 64, 64, 3),
    (33, 192, 64, 2),
    (3, 64, 64, 33),
    (1, 64, 64, 4),
]

NEAR = 0.1  # of their norm: gradients are 0.03 off, of few numbers more


def whole(shape, *, seed):
    """Whole numbers that are as many steps of int8: of each output and input the largest is 127."""
    draw = torch.Generator().manual_seed(seed)
    made = torch.randint(-127, 128, shape, generator=draw).float()
    made[:, :, :1, :1] = 127
    return made.to(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def the_same_each_time():
    torch.manual_seed(0)  # the norms are random, and how near gradients are depends on them


def in_eight_bits(parts):
    parts[0].int8 = True
    return parts


@with_amx
@BOTH
@pytest.mark.parametrize("images, inputs, outputs, side", SHAPES)
def test_whole_numbers_become_what_they_do_in_bf16_to_the_bit(images, inputs, outputs, side, pool):
    parts, x = layer(inputs, outputs), whole((images, inputs, side, side), seed=0)
    parts[0].weight.data = whole((outputs, inputs, 3, 3), seed=1)
    size = side // 2 if pool else side
    gradient = maps(images, outputs, size, size, seed=2)
    theirs = step(parts, x, gradient, pool=pool)
    ours = step(in_eight_bits(parts), x, gradient, pool=pool)
    for mine, other in zip(ours[:3], theirs[:3], strict=True):
        assert torch.equal(mine, other)
    # Gradients are rounded up or down, and of equal numbers the same was the largest.
    for mine, other in zip(ours[3:], theirs[3:], strict=True):
        assert (mine - other).norm() < NEAR * other.norm()
    for once, again in zip(ours, step(parts, x, gradient, pool=pool), strict=True):
        assert torch.equal(once, again)


@with_amx
@pytest.mark.parametrize("plus", [False, True], ids=["nothing", "plus another"])
def test_other_numbers_are_rounded_by_groups(plus):
    parts, x = layer(64, 64, groups=2), maps(40, 64, 7, 7)
    x[20:] *= 64  # whose steps are those of the other group, too, if it has none of its own
    gradient = maps(40, 64, 7, 7, seed=2)
    more = maps(40, 64, 7, 7, seed=3) if plus else None
    theirs = step(parts, x, gradient, pool=False, plus=more, fp32=True)
    ours = step(in_eight_bits(parts), x, gradient, pool=False, plus=more)
    close_to = [0.02, 0.02, 0.01, 0.05, *[0.01] * plus, 0.05, 0.03, 0.03]
    for mine, other, most in zip(ours, theirs, close_to, strict=True):
        assert 0 <= (mine - other).norm() < most * other.norm()
    first, its = ours[0][:20], theirs[0][:20]
    assert 0 < (first - its).norm() < 0.02 * its.norm()


@with_amx
def test_other_channels_are_in_int8_as_far_as_that_is_faster():
    assert in_int8(64, 32) == in_int8(128, 96) == (True, True)
    assert in_int8(32, 64) == in_int8(24, 32) == in_int8(96, 64) == (False, True)
    for inputs, outputs in ((24, 32), (32, 32), (40, 96), (96, 64), (64, 32), (64, 96)):
        for side, pool in ((6, False), (31, True), (3, False)):
            parts, x = layer(inputs, outputs), whole((9, inputs, side, side), seed=0)
            parts[0].weight.data = whole((outputs, inputs, 3, 3), seed=1)
            size = side // 2 if pool else side
            gradient = maps(9, outputs, size, size, seed=2)
            theirs = step(parts, x, gradient, pool=pool)
            ours = step(in_eight_bits(parts), x, gradient, pool=pool)
            assert torch.equal(ours[0], theirs[0])
            for mine, other in zip(ours[3:5], theirs[3:5], strict=True):
                assert 0 < (mine - other).norm() < NEAR * other.norm()


def rounded(x):
    """What `int8.combine` makes of `x` (pixels, 32) and of other numbers, and what that rounds."""
    from numba import njit

    from onecycle.jit import address
    from onecycle.model.compiled import int8

    combine = int8.combine

    @njit
    def run(x, y, factors, result):
        combine(address(x), address(y), 64, count, address(factors), address(result), 32)

    count = len(x)
    factors = np.zeros((3, 32), np.float32)
    factors[0], factors[1], factors[2] = 0.7, 0.01, 0.001
    y = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    result = torch.empty(x.shape, dtype=torch.int8)
    run(*as_arrays(x.bfloat16(), y), factors, *as_arrays(result))
    steps = x.bfloat16().float() * 0.7 + (y.float() * 0.01 + 0.001)
    return result.float(), steps


@with_amx
@pytest.mark.parametrize("size", [0.01, 0.2, 3, 30])
def test_a_gradient_is_rounded_up_or_down_and_right_on_average(size):
    found, steps = rounded(
        size * torch.randn(2**14, 32, generator=torch.Generator().manual_seed(0))
    )
    off, count = (found - steps).double(), found.numel()
    assert off.abs().max() < 1.001
    assert off.mean().abs() < 4 * off.std() / count**0.5
    # And so for large and small ones, whichever side of zero they are on.
    line = (off * steps).mean() / (off * steps).std()
    assert line.abs() < 4 / count**0.5


@with_amx
def test_a_gradient_that_is_too_large_for_its_steps_is_the_largest_there_is():
    assert rounded(torch.tensor([[1000.0, -1000.0] * 16]))[0].unique().tolist() == [-128, 127]


@with_amx
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_number_that_is_none_is_not_lost(bad):
    parts, gradient = in_eight_bits(layer(64, 64)), maps(4, 64, 6, 6, seed=2)
    x = maps(4, 64, 6, 6)
    x[1, 5, 2, 2] = bad
    found = step(parts, x, gradient, pool=False)
    assert not torch.isfinite(found[0]).all()
    gradient[1, 5, 2, 2] = bad
    found = step(parts, maps(4, 64, 6, 6), gradient, pool=False)
    assert not any(torch.isfinite(each).all() for each in found[3:])
    parts[0].weight.data[3, 5, 1, 1] = bad
    found = step(parts, maps(4, 64, 6, 6), maps(4, 64, 6, 6, seed=2), pool=False)
    assert not torch.isfinite(found[0]).all() and not torch.isfinite(found[3]).all()


@with_amx
def test_nothing_but_zeros_stays_zero():
    parts = in_eight_bits(layer(64, 64))
    parts[0].weight.data.zero_()
    found = step(parts, maps(4, 64, 6, 6) * 0, maps(4, 64, 6, 6), pool=False)
    assert all(torch.isfinite(each).all() for each in found)
    assert not found[3].any() and not found[4].any()


@with_amx
@BOTH
def test_predictions_are_in_bf16(pool):
    (conv, norm), x = layer(64, 64), maps(150, 64, 7, 7)
    conv.eval(), norm.eval()
    layers, found = [Layer(conv, nn.MaxPool2d(2) if pool else None, norm, "silu")], []
    for conv.int8 in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            found.append(in_turn(x, layers))
    assert torch.equal(*found)


def test_a_recipe_says_whether_a_network_learns_in_int8(tiny):
    fast = book.find("fast")
    for int8 in (False, True):
        spec = book.change(fast, [f"model.int8={str(int8).lower()}"]).model
        convs = [m for m in build(spec, tiny, 0).modules() if isinstance(m, Conv3x3)]
        assert convs and {conv.int8 for conv in convs} == {int8}
