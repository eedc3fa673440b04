"""The whitening stem: patches through it have no correlation left, and it comes from the data."""

import pytest
import torch
import torch.nn.functional as F

from onecycle.model.whitening import Whitening
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
