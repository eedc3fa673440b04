"""The loop: each step is plain PyTorch's, and breaking off and going on changes no bit."""

import random
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onecycle import machine as machines
from onecycle.datasets import augment
from onecycle.errors import RecipeError
from onecycle.files import sha256_bytes
from onecycle.machine import Machine
from onecycle.model.build import build
from onecycle.model.layers import GhostBatchNorm, group_sizes
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


def with_torch_batch_norm(module):
    """`module` with each of our batch norms replaced by torch's."""
    for name, child in module.named_children():
        if isinstance(child, GhostBatchNorm):
            setattr(module, name, nn.BatchNorm2d(len(child.weight)))
        with_torch_batch_norm(child)
    return module


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


def digest(state):
    """One hash of the step and every bit of the state."""
    parts = [f"{state.step}"]
    for name, tensor in sorted(state.tensors().items()):
        content = tensor.detach().contiguous().view(-1).numpy().tobytes()
        parts.append(f"{name} {sha256_bytes(content)}")
    return sha256_bytes("\n".join(parts).encode())


def copied(tensors):
    return {name: value.detach().clone() for name, value in tensors.items()}


@pytest.mark.parametrize("kind", [SGD, ADAM, ADAMW], ids=["sgd", "adam", "adamw"])
@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_steps_equal_plain_pytorch(tiny, make_recipe, machine, kind, smoothing):
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


# Breaking off and going on ------------------------------------------------------------------

NATIVE_BF16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
STEPS = 60  # 3 epochs of 20 batches, the last of one image
HALF = 30  # in mid-epoch


class Long:
    """A run with all that could be lost: ghost batches, dropout, cycling momentum, bf16."""

    def __init__(self, data, recipe, machine):
        self.data, self.recipe = data, recipe
        self.machine = replace(machine, precision="bf16" if NATIVE_BF16 else "fp32")
        torch.set_num_threads(self.machine.threads)

    def fresh(self):
        return create(self.recipe, self.data, self.machine, seed=1)

    def loaded(self, tensors, step):
        state = self.fresh()
        state.load(copied(tensors), step)
        return state

    def go_on(self, state, steps=None):
        """Take `steps` steps more, or all that are left; the digest of what came of it."""
        for _ in islice(self.fit(state), steps):
            pass
        return digest(state)

    def fit(self, state):
        return fit(state, self.data, self.recipe, self.machine, seed=1)


@pytest.fixture(scope="module")
def long(tiny, make_recipe, machine):
    changes = ["batch_size=5", "ghost_batch=2", "model.dropout=0.1"]
    return Long(tiny, make_recipe(*changes, "schedule.momentum_at_peak=0.8"), machine)


def test_breaking_off_after_any_step_and_going_on_changes_no_bit(long):
    """From each of steps 1 to 59 the next step, and from some of them all that are left."""
    state = long.fresh()
    tensors, digests = [copied(state.tensors())], [digest(state)]
    for _ in long.fit(state):
        tensors.append(copied(state.tensors()))
        digests.append(digest(state))
    assert len(set(digests)) == STEPS + 1
    for step in range(1, STEPS):
        assert long.go_on(long.loaded(tensors[step], step), steps=1) == digests[step + 1], step
    for step in (1, 19, 20, 21, 33, 59):
        assert long.go_on(long.loaded(tensors[step], step)) == digests[STEPS], step


@pytest.fixture(scope="module")
def unbroken(long):
    """The tensors after half of the steps, and the digest at the end."""
    state = long.fresh()
    long.go_on(state, HALF)
    return copied(state.tensors()), long.go_on(state)


@pytest.fixture
def half_way(unbroken):
    return copied(unbroken[0])


@pytest.fixture
def end(unbroken):
    return unbroken[1]


def test_going_on_in_the_same_state_changes_no_bit(long, end):
    assert long.go_on(long.fresh()) == end


def test_what_was_not_corrupted_ends_the_same(long, half_way, end):
    assert long.go_on(long.loaded(half_way, HALF)) == end


@pytest.mark.parametrize(
    "name",
    [
        "model.fc.weight",
        "model.layer2.norm.running_mean",
        "model.layer2.norm.running_var",
        "optimizer.prep.conv.weight.exp_avg",
        "optimizer.fc.weight.exp_avg_sq",
        "optimizer.fc.weight.step",
    ],
)
def test_a_corrupt_tensor_shows_at_the_end(long, half_way, end, name):
    half_way[name] += 0.01 * half_way[name].abs().max()
    assert long.go_on(long.loaded(half_way, HALF)) != end


def test_a_corrupt_step_shows_at_the_end(long, half_way, end):
    assert long.go_on(long.loaded(half_way, HALF + 1)) != end


@pytest.mark.parametrize(
    ("choice", "corrupt"),
    [
        ("order", lambda order: order.roll(1)),
        ("flip", lambda flip: ~flip),
        ("left", lambda left: 8 - left),
        ("cut_top", lambda cut_top: 8 - cut_top),
    ],
)
def test_a_corrupt_plan_shows_at_the_end(long, half_way, end, monkeypatch, choice, corrupt):
    def corrupt_draw(*arguments):
        plan = draw(*arguments)
        return replace(plan, **{choice: corrupt(getattr(plan, choice))})

    draw = augment.draw
    monkeypatch.setattr(augment, "draw", corrupt_draw)
    assert long.go_on(long.loaded(half_way, HALF)) != end


def test_evaluating_between_steps_changes_no_bit(long, end):
    state = long.fresh()
    for _ in long.fit(state):
        state.model.eval()
        with torch.no_grad():
            state.model(torch.from_numpy(long.data.test.images()))
    assert digest(state) == end


def test_loading_takes_a_copy(long, half_way):
    """Training on doesn't change the tensors that were loaded."""
    before = copied(half_way)
    state = long.fresh()
    state.load(half_way, HALF)
    long.go_on(state, steps=1)
    assert [name for name in before if not torch.equal(half_way[name], before[name])] == []


def test_loading_forgets_what_the_state_had_learned(long):
    state = long.fresh()
    first = copied(state.tensors())
    after_two = long.go_on(state, steps=2)
    state.load(first, 0)
    assert long.go_on(state, steps=2) == after_two


def test_loading_what_does_not_fit_raises(half_way, tiny, make_recipe, machine):
    wider = create(make_recipe("model.width=5"), tiny, machine, seed=0)
    with pytest.raises(RuntimeError, match="size mismatch"):
        wider.load(half_way, 1)


def test_dropout_draws_from_seed_step_and_group_and_from_nothing_else(long):
    def seeds_of_a_run():
        state, seeds = long.fresh(), []
        state.model.register_forward_pre_hook(lambda *_: seeds.append(torch.initial_seed()))
        return long.go_on(state), seeds

    torch.manual_seed(1)
    end, seeds = seeds_of_a_run()
    torch.manual_seed(2)
    assert seeds_of_a_run() == (end, seeds)
    assert len(seeds) == 3 * (19 * 3 + 1)  # three groups a step, one in an epoch's last
    assert len(set(seeds)) == len(seeds)


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
