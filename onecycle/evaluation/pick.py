"""Which images of a split are worth looking at."""

import numpy as np
from numpy.typing import NDArray

from onecycle.evaluation.likelihood import Labels, Probabilities
from onecycle.evaluation.metrics import losses

SHOWN = ("wrong", "right", "all")
ORDERS = {
    "loss": "the highest loss first",
    "confidence": "the most confident first",
    "random": "at random (seed {seed})",
}


def pick(
    probabilities: Probabilities,
    labels: Labels,
    show: str,
    by: str,
    seed: int = 0,
    actual: int | None = None,
    predicted: int | None = None,
) -> NDArray[np.int64]:
    """Positions of the images to show, all there are, the first ones first.

    `show` is wrong, right or all; `by` is loss or confidence (the highest first, equal ones as
    they come) or random, drawn from `seed`. `actual` and `predicted` keep one class each.
    """
    keep = of_classes(probabilities, labels, actual, predicted)
    if show != "all":
        keep &= (probabilities.argmax(axis=1) == labels) == (show == "right")
    found = np.flatnonzero(keep)
    if by == "random":
        return np.random.Generator(np.random.Philox(key=seed)).permutation(found)
    key = losses(probabilities, labels) if by == "loss" else probabilities.max(axis=1)
    return found[np.argsort(-key[found], kind="stable")]


def of_classes(
    probabilities: Probabilities,
    labels: Labels,
    actual: int | None = None,
    predicted: int | None = None,
) -> NDArray[np.bool_]:
    """Which images are of the class `actual` and were taken for `predicted`, (N,); None: any."""
    keep = np.ones(len(labels), dtype=bool)
    if actual is not None:
        keep &= labels == actual
    if predicted is not None:
        keep &= probabilities.argmax(axis=1) == predicted
    return keep
