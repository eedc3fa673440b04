"""Convolutions and Muon's steps by AMX's tiles, against torch's own in fp32."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from llvmlite import binding

from onecycle.model import convolution
from onecycle.model.build import NETWORKS
from onecycle.model.compiled import amx, newton_schulz
from onecycle.model.compiled.arrays import as_arrays
from onecycle.model.convolution import Conv3x3, has_tiles
from onecycle.recipe.schema import ModelSpec
from onecycle.training.muon import CUBIC, EPS, LINEAR, QUINTIC, Muon, orthogonal

with_amx = pytest.mark.skipif(not has_tiles(), reason="this CPU has no AMX")
ROUNDED = 2**-8  # of a number in bf16, at most


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def maps(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    made = torch.randn(shape, generator=draw).bfloat16().float()  # nothing is lost in bf16
    return made.to(memory_format=torch.channels_last)


def layer(inputs, outputs, *, bias=False):
    conv = Conv3x3(inputs, outputs, bias=bias).to(memory_format=torch.channels_last)
    conv.weight.data = maps(outputs, inputs, 3, 3, seed=1) / 8
    return conv.train()


def steps(conv, x, gradient, *, pool, seen=True):
    """The output and all gradients, in bf16."""
    x = x.clone().requires_grad_(seen)
    conv.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(x, pool=pool)
    y.backward(gradient.to(y.dtype))
    return y.detach().float(), x.grad, conv.weight.grad.clone()


def in_fp32(conv, x, gradient, *, pool):
    x, weight = x.clone().requires_grad_(), conv.weight.detach().clone().requires_grad_()
    y = F.conv2d(x, weight, conv.bias, padding=1)
    y = F.max_pool2d(y, 2) if pool else y
    y.backward(gradient)
    return y.detach(), x.grad, weight.grad


@with_amx
@pytest.mark.parametrize("pool", [False, True], ids=["as it is", "pooled"])
@pytest.mark.parametrize(
    "images, inputs, outputs, side",
    [
        (3, 24, 32, 31),
        (9, 32, 32, 15),
        (5, 32, 128, 16),
        (70, 64, 32, 8),
        (40, 96, 64, 7),
        (33, 40, 64, 5),
        (125, 32, 64, 3),
        (130, 64, 64, 2),
        (1, 16, 32, 33),
        (1, 32, 32, 4),
    ],
)
def test_a_convolution_and_its_gradients_are_torchs(images, inputs, outputs, side, pool):
    conv, x = layer(inputs, outputs, bias=side == 5), maps(images, inputs, side, side)
    size = side // 2 if pool else side
    gradient = maps(images, outputs, size, size, seed=2)
    ours = steps(conv, x, gradient, pool=pool)
    for mine, torchs in zip(ours, in_fp32(conv, x, gradient, pool=pool), strict=True):
        assert mine.shape == torchs.shape and mine.stride() == torchs.stride()
        assert (mine - torchs).norm() < ROUNDED * torchs.norm()
    assert torch.equal(ours[0], steps(conv, x, gradient, pool=pool)[0])


@with_amx
@pytest.mark.parametrize("images", [1, 2, 31, 32, 125])
def test_maps_of_one_pixel_meet_the_middle_of_the_weight_alone(images):
    conv, x = layer(64, 32), maps(images, 64, 1, 1)
    gradient = maps(images, 32, 1, 1, seed=2)
    ours = steps(conv, x, gradient, pool=False)
    for mine, torchs in zip(ours, in_fp32(conv, x, gradient, pool=False), strict=True):
        assert (mine - torchs).norm() < ROUNDED * torchs.norm()
    around = ours[2].clone()
    around[:, :, 1, 1] = 0
    assert not around.any()


@with_amx
def test_the_first_of_equal_pixels_counts_and_the_last_that_is_no_number():
    conv, x = layer(32, 32), torch.randint(0, 3, (6, 32, 8, 8)).float()
    torch.nn.init.dirac_(conv.weight)
    x = x.to(memory_format=torch.channels_last)
    gradient = maps(6, 32, 4, 4, seed=2)
    y, to_x, _ = steps(conv, x, gradient, pool=True)
    expected, to_expected, _ = in_fp32(conv, x, gradient, pool=True)
    assert torch.equal(y, expected) and torch.equal(to_x, to_expected)
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

    from onecycle.model.compiled import products
    from onecycle.model.compiled.jit import address

    pool = products.pool

    @njit
    def run(product, targets, y, which):
        pool(address(product), address(targets), address(y), address(which))

    targets = np.full(16, -1)
    targets[0], targets[2] = 0, 32
    y = torch.zeros(2, 32, dtype=torch.bfloat16)
    which = torch.zeros(2, 32, dtype=torch.uint8)
    run(product.numpy(), targets, *as_arrays(y, which))
    return y, which


@with_amx
def test_no_gradient_is_computed_for_what_asks_for_none():
    conv, x, gradient = layer(24, 32), maps(3, 24, 9, 9), maps(3, 32, 4, 4, seed=2)
    _, to_x, to_weight = steps(conv, x, gradient, pool=True, seen=False)
    assert to_x is None
    assert torch.equal(to_weight, steps(conv, x, gradient, pool=True)[2])


@with_amx
def test_a_weight_is_packed_once_a_step_and_anew_when_it_moved():
    conv, x = layer(32, 32), maps(2, 32, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = conv(x)
        packed = conv.once("packed", lambda: pytest.fail("it was packed"))
        again = conv(x)
        with torch.no_grad():
            conv.weight.mul_(2)
        assert torch.equal(conv(x), 2 * first) and torch.equal(first, again)
    assert conv.once("packed", lambda: pytest.fail("it wasn't packed anew")) is not packed


@pytest.mark.parametrize(
    "way",
    [
        "eval",
        "fp32",
        "two threads",
        "33 outputs",
        "3 inputs",
        "129 pixels",
        "no AMX",
        "as it must be",
    ],
)
def test_torch_computes_what_tiles_are_not_for(way, monkeypatch):
    monkeypatch.setattr(convolution, "has_tiles", lambda: way != "no AMX")
    conv = Conv3x3(3 if way == "3 inputs" else 32, 33 if way == "33 outputs" else 32)
    conv.train(way != "eval")
    torch.set_num_threads(2 if way == "two threads" else 1)
    side = 129 if way == "129 pixels" else 128
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way != "fp32"):
        assert conv.pools(torch.zeros(1, 1, 1, side)) == (way == "as it must be")


@with_amx
@pytest.mark.parametrize("name", ["speednet", "davidnet", "resnet18"])
def test_a_networks_gradients_are_as_near_to_fp32_as_without_tiles(name, monkeypatch):
    draw = np.random.default_rng(0)
    spec = ModelSpec(name=name, width=64 if name == "resnet18" else 32)
    model = NETWORKS[spec.name](spec, 10, 32, np.full(3, 120.0), np.full(3, 60.0)).train()
    model.to(memory_format=torch.channels_last)
    pixels = torch.from_numpy(draw.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    labels = torch.from_numpy(draw.integers(0, 10, 20))
    found = {}
    for way in ("fp32", "tiles", "torch"):
        monkeypatch.setattr(convolution, "has_tiles", lambda way=way: way == "tiles")
        one = copy.deepcopy(model)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way != "fp32"):
            logits = one(pixels)
        F.cross_entropy(logits, labels).backward()
        found[way] = torch.cat([p.grad.flatten() for p in one.parameters()])
    off = {way: float((found[way] - found["fp32"]).norm()) for way in ("tiles", "torch")}
    assert 0 < off["tiles"] < 1.1 * off["torch"]


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 7, 8, 16, 31, 32, 64, 224])
@pytest.mark.parametrize("images", [1, 2, 63, 125])
def test_images_side_by_side_have_a_place_each_with_zeros_between(images, side, pooled):
    abreast, pitch, run = amx.layout(images, side, side, pooled)
    assert 1 <= abreast <= images and run % 2 == 0 and abreast * pitch <= run
    assert pitch > side or side == 1
    assert abreast == 1 or (side * run <= amx.AT_ONCE and not (pooled and pitch % 2))


def test_there_are_tiles_only_where_the_cpu_the_system_and_the_compiler_have_them(monkeypatch):
    found = []
    for cpu, system, compiler in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1)):
        monkeypatch.setattr(convolution, "AMX", bool(cpu))
        monkeypatch.setattr(torch.cpu, "_init_amx", lambda system=system: bool(system))
        features = {"amx-bf16": bool(compiler), "avx512bf16": True}
        monkeypatch.setattr(binding, "get_host_cpu_features", lambda features=features: features)
        found.append(has_tiles.__wrapped__())
    assert found == [False, False, False, True]


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
    assert made == [(32, 288)] and moved == [False, True, True, True]


@with_amx
def test_what_muon_moves_by_tiles_is_packed_anew():
    conv, x = layer(32, 32), maps(2, 32, 4, 4)
    optimizer = Muon([conv.weight], 0.1, momentum=0.6, iterations=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = conv(x)
        before.sum().backward()
        optimizer.step()
        after = conv(x)
        conv.train()
        assert torch.equal(conv(x), after) and not torch.equal(after, before)
