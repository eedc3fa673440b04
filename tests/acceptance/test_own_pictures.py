"""Three image sets of different kind, as a user has them: files, sizes and modes mixed, unbalanced.

`ONECYCLE_DATA=PATH ONECYCLE_PICTURES=PATH pytest tests/acceptance/test_own_pictures.py -s`, some
minutes. ONECYCLE_DATA holds CIFAR-10; ONECYCLE_PICTURES is any folder of pictures, such as
`Dataset` of github.com/ardamavi/Sign-Language-Digits-Dataset (2,062 photos of hands, Apache 2.0).
"""

import os

import numpy as np
import pytest
from PIL import Image

import onecycle
from onecycle.datasets.load import load

NARROW = {"model.width": 16}


def saved(image, stem, kind):
    """Write `image` as one of seven kinds of file."""
    modes = {"gif": "P", "png": "L", "jpg": "CMYK", "tif": "RGBA", "jpeg": "RGB"}
    suffix = [*modes, "webp", "bmp"][kind % 7]
    image.convert(modes.get(suffix, "RGB")).save(f"{stem}.{suffix}")


def trained(path, epochs, size=None):
    run = onecycle.train(data=path, epochs=epochs, settings=NARROW, image_size=size, threads=1)
    print(f"{run.path}: {run.test_accuracy:.2%} of the test images, {run.summary['seconds']:.0f} s")
    assert run.recipe.name == "folder+custom" and (run.path / "split.csv").is_file()
    return run


def test_the_digits_as_files(tmp_path):
    digits = load("digits")
    for split in (digits.train, digits.test):
        for name, label, image in zip(split.names, split.labels, split.images(), strict=True):
            path = tmp_path / "digits" / str(label) / f"{name[-4:]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    assert trained(tmp_path / "digits", 4).test_accuracy > 0.9


@pytest.mark.skipif("ONECYCLE_DATA" not in os.environ, reason="needs CIFAR-10")
def test_odd_sizes_and_modes_in_uneven_classes(tmp_path):
    data, draw = load("cifar10"), np.random.default_rng(0)
    for label, name in enumerate(data.classes):
        (tmp_path / "odd" / name).mkdir(parents=True)
        members = np.flatnonzero(data.train.labels == label)[: 400 if label % 2 else 100]
        for kind, place in enumerate(members):
            size = tuple(map(int, draw.integers(24, 90, 2)))
            image = Image.fromarray(data.train.images(place, place + 1)[0]).resize(size)
            saved(image, tmp_path / "odd" / name / str(place), kind)
    run = trained(tmp_path / "odd", 6)
    assert run.test_accuracy > 0.2


@pytest.mark.skipif("ONECYCLE_PICTURES" not in os.environ, reason="needs a folder of pictures")
def test_a_folder_of_pictures():
    run = trained(os.environ["ONECYCLE_PICTURES"], 10, size=32)
    assert run.test_accuracy > 2 / run.probabilities.shape[1]  # twice what chance gives
