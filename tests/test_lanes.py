"""Ghost groups side by side: trained as one after another, whichever lane is done first."""

from itertools import islice

import pytest
import torch

from onecycle.machine import Machine
from onecycle.model.layers import norms
from onecycle.ranks import ALONE, Ranks
from onecycle.training import lanes, loop
from onecycle.training import state as states

TWO = Machine("cpu", "fp32", 2, "asked for")
SGD = ("optimizers={sgd={momentum=0.9}}", 'groups=[{match="*",optimizer="sgd"}]')
UNEVEN = ("batch_size=40", "ghost_batch=8", "epochs=2")  # of 96 images: 5 groups, and 2 in the last


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def trained(recipe, data, machine, steps=None):
    state = states.create(recipe, data, machine, seed=0)
    done = list(islice(loop.fit(state, data, recipe, machine, seed=0), steps))
    return state, done


def test_lanes_train_as_one_does(tiny, make_recipe):
    # Adam divides by gradients that may be rounding alone; SGD leaves rounding as small as it is.
    recipe = make_recipe(*SGD, *UNEVEN, "epochs=1")
    assert lanes.number(recipe, TWO, ALONE) == 2
    torch.set_num_threads(1)  # as in each lane: a sum over two threads is rounded in another way
    one, first = trained(recipe, tiny, Machine("cpu", "fp32", 1, ""))
    torch.set_num_threads(2)
    two, second = trained(recipe, tiny, TWO)
    assert [int(step.correct) for step in first] == [int(step.correct) for step in second]
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.loss, b.loss)
    for name, tensor in one.tensors().items():
        largest = float(tensor.abs().max())
        torch.testing.assert_close(two.tensors()[name], tensor, rtol=0, atol=3e-5 * largest)


def test_no_bit_depends_on_which_lane_is_done_first(tiny, make_recipe, monkeypatch):
    recipe = make_recipe(*UNEVEN)
    _, expected = trained(recipe, tiny, TWO)
    gradients = loop._gradients

    def late(work, model, part, images, answers):
        made = gradients(work, model, part, images, answers)
        if part.first_group == 0:
            torch.mm(torch.ones(700, 700), torch.ones(700, 700))
        return made

    monkeypatch.setattr(loop, "_gradients", late)
    _, found = trained(recipe, tiny, TWO)
    assert [float(step.loss) for step in found] == [float(step.loss) for step in expected]


def test_breaking_off_and_going_on_changes_no_bit(tiny, make_recipe):
    recipe = make_recipe(*UNEVEN)
    whole, _ = trained(recipe, tiny, TWO)
    half, _ = trained(recipe, tiny, TWO, steps=3)
    again = states.create(recipe, tiny, TWO, seed=1)
    again.load({name: tensor.clone() for name, tensor in half.tensors().items()}, half.step)
    for _ in loop.fit(again, tiny, recipe, TWO, seed=0):
        pass
    expected = whole.tensors()
    assert again.step == whole.step
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.tensors().items())


def test_lanes_share_the_running_statistics(tiny, make_recipe):
    recipe = make_recipe(*UNEVEN)
    model = states.create(recipe, tiny, TWO, seed=0).model
    with lanes.Lanes(model, recipe, TWO, ALONE) as two:
        for here, there in zip(*(norms(each) for each in two.models), strict=True):
            here.running_var.fill_(3.0)
            assert there.running_var.eq(3.0).all()


def test_what_fails_in_a_lane_is_raised_when_all_have_ended(tiny, make_recipe, monkeypatch):
    gradients, ended = loop._gradients, []

    def fails(work, model, part, images, answers):
        if part.first_group == 0:
            raise MemoryError("no room")
        gradients(work, model, part, images, answers)
        ended.append(part.first_group)

    monkeypatch.setattr(loop, "_gradients", fails)
    with pytest.raises(MemoryError, match="no room"):
        trained(make_recipe(*UNEVEN), tiny, TWO)
    assert ended == [2]


@pytest.mark.parametrize(
    ("changes", "threads", "count"),
    [
        (("ghost_batch=8",), 1, 1),
        (("ghost_batch=8",), 2, 2),
        (("ghost_batch=8",), 16, 4),  # no more than groups, of which there are four
        (("ghost_batch=8",), 6, 3),  # and each as many threads as the others
        (("ghost_batch=0",), 2, 1),
        (("ghost_batch=8", "model.dropout=0.1"), 2, 1),
    ],
)
def test_as_many_lanes_as_share_out_threads_and_groups(make_recipe, changes, threads, count):
    recipe = make_recipe("batch_size=32", *changes)
    assert lanes.number(recipe, Machine("cpu", "fp32", threads, ""), ALONE) == count


def test_one_lane_where_devices_or_processes_share_the_work(make_recipe):
    recipe = make_recipe("batch_size=32", "ghost_batch=8")
    assert lanes.number(recipe, Machine("cuda", "bf16", 8, ""), ALONE) == 1
    assert lanes.number(recipe, TWO, Ranks(0, 2)) == 1


def made(recipe, data, machine):
    return lanes.Lanes(states.create(recipe, data, machine, seed=0).model, recipe, machine, ALONE)


@pytest.mark.parametrize("machine", [TWO, Machine("cpu", "fp32", 1, "")], ids=["two", "one"])
def test_what_lanes_share_out_is_what_one_makes(tiny, make_recipe, machine):
    done = []
    with made(make_recipe(*UNEVEN), tiny, machine) as both:
        assert len(both.models) == machine.threads
        both.each(done.append, [3, 1, 2])
        with pytest.raises(ZeroDivisionError):
            both.each(lambda item: 1 / item, [1, 0])
    assert sorted(done) == [1, 2, 3]


@pytest.mark.parametrize("machine", [TWO, Machine("cpu", "fp32", 1, "")], ids=["two", "one"])
@pytest.mark.parametrize("lost", [False, True])
def test_what_all_lanes_found_is_added_up_with_its_norm(tiny, make_recipe, machine, lost):
    with made(make_recipe(*UNEVEN), tiny, machine) as all_:
        for lane, model in enumerate(all_.models):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, lane + 1.0)
            for norm in norms(model):
                norm.step.fill_(lane + 1.0)
        if lost:
            next(all_.models[-1].parameters()).grad[0] = torch.inf
        found = all_.add_up()
        model, *twins = all_.models
        total, learnt = sum(range(1, machine.threads + 1)), list(model.parameters())
        assert all(parameter.grad[-1].eq(total).all() for parameter in learnt)
        assert all(norm.step.eq(total).all() for norm in norms(model))
        assert all(parameter.grad is None for twin in twins for parameter in twin.parameters())
        assert all(norm.step.eq(0).all() for twin in twins for norm in norms(twin))
        count = sum(p.numel() for p in learnt) + sum(n.step.numel() for n in norms(model))
        expected = torch.inf if lost else total * count**0.5
        torch.testing.assert_close(float(found), expected, rtol=1e-5, atol=0)


def test_the_thread_between_lanes_is_alone_only_meanwhile(tiny, make_recipe):
    with made(make_recipe(*UNEVEN), tiny, TWO) as both:
        with pytest.raises(KeyError), both.alone():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
