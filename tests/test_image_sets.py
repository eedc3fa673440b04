"""Folders and archives of pictures: one size for all, and classes kept apart."""

import io
import json
import os

import cifar_files
import numpy as np
import pytest
from picture_files import encoded, noise
from PIL import Image
from sklearn.metrics import log_loss
from trees import tree, write

import onecycle
from onecycle.datasets import decode, images
from onecycle.datasets.load import load
from onecycle.errors import DataError, RecipeError
from onecycle.evaluation import metrics

TINY = ["model.width=4", "batch_size=8", "augment.pad=1", "augment.cutout=0"]


def pixels_by_name(data):
    return {
        name: split.images(i, i + 1)[0]
        for split in (data.train, data.test)
        for i, name in enumerate(split.names)
    }


# One size for all


def test_images_of_one_size_are_kept_and_looked_at_once(tmp_path, looks):
    files = tree((20, 20))
    data = load(write(tmp_path / "pets", files))
    assert data.image_size == 20 and looks == [None] * len(files)
    for name, found in pixels_by_name(data).items():
        assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(files[name]))))


@pytest.mark.parametrize("place", ["test/cat/0.png", "train/dog/2.png"])
@pytest.mark.parametrize("task_bytes", [1, 4 * 2**20])
def test_another_size_brings_all_to_one(tmp_path, place, task_bytes, monkeypatch):
    monkeypatch.setattr(images, "TASK_BYTES", task_bytes)
    files = tree((70, 70)) | {place: encoded(noise((90, 71)))}
    results = []
    for container in ("pets", "pets.zip", "pets.tar"):
        data = load(write(tmp_path / container, files))
        assert data.image_size == 64 and len(data.train) == 6 and len(data.test) == 4
        results.append(data.digest)
        for name, found in pixels_by_name(data).items():
            assert np.array_equal(found, decode.look(files[name], 64).pixels)
    backwards = write(tmp_path / "back.tar", dict(reversed(files.items())))
    assert {*results, load(backwards).digest} == {results[0]}


@pytest.mark.parametrize(("size", "expected"), [((8, 8), 32), ((256, 256), 128), ((100, 50), 48)])
def test_equal_images_that_do_not_fit_are_brought_to_a_size(tmp_path, size, expected):
    data = load(write(tmp_path / "pets", tree(size)))
    assert data.image_size == expected and len(data.train) == 6


def test_after_another_size_only_headers_are_read_and_then_all_again(tmp_path, looks, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(images, "TASK_BYTES", 1)
    small = encoded(noise((40, 50)))
    files = {n: small if n.startswith("test") else c for n, c in tree((100, 100), train=9).items()}
    counts = []
    data = load(write(tmp_path / "pets", files), counts.append)
    assert data.image_size == 96 and counts == [len(files)]
    assert looks.count(96) == len(files)
    assert looks.count("header") > len(files) / 2


def test_an_image_that_can_not_be_used_sets_no_size(tmp_path):
    for place in ("test/cat/0.png", "train/dog/2.png"):
        broken = encoded(noise((300, 200)))[:-500]
        data = load(write(tmp_path / place[:4], tree() | {place: broken}), skip_bad=True)
        assert data.image_size == 20 and [s.split()[0] for s in data.skipped] == [place]


def test_an_image_size_that_is_asked_for(tmp_path):
    path = write(tmp_path / "pets", tree((20, 20)))
    own, same, other = (load(path, image_size=size) for size in (None, 20, 48))
    assert own.digest == same.digest and own.image_size == 20
    assert other.image_size == 48 and other.digest != own.digest
    expected = decode.look((path / "train/cat/0.png").read_bytes(), 48).pixels
    assert np.array_equal(other.train.images(0, 1)[0], expected)
    again = [load(path, image_size=size).digest for size in (None, 20, 48)]
    assert again == [own.digest, own.digest, other.digest]


@pytest.mark.parametrize("size", [0, 15, 129, -32])
def test_an_image_size_that_can_not_be_trained_on(tmp_path, size):
    with pytest.raises(RecipeError, match=rf"--image-size {size}: .* from 16 to 128"):
        load(write(tmp_path / "pets", tree()), image_size=size)


def test_digits_and_cifar_have_their_own_size(tmp_path):
    files = cifar_files.cifar10()[0]
    path = cifar_files.write_folder(tmp_path / "ten", files)
    packed = cifar_files.write_archive(tmp_path / "ten.tar", files)
    for spec in ("digits", path, packed):
        assert load(spec, image_size=32).image_size == 32
        with pytest.raises(RecipeError, match=r"--image-size 64: .* have 32 pixels"):
            load(spec, image_size=64)


# Classes


def test_ultralytics_13936_23566_a_validation_set_without_one_class_shifts_no_label(tmp_path):
    # There labels came from the classes of each part by itself.
    classes = ("ant", "bee", "cat")
    whole = load(write(tmp_path / "whole", tree(classes=classes)))
    for lost in classes:
        files = {n: c for n, c in tree(classes=classes).items() if not n.startswith(f"test/{lost}")}
        for container in (lost, f"{lost}.zip"):
            data = load(write(tmp_path / container, files))
            assert data.classes == classes and data.untested == (lost,)
            for split in (data.train, data.test):
                assert [classes[i] for i in split.labels] == [n.split("/")[1] for n in split.names]
    assert whole.untested == ()


def test_a_class_in_the_test_part_alone_is_named(tmp_path):
    with pytest.raises(DataError, match="classes in test/ or val/ without images in train/: owl"):
        load(write(tmp_path / "pets", tree() | {"test/owl/0.png": encoded(noise((20, 20)))}))


def test_figures_of_a_part_that_lacks_a_class():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.25, 0.25, 0.5]], np.float32)
    labels = np.array([0, 2, 0])
    assert metrics.accuracy(probabilities, labels) == 2 / 3
    expected = -np.log([0.7, 0.6, 0.25]).mean()
    assert metrics.loss(probabilities, labels) == pytest.approx(expected, rel=1e-6)
    only = metrics.loss(probabilities[1:2], labels[1:2])
    assert only == pytest.approx(log_loss([1], [[0.4, 0.6]], labels=[0, 1]), rel=1e-6)


# Runs


def solid(name, i):
    colour = {"blue": (0, 0, 255 - i), "green": (0, 255 - i, 0), "red": (255 - i, 0, 0)}[name]
    return encoded(Image.new("RGB", (24, 18), colour))


@pytest.fixture
def colours(tmp_path):
    """Oblong pictures of three colours, of which `blue` has no test images, and a bad one."""
    files = {f"train/{c}/{i}.png": solid(c, i) for c in ("blue", "green", "red") for i in range(16)}
    files |= {f"test/{c}/{i}.png": solid(c, i + 3) for c in ("green", "red") for i in range(4)}
    return write(tmp_path / "colours", files | {"train/red/bad.png": b"x"})


def train(path, **options):
    settings = [*TINY, "schedule.peak_epoch=1"]
    return onecycle.train(
        "davidnet", path, epochs=4, settings=settings, precision="fp32", threads=1, **options
    )


def test_a_run_says_what_is_missing_and_keeps_what_was_chosen(colours, capsys):
    run = train(colours, skip_bad=True, image_size=16)
    said = capsys.readouterr().err
    assert "note: no test images of class blue\n" in said
    assert "note: 1 of 57 images can't be used and are left out" in said
    assert "test images of 16 pixels, 3 classes" in said
    made = json.loads((run.path / "environment.json").read_text())["data"]
    assert made["skip_bad"] is True and made["image_size"] == 16
    assert made["skipped"] == ["train/red/bad.png (not an image of a known format)"]
    assert json.loads((run.path / "classes.json").read_text()) == ["blue", "green", "red"]
    assert run.test_accuracy > 0.9  # green is not taken for blue, nor red for green
    (run.path / "summary.json").rename(run.path / "first.json")
    again = onecycle.resume(run.path, quiet=True)
    first = json.loads((run.path / "first.json").read_text())
    assert again.summary["test_loss"] == first["test_loss"]
    assert again.summary["data_digest"] == first["data_digest"]
