"""The recipe for pictures: as long as their number asks for, and classes that count alike."""

from collections import Counter
from dataclasses import replace

import cifar_files
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

import onecycle
from onecycle.api.recipes import choose_recipe
from onecycle.datasets import augment
from onecycle.datasets.dataset import Split
from onecycle.model.build import build
from onecycle.recipe import book
from onecycle.recipe.schema import AugmentSpec
from onecycle.training.loop import class_weights, fit
from onecycle.training.schedule import timetable
from onecycle.training.state import create

FOLDER = book.find("folder")


@pytest.fixture
def uneven(tiny):
    """The tiny data with classes of 64, 24 and 8 training images."""
    labels = np.repeat([0, 1, 2], [64, 24, 8])
    return replace(tiny, train=Split(tiny.train.pixels, tiny.train.rows, labels))


# Sized for the data


@pytest.mark.parametrize(
    ("images", "epochs", "steps"),
    [(500, 160, 640), (5000, 51, 2040), (50_000, 16, 6256), (500_000, 5, 19_535)],
)
def test_the_length_grows_with_the_root_of_the_number_of_images(images, epochs, steps):
    sized = FOLDER.sized(images)
    assert sized.epochs == epochs and timetable(FOLDER, images).total_steps == steps
    assert sized.schedule.peak_epoch / epochs == pytest.approx(4 / 16)
    assert timetable(sized, images) == timetable(FOLDER, images)
    assert timetable(sized, images).lr(0) == 3e-4


@pytest.mark.parametrize(("size", "pad", "cutout"), [(16, 2, 4), (32, 4, 8), (100, 12, 25)])
def test_padding_and_cutout_grow_with_the_images(size, pad, cutout):
    spec = FOLDER.sized(500, size).augment
    assert (spec.pad, spec.cutout, spec.for_size) == (pad, cutout, 0)


@pytest.mark.parametrize("name", [name for name in book.names() if name != "folder"])
def test_other_recipes_are_as_they_are_for_any_data(name):
    assert book.find(name).sized(500, 100) == book.find(name)


def test_epochs_that_are_asked_for_are_those_that_are_run():
    asked = book.change(FOLDER, [], epochs=3)
    assert asked.sized(500).epochs == 3 and asked.sized(500).schedule.peak_epoch == 0.75
    assert book.change(FOLDER, [], lr=0.1).sized(500).epochs == 160


def test_a_loop_takes_what_is_sized(tiny, make_recipe, machine):
    changes = ("for_images=24", "epochs=4", "augment.pad=8", "augment.cutout=8")
    recipe = make_recipe(*changes, "augment.for_size=32")
    plain = make_recipe("augment.pad=4", "augment.cutout=4", "epochs=2", "schedule.peak_epoch=0.5")
    found = []
    for each in (recipe, plain):
        state = create(each, tiny, machine, seed=0)
        found.append([float(s.loss) for s in fit(state, tiny, each, machine, seed=0)])
    assert found[0] == found[1] and len(found[0]) == 6


def test_pictures_are_given_their_recipe_and_cifar_and_digits_theirs(coloured, tmp_path):
    files = cifar_files.cifar10()[0]
    packed = cifar_files.write_archive(tmp_path / "ten.tar", files)
    unpacked = cifar_files.write_folder(tmp_path / "ten", files)
    names = {str(data): choose_recipe(None, data, None, ()).name for data in (packed, unpacked)}
    assert set(names.values()) == {"fast"}
    for data, name in (("digits", "digits"), ("cifar100", "fast"), (coloured(), "folder")):
        assert choose_recipe(None, data, None, ()).name == name
    assert choose_recipe("davidnet", coloured(), None, ()).name == "davidnet"


def test_a_run_says_how_long_it_was(coloured):
    settings = {"for_images": 40, "model.width": 4}
    run = onecycle.train(data=coloured(), settings=settings, out="run", threads=1, quiet=True)
    assert run.recipe.name == "folder+custom" and run.summary["epochs"] == 11
    assert len(run.metrics) == 11 and run.summary["steps"] == 11


# Classes that count alike


def test_weights_are_scikit_learns(uneven):
    labels = uneven.train.labels
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    torch.testing.assert_close(class_weights(uneven), torch.tensor(expected).float())


@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_a_weighted_step_is_plain_pytorchs(uneven, make_recipe, machine, smoothing):
    recipe = make_recipe("balance=weights", f"label_smoothing={smoothing}", "ghost_batch=0")
    step = next(fit(create(recipe, uneven, machine, 3), uneven, recipe, machine, 3))
    model = build(recipe.model, uneven, seed=3).train()
    plan = augment.draw(recipe.augment, 96, 16, seed=3, epoch=0)
    first = plan.order[:32]
    rows, fill = torch.from_numpy(uneven.train.rows), torch.from_numpy(uneven.mean.round())
    pixels = torch.from_numpy(uneven.train.pixels)
    images = augment.apply(recipe.augment, pixels, rows[first], first, plan, fill.to(torch.uint8))
    weights, labels = class_weights(uneven), torch.from_numpy(uneven.train.labels)[first]
    told = {"reduction": "none", "label_smoothing": smoothing}
    each = F.cross_entropy(model(images), labels, **told) * weights[labels]
    torch.testing.assert_close(step.loss, each.sum() / 32)


def test_even_classes_are_weighted_as_without(tiny, make_recipe, machine):
    losses = []
    for balance in ("none", "weights"):
        recipe = make_recipe(f"balance={balance}")
        state = create(recipe, tiny, machine, seed=0)
        losses.append([float(step.loss) for step in fit(state, tiny, recipe, machine, seed=0)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_sampling_draws_each_class_equally_often_and_each_image_in_turn():
    labels = np.repeat([0, 1, 2], [70, 25, 6])
    orders = set()
    for epoch in range(4):
        plan = augment.draw(AugmentSpec(pad=4), 101, 16, seed=1, epoch=epoch, balanced=labels)
        order = plan.order.numpy()
        orders.add(order.tobytes())
        assert sorted(Counter(labels[order].tolist()).values()) == [33, 34, 34]
        times = np.bincount(order, minlength=101)
        assert set(times[:70]) == {0, 1} and set(times[70:95]) == {1, 2}
        assert times[95:].min() == 5 and times[95:].max() <= 6
        rare = np.flatnonzero(order == np.argmax(times))
        assert len(set(plan.top[plan.choice[rare]].tolist())) > 1  # not one crop for all of them
    assert len(orders) == 4


def test_an_image_that_is_sampled_alternates_too():
    labels, spec = np.repeat([0, 1], [40, 10]), AugmentSpec(flip="alternating")
    flips = {}
    for epoch in range(4):
        plan = augment.draw(spec, 50, 16, seed=1, epoch=epoch, balanced=labels)
        for image, flip in zip(plan.order.tolist(), plan.flip.tolist(), strict=True):
            assert flips.setdefault(image, flip ^ bool(epoch % 2)) == flip ^ bool(epoch % 2)
    assert len(flips) > 40 and len(set(flips.values())) == 2


def test_more_classes_than_images_of_each_are_drawn_from():
    labels = np.arange(30) // 2
    plan = augment.draw(AugmentSpec(), 30, 16, seed=0, epoch=0, balanced=labels)
    assert sorted(plan.order.tolist()) == list(range(30))


def test_going_on_with_sampled_classes_changes_nothing(uneven, make_recipe, machine):
    recipe = make_recipe("balance=sampling")
    whole = create(recipe, uneven, machine, seed=0)
    for step in fit(whole, uneven, recipe, machine, seed=0):
        if step.step == 4:
            kept = {name: value.clone() for name, value in whole.tensors().items()}
    again = create(recipe, uneven, machine, seed=5)
    again.load(kept, 4)
    assert len(list(fit(again, uneven, recipe, machine, seed=0))) == 5
    for name, value in whole.tensors().items():
        assert torch.equal(value, again.tensors()[name]), name
