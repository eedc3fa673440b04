"""Layers by tiles one after another, a group of images after another, and where their maps are."""

import copy

import pytest
import torch
from tile_cases import ROUNDED, close, layer, maps, with_amx
from torch import nn

from onecycle.model.compiled import plan
from onecycle.model.layers import Layer, in_turn


def network():
    """A layer that halves the maps, two more, of which the second adds the first's, and a last."""
    parts = [layer(24, 32), layer(32, 32, bias=True), layer(32, 32), layer(32, 64)]
    made = [Layer(conv, None, norm, "silu") for conv, norm in parts]
    made[0], made[2] = made[0]._replace(pool=nn.MaxPool2d(2)), made[2]._replace(plus=1)
    return made


def one_by_one(x, layers, plus):
    first = in_turn(x, layers[:1])
    second = in_turn(first, layers[1:2])
    third = in_turn(second, [layers[2]._replace(plus=None)], first)
    return in_turn(third, layers[3:], plus)


@with_amx
@pytest.mark.parametrize("plus", [False, True], ids=["nothing", "plus another"])
@pytest.mark.parametrize("groups", [1, 3])
def test_layers_in_turn_are_torchs(groups, plus):
    x, gradient, kept, found = maps(25, 24, 9, 9), maps(25, 64, 4, 4, seed=2), network(), []
    for way in (in_turn, one_by_one, "fp32"):
        layers, here = copy.deepcopy(kept), x.clone().requires_grad_()
        for each in layers:
            each.norm.groups = groups
        more = maps(25, 64, 4, 4, seed=3).requires_grad_() if plus else None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way != "fp32"):
            y = (in_turn if way == "fp32" else way)(here, layers, more)
        y.backward(gradient.to(y.dtype))
        statistics = [sums for each in layers for sums in each.norm.step]
        weights = [parameter for each in layers for parameter in (each.conv.weight, each.norm.bias)]
        learnt = [parameter.grad for parameter in weights]
        added = [more.grad] if plus else []
        found.append([y.detach().float(), here.grad, *statistics, *learnt, *added])
    tiles, apart, fp32 = found
    close(tiles, fp32, 6 * ROUNDED)
    close(tiles, apart, 2 * ROUNDED)
    assert torch.equal(tiles[0], apart[0])


@with_amx
def test_predictions_in_turn_are_those_one_after_another():
    layers, x = network(), maps(150, 24, 9, 9)  # more than go together
    for each in layers:
        each.conv.eval(), each.norm.eval()
        each.norm.running_mean.normal_(), each.norm.running_var.uniform_(0.5, 2)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(in_turn(x, layers), one_by_one(x, layers, None))


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 7, 8, 16, 31, 32, 64, 224])
@pytest.mark.parametrize("images", [1, 2, 63, 125])
def test_a_tile_is_a_pixel_of_many_images_or_a_part_of_a_row(images, side, pooled):
    abreast, run = plan.layout(images, side, side, pooled)
    if abreast % 32 == 0:
        assert run == side * abreast and abreast < images + 32
    else:
        assert abreast in (2, 4, 8, 16) and run == abreast * (side + (side > 1))
        assert not pooled or abreast < 16  # a tile has neighbours
    assert abreast == 2 or side * run <= plan.AT_ONCE


def test_small_maps_of_many_images_are_tiles_of_a_pixel():
    assert [plan.layout(125, side, side, False)[0] for side in (3, 7, 15)] == [128, 32, 8]
    assert plan.layout(5, 7, 7, False)[0] < 32  # most of a tile would be no image
