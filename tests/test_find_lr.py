"""The range test: training itself at rising rates, on a copy, and what is kept of it."""

import json
import random
import shutil
import warnings
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import onecycle
from onecycle.datasets import augment
from onecycle.errors import RecipeError
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.model.build import build
from onecycle.model.layers import GhostBatchNorm
from onecycle.run import find_lr, record
from onecycle.run.find_lr import Sweep, choose_sweep, range_test
from onecycle.run.job import Job
from onecycle.training import suggest
from onecycle.training.loop import fit
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


def test_the_same_seed_gives_the_same_curve_in_one_call_or_several(tiny, make_recipe, machine):
    job = Job(make_recipe(), tiny, machine, 0, None)
    sweep = Sweep(1e-4, 1e-1, 6)
    seen = []
    together = find_lr.curves(job, [3, 4], sweep, lambda *told: seen.append(told))
    alone = [find_lr.curves(job, [seed], sweep, lambda *_: None)[0] for seed in (3, 4)]
    assert together == alone
    assert together[0].points != together[1].points
    assert [(seed, number) for seed, number, _ in seen] == [
        (s, n + 1) for s in (3, 4) for n in range(6)
    ]
    assert [point for _, _, point in seen] == [*alone[0].points, *alone[1].points]


def with_torch_batch_norm(module):
    for name, child in module.named_children():
        if isinstance(child, GhostBatchNorm):
            setattr(module, name, nn.BatchNorm2d(len(child.weight)))
        with_torch_batch_norm(child)
    return module


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


# What is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "steps"), [(100, 90), (32 * 97, 97), (32 * 97 + 1, 98), (32 * 5000, 200)]
)
def test_a_test_costs_an_epoch_within_limits(make_recipe, images, steps):
    assert choose_sweep(make_recipe(), images) == Sweep(1e-5, 1.0, steps)


def test_a_test_per_epoch_goes_around_the_recipes_peak(make_recipe):
    sweep = choose_sweep(make_recipe("schedule.lr_peak=0.1"), 96, per_epoch=True)
    assert sweep == Sweep(pytest.approx(0.02), pytest.approx(0.2), 10, True, True)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"start": 0.0}, "--start 0 "),
        ({"start": -1.0}, "--start -1"),
        ({"start": 2.0}, "--start 2 --end 1"),
        ({"end": 1e-5}, "must rise"),
        ({"end": float("inf")}, "--end inf"),
        ({"end": float("nan")}, "--end nan"),
        ({"steps": 9}, "--steps 9: give at least 10"),
        ({"steps": 2, "per_epoch": True}, "--steps 2: give at least 3"),
    ],
)
def test_rates_that_cannot_be_swept_are_refused(make_recipe, asked, said):
    with pytest.raises(RecipeError, match=said):
        choose_sweep(make_recipe(), 96, **asked)


# What is kept --------------------------------------------------------------------------------

QUICK = {
    "settings": ["model.width=4", "batch_size=16", "ghost_batch=0"],
    **{"precision": "fp32", "threads": 1, "quiet": True},
}


@pytest.fixture(scope="module")
def digits_test(tmp_path_factory):
    """A range test of two seeds on the digits."""
    out = tmp_path_factory.mktemp("range") / "test"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out.parent)
        return onecycle.find_lr(**QUICK, steps=60, seeds=2, out=out)


def test_the_folder_holds_curve_picture_and_findings(digits_test):
    found = json.loads((digits_test.path / record.LR_FOUND).read_text())
    assert found == digits_test.found
    assert (digits_test.path / record.LR_PLOT).read_bytes().startswith(b"\x89PNG")
    rows = digits_test.points
    assert {row["seed"] for row in rows} == {0, 1}
    for seed in (0, 1):
        mine = [row for row in rows if row["seed"] == seed]
        assert [row["smoothed"] for row in mine] == list(suggest.smooth([r["loss"] for r in mine]))
    assert found["seeds"] == [0, 1]
    assert found["sweep"] == {
        "start": 1e-5,
        "end": 1.0,
        "steps": 60,
        "linear": False,
        "per_epoch": False,
    }


def test_the_rates_for_one_cycle_follow_from_the_chosen_rule(digits_test):
    found = digits_test.found
    chosen = next(s for s in found["suggestions"] if s["rule"] == suggest.CHOSEN == found["rule"])
    assert len(chosen["lrs"]) == 2
    assert digits_test.lr_max == float(f"{np.sqrt(np.prod(chosen['lrs'])):.2g}")
    assert digits_test.suggestions[suggest.CHOSEN] == chosen["lr"]
    assert 1e-3 < digits_test.lr_max < 0.3
    assert digits_test.lr_min == pytest.approx(digits_test.lr_max / 10)  # as in the recipe


def test_folders_are_counted_and_never_overwritten(tmp_path, digits_test):
    (tmp_path / "runs" / "digits+custom-lr-7").mkdir(parents=True)
    assert onecycle.find_lr(**QUICK, steps=60).path.name == "digits+custom-lr-8"
    with pytest.raises(RecipeError, match="not empty"):
        onecycle.find_lr(**QUICK, out=digits_test.path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"end": 1e-4}, "raise --end above 0.0001"),
        ({"start": 10.0, "end": 1e4}, "lower --start below 10"),
    ],
)
def test_a_test_that_finds_nothing_says_what_to_change_and_shows_the_curve(tmp_path, asked, said):
    asked = {**QUICK, "steps": 30, **asked}
    with pytest.raises(RecipeError, match=said) as raised:
        onecycle.find_lr(**asked, out="test")
    text = str(raised.value)
    assert "\n" not in text and "test/lr_find.png" in text
    assert (tmp_path / "test" / record.LR_PLOT).exists()
    found = json.loads((tmp_path / "test" / record.LR_FOUND).read_text())
    assert found["lr_max"] is None and found["lr_min"] is None


def test_a_test_per_epoch_takes_the_rate_of_the_highest_accuracy(make_recipe):
    recipe = make_recipe("schedule.lr_start=1e-3", "schedule.lr_peak=1e-2")
    sweep = Sweep(0.01, 0.05, 5, True, True)

    def judged(*accuracies):
        rates = np.linspace(0.01, 0.05, 5).tolist()
        points = [find_lr.Point(lr, 2.0, a) for lr, a in zip(rates, accuracies, strict=True)]
        return find_lr.judge([find_lr.Curve(0, tuple(points))], sweep, recipe)

    found = judged(0.2, 0.3, 0.4, 0.3, 0.2)
    assert (found["lr_max"], found["lr_min"]) == (0.03, 0.003)
    assert found["rule"] == "highest accuracy" and found["problem"] == ""
    assert "raise --end above 0.05" in judged(0.2, 0.3, 0.4, 0.5, 0.6)["problem"]
    assert "lower --start below 0.01" in judged(0.4, 0.3, 0.2, 0.2, 0.1)["problem"]


def test_data_with_a_validation_part_is_not_judged_on_it(coloured, tmp_path):
    folder = shutil.copytree(coloured(), tmp_path / "pets")
    shutil.copytree(folder / "test", folder / "val")
    options = {"quiet": True, "threads": 1, "precision": "fp32", "steps": 60, "end": 100.0}
    options |= {"settings": ["model.width=4", "batch_size=24"]}
    one = onecycle.find_lr("digits", folder, **options)
    shutil.rmtree(folder / "val")
    two = onecycle.find_lr("digits", folder, **options)
    assert one.points == two.points and "val_loss" not in one.points[0]


def test_a_recipe_of_muon_gets_its_curve_and_no_rate(tmp_path):
    settings = ["model.width=4", "batch_size=24", "ghost_batch=24", "augment.pad=2"]
    with pytest.raises(RecipeError, match=r"too high for muon, .* keep its own rate"):
        onecycle.find_lr("fast", **QUICK | {"settings": settings}, steps=10)
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(record.read_table(folder / record.LR_TABLE)) == 10
    found = json.loads((folder / record.LR_FOUND).read_text())
    assert found["lr_max"] is None and (folder / record.LR_PLOT).exists()


def test_seeds_there_must_be(tmp_path):
    with pytest.raises(RecipeError, match="--seeds 0"):
        onecycle.find_lr(**QUICK, seeds=0)
    assert not (tmp_path / "runs").exists()


# Training with it ----------------------------------------------------------------------------


def test_training_takes_the_rate_that_a_test_finds_and_keeps_both(tmp_path, monkeypatch):
    monkeypatch.setattr(find_lr, "FEWEST", 50)
    monkeypatch.setattr(find_lr, "MOST", 50)
    options = {**QUICK, "epochs": 0.05}
    run = onecycle.train(**options, lr="auto", val_fraction=0.1)
    assert run.path.name == "digits+custom-1"
    found = json.loads((run.path / record.LR_FOUND).read_text())
    schedule = run.recipe.schedule
    assert (schedule.lr_start, schedule.lr_peak) == (found["lr_min"], found["lr_max"])
    assert run.recipe.digest() == run.summary["recipe_digest"] != found["recipe_digest"]
    assert (run.path / record.LR_PLOT).exists() and (run.path / record.LR_TABLE).exists()
    typed = onecycle.train(**options, lr=found["lr_max"], val_fraction=0.1)
    assert (typed.probabilities == run.probabilities).all()


@pytest.mark.parametrize("lr", ["fast", "0", "-1", "nan", "inf", ""])
def test_a_rate_that_is_none_is_refused(tmp_path, lr):
    with pytest.raises(RecipeError, match="lr"):
        onecycle.train(lr=lr)
    assert not (tmp_path / "runs").exists()
