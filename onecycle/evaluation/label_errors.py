"""Which labels are probably wrong: confident learning (Northcutt et al. 2021) by cleanlab."""

import numpy as np
from numpy.typing import NDArray

from onecycle.errors import need
from onecycle.evaluation.likelihood import Labels, Probabilities


def label_quality(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """How well each label fits, (N,), from 0 (surely wrong) to 1: cleanlab's self-confidence.

    `probabilities` must be of networks that haven't seen the image. Raises MissingExtraError
    without cleanlab.
    """
    rank = need("cleanlab.rank", "labels", "finding label errors")
    # Of wrong labels put into CIFAR-10, this way of scoring found more than any other of its.
    scores = rank.get_label_quality_scores(labels, probabilities, method="self_confidence")
    return np.asarray(scores, dtype=np.float64)


def suspected(probabilities: Probabilities, labels: Labels) -> NDArray[np.bool_]:
    """Which labels cleanlab takes for wrong, (N,)."""
    found = need("cleanlab.filter", "labels", "finding label errors")
    issues: NDArray[np.bool_] = found.find_label_issues(labels, probabilities, n_jobs=1)
    return issues
