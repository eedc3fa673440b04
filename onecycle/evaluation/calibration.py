"""How far confidence can be believed: reliability, its expected error, and a temperature.

Confidence is the probability of the predicted class. After Guo et al. (2017), in 15 equal bins.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import binned_statistic

from onecycle.evaluation.metrics import TINY, Labels, Probabilities, proportion

BINS = 15
COLDEST, HOTTEST = 0.02, 50.0  # temperatures outside of which there is nothing to find


def reliability(probabilities: Probabilities, labels: Labels) -> list[dict[str, Any]]:
    """A row a bin of confidence: its edges, images, their mean confidence, and their accuracy.

    The last two are NaN in an empty bin.
    """
    confidence = probabilities.max(axis=1).astype(np.float64).clip(0, 1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    edges = np.linspace(0, 1, BINS + 1)
    sums, _, place = binned_statistic(confidence, [confidence, right], "sum", bins=edges)
    images = np.bincount(place - 1, minlength=BINS)
    return [
        {
            "low": float(edges[i]),
            "high": float(edges[i + 1]),
            "images": int(images[i]),
            "confidence": float(sums[0, i] / images[i]) if images[i] else np.nan,
            **proportion("accuracy", round(sums[1, i]), images[i]),
        }
        for i in range(BINS)
    ]


def expected_error(bins: list[dict[str, Any]]) -> float:
    """ECE: the mean over images of their bin's distance between confidence and accuracy."""
    filled = [row for row in bins if row["images"]]
    gaps = [abs(row["accuracy"] - row["confidence"]) for row in filled]
    return float(np.average(gaps, weights=[row["images"] for row in filled]))


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float | None:
    """The temperature T with the smallest cross-entropy of softmax(log p / T).

    None if no finite one is best, as where every image is right.
    """
    logits = torch.from_numpy(_logits(probabilities))
    targets = torch.from_numpy(labels)

    def cross_entropy(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / np.exp(log_temperature), targets))

    bounds = np.log([COLDEST, HOTTEST])
    best = minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x
    return float(np.exp(best)) if np.abs(best - bounds).min() > 0.01 else None


def with_temperature(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    """The probabilities that logits divided by `temperature` give."""
    scaled: NDArray[np.float64] = softmax(_logits(probabilities) / temperature, axis=1)
    return scaled


def _logits(probabilities: Probabilities) -> NDArray[np.float64]:
    """Logits up to a constant an image: a softmax of them gives the probabilities again."""
    logits: NDArray[np.float64] = np.log(probabilities.astype(np.float64).clip(TINY, 1))
    return logits
