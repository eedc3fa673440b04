"""Steps of Muon by AMX's tiles, against torch's own in fp32."""

import pytest
import torch

from onecycle.machine import has_tiles
from onecycle.model.compiled import newton_schulz
from onecycle.model.convolution import Conv3x3
from onecycle.model.layers import GhostBatchNorm, Layer, in_turn
from onecycle.training.muon import CUBIC, EPS, LINEAR, QUINTIC, Muon, orthogonal

with_amx = pytest.mark.skipif(not has_tiles(), reason="this CPU has no AMX")


@with_amx
@pytest.mark.parametrize("rows, columns", [(32, 45), (32, 216), (64, 288), (128, 1152), (256, 576)])
def test_a_step_of_muon_by_tiles_is_near_to_that_in_fp32(rows, columns):
    draw = torch.Generator().manual_seed(0)
    place, push, speed = torch.randn(3, rows, columns, generator=draw).unbind()
    at, velocity = place.clone(), speed.clone()
    newton_schulz.move(at, push.clone(), velocity, 0.6, 0.1, (LINEAR, CUBIC, QUINTIC), 3, EPS)
    expected = push + 0.6 * speed
    torch.testing.assert_close(velocity, expected)
    update = orthogonal(push + 0.6 * expected, 3, -0.1)
    scaled = place * (rows**0.5 / place.norm())
    assert ((at - scaled) - update).norm() < 0.03 * update.norm()


@with_amx
def test_muon_moves_by_tiles_where_products_are_in_bf16(monkeypatch):
    moved, made = [], []
    monkeypatch.setattr(newton_schulz, "move", lambda *given: made.append(given[0].shape))
    for shape, memory in (
        ((32, 32, 3, 3), torch.channels_last),
        ((32, 32, 3, 3), torch.contiguous_format),
        ((33, 32, 3, 3), torch.channels_last),
        ((64, 4, 3, 3), torch.channels_last),
    ):
        weight = torch.nn.Parameter(torch.randn(shape).to(memory_format=memory))
        weight.grad = torch.randn_like(weight)
        optimizer = Muon([weight], 0.1, momentum=0.6, iterations=3)
        before = weight.detach().clone()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            optimizer.step()
        moved.append(not torch.equal(weight, before))  # by torch: what stands in moves nothing
        optimizer.step()  # in fp32
    assert made == [(32, 32, 3, 3)] and moved == [False, True, True, True]


@with_amx
def test_what_muon_moves_by_tiles_is_packed_anew():
    conv, norm, x = Conv3x3(32, 32).train(), GhostBatchNorm(32).train(), torch.randn(2, 32, 4, 4)
    conv.to(memory_format=torch.channels_last)
    layers = [Layer(conv, None, norm, "silu")]
    optimizer = Muon([conv.weight], 0.1, momentum=0.6, iterations=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = in_turn(x, layers)
        before.sum().backward()
        optimizer.step()
        after = in_turn(x, layers)
        conv.train()
        assert torch.equal(in_turn(x, layers), after)
        assert not torch.equal(after, before)
