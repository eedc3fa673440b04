"""The whitening stem: patches through it have no correlation left, and it comes from the data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from onecycle.machine import has_tiles
from onecycle.model.layers import Normalize
from onecycle.model.whitening import Whitening, whiten_activate
from onecycle.training import state as states


def smooth(count=64, size=16):
    """Images whose neighbouring pixels and channels are alike, as in photographs."""
    noise = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    noise[:, 1] += noise[:, 0]
    return F.avg_pool2d(F.pad(noise, (1, 1, 1, 1), "reflect"), 3, 1)


@pytest.mark.parametrize(("kernel", "outputs"), [(2, 24), (4, 96)])
def test_patches_come_out_uncorrelated_with_variance_one(kernel, outputs):
    stem = Whitening(outputs, kernel)
    images = smooth()
    stem.learn(images)
    out = stem(images).detach()[:, : outputs // 2].transpose(0, 1).flatten(1)
    moments = out @ out.T / out.shape[1]
    off = moments - torch.diag(moments.diag())
    assert off.abs().max() < 0.02
    # What EPS takes away from the directions of least variance.
    assert moments.diag().min() > 0.5 and moments.diag().max() < 1.01


def test_every_filter_has_its_negative_and_the_first_ones_have_the_most_variance():
    stem = Whitening(8, 4)
    images = smooth()
    stem.learn(images)
    first, second = stem.weight.split(4)
    assert torch.equal(first, -second)
    norms = first.flatten(1).norm(dim=1)
    assert (norms.diff() > 0).all()  # the more variance, the less it is scaled up


def test_nothing_is_learnt_and_no_gradient_reaches_it():
    stem = Whitening(8, 4)
    assert not list(stem.parameters()) and "weight" in stem.state_dict()
    assert not stem(smooth(4)).requires_grad


def test_a_new_run_takes_its_filters_from_all_over_the_training_part(
    make_data, make_recipe, machine, monkeypatch
):
    recipe = make_recipe("model.name=speednet", "groups=[{match='*',optimizer='adamw'}]")
    data = make_data(16)
    first, second = (states.create(recipe, data, machine, seed) for seed in (0, 1))
    assert torch.equal(first.model.stem.weight, second.model.stem.weight)
    other = states.create(recipe, make_data(16, seed=5), machine, 0)
    assert not torch.equal(first.model.stem.weight, other.model.stem.weight)
    seen = []
    monkeypatch.setattr(states, "WHITENED_BY", 30)
    monkeypatch.setattr(Whitening, "learn", lambda self, images: seen.append(len(images)))
    states.create(recipe, data, machine, 0)
    assert seen == [24]  # every fourth of 96


@pytest.mark.skipif(not has_tiles(), reason="this CPU has no AMX")
@pytest.mark.parametrize("side", [5, 6, 8, 16, 31, 32])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("learnt", [True, False], ids=["learnt", "new"])
def test_at_once_it_is_what_it_is_one_after_another(side, dtype, learnt):
    normalize = Normalize(np.array([125.0, 122.0, 113.0]), np.array([62.0, 61.0, 66.0]))
    stem = Whitening(24, 2)
    if learnt:
        stem.learn(smooth())
    draw = torch.Generator().manual_seed(side)
    pixels = torch.randint(0, 256, (3, side, side + 1, 3), generator=draw).to(dtype)
    exact = whiten_activate(pixels, normalize, stem)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = whiten_activate(pixels, normalize, stem)
    assert ours.dtype == torch.bfloat16 and ours.shape == exact.shape
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert (ours.float() - exact).abs().max() <= 2**-8 * exact.abs().max()
    assert (ours.float() - exact).norm() < 2**-8 * exact.norm()
