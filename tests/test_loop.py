"""The loop: each step is plain PyTorch's, and its randomness is the seed's alone."""

import random
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from long_run import digest
from plain_torch import with_torch_batch_norm

from onecycle import machine as machines
from onecycle.datasets import augment
from onecycle.errors import RecipeError
from onecycle.machine import Machine
from onecycle.model import fused
from onecycle.model.build import build
from onecycle.model.layers import group_sizes
from onecycle.ranks import ALONE, Ranks
from onecycle.training.loop import check_groups, fit, pieces, share
from onecycle.training.schedule import timetable
from onecycle.training.state import create

ALL_PARAMETERS = 'groups=[{match="*",optimizer="%s",weight_decay=0.05}]'
SGD = ("optimizers={sgd={momentum=0.9,nesterov=true}}", ALL_PARAMETERS % "sgd")
ADAM = ("optimizers={adam={momentum=0.8,beta2=0.9,eps=1e-3}}", ALL_PARAMETERS % "adam")
ADAMW = ("optimizers={adamw={momentum=0.8,beta2=0.9,eps=1e-3}}", ALL_PARAMETERS % "adamw")
PLAIN_SGD = ("optimizers={sgd={momentum=0}}", 'groups=[{match="*",optimizer="sgd"}]')


def torch_optimizer(kind, parameters):
    if kind is SGD:
        return torch.optim.SGD(parameters, momentum=0.9, nesterov=True, weight_decay=0.05)
    maker = torch.optim.Adam if kind is ADAM else torch.optim.AdamW
    return maker(parameters, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.05)


def batches(recipe, data, seed):
    """(images, labels) of each step of the first epoch, augmented."""
    plan = augment.draw(recipe.augment, len(data.train), data.image_size, seed, epoch=0)
    pixels, rows = torch.from_numpy(data.train.pixels), torch.from_numpy(data.train.rows)
    fill = torch.from_numpy(data.mean.round().astype(np.uint8))
    for batch in plan.order.split(recipe.batch_size):
        images = augment.apply(recipe.augment, pixels, rows[batch], batch, plan, fill)
        yield images, torch.from_numpy(data.train.labels)[batch]


def assert_same_model(ours, plain):
    theirs = plain.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", [SGD, ADAM, ADAMW], ids=["sgd", "adam", "adamw"])
@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_steps_equal_plain_pytorch(tiny, make_recipe, machine, kind, smoothing, monkeypatch):
    # Sums in another order would turn a ReLU on or off, sooner or later; see test_fused.py.
    monkeypatch.setattr(fused, "possible", lambda x, pool: False)
    recipe = make_recipe(
        *kind, f"label_smoothing={smoothing}", "ghost_batch=0", "model.conv_bias=all", "epochs=1"
    )
    state = create(recipe, tiny, machine, seed=4)
    plain = with_torch_batch_norm(build(recipe.model, tiny, seed=4))
    optimizer = torch_optimizer(kind, plain.parameters())
    table = timetable(recipe, len(tiny.train))
    steps = list(fit(state, tiny, recipe, machine, seed=4))
    assert len(steps) == 3
    for step, (images, labels) in zip(steps, batches(recipe, tiny, seed=4), strict=True):
        logits = plain(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        loss.backward()
        optimizer.param_groups[0]["lr"] = table.lr(step.step - 1)
        optimizer.step()
        optimizer.zero_grad()
        torch.testing.assert_close(step.loss, loss.detach(), rtol=1e-5, atol=1e-6)
        assert step.correct == (logits.argmax(1) == labels).sum()
        assert (step.images, step.epoch, step.lr) == (32, 0, table.lr(step.step - 1))
    assert_same_model(state.model, plain)


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_loss_is_a_sum_over_the_batch_with_uneven_groups(
    tiny, make_recipe, machine, monkeypatch, at_once
):
    """A batch of 10 in ghost groups of 4, 3 and 3: each image counts the same."""
    monkeypatch.setattr(machines, "PIECE_ON_CPU", at_once)
    rates = ("schedule.lr_start=0.1", "schedule.lr_peak=0.1")
    recipe = make_recipe(*PLAIN_SGD, "batch_size=10", "ghost_batch=4", *rates)
    state = create(recipe, tiny, machine, seed=0)
    plain = with_torch_batch_norm(build(recipe.model, tiny, seed=0))
    step = next(fit(state, tiny, recipe, machine, seed=0))
    images, labels = next(batches(recipe, tiny, seed=0))
    loss = 0
    for group, answers in zip(images.split([4, 3, 3]), labels.split([4, 3, 3]), strict=True):
        loss = loss + F.cross_entropy(plain(group), answers, reduction="sum") / 10
    loss.backward()
    torch.testing.assert_close(step.loss, loss.detach())
    trained = dict(state.model.named_parameters())
    for name, parameter in plain.named_parameters():
        expected = parameter.detach() - 0.1 * parameter.grad
        torch.testing.assert_close(trained[name].detach(), expected, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("ghost_batch", [0, 1, 4, 7, 64])
@pytest.mark.parametrize("at_once", [1, 5, 64, 1000])
def test_pieces_hold_whole_groups_whose_sizes_the_machine_does_not_change(ghost_batch, at_once):
    for images in range(1, 140):
        sizes = share(images, ghost_batch, ALONE).sizes
        assert sum(sizes) == images and max(sizes) - min(sizes) <= 1
        assert max(sizes) <= (ghost_batch or images)
        assert len(sizes) == (-(-images // ghost_batch) if ghost_batch else 1)
        cut = pieces(sizes, at_once)
        assert [size for piece in cut for size in group_sizes(*piece)] == sizes
        assert all(count <= at_once or groups == 1 for count, groups in cut)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_share_a_batch_in_whole_groups_and_in_order(world):
    for images in (1, 5, 64, 336, 512):
        whole = share(images, 64, ALONE)
        parts = [share(images, 64, Ranks(rank, world)) for rank in range(world)]
        assert [size for part in parts for size in part.sizes] == whole.sizes
        seen = [i for part in parts for i in range(images)[part.images]]
        assert seen == list(range(images))
        counts = [len(part.sizes) for part in parts]
        assert max(counts) - min(counts) <= 1
        assert [part.first_group for part in parts] == [sum(counts[:i]) for i in range(world)]


def test_more_processes_than_groups_are_refused_with_what_to_set(make_recipe):
    with pytest.raises(RecipeError, match=r"3 processes.*batch has 1: --set ghost_batch=10"):
        check_groups(make_recipe("ghost_batch=0"), Ranks(0, 3))
    check_groups(make_recipe(), Ranks(0, 4))


def test_a_loss_scale_changes_nothing_in_fp32(tiny, make_recipe, machine, monkeypatch):
    recipe = make_recipe(*ADAM)
    digests = []
    for scale in (1.0, 1024.0):
        monkeypatch.setattr(Machine, "loss_scale", scale)
        state = create(recipe, tiny, machine, seed=0)
        losses = [float(step.loss) for step in fit(state, tiny, recipe, machine, seed=0)]
        digests.append((losses, digest(state)))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("epochs", "drop_last", "images"),
    [
        (2, "false", [40, 40, 16] * 2),
        (1.4, "false", [40, 40, 16, 40]),
        (0.7, "false", [40, 40]),
        (2, "true", [40, 40] * 2),
        (1.5, "true", [40, 40, 40]),
    ],
)
def test_number_and_size_of_steps(tiny, make_recipe, machine, epochs, drop_last, images):
    recipe = make_recipe(
        f"epochs={epochs}", "schedule.peak_epoch=0.5", "batch_size=40", f"drop_last={drop_last}"
    )
    state = create(recipe, tiny, machine, seed=0)
    steps = list(fit(state, tiny, recipe, machine, seed=0))
    assert [step.images for step in steps] == images
    assert [step.step for step in steps] == list(range(1, len(images) + 1))
    per_epoch = 2 if drop_last == "true" else 3
    assert [step.epoch for step in steps] == [i // per_epoch for i in range(len(images))]
    assert state.step == len(images)
    assert list(fit(state, tiny, recipe, machine, seed=0)) == []


def test_an_epoch_shows_each_training_image_once(tiny, make_recipe, machine, monkeypatch):
    seen = []

    def watched(spec, pixels, rows, positions, plan, fill):
        seen.append((rows.numpy(), positions.numpy()))
        return apply(spec, pixels, rows, positions, plan, fill)

    apply = augment.apply
    monkeypatch.setattr(augment, "apply", watched)
    recipe = make_recipe("batch_size=40", "epochs=1")
    list(fit(create(recipe, tiny, machine, 0), tiny, recipe, machine, seed=0))
    rows, positions = (np.concatenate(part) for part in zip(*seen, strict=True))
    np.testing.assert_array_equal(rows, tiny.train.rows[positions])
    assert sorted(positions) == list(range(96))


@pytest.mark.parametrize("key", ["pad", "cutout"])
@pytest.mark.parametrize("size", [16, 24])
def test_padding_and_cutout_must_fit_the_images(make_data, make_recipe, machine, key, size):
    data = make_data(size, train=8, test=1)

    def first_step(value):
        recipe = make_recipe(f"augment.{key}={value}")
        return next(fit(create(recipe, data, machine, 0), data, recipe, machine, seed=0))

    assert first_step(size - 1).step == 1
    with pytest.raises(RecipeError, match=f"augment.{key} {size} .* {size} pixels"):
        first_step(size)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ('[{match="*.norm.*",optimizer="adamw"}]', "no group matches the parameter prep.conv"),
        (
            '[{match="*",optimizer="adamw"},{match="fc.bias",optimizer="adamw"}]',
            "group 'fc.bias' matches no parameter",
        ),
        (
            '[{match="head.*",optimizer="adamw"},{match="*",optimizer="adamw"}]',
            "group 'head.\\*' matches no parameter",
        ),
    ],
)
def test_groups_must_fit_the_network(tiny, make_recipe, machine, groups, message):
    with pytest.raises(RecipeError, match=message):
        create(make_recipe(f"groups={groups}"), tiny, machine, seed=0)


def test_each_group_learns_at_its_own_rate(tiny, make_recipe, machine):
    """Plain SGD: what a scale of 2 moves twice as far; a scale of 0 stays where it was."""
    moved = []
    for scale in (1, 2, 0):
        recipe = make_recipe(
            "optimizers={sgd={momentum=0},adamw={momentum=0.9,beta2=0.9,eps=1e-8}}",
            f'groups=[{{match="fc.*",optimizer="sgd",lr_scale={scale}}},'
            '{match="*",optimizer="adamw"}]',
        )
        state = create(recipe, tiny, machine, seed=0)
        before = state.model.fc.weight.detach().clone()
        next(fit(state, tiny, recipe, machine, seed=0))
        moved.append(state.model.fc.weight.detach() - before)
    torch.testing.assert_close(moved[1], 2 * moved[0], rtol=1e-3, atol=1e-8)
    assert moved[0].abs().max() > 0
    assert not moved[2].any()


@pytest.mark.parametrize("dropout", [0, 0.1])
def test_training_leaves_the_global_random_states_alone(tiny, make_recipe, machine, dropout):
    recipe = make_recipe(f"model.dropout={dropout}")
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    state = create(recipe, tiny, machine, seed=0)
    for _ in islice(fit(state, tiny, recipe, machine, seed=0), 4):
        assert torch.equal(torch.get_rng_state(), states[0])
        np.testing.assert_array_equal(np.random.get_state()[1], states[1])
        assert random.getstate() == states[2]


@pytest.mark.parametrize("dropout", [0, 0.1])
def test_another_seed_trains_another_network(tiny, make_recipe, machine, dropout):
    recipe = make_recipe(f"model.dropout={dropout}", "epochs=1")
    ends = []
    for seed in (0, 1, 0):
        state = create(recipe, tiny, machine, seed=0)
        list(fit(state, tiny, recipe, machine, seed))
        ends.append(digest(state))
    assert ends[0] == ends[2] != ends[1]
