"""The range test: training itself at rising rates, on a copy, until it diverges."""

import random
import warnings
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from plain_torch import with_torch_batch_norm
from torch import nn
from torch.utils.data import DataLoader

from onecycle.datasets import augment
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.model.build import build
from onecycle.run import find_lr
from onecycle.run.job import Job
from onecycle.run.range_test import Sweep, choose_sweep, range_test, steered_test
from onecycle.training import steer, suggest
from onecycle.training.loop import fit
from onecycle.training.schedule import Knot, Timetable
from onecycle.training.state import create

SGD = ("optimizers={sgd={momentum=0.9}}", 'groups=[{match="*",optimizer="sgd",weight_decay=5e-4}]')
PLAIN = ("augment.pad=0", "augment.flip=none", "augment.cutout=0", "ghost_batch=0")


def bits(state):
    """Every bit of a training state."""
    tensors = sorted(state.tensors().items())
    return state.step, [(k, v.detach().numpy().tobytes()) for k, v in tensors]


@pytest.mark.parametrize("end", [1.0, 1e8])
def test_lightning_6675_a_test_leaves_the_model_as_it_was_diverged_or_not(
    tiny, make_recipe, machine, end
):
    recipe = make_recipe("model.dropout=0.1", "batch_size=8")
    state = create(recipe, tiny, machine, seed=0)
    for _ in islice(fit(state, tiny, recipe, machine, seed=0), 4):  # so that there are moments
        pass
    before = bits(state)
    rates = [group["lr"] for optimizer in state.optimizers for group in optimizer.param_groups]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    points = list(range_test(state, tiny, recipe, machine, 0, Sweep(1e-3, end, 8)))
    assert len(points) > 2 if end == 1 else len(points) < 8, "one that diverges ends early"
    assert len(list(steered_test(state, tiny, recipe, machine, 0))) > 2
    assert bits(state) == before
    assert rates == [g["lr"] for optimizer in state.optimizers for g in optimizer.param_groups]
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_a_test_is_training_at_other_rates(tiny, make_recipe, machine):
    """Its losses are those of a recipe whose schedule rises as the sweep does, bit for bit."""
    rising = 'schedule={kind="piecewise",knots=[[0,1e-4],[3,1e-2]],shape="exponential"}'
    recipe = make_recipe("model.dropout=0.1")
    state = create(recipe, tiny, machine, seed=2)
    points = list(range_test(state, tiny, recipe, machine, 2, Sweep(1e-4, 1e-2, 9)))
    steps = list(fit(state, tiny, make_recipe("model.dropout=0.1", rising), machine, seed=2))
    assert [p.lr for p in points] == [s.lr for s in steps]
    assert [p.loss for p in points] == [float(s.loss) for s in steps]
    assert [p.accuracy for p in points] == [float(s.correct) / s.images for s in steps]
    assert [p.lr for p in points] == pytest.approx(np.geomspace(1e-4, 1e-2, 9), rel=1e-12)


def test_a_steered_test_is_training_at_the_rates_that_its_updates_ask_for(
    tiny, make_recipe, machine
):
    """Trained at the same rates, weights change as it says, and by the share that it is for."""
    recipe = make_recipe("schedule.peak_epoch=12", "epochs=24")
    state = create(recipe, tiny, machine, seed=2)
    points = list(steered_test(state, tiny, recipe, machine, 2))
    assert len(points) == 3 * 12
    rates = [Knot(i, point.lr) for i, point in enumerate(points)]
    weights = [p.detach() for p in state.model.parameters() if p.ndim > 1]
    before = [weight.clone() for weight in weights]
    for step, point in zip(
        fit(state, tiny, recipe, machine, 2, Timetable(tuple(rates), 3, 36)), points, strict=True
    ):
        assert (step.lr, float(step.loss)) == (point.lr, point.loss)
        changes = [
            float((new - old).norm() / old.norm()) for new, old in zip(weights, before, strict=True)
        ]
        assert point.update == pytest.approx(np.sort(changes)[(len(changes) - 1) // 2], rel=1e-5)
        before = [weight.clone() for weight in weights]
    helm = steer.Helm()
    for point in points:
        assert point.lr == helm.lr
        helm.turn(point.update)
    last = [point.update for point in points[-12:]]
    assert 0.7 * steer.SHARE < np.mean(last) < 1.3 * steer.SHARE


def test_the_same_seed_gives_the_same_curve_in_one_call_or_several(tiny, make_recipe, machine):
    job = Job(make_recipe(), tiny, machine, 0, None)
    sweep = Sweep(1e-4, 1e-1, 6)
    seen = []
    together = find_lr.curves(job, [3, 4], sweep, lambda *told: seen.append(told))
    alone = [find_lr.curves(job, [seed], sweep, lambda *_: None)[0] for seed in (3, 4)]
    assert together == alone
    assert together[0].points != together[1].points
    assert [(seed, number) for seed, number, _ in seen] == [
        (s, n + 1) for s in (3, 4) for n in range(6 + len(alone[0].steered))
    ]
    assert len(alone[0].steered) >= steer.RISE
    assert [point for _, _, point in seen] == [
        *alone[0].points,
        *alone[0].steered,
        *alone[1].points,
        *alone[1].steered,
    ]


def peer_curve(recipe, data, seed, sweep, optimizer):
    """Rates and losses of torch-lr-finder on the same batches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it would like a notebook
        from torch_lr_finder import LRFinder
    batches = []
    for epoch in range(sweep.steps):
        order = augment.draw(recipe.augment, len(data.train), data.image_size, seed, epoch).order
        for batch in order.split(recipe.batch_size):
            images = torch.from_numpy(data.train.images()[batch.numpy()])
            batches.append((images, torch.from_numpy(data.train.labels)[batch]))
    model = with_torch_batch_norm(build(recipe.model, data, seed))
    finder = LRFinder(model, optimizer(model.parameters()), nn.CrossEntropyLoss(), device="cpu")
    loader = DataLoader(batches[: sweep.steps], batch_size=None)
    finder.range_test(
        loader,
        start_lr=sweep.start,
        end_lr=sweep.end,
        num_iter=sweep.steps,
        step_mode="linear" if sweep.linear else "exp",
        smooth_f=0,
        diverge_th=1e9,
    )
    return finder.history["lr"], finder.history["loss"]


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize(
    ("changes", "optimizer", "end"),
    [
        (
            SGD,
            lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9, weight_decay=5e-4),
            0.02,
        ),
        (
            (),
            lambda p: torch.optim.AdamW(p, lr=1.0, betas=(0.9, 0.999), weight_decay=0.3),
            0.02,
        ),
    ],
    ids=["sgd", "adamw"],
)
def test_the_curve_is_torch_lr_finders(tiny, make_recipe, machine, changes, optimizer, end, linear):
    """In fp32, over whole batches, in the same order: to 1e-5, over three epochs."""
    decay = () if changes else ('groups=[{match="*",optimizer="adamw",weight_decay=0.3}]',)
    recipe = make_recipe(*PLAIN, *changes, *decay)
    sweep = Sweep(1e-5, end, 9, linear)
    state = create(recipe, tiny, machine, seed=5)
    points = list(range_test(state, tiny, recipe, machine, 5, sweep))
    lrs, losses = peer_curve(recipe, tiny, 5, sweep, optimizer)
    assert len(points) == 9
    assert [p.lr for p in points] == pytest.approx(lrs, rel=1e-9)
    assert [p.loss for p in points] == pytest.approx(losses, rel=1e-5)
    assert min(losses[1:]) < 0.97 * losses[0], "the test would not notice a wrong rate"


def test_a_test_ends_when_the_loss_diverges(tiny, make_recipe, machine):
    recipe = make_recipe(*SGD)
    state = create(recipe, tiny, machine, seed=0)
    points = list(range_test(state, tiny, recipe, machine, 0, Sweep(1e-3, 1e4, 40)))
    losses = [point.loss for point in points]
    assert len(points) < 40
    assert suggest.diverged(losses) and not suggest.diverged(losses[:-1])


def test_a_loss_that_is_not_finite_ends_a_test_of_either_kind(tiny, make_recipe, machine):
    recipe = make_recipe(*SGD)
    state = create(recipe, tiny, machine, seed=0)
    for per_epoch in (False, True):
        sweep = Sweep(1e20, 1e30, 10, per_epoch, per_epoch)
        points = list(range_test(state, tiny, recipe, machine, 0, sweep))
        assert len(points) < 10
        assert not np.isfinite(points[-1].loss) or points[-1].loss > 1e3


def test_a_rate_for_each_epoch(tiny, make_recipe, machine):
    """Rates evenly apart; figures over all of an epoch's images."""
    recipe = make_recipe("batch_size=40")  # the third batch of an epoch is short
    state = create(recipe, tiny, machine, seed=1)
    sweep = choose_sweep(recipe, 96, 1e-3, 4e-3, 4, per_epoch=True)
    points = list(range_test(state, tiny, recipe, machine, 1, sweep))
    assert [point.lr for point in points] == pytest.approx([1e-3, 2e-3, 3e-3, 4e-3])
    knots = "[[0, 1e-3], [1, 1e-3], [4, 4e-3]]"
    schedule = f'schedule={{kind="piecewise",knots={knots},per="epoch"}}'
    steps = list(fit(state, tiny, make_recipe("batch_size=40", "epochs=4", schedule), machine, 1))
    for epoch, point in enumerate(points):
        mine = [step for step in steps if step.epoch == epoch]
        assert len(mine) == 3
        assert point.loss == pytest.approx(sum(float(s.loss) * s.images for s in mine) / 96)
        assert point.accuracy == sum(int(s.correct) for s in mine) / 96


@pytest.mark.parametrize("per_epoch", [False, True])
def test_validation_images_judge_each_rate(tiny, make_recipe, machine, per_epoch):
    recipe = make_recipe()
    held = tiny.hold_out(0.25, seed=0)
    state = create(recipe, held, machine, seed=0)
    sweep = Sweep(1e-3, 1e-2, 4, per_epoch, per_epoch)
    points = list(range_test(state, held, recipe, machine, 0, sweep))
    without = replace(held, val=None)
    plain = list(range_test(state, without, recipe, machine, 0, sweep))
    assert [(p.lr, p.loss) for p in points] == [(p.lr, p.loss) for p in plain]
    table = sweep.timetable(recipe, len(held.train))
    for _ in fit(state, held, recipe, machine, 0, table=table):
        pass
    predicted = probabilities(state.model, held.val, machine)
    assert points[-1].val_loss == metrics.loss(predicted, held.val.labels)
    assert points[-1].val_accuracy == metrics.accuracy(predicted, held.val.labels)
    assert points[-1].judged == (points[-1].val_loss, points[-1].val_accuracy)
    assert plain[-1].judged == (plain[-1].loss, plain[-1].accuracy)


def test_the_test_images_are_never_read(tiny, make_recipe, machine):
    blank = replace(tiny, test=tiny.test.subset(np.arange(0)))
    job = Job(make_recipe(), blank, machine, 0, None)
    curves = find_lr.curves(job, [0], Sweep(1e-4, 1e-2, 4), lambda *_: None)
    job = replace(job, dataset=tiny)
    assert curves == find_lr.curves(job, [0], Sweep(1e-4, 1e-2, 4), lambda *_: None)
