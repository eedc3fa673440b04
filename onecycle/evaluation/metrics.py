"""Figures as pure functions of probabilities (N, classes) and labels (N,).

Proportions are fractions; where nothing was there to divide by they are NaN, which means n/a.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from onecycle.evaluation.likelihood import Labels, Probabilities, log

CONFIDENCE = 0.95  # of every interval


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """Top-1 accuracy, a fraction."""
    return float(accuracy_score(labels, probabilities.argmax(axis=1)))


def top5_accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """The fraction of images whose class is among the five likeliest of six or more."""
    classes = np.arange(probabilities.shape[1])
    return float(top_k_accuracy_score(labels, probabilities, k=5, labels=classes))


def loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean cross-entropy in nats, without label smoothing."""
    return float(losses(probabilities, labels).mean())


def losses(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """Each image's cross-entropy in nats, (N,)."""
    return -log(probabilities[np.arange(len(labels)), labels])


def interval(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; two NaN where there were no trials."""
    if not trials:
        return np.nan, np.nan
    low, high = binomtest(int(hits), int(trials)).proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def proportion(name: str, hits: int, trials: int) -> dict[str, float]:
    """`hits` of `trials` as `name`, with its interval as `<name>_low` and `<name>_high`."""
    low, high = interval(hits, trials)
    share = int(hits) / int(trials) if trials else np.nan
    return {name: share, f"{name}_low": low, f"{name}_high": high}


def confusion(probabilities: Probabilities, labels: Labels) -> NDArray[np.int64]:
    """How many images of each class (rows) were taken for each class (columns)."""
    classes = np.arange(probabilities.shape[1])
    counts: NDArray[np.int64] = confusion_matrix(
        labels, probabilities.argmax(axis=1), labels=classes
    )
    return counts


def row_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """A confusion matrix as shares of the rows' images; NaN in the row of a class without any."""
    images = counts.sum(axis=1, keepdims=True)
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, images, where=images > 0, out=shares)
    return shares


def per_class(
    probabilities: Probabilities, labels: Labels, classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """A row a class: support (images), recall (the accuracy on them), precision and f1.

    Recall and precision come with their intervals. A class without images has neither of the
    three; one that was never predicted has no precision.
    """
    counts = confusion(probabilities, labels)
    _, _, f1, support = precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=np.arange(len(classes)), zero_division=0.0
    )
    return [
        {
            "class": name,
            "support": int(support[i]),
            **proportion("recall", counts[i, i], support[i]),
            **proportion("precision", counts[i, i], counts[:, i].sum() if support[i] else 0),
            "f1": float(f1[i]) if support[i] else np.nan,
        }
        for i, name in enumerate(classes)
    ]


def most_confused(
    counts: NDArray[np.int64], classes: tuple[str, ...], limit: int = 10
) -> list[dict[str, Any]]:
    """The `limit` most frequent mistakes, with their shares of the actual class."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    worst = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = zip(*np.unravel_index(worst, wrong.shape), strict=True)
    return [
        {
            "actual": classes[i],
            "predicted": classes[j],
            "images": int(counts[i, j]),
            **proportion("share", counts[i, j], counts[i].sum()),
        }
        for i, j in pairs
        if wrong[i, j]
    ]
