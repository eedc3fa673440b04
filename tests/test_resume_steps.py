"""Breaking off after any step and going on changes no bit, and what is corrupt shows."""

from dataclasses import replace

import pytest
import torch
from long_run import STEPS, Long, copied, digest

from onecycle.datasets import augment
from onecycle.training.state import create

HALF = 30  # in mid-epoch


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
