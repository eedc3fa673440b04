"""The published forms of CIFAR-10 and CIFAR-100: which files there are, and what is in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onecycle.datasets import unpickle
from onecycle.datasets.layout import UNPRINTABLE

SIDE, CHANNELS = 32, 3
IMAGE_BYTES = CHANNELS * SIDE * SIDE


@dataclass(frozen=True)
class Archive:
    """A published archive: its file, its MD5, its size in bytes, and the data set's name."""

    file: str
    md5: str
    size: int
    name: str


# CIFAR-10's MD5s stand on the author's page, read in copies of it; CIFAR-100's are as independent
# loaders quote them (torchvision's and PaddlePaddle's for python, MindSpore's for binary); the
# sizes are as logs of downloads show them. No original was at hand to compute any of it from.
CIFAR10_PYTHON = Archive(
    "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", 170_498_071, "CIFAR-10"
)
CIFAR10_BINARY = Archive(
    "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170_052_171, "CIFAR-10"
)
CIFAR100_PYTHON = Archive(
    "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437, "CIFAR-100"
)
CIFAR100_BINARY = Archive(
    "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", 168_513_733, "CIFAR-100"
)
NAMES = {
    archive.md5: archive.name
    for archive in (CIFAR10_PYTHON, CIFAR10_BINARY, CIFAR100_PYTHON, CIFAR100_BINARY)
}


@dataclass(frozen=True)
class Labels:
    """One labelling of the images: `count` classes, whose names are in the file `names`.

    In python batches an image's label is under `key` and the classes' names are under `names_key`;
    in binary ones the label is the byte at `column`.
    """

    count: int
    names: str
    key: str = ""
    names_key: str = ""
    column: int = 0


@dataclass(frozen=True)
class Form:
    """One published form of the data set `data`: its folder, its files and how to read them."""

    data: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: Mapping[str, Labels]  # `fine`, and `coarse` where there is one
    limit: int  # images in one file
    label_bytes: int = 0  # before the pixels of each image; 0 for python

    def chosen(self, labels: str) -> Labels:
        """The labelling called `labels`; the only one where there is but one."""
        return self.labels.get(labels, self.labels["fine"])

    def needed(self, labels: str) -> list[str]:
        """The files that the images and their labels are in."""
        return [self.chosen(labels).names, *self.train, self.test]

    def files(self) -> set[str]:
        """All the files."""
        return {name for labels in self.labels for name in self.needed(labels)}


TEN = tuple(f"data_batch_{i}" for i in range(1, 6))
FORMS = (
    Form(
        "cifar10",
        "cifar-10-batches-py",
        TEN,
        "test_batch",
        {"fine": Labels(10, "batches.meta", "labels", "label_names")},
        limit=10_000,
    ),
    Form(
        "cifar10",
        "cifar-10-batches-bin",
        tuple(f"{name}.bin" for name in TEN),
        "test_batch.bin",
        {"fine": Labels(10, "batches.meta.txt")},
        limit=10_000,
        label_bytes=1,
    ),
    Form(
        "cifar100",
        "cifar-100-python",
        ("train",),
        "test",
        {
            "fine": Labels(100, "meta", "fine_labels", "fine_label_names"),
            "coarse": Labels(20, "meta", "coarse_labels", "coarse_label_names"),
        },
        limit=50_000,
    ),
    Form(
        "cifar100",
        "cifar-100-binary",
        ("train.bin",),
        "test.bin",
        {
            "fine": Labels(100, "fine_label_names.txt", column=1),
            "coarse": Labels(20, "coarse_label_names.txt", column=0),
        },
        limit=50_000,
        label_bytes=2,
    ),
)


def class_names(form: Form, labels: Labels, content: bytes) -> list[str]:
    """The names of the classes in a file's `content`; any Exception if it is not as it must be."""
    if form.label_bytes:
        names = [line.strip() for line in content.decode().splitlines() if line.strip()]
    else:
        (names,) = _parts(content, labels.names_key)
    if not (isinstance(names, list) and all(type(name) is str for name in names)):
        raise ValueError("the names of the classes are no list of texts")
    if not len(names) == len(set(names)) == labels.count:
        raise ValueError(f"{len(set(names))} different class names, not {labels.count}")
    if any(not name or UNPRINTABLE.search(name) for name in names):
        raise ValueError("a class name is empty or unprintable")
    return names


def batch(
    form: Form, labels: Labels, content: bytes
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, 3072) uint8, channel by channel, and labels (N,) in a file's `content`.

    Any Exception if it is not as it must be.
    """
    if form.label_bytes:
        records = np.frombuffer(content, np.uint8)
        width = form.label_bytes + IMAGE_BYTES
        if len(records) % width:
            raise ValueError(f"{len(content):,} bytes are no multiple of the {width:,} of an image")
        records = records.reshape(-1, width)
        pixels, found = records[:, form.label_bytes :], records[:, labels.column]
    else:
        array, listed = _parts(content, "data", labels.key)
        if not isinstance(array, unpickle.Array):
            raise ValueError("the pixels are no array")
        if not (isinstance(listed, list) and all(type(label) is int for label in listed)):
            raise ValueError("the labels are no list of whole numbers")
        pixels, found = array.uint8(), np.array(listed, dtype=np.int64)
    if pixels.shape != (len(found), IMAGE_BYTES):
        raise ValueError(f"pixels of shape {pixels.shape} for {len(found):,} labels")
    if not 1 <= len(found) <= form.limit:
        raise ValueError(f"{len(found):,} images, not 1 to {form.limit:,}")
    if not 0 <= found.min() <= found.max() < labels.count:
        raise ValueError(f"labels from {found.min()} to {found.max()} for {labels.count} classes")
    return pixels, found.astype(np.int64)


def _parts(content: bytes, *keys: str) -> list[Any]:
    """What the dict in a python file's `content` has under each of `keys`."""
    described = unpickle.read(content)
    for key in keys:
        if not isinstance(described, dict) or key not in described:
            raise ValueError(f"it has no '{key}'")
    return [described[key] for key in keys]
