"""The network: the references' parameter counts, any size and class count, and its batch norm."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from onecycle.model.build import build, parameter_count
from onecycle.model.layers import GhostBatchNorm, Statistics, group_sizes, norms
from onecycle.recipe.schema import ModelSpec


def spec(**fields):
    return ModelSpec(name="davidnet", **{"width": 4, **fields})


def some_images(count, size=16, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=draw)


def activations(count, channels=5, seed=0):
    """Channels with means and deviations of their own."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, channels, 4, 4, generator=draw)
    scale = torch.arange(1.0, channels + 1).view(-1, 1, 1)
    return (x * scale + 3 * scale).requires_grad_()


def set_groups(model, groups):
    for norm in norms(model):
        norm.groups = groups


def after_some_training(model):
    """`model` in eval mode, with running statistics other than the first ones."""
    model.train()(some_images(8, seed=9))
    Statistics(model).fold(8, dropped=torch.tensor(False))
    return model.eval()


def assert_close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("conv_bias", "fc_bias", "count"),
    [
        ("none", False, 6_573_120),
        ("none", True, 6_573_130),
        ("plain", True, 6_574_090),
        ("all", True, 6_575_370),
    ],
)
@pytest.mark.parametrize("head", ["max", "gap"])
def test_parameter_counts_are_the_references(make_data, conv_bias, fc_bias, count, head):
    fields = spec(width=64, conv_bias=conv_bias, fc_bias=fc_bias, head=head)
    with torch.device("meta"):
        model = build(fields, make_data(classes=10), seed=0)
    assert parameter_count(model) == count


@pytest.mark.parametrize("size", [16, 24, 32, 64, 128])
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("head", ["max", "gap"])
def test_logits_are_finite_for_any_size_and_classes(make_data, size, classes, head):
    model = build(spec(head=head), make_data(size, classes, train=4, test=1), seed=0)
    logits = model(some_images(2, size))
    assert logits.shape == (2, classes)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_uint8_and_float_pixels_agree(tiny):
    model = after_some_training(build(spec(), tiny, seed=0))
    assert torch.equal(model(some_images(4)), model(some_images(4).float()))


def test_heads_agree_at_32_pixels_and_only_there(make_data):
    for size, same in ((32, True), (64, False)):
        data = make_data(size, train=8, test=1)
        logits = [build(spec(head=head), data, 0)(some_images(4, size)) for head in ("max", "gap")]
        assert torch.equal(*logits) == same


def test_evaluation_does_not_depend_on_the_rest_of_the_batch(tiny):
    model = after_some_training(build(spec(dropout=0.5), tiny, seed=0))
    images = some_images(7)
    set_groups(model, 2)
    together = model(images)
    assert_close(together, torch.cat([model(image[None]) for image in images]))
    assert_close(together, model(images.flip(0)).flip(0))


def test_normalisation_is_of_the_training_part_alone(tiny):
    images = tiny.train.images().astype(np.float64)
    mean, std = images.mean(axis=(0, 1, 2)), images.std(axis=(0, 1, 2))
    test = torch.from_numpy(tiny.test.images())
    expected = torch.from_numpy((tiny.test.images() - mean) / std).permute(0, 3, 1, 2)
    normalized = build(spec(), tiny, seed=0).normalize(test)
    assert_close(normalized, expected.float())
    assert normalized.is_contiguous(memory_format=torch.channels_last)


def test_a_channel_that_never_changes_gives_finite_logits(make_data):
    data = make_data(train=8, test=1)
    data.train.pixels[..., 2] = 77
    assert torch.isfinite(build(spec(), data, seed=0)(torch.from_numpy(data.test.images()))).all()


def test_first_weights_depend_on_the_seed_only(tiny):
    torch.manual_seed(1)
    first = build(spec(), tiny, seed=3).state_dict()
    torch.manual_seed(2)
    again = build(spec(), tiny, seed=3).state_dict()
    other = build(spec(), tiny, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    assert not torch.equal(first["prep.conv.weight"], other["prep.conv.weight"])


def test_building_leaves_the_global_random_states_alone(tiny):
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    build(spec(dropout=0.5), tiny, seed=3)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_one_group_is_torchs_batch_norm():
    ours, torchs = GhostBatchNorm(5), nn.BatchNorm2d(5)
    for step in range(5):
        inputs = activations(6 + step, seed=step), activations(6 + step, seed=step)
        weights = activations(6 + step, seed=100 + step).detach()
        outputs = ours(inputs[0]), torchs(inputs[1])
        for output in outputs:
            (output * weights).sum().backward()
        Statistics(ours).fold(len(weights), dropped=torch.tensor(False))
        assert_close(*outputs)
        assert_close(inputs[0].grad, inputs[1].grad)
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, torchs.get_parameter(name).grad)
    assert_close(ours.running_mean, torchs.running_mean)
    assert_close(ours.running_var, torchs.running_var)
    x = activations(3, seed=99)
    assert_close(ours.eval()(x), torchs.eval()(x))


@pytest.mark.parametrize("groups", [1, 2, 3, 10])
def test_groups_are_normalised_apart_and_their_statistics_averaged_over_images(groups):
    norm = GhostBatchNorm(5)
    norm.groups = groups
    x = activations(10).detach()
    parts = x.split(group_sizes(10, groups))
    expected = [nn.functional.batch_norm(part, None, None, training=True) for part in parts]
    assert_close(norm(x), torch.cat(expected))
    Statistics(norm).fold(10, dropped=torch.tensor(False))
    mean = sum(len(part) * part.mean((0, 2, 3)) for part in parts) / 10
    variance = sum(len(part) * part.var((0, 2, 3)) for part in parts) / 10
    assert_close(norm.running_mean, 0.1 * mean)
    assert_close(norm.running_var, 0.9 + 0.1 * variance)


def test_running_statistics_move_in_fold_only_and_once():
    norm = GhostBatchNorm(5)
    norm(activations(4))
    assert torch.equal(norm.running_mean, torch.zeros(5))
    Statistics(norm).fold(4, dropped=torch.tensor(False))
    moved = norm.running_mean.clone()
    norm(activations(4))
    Statistics(norm).fold(4, dropped=torch.tensor(False))
    assert_close(norm.running_mean, 1.9 * moved)
    norm.eval()(activations(4, seed=1))
    assert_close(norm.running_mean, 1.9 * moved)


def gradients_and_statistics(model, images, cuts):
    """Logits, gradients and running statistics of a step computed in `cuts` (images, groups)."""
    logits = []
    start = 0
    for count, groups in cuts:
        set_groups(model, groups)
        logits.append(model(images[start : start + count]))
        logits[-1].square().sum().backward()
        start += count
    Statistics(model).fold(start, dropped=torch.tensor(False))
    gradients = [parameter.grad for parameter in model.parameters()]
    return [torch.cat(logits), *gradients, *model.state_dict().values()]


@pytest.mark.parametrize("cuts", [[(4, 1), (3, 1), (3, 1)], [(7, 2), (3, 1)]])
def test_groups_computed_together_or_one_at_a_time_are_the_same(tiny, cuts):
    images = some_images(10)
    together = gradients_and_statistics(build(spec(), tiny, 0).train(), images, [(10, 3)])
    apart = gradients_and_statistics(build(spec(), tiny, 0).train(), images, cuts)
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.detach().abs().max()))


@pytest.mark.parametrize(("images", "groups"), [(10, 3), (512, 8), (7, 7), (5, 1), (65, 2)])
def test_group_sizes_are_as_equal_as_can_be(images, groups):
    sizes = group_sizes(images, groups)
    assert sum(sizes) == images
    assert len(sizes) == groups
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
