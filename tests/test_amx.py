"""Layers of a training step by AMX's tiles, against torch's own in fp32."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tile_cases import ROUNDED, close, layer, maps, with_amx
from torch import nn

from onecycle.model import tiled
from onecycle.model.build import NETWORKS
from onecycle.model.compiled.arrays import as_arrays
from onecycle.model.convolution import Conv3x3
from onecycle.model.layers import ACTIVATIONS, EPS, Layer, in_turn
from onecycle.recipe.schema import ModelSpec


def step(parts, x, gradient, *, pool, activation="silu", plus=None, fp32=False):
    """The output, the statistics and all gradients, in bf16; `plus` may be a map or "itself"."""
    conv, norm = copy.deepcopy(parts)
    x = x.clone().requires_grad_()
    own = 0 if isinstance(plus, str) else None
    more = None if plus is None or own == 0 else plus.clone().requires_grad_()
    halve = nn.MaxPool2d(2) if pool else None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not fp32):
        y = in_turn(x, [Layer(conv, halve, norm, activation, own)], more)
    y.backward(gradient.to(y.dtype))
    learnt = [p.grad for p in (conv.weight, *norm.parameters())]
    given = [x.grad] if more is None else [x.grad, more.grad]
    return [y.detach().float(), *norm.step, *given, *learnt]


@with_amx
@pytest.mark.parametrize("pool", [False, True], ids=["as it is", "pooled"])
@pytest.mark.parametrize(
    "images, inputs, outputs, side",
    [
        (3, 24, 32, 31),
        (9, 32, 32, 15),
        (5, 32, 128, 16),
        (70, 64, 32, 8),
        (100, 32, 64, 7),
        (40, 96, 64, 7),
        (33, 40, 64, 5),
        (125, 32, 64, 3),
        (130, 64, 64, 2),
        (1, 16, 32, 33),
        (1, 32, 32, 4),
        (3, 256, 288, 4),
    ],
)
def test_a_layer_and_its_gradients_are_torchs(images, inputs, outputs, side, pool):
    parts, x = layer(inputs, outputs), maps(images, inputs, side, side)
    size = side // 2 if pool else side
    gradient = maps(images, outputs, size, size, seed=2)
    ours = step(parts, x, gradient, pool=pool)
    close(ours, step(parts, x, gradient, pool=pool, fp32=True))
    for once, again in zip(ours, step(parts, x, gradient, pool=pool), strict=True):
        assert torch.equal(once, again)


@with_amx
@pytest.mark.parametrize("plus", ["nothing", "itself", "another"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_sum_is_torchs(activation, plus):
    parts, x, gradient = layer(64, 64), maps(20, 64, 6, 6), maps(20, 64, 6, 6, seed=2)
    more = {"nothing": None, "itself": "itself", "another": maps(20, 64, 6, 6, seed=3)}[plus]
    ways = {"pool": False, "activation": activation, "plus": more}
    ours, theirs = (step(parts, x, gradient, **ways, fp32=fp32) for fp32 in (False, True))
    # Near zero the slope of ReLU is another one after rounding.
    close(ours, theirs, 0.1 if activation == "relu" else 3 * ROUNDED)


@with_amx
@pytest.mark.parametrize("groups", [2, 3])
def test_groups_are_normalized_each_by_itself(groups):
    parts, x = layer(32, 64, groups=groups), maps(25, 32, 9, 9) + 1
    x *= torch.linspace(0.5, 2, 25).view(-1, 1, 1, 1)
    gradient, plus = maps(25, 64, 4, 4, seed=2), maps(25, 64, 4, 4, seed=3)
    ours, theirs = (
        step(parts, x.bfloat16().float(), gradient, pool=True, plus=plus, fp32=fp32)
        for fp32 in (False, True)
    )
    close(ours, theirs)


@with_amx
def test_of_a_bias_before_the_norm_nothing_is_left_but_the_mean():
    parts, x, gradient = layer(32, 32, bias=True), maps(9, 32, 6, 6), maps(9, 32, 3, 3, seed=2)
    parts[0].bias.data.normal_(0, 3)
    ours, theirs = (step(parts, x, gradient, pool=True, fp32=fp32) for fp32 in (False, True))
    close(ours, theirs)
    conv, norm = parts
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_turn(x, [Layer(conv, None, norm, "silu")]).float().sum().backward()
    assert torch.equal(conv.bias.grad, torch.zeros(32))


@with_amx
@pytest.mark.parametrize("images", [31, 32, 125])
def test_maps_of_one_pixel_meet_the_middle_of_the_weight_alone(images):
    parts, x, gradient = layer(64, 32), maps(images, 64, 1, 1), maps(images, 32, 1, 1, seed=2)
    ours = step(parts, x, gradient, pool=False)
    close(ours, step(parts, x, gradient, pool=False, fp32=True))
    around = ours[4].clone()
    around[:, :, 1, 1] = 0
    assert not around.any()


@with_amx
def test_the_first_of_equal_pixels_counts_and_the_last_that_is_no_number():
    parts, x = layer(32, 32), torch.randint(0, 3, (6, 32, 8, 8)).float()
    torch.nn.init.dirac_(parts[0].weight)
    x = x.to(memory_format=torch.channels_last)
    gradient = maps(6, 32, 4, 4, seed=2)
    close(step(parts, x, gradient, pool=True), step(parts, x, gradient, pool=True, fp32=True))
    images, channels = torch.arange(2), torch.zeros(2, dtype=torch.int64)
    numbers = torch.tensor([[1.0, torch.nan, 2, 3], [torch.nan, 4, torch.nan, 1]])
    product = torch.zeros(32, 32)
    product[:2, 0], product[16:18, 0] = numbers[0, :2], numbers[0, 2:]
    product[2:4, 0], product[18:20, 0] = numbers[1, :2], numbers[1, 2:]
    maximum, places = pooled(product)
    assert torch.isnan(maximum[images, channels]).all()
    assert places[images, channels].tolist() == [1, 2]


def pooled(product):
    """What the first two places of two tiles of 32 channels are pooled to, and where it was."""
    from numba import njit

    from onecycle.jit import address
    from onecycle.model.compiled import products

    put = products.put

    @njit
    def run(product, targets, y, which):
        to, other = (address(targets), address(y), 0), (address(targets) + 128, address(y), 0)
        for unit in range(8):
            put((address(product), beside, below, to, other, address(which), 0), unit)

    beside, below = 32 * 4, 16 * 32 * 4
    targets = np.full(32, -1)
    targets[0], targets[2] = 0, 32
    y = torch.zeros(2, 32, dtype=torch.bfloat16)
    which = torch.zeros(2, 32, dtype=torch.uint8)
    run(product.numpy(), targets, *as_arrays(y, which))
    return y, which


@with_amx
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_number_that_is_none_is_not_lost(activation, bad):
    parts, x, gradient = layer(32, 32), maps(4, 32, 6, 6), maps(4, 32, 6, 6, seed=2)
    x[1, 5, 2, 2] = bad
    found = step(parts, x, gradient, pool=False, activation=activation)
    assert not torch.isfinite(found[0]).all() and not torch.isfinite(found[2]).all()
    x = maps(4, 32, 6, 6)
    y = step(parts, x, gradient, pool=False, activation=activation)[0]
    gradient[tuple((y > 0).nonzero()[0])] = bad  # where ReLU lets it through
    found = step(parts, x, gradient, pool=False, activation=activation)
    assert not any(torch.isfinite(each).all() for each in found[3:])


@with_amx
def test_no_gradient_is_computed_for_what_asks_for_none():
    (conv, norm), x = layer(24, 32), maps(3, 24, 9, 9)
    told = tiled.TiledLayer(conv, True, norm.weight, norm.bias, "silu", None)
    y, found = tiled.in_turn(x.bfloat16(), [3], [told], EPS, None)
    y.float().sum().backward()
    assert x.grad is None and not found.requires_grad and conv.weight.grad.norm() > 0


@with_amx
@pytest.mark.parametrize("pool", [False, True], ids=["as it is", "pooled"])
def test_predictions_are_normalized_by_the_running_statistics(pool):
    (conv, norm), x = layer(40, 64, bias=True), maps(150, 40, 7, 7)  # more than go together
    norm.running_mean, norm.running_var = torch.randn(64), torch.rand(64) + 0.5
    conv.eval(), norm.eval()
    layers = [Layer(conv, nn.MaxPool2d(2) if pool else None, norm, "silu")]
    plus = maps(150, 64, 3 if pool else 7, 3 if pool else 7, seed=3)
    with torch.inference_mode():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = in_turn(x, layers, plus)
        theirs = in_turn(x, layers, plus)
    assert ours.dtype == torch.bfloat16 and theirs.dtype == torch.float32
    close([ours.float()], [theirs])


@with_amx
def test_a_weight_is_packed_once_a_step_and_anew_when_it_moved():
    (conv, norm), x = layer(32, 32), maps(2, 32, 4, 4)

    def output():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return in_turn(x, [Layer(conv, None, norm, "none")])

    first = output()
    packed = conv.once("packed", lambda: pytest.fail("it was packed"))
    assert torch.equal(output(), first)
    with torch.no_grad():
        conv.weight[0].mul_(-1)
    assert not torch.equal(output(), first)
    assert conv.once("packed", lambda: pytest.fail("it wasn't packed anew")) is not packed


@pytest.mark.parametrize(
    "way",
    ["fp32", "two threads", "33 outputs", "3 inputs", "129 pixels", "one number", "no AMX", "fits"],
)
def test_torch_computes_what_tiles_are_not_for(way, monkeypatch):
    monkeypatch.setattr(tiled, "has_tiles", lambda: way != "no AMX")
    conv = Conv3x3(3 if way == "3 inputs" else 32, 33 if way == "33 outputs" else 32)
    torch.set_num_threads(2 if way == "two threads" else 1)
    x = torch.zeros(1, 1, 1, {"129 pixels": 129, "one number": 1}.get(way, 128))
    told = tiled.TiledLayer(conv, False, torch.ones(32), torch.zeros(32), "silu", None)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way != "fp32"):
        assert (tiled.here(x) and tiled.possible(x, [1], [told])) == (way == "fits")
    too_small = [told._replace(pool=True), told] if way == "fits" else [told]
    assert not tiled.possible(x[..., :2], [1], too_small) or way != "fits"


@with_amx
@pytest.mark.parametrize("name", ["speednet", "davidnet", "resnet18"])
def test_a_networks_gradients_are_as_near_to_fp32_as_without_tiles(name, monkeypatch):
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    spec = ModelSpec(name=name, width=64 if name == "resnet18" else 32)
    model = NETWORKS[spec.name](spec, 10, 32, np.full(3, 120.0), np.full(3, 60.0)).train()
    model.to(memory_format=torch.channels_last)
    pixels = torch.from_numpy(draw.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    labels = torch.from_numpy(draw.integers(0, 10, 20))
    found = {}
    for way in ("fp32", "tiles", "torch"):
        monkeypatch.setattr(tiled, "has_tiles", lambda way=way: way == "tiles")
        one = copy.deepcopy(model)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way != "fp32"):
            logits = one(pixels)
        F.cross_entropy(logits, labels).backward()
        found[way] = torch.cat([p.grad.flatten() for p in one.parameters()])
    off = {way: float((found[way] - found["fp32"]).norm()) for way in ("tiles", "torch")}
    assert 0 < off["tiles"] < 1.1 * off["torch"]
