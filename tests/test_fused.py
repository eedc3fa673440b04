"""Pooling, batch norm and activation in one go against torch's own operations."""

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from onecycle import jit
from onecycle.model import fused
from onecycle.model.build import build
from onecycle.model.compiled import passes
from onecycle.model.layers import ACTIVATIONS, EPS, GhostBatchNorm, Statistics
from onecycle.recipe.schema import ModelSpec

# Of the largest number, what sums in another order and a rounding more or less come to.
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def by_torch(x, weight, bias, eps, *, pool, activation):
    x = F.max_pool2d(x, 2) if pool else x
    mean, var = torch.zeros_like(weight), torch.ones_like(weight)
    y = F.batch_norm(x, mean, var, weight, bias, True, 1.0, eps)
    return ACTIVATIONS[activation](y), mean, var


def results(way, x, weight, bias, *, pool, activation):
    """Outputs and gradients of a way to compute it."""
    x, weight, bias = (t.clone().requires_grad_() for t in (x, weight, bias))
    y, mean, var = way(x, weight, bias, EPS, pool=pool, activation=activation)
    draw = torch.Generator().manual_seed(1)
    (y * torch.randn(y.shape, generator=draw).to(y.dtype)).sum().backward()
    return {"y": y, "mean": mean, "var": var, "x": x.grad, "weight": weight.grad, "bias": bias.grad}


def inputs(shape, dtype, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=draw).to(dtype).to(memory_format=torch.channels_last)
    return x, torch.rand(shape[1], generator=draw) + 0.5, torch.randn(shape[1], generator=draw)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("pool", [False, True], ids=["as it is", "pooled"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(3, 5, 7, 6), (2, 1, 2, 5), (40, 33, 9, 9), (1, 64, 4, 4)])
def test_it_is_what_torch_computes(shape, activation, pool, dtype):
    given = inputs(shape, dtype)
    ours = results(fused.pool_norm_activate, *given, pool=pool, activation=activation)
    torchs = results(by_torch, *given, pool=pool, activation=activation)
    for name, theirs in torchs.items():
        assert ours[name].dtype is theirs.dtype and ours[name].shape == theirs.shape, name
        most = CLOSE[dtype] * max(1, float(theirs.detach().abs().max()))
        assert float((ours[name] - theirs).detach().abs().max()) < most, name
    assert ours["y"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_of_equal_pixels_the_first_is_the_largest_as_torchs(dtype):
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (8, 16, 6, 6), generator=draw).to(dtype)
    ours, torchs = (
        results(way, x, torch.ones(16), torch.zeros(16), pool=True, activation="none")["x"]
        for way in (fused.pool_norm_activate, by_torch)
    )
    assert torch.equal(ours == 0, torchs == 0)


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_number_that_is_none_is_not_lost(activation, bad, place):
    x, weight, bias = inputs((2, 3, 4, 4), torch.bfloat16)
    x[0, 1, place[0], place[1]] = bad
    found = results(fused.pool_norm_activate, x, weight, bias, pool=True, activation=activation)
    assert not found["y"][:, 1].isfinite().any() and not found["x"][:, 1].isfinite().all()
    for name in ("y", "x"):
        assert found[name][:, [0, 2]].isfinite().all(), name


def test_the_sigmoid_is_that_of_fp64():
    @numba.njit
    def sigmoids(x):
        y = np.empty_like(x)
        for i in range(len(x)):
            y[i] = passes.sigmoid(x[i])
        return y

    x = np.linspace(-80, 80, 200_001, dtype=np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert np.abs(sigmoids(x) / exact - 1).max() < 1e-5
    near = np.abs(x) < 10
    assert np.abs(sigmoids(x) / exact - 1)[near].max() < 1e-6
    ends = np.array([-1e30, -200, 200, 1e30], np.float32)
    np.testing.assert_allclose(sigmoids(ends), [0, 0, 1, 1], atol=1e-37)


def test_what_it_cannot_take_is_left_to_torch():
    x = torch.ones(2, 3, 2, 2)
    assert fused.possible(x, pool=True)
    assert not fused.possible(x.double(), pool=True)
    assert not fused.possible(x.to("meta"), pool=True)
    assert not fused.possible(x[:1], pool=True)  # one number a channel
    assert fused.possible(x[:1], pool=False)
    torch.set_num_threads(2)
    assert not fused.possible(x, pool=True)


@pytest.mark.parametrize("groups", [1, 3])
def test_a_norm_has_the_same_statistics_on_one_thread_and_on_two(groups):
    x = inputs((10, 5, 6, 6), torch.float32)[0]
    outputs, norms = [], []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        norm = GhostBatchNorm(5)
        norm.groups = groups
        outputs.append(norm.train_on(x, pool=True, activation="silu"))
        Statistics(norm).fold(10, dropped=torch.tensor(False))
        norms.append(norm)
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(norms[0].running_mean, norms[1].running_mean)
    torch.testing.assert_close(norms[0].running_var, norms[1].running_var)


@pytest.mark.parametrize("name", ["davidnet", "speednet", "resnet18", "dilated"])
def test_a_networks_first_step_is_the_same_with_it_and_without(name, tiny, monkeypatch):
    spec = ModelSpec(name=name, width=8)
    images = torch.from_numpy(tiny.train.pixels[:16]).contiguous()
    found = []
    for with_it in (True, False):
        if not with_it:
            monkeypatch.setattr(fused, "possible", lambda x, pool: False)
        model = build(spec, tiny, seed=0).train().to(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(images), torch.arange(16) % 3)
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(found[0][0], found[1][0])
    ours, torchs = (torch.cat([gradient.flatten() for gradient in each[1:]]) for each in found)
    # Of pixels that are equal but for the last bits, a later pool may choose another one.
    assert (ours - torchs).norm() < 0.05 * torchs.norm()


def test_without_a_place_for_compiled_code_it_is_compiled_anew(monkeypatch):
    njit = numba.njit

    def no_place(function, *, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(function, **options)

    monkeypatch.setattr(jit, "njit", no_place)
    assert jit.compiled(lambda x: x + 1)(1) == 2
