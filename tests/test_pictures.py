"""A sheet shows each image pixel for pixel beside its name, whatever the name is."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from onecycle.api.data import DataFacts
from onecycle.datasets import augment
from onecycle.datasets.duplicates import Duplicates, Pair
from onecycle.recipe import book
from onecycle.reporting import pictures, plots
from onecycle.training import loop

NONE = Duplicates((), ())


@pytest.fixture
def facts(make_data):
    def make(found=NONE, recipe="davidnet", seed=0, **options):
        return DataFacts(make_data(**options), found, book.find(recipe), seed)

    return make


def saved(figure, path):
    plots.save(figure, path / "figure.png")
    return np.asarray(Image.open(path / "figure.png").convert("RGB"))


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def enlarged(image, times):
    return image.repeat(times, 0).repeat(times, 1)


def places(screen, image):
    """Where `image` stands on `screen`, by brute force over the places where its corner does."""
    height, width = image.shape[:2]
    corners = (screen == image[0, 0]).all(2).nonzero()
    return [
        (y, x)
        for y, x in zip(*corners, strict=True)
        if np.array_equal(screen[y : y + height, x : x + width], image)
    ]


@pytest.mark.parametrize(("size", "times"), [(16, 5), (32, 3), (50, 2), (128, 1)])
def test_every_pixel_of_an_image_is_a_square_in_the_file(facts, tmp_path, size, times):
    shown = facts(size=size, train=12)
    screen = saved(shown.samples(), tmp_path)
    tops = {}
    for image, label in zip(shown.dataset.train.images(), shown.dataset.train.labels, strict=True):
        ((y, _),) = places(screen, enlarged(image, times))
        tops.setdefault(int(label), set()).add(y)
    assert [len(rows) for rows in tops.values()] == [1, 1, 1], "a class has a row"


def test_names_are_shown_as_they_are(facts, tmp_path):
    names = ["$x^2$", r"$\frac$", "\\n", "кошка", "100% {0}", "$", "<b>&amp;"]
    groups = [(name, np.zeros((1, 16, 16, 3), np.uint8)) for name in names]
    figure = pictures.samples("$title$", groups)
    assert texts(figure) == ["$title$", *names]
    saved(figure, tmp_path)


def test_what_the_font_lacks_is_written_as_a_number_and_long_names_lose_their_middle():
    assert pictures.fitted("猫 cat\n", 200) == r"\u732b cat\n"
    short = pictures.fitted("first" + "x" * 500 + "last", 150)
    assert short.startswith("firstx") and short.endswith("xlast") and "…" in short
    assert 130 < pictures.width_of(short) <= 150
    assert pictures.fitted("", 50) == "" and pictures.fitted("W" * 9, 1) == "W…"


@pytest.mark.parametrize(
    ("classes", "shown", "images"),
    [(2, 2, 10), (12, 12, 10), (13, 13, 5), (24, 24, 5), (25, 25, 2), (100, 100, 1), (130, 100, 1)],
)
def test_many_classes_share_rows(facts, monkeypatch, classes, shown, images):
    told = facts(classes=classes, train=12 * classes, test=classes)
    figure = told.samples()
    assert len(texts(figure)) == 1 + shown
    assert set(texts(figure)[1:]) <= set(told.dataset.classes)
    assert ("100 of the 130" in texts(figure)[0]) == (classes == 130)
    groups = []
    monkeypatch.setattr(pictures, "samples", lambda title, given: groups.extend(given))
    told.samples()
    assert {len(each) for _, each in groups} == {images}
    height, width = figure.axes[0].images[0].get_array().shape[:2]
    assert width < 1400 and height < 1400


def test_the_seed_chooses_the_samples(facts):
    def canvas(seed):
        return facts(seed=seed).samples().axes[0].images[0].get_array()

    assert np.array_equal(canvas(0), canvas(0))
    assert not np.array_equal(canvas(0), canvas(1))


@pytest.mark.parametrize("changes", [(), ("augment.cutout_fill=zero", "augment.pad_mode=zero")])
def test_augmented_images_are_those_that_the_loop_gives_the_network(
    facts, make_recipe, machine, monkeypatch, changes
):
    recipe = make_recipe("epochs=8", *changes)
    shown = facts(seed=5)
    shown = DataFacts(shown.dataset, NONE, recipe, 5)
    batches = []

    def record(work, model, part, images, labels):
        batches.append(images.numpy())
        return torch.zeros(()), torch.zeros(())

    def count(work, state, *_):
        state.step += 1
        return torch.zeros((), dtype=torch.bool)

    monkeypatch.setattr(loop, "_gradients", record)
    monkeypatch.setattr(loop, "_update", count)
    state = SimpleNamespace(step=0, optimizers=[], model=torch.nn.Identity())
    assert len(list(loop.fit(state, shown.dataset, recipe, machine, seed=5))) == 24
    given = []
    monkeypatch.setattr(pictures, "augmented", lambda *arguments: given.extend(arguments))
    shown.augmented()
    _, names, originals, draws = given
    assert draws.shape == (8, 8, 16, 16, 3)
    train = shown.dataset.train
    for original, name, drawn in zip(originals, names, draws, strict=True):
        (place,) = np.flatnonzero((train.images() == original).all((1, 2, 3)))
        assert name == shown.dataset.classes[train.labels[place]]
        for epoch in range(8):
            order = augment.draw(recipe.augment, len(train), 16, 5, epoch).order.tolist()
            whole = np.concatenate(batches[3 * epoch : 3 * epoch + 3])
            assert np.array_equal(drawn[epoch], whole[order.index(place)])


def test_the_original_comes_before_its_eight_epochs(facts, tmp_path):
    shown = facts(train=9)
    figure = shown.augmented()
    assert [*texts(figure)[-9:]] == ["original", *(f"epoch {i}" for i in range(8))]
    screen = saved(figure, tmp_path)
    found = [places(screen, enlarged(image, 5)) for image in shown.dataset.train.images()]
    first = sorted(min(places, key=lambda place: place[1]) for places in found if places)
    assert len({x for _, x in first}) == 1, "in the first column"
    assert len(first) == 8


def test_a_short_run_shows_no_epochs_that_it_does_not_have(facts, make_recipe):
    shown = facts()
    figure = DataFacts(shown.dataset, NONE, make_recipe("epochs=1.5"), 5).augmented()
    assert texts(figure)[-3:] == ["original", "epoch 0", "epoch 1"]


def test_pairs_stand_side_by_side_with_their_names(facts, tmp_path):
    across = (Pair(1, 96, 0.9, False), Pair(2, 97, 0.8, True), Pair(1, 98, 0.7, False))
    shown = facts(Duplicates((), (*across, Pair(4, 5, 0.95, False))))
    figure = shown.near_duplicates()
    said = texts(figure)
    assert said[1:4] == ["train/00001", "test/00000", "class1 / class0"]
    assert said[4] == "0.90"
    assert said[5:] == ["train/00002", "test/00001", "class2 / class1", "0.80 mirrored"]
    assert {text.get_color() for text in figure.axes[0].texts[1:]} == {plots.JUDGED}
    screen = saved(figure, tmp_path)
    train, test = shown.dataset.train.images(), shown.dataset.test.images()
    ((y, x),) = places(screen, enlarged(train[1], 5))
    assert places(screen, enlarged(test[0], 5)) == [(y, x + 82)]


def test_without_pairs_across_the_parts_others_are_shown_and_without_any_nothing(facts):
    pairs = tuple(Pair(3 * i, 3 * i + 3, 0.9, False) for i in range(0, 30, 2))
    figure = facts(Duplicates((), pairs)).near_duplicates()
    assert "one part" in texts(figure)[0] and len(texts(figure)) == 1 + 4 * 15
    assert {text.get_color() for text in figure.axes[0].texts} == {"black"}
    assert facts().near_duplicates() is None


def test_pictures_are_saved_under_three_names(facts, tmp_path):
    first = facts(Duplicates((), (Pair(0, 1, 0.9, False),)))
    paths = first.save_pictures(tmp_path / "new" / "folder")
    names = ["samples.png", "augmented.png", "near_duplicates.png"]
    assert [path.name for path in paths] == names
    for path in paths:
        assert Image.open(io.BytesIO(path.read_bytes())).format == "PNG"
    assert len(facts().save_pictures(tmp_path / "fewer")) == 2
