"""How far confidence can be believed: reliability and its expected error.

Confidence is the probability of the predicted class. After Guo et al. (2017), in 15 equal bins.
"""

from typing import Any

import numpy as np
from scipy.stats import binned_statistic

from onecycle.evaluation.likelihood import Labels, Probabilities
from onecycle.evaluation.metrics import proportion

BINS = 15


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
