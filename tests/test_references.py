"""The five references: each recipe is the one of its README, number for number."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from onecycle.model.build import build, parameter_count
from onecycle.recipe import book
from onecycle.training import optim
from onecycle.training.schedule import timetable

CIFAR10_IMAGES, STEPS, EPOCHS = 50_000, 98, 24

# model: parameters, head, statistics; augmentation: pad, pad_mode, cutout and what is special
# about it; optimizer and weight decay.
STATED = {
    "davidnet-random-cutout": (
        (6_574_090, "max", "data"),
        (4, "zero", 16, {"side": "random", "place": "clipped", "fill": "zero"}),
        ("adam", 0.0),
    ),
    "davidnet-sgd": ((6_573_120, "max", "imagenet"), (4, "reflect", 16, {}), ("sgd", 5e-3)),
    "davidnet-dropout": (
        (6_573_120, "max", "data"),
        (2, "reflect", 8, {"probability": 0.5}),
        ("adam", 1e-5),
    ),
    "davidnet-reflect": ((6_573_130, "max", "data"), (2, "reflect", 8, {}), ("adam", 1e-2)),
    "davidnet-gap": ((6_573_130, "gap", "data"), (4, "zero", 8, {}), ("adam", 1e-2)),
}
CUTOUT = {"side": "fixed", "place": "inside", "fill": "mean", "probability": 1.0}
# What the references gave to torch's OneCycleLR; 001 made one step an epoch.
CYCLES = {
    "davidnet-sgd": {"max_lr": 0.04006, "pct_start": 0.208, "div_factor": 10, "final": 1},
    "davidnet-dropout": {"max_lr": 0.0493, "pct_start": 5 / 24, "div_factor": 100, "final": 100},
    "davidnet-reflect": {"max_lr": 5.21e-4, "pct_start": 5 / 24, "div_factor": 100, "final": 100},
    "davidnet-gap": {"max_lr": 0.126, "pct_start": 5 / 24, "div_factor": 10, "final": 1},
}


@pytest.mark.parametrize("name", STATED)
def test_a_reference_is_built_and_trained_as_stated(make_data, name):
    (parameters, head, statistics), (pad, pad_mode, cutout, special), rest = STATED[name]
    recipe = book.find(name)
    assert (recipe.epochs, recipe.batch_size, recipe.ghost_batch) == (EPOCHS, 512, 0)
    assert not recipe.drop_last and not recipe.label_smoothing
    with torch.device("meta"):
        model = build(recipe.model, make_data(32, classes=10, train=20, test=10), seed=0)
    assert parameter_count(model) == parameters
    spec = recipe.model
    assert (spec.width, spec.dropout, spec.head, spec.statistics) == (64, 0, head, statistics)
    augment = recipe.augment
    assert (augment.pad, augment.pad_mode, augment.flip) == (pad, pad_mode, "random")
    assert augment.cutout == cutout
    for key, value in {**CUTOUT, **special}.items():
        assert getattr(augment, f"cutout_{key}") == value
    (optimizer,) = optim.make(recipe, model)
    assert type(optimizer).__name__.lower() == rest[0]
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(model.parameters()))
    assert (group["weight_decay"], group["base_momentum"], group["lr_scale"]) == (rest[1], 0.9, 1)
    if rest[0] == "adam":
        assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)


def torch_cycle(name):
    """The rate in each of the run's steps, by torch's scheduler as the reference called it."""
    cycle = CYCLES[name]
    per_epoch = 1 if name == "davidnet-sgd" else STEPS
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = OneCycleLR(
        optimizer,
        max_lr=cycle["max_lr"],
        epochs=EPOCHS,
        steps_per_epoch=per_epoch,
        pct_start=cycle["pct_start"],
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=cycle["div_factor"],
        final_div_factor=cycle["final"],
    )
    rates = []
    for step in range(EPOCHS * per_epoch):
        rates += [optimizer.param_groups[0]["lr"]] * (STEPS // per_epoch)
        optimizer.step()
        if step < EPOCHS * per_epoch - 1:
            scheduler.step()
    return rates


@pytest.mark.parametrize("name", CYCLES)
def test_the_rates_are_those_of_the_references_scheduler(name):
    table = timetable(book.find(name), CIFAR10_IMAGES)
    assert (table.steps_per_epoch, table.total_steps) == (STEPS, STEPS * EPOCHS)
    rates = torch_cycle(name)
    for step, rate in enumerate(rates):
        assert table.lr(step) == pytest.approx(rate, rel=1e-9)
        assert table.momentum(step, 0.9) == 0.9


def test_reference_001_has_the_rates_of_its_printed_log():
    table = timetable(book.find("davidnet-sgd"), CIFAR10_IMAGES)
    printed = {0: 0.004006, 5: 0.038148, 10: 0.028664, 15: 0.019180, 20: 0.009696, 23: 0.004006}
    for epoch, rate in printed.items():
        assert {round(table.lr(STEPS * epoch + step), 6) for step in range(STEPS)} == {rate}


def test_reference_000_ends_at_the_rate_where_it_began():
    schedule = book.find("davidnet-random-cutout").schedule
    assert schedule.lr_start == schedule.lr_final < schedule.lr_peak
    assert (schedule.peak_epoch, schedule.per) == (5, "batch")


def test_imagenet_statistics_are_torchvisions(make_data):
    pixels = torch.from_numpy(make_data().train.images())
    normalize = build(book.find("davidnet-sgd").model, make_data(), seed=0).normalize
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(normalize(pixels), expected)


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parent.parent / "scripts" / "references.py"
    spec = importlib.util.spec_from_file_location("references", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_references_is_the_one_that_its_script_writes(script):
    assert script.PAGE.read_text() == script.page(), "run: python scripts/references.py"


def test_the_page_is_computed_from_the_networks(script, monkeypatch):
    before = script.page()
    for said in ("| 7,013,258 |", "| 18 (9 in its table) | 8 |", "| 37 of 37 |", "| 9.87 |"):
        assert said in before
    script._layers.cache_clear()
    find = book.find
    narrow = ["model.width=32", "schedule.lr_peak=0.5"]
    monkeypatch.setattr(script.book, "find", lambda name: book.change(find(name), narrow))
    changed = script.page()
    script._layers.cache_clear()
    for said in ("| 11,173,962 |", "| 37 of 37 |", "| 379.3 |", "| 9.87 |"):
        assert said in before and said not in changed
