"""The one number that makes a network's confidence believable: a temperature of its logits.

After Guo et al. (2017).
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from onecycle.evaluation.likelihood import Labels, Probabilities, log

COLDEST, HOTTEST = 0.02, 50.0  # temperatures outside of which there is nothing to find


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float | None:
    """The temperature T with the smallest cross-entropy of softmax(log p / T).

    None if no finite one is best, as where every image is right.
    """
    if (probabilities.argmax(axis=1) == labels).all():
        return None  # the colder the better, until fp64 tells no difference
    logits = torch.from_numpy(log(probabilities))
    targets = torch.from_numpy(labels)

    def cross_entropy(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / np.exp(log_temperature), targets))

    bounds = np.log([COLDEST, HOTTEST])
    best = minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x
    return float(np.exp(best)) if np.abs(best - bounds).min() > 0.01 else None


def with_temperature(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    """The probabilities that logits divided by `temperature` give."""
    scaled: NDArray[np.float64] = softmax(log(probabilities) / temperature, axis=1)
    return scaled
