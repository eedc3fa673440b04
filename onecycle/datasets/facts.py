"""What there is to know about a data set, as plain values."""

from typing import Any

import numpy as np

from onecycle.datasets import duplicates
from onecycle.datasets.dataset import Dataset, Split
from onecycle.datasets.duplicates import Duplicates


def counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Images of each class in each part: `{"cat": {"train": 5000, "test": 1000}}`."""
    classes = len(dataset.classes)
    found = {
        part: np.bincount(split.labels, minlength=classes).tolist()
        for part, split in parts(dataset).items()
    }
    return {
        name: {part: count[i] for part, count in found.items()}
        for i, name in enumerate(dataset.classes)
    }


def parts(dataset: Dataset) -> dict[str, Split]:
    """The parts that there are, by name."""
    val = {"val": dataset.val} if dataset.val else {}
    return {"train": dataset.train, **val, "test": dataset.test}


def listing(dataset: Dataset) -> list[dict[str, str]]:
    """A row for each image that has a name: its path, label and split, as a CSV data set has."""
    return [
        {"path": name, "label": dataset.classes[label], "split": part}
        for part, split in parts(dataset).items()
        for name, label in zip(split.names, split.labels, strict=True)
    ]


def imbalance(dataset: Dataset) -> float:
    """The largest class over the smallest, of the training part."""
    train = [count["train"] for count in counts(dataset).values()]
    return max(train) / min(train)


def image(dataset: Dataset, position: int) -> dict[str, str]:
    """Part, class and name of the image at `position` in the training part and then the test part.

    An image without a name is called by its place, such as `test/00012`.
    """
    part, place = "train", position
    if position >= len(dataset.train):
        part, place = "test", position - len(dataset.train)
    split = dataset.train if part == "train" else dataset.test
    name = split.names[place] if split.names else f"{part}/{place:05d}"
    return {"part": part, "class": dataset.classes[split.labels[place]], "name": name}


def describe(dataset: Dataset, found: Duplicates) -> dict[str, Any]:
    """All facts as values that JSON can hold; duplicates one by one."""
    size = dataset.image_size
    return {
        "name": dataset.name,
        "source": dataset.source,
        "digest": dataset.digest,
        "image_size": size,
        "shape": {part: [len(split), size, size, 3] for part, split in parts(dataset).items()},
        "classes": counts(dataset),
        "imbalance": imbalance(dataset),
        "mean": (dataset.mean / 255).tolist(),
        "std": (dataset.std / 255).tolist(),
        "mean_255": dataset.mean.tolist(),
        "std_255": dataset.std.tolist(),
        "duplicates": _describe_duplicates(dataset, found),
    }


def _describe_duplicates(dataset: Dataset, found: Duplicates) -> dict[str, Any]:
    exact = [[image(dataset, position) for position in group] for group in found.exact]
    pairs = [[image(dataset, pair.first), image(dataset, pair.second)] for pair in found.near]
    near = [
        {
            "likeness": round(pair.likeness, 4),
            "mirrored": pair.mirrored,
            "images": images,
        }
        for pair, images in zip(found.near, pairs, strict=True)
    ]
    same, alike = duplicates.leaked(dataset, found)
    families = [len(family) for family in duplicates.families(found)]
    return {
        "test_images_in_train": {
            "exact": len(same),
            "near": len(alike),
            "fraction": (len(same) + len(alike)) / len(dataset.test),
        },
        "families": {"count": len(families), "largest": max(families, default=0)},
        "exact": {"images": sum(map(len, exact)), **_tally("groups", exact)},
        "near": {
            "images": len({p for pair in found.near for p in (pair.first, pair.second)}),
            **_tally("pairs", pairs),
        },
        "exact_groups": exact,
        "near_pairs": near,
    }


def _tally(kind: str, groups: list[list[dict[str, str]]]) -> dict[str, int]:
    """How many `groups`, how many of them across the parts, and of more than one class."""
    return {
        kind: len(groups),
        "across_parts": sum(len({each["part"] for each in group}) > 1 for group in groups),
        "labels_differ": sum(len({each["class"] for each in group}) > 1 for group in groups),
    }
