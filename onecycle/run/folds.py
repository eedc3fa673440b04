"""Cross-validation: the training part cut in five, so that each image is judged unseen."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from onecycle.datasets.dataset import Dataset, digest
from onecycle.errors import DataError

FOLDS = 5


def folds(data: Dataset, seed: int) -> list[NDArray[np.int64]]:
    """The positions in the training part that each fold holds out, stratified and shuffled.

    Raises DataError for a class with too few images.
    """
    counts = np.bincount(data.train.labels, minlength=len(data.classes))
    rare = int(counts.argmin())
    if counts[rare] < FOLDS:
        raise DataError(
            f"{data.source or data.name}: class '{data.classes[rare]}' has {counts[rare]} training "
            f"images, and {FOLDS} folds need one each: add images"
        )
    cut = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return [held for _, held in cut.split(data.train.labels, data.train.labels)]


def without(data: Dataset, held: NDArray[np.int64]) -> Dataset:
    """`data` to train on without the training images at `held`, which are its test part."""
    rest = np.setdiff1d(np.arange(len(data.train)), held)
    train, test = data.train.subset(rest), data.train.subset(held)
    cut = replace(data, train=train, test=test, val=None)
    return replace(cut, digest=digest(data.classes, train, test))
