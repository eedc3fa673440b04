"""Whether accuracies differ: intervals over seeds and tests over images, from scipy."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """A figure over several seeds, with the interval of its mean (Student's t).

    With a single value the standard deviation and the interval are None.
    """

    n: int
    mean: float
    std: float | None  # of a sample, n - 1 below the line
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """How much larger the first figure is than the second, with its interval and p-value."""

    difference: float
    low: float
    high: float
    p: float
    test: str

    @property
    def significant(self) -> bool:
        """Whether chance alone would rarely do this: p below 1 - `CONFIDENCE`."""
        return self.p < 1 - CONFIDENCE


def spread(values: list[float]) -> Spread:
    """Mean, standard deviation and interval of `values`, of which there is at least one."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Spread(len(values), mean, None, None, None)
    std = float(np.std(values, ddof=1))
    half = std / math.sqrt(len(values)) * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return Spread(len(values), mean, std, mean - half, mean + half)


def over_seeds(first: list[float], second: list[float]) -> Difference | None:
    """Welch's test of two groups of independent runs, at least two runs each.

    None if neither group has any spread, which is what a difference is measured by.
    """
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        return None
    found = stats.ttest_ind(first, second, equal_var=False)
    interval = found.confidence_interval(CONFIDENCE)
    gap = float(np.mean(first) - np.mean(second))
    return Difference(gap, float(interval.low), float(interval.high), float(found.pvalue), "Welch")


def over_images(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """McNemar's exact test of two models on the same images, from which images each got right.

    The interval is the exact one that goes with it (Clopper and Pearson's, of the share of the
    first among the images that one alone got right). Where there is none, it holds the differences
    that so many images alike don't rule out.
    """
    images, gain, loss = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    if not gain + loss:
        most = float(stats.binomtest(0, images).proportion_ci(CONFIDENCE).high)
        return Difference(0.0, -most, most, 1.0, "McNemar")
    found, apart = stats.binomtest(gain, gain + loss), (gain + loss) / images
    share = found.proportion_ci(CONFIDENCE)
    low, high = ((2 * float(end) - 1) * apart for end in (share.low, share.high))
    return Difference((gain - loss) / images, low, high, float(found.pvalue), "McNemar")
