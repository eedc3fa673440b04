"""From the curve of a range test to a rate: the known rules, as pure functions of it.

`steepest`, `valley`, `minimum` and `slide` find the rates that fastai's `lr_find` suggests under
these names (`steep` there), given the same losses. The valley is ESRI's rule, the slide Andrew
Chang's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
SMOOTHING = 0.8  # part of the past that is kept
WORSE = 1.5  # times the lowest loss: diverged
FIRST, LAST = 0.1, 0.05  # parts of a curve that no rule looks at, as in fastai
LOW_EDGE, HIGH_EDGE = 0.1, 0.2  # parts of what the rules look at in which a rate is refused
TURN = 0.1  # part of its fall by which a loss must rise again for its end to be no edge
LEAST_FALL, NOISES = 0.05, 4.0  # of the first loss, and of its noise: less is no fall
SLIDE_WIDTH, SLIDE_SLOPE = 15, 0.005  # fastai's


def smooth(losses: Sequence[float]) -> Values:
    """The exponential moving average of `losses`, each divided by the weight it is made of.

    That is fastai's and Gugger's (2018), with 0.8 of the past kept instead of 0.98: a sweep has
    about 50 points here, and 0.98 would be an average over all of them.
    """
    average, smoothed = 0.0, []
    for i, loss in enumerate(losses):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed.append(average / (1 - SMOOTHING ** (i + 1)))
    return np.array(smoothed)


def diverged(losses: Sequence[float]) -> bool:
    """Whether the smoothed loss ends above both its first value and 1.5 times its lowest.

    A loss that is not finite has diverged too. (fastai waits for 4 times the lowest and
    torch-lr-finder for 5, which a network with batch norm may never reach.)
    """
    smoothed = smooth(losses)
    last = smoothed[-1]
    return not np.isfinite(last) or bool(last > max(smoothed[0], WORSE * smoothed.min()))


def steepest(lrs: Values, losses: Values) -> int:
    """Where the loss falls fastest over the logarithm of the rate."""
    return int(np.argmin(np.diff(losses) / np.diff(np.log(lrs))))


def minimum(lrs: Values, losses: Values) -> int:
    """Where the loss is lowest."""
    return int(np.argmin(losses))


def valley(lrs: Values, losses: Values) -> int:
    """Half-way down the longest valley: the longest series of points, each below the one before."""
    lengths = np.ones(len(losses), dtype=int)
    for i in range(1, len(losses)):
        above = losses[:i] > losses[i]
        lengths[i] = 1 + lengths[:i][above].max(initial=0)
    length = int(lengths.max())
    first = int(lengths.argmax()) - length
    return max(0, first + length // 3 + length // 6)


def slide(lrs: Values, losses: Values) -> int:
    """Coming from the right, the last point in a row whose slope is not that 15 points further."""
    slopes = np.gradient(losses)
    left = found = len(losses) - 1 - SLIDE_WIDTH
    while left >= 0 and abs(slopes[left + SLIDE_WIDTH] - slopes[left]) > SLIDE_SLOPE:
        found = left
        left -= 1
    return found


@dataclass(frozen=True)
class Rule:
    """How a rate is found: the index of one, what it is multiplied by, the points it needs."""

    find: Callable[[Values, Values], int]
    factor: float = 1.0
    points: int = 3


RULES = {
    "steepest": Rule(steepest),
    "valley": Rule(valley),
    "minimum/10": Rule(minimum, 0.1),
    "slide": Rule(slide, points=SLIDE_WIDTH + 2),
}
PER_EPOCH = {"highest accuracy": Rule(minimum)}  # of what `read_epochs` gives


@dataclass(frozen=True)
class Test:
    """What the rules see of one seed's range test: smoothed losses, or errors by epoch."""

    lrs: Values
    values: Values
    first: float  # of the rates that were swept
    last: float
    diverged: bool = False
    noise: float = 0.0  # standard deviation of the smoothed losses from batch to batch

    @property
    def turned(self) -> bool:
        """Whether the values rose again by a tenth of their fall, so that the last is no edge."""
        low = self.values.min()
        return self.diverged or bool(self.values[-1] > low + TURN * (self.values[0] - low))


@dataclass(frozen=True)
class Suggestion:
    """What a rule makes of a range test: a rate a seed, or why there is none and what to change."""

    rule: str
    lrs: tuple[float, ...]
    refused: str = ""

    @property
    def lr(self) -> float | None:
        """The median over the seeds, between logarithms; None if refused."""
        return float(np.exp(np.median(np.log(self.lrs)))) if self.lrs else None


def read(lrs: Sequence[float], losses: Sequence[float]) -> Test:
    """A range test per batch: its losses, up to one that isn't finite, smoothed, the ends cut."""
    finite = int(np.cumprod(np.isfinite(losses)).sum())
    first, last = int(FIRST * finite), finite - int(LAST * finite)
    smoothed = smooth(losses[:finite])[first:last]
    # Medians, which the leaps of a divergence don't move; 0.6745 makes them standard deviations.
    leaps = np.abs(np.diff(losses[:finite]))
    noise = float(np.median(leaps)) / 0.6745 / math.sqrt(2) if len(leaps) else 0.0
    noise *= math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING))
    return Test(np.array(lrs)[first:last], smoothed, lrs[0], lrs[-1], diverged(losses), noise)


def read_epochs(lrs: Sequence[float], accuracies: Sequence[float]) -> Test:
    """A range test per epoch: errors, which are low where its accuracies are high."""
    return Test(np.array(lrs), 1 - np.array(accuracies), lrs[0], lrs[-1])


def suggest(name: str, rule: Rule, tests: Sequence[Test]) -> Suggestion:
    """What `rule` makes of `tests`, one a seed.

    A rate at the edge of what was swept, in its first tenth or last fifth, is refused, since the
    true one may lie outside; the last fifth is no edge where the loss has risen again.
    """
    rates = []
    for test in tests:
        if len(test.lrs) < rule.points:
            return Suggestion(name, (), "too few rates: raise --steps, or lower --start")
        index, count = rule.find(test.lrs, test.values), len(test.lrs)
        rate = float(test.lrs[index] * rule.factor)
        if index <= LOW_EDGE * (count - 1) or rate < test.first:
            return Suggestion(name, (), f"at the low edge: lower --start below {test.first:.2g}")
        if index >= (1 - HIGH_EDGE) * (count - 1) and not test.turned:
            return Suggestion(name, (), f"at the high edge: raise --end above {test.last:.2g}")
        rates.append(rate)
    return Suggestion(name, tuple(rates))


def flat(tests: Sequence[Test]) -> str:
    """Why no rule should be trusted: a loss that did not fall. Else an empty string."""
    for test in tests:
        fall, least = 0.0, 0.0
        if len(test.values):
            fall = test.values[0] - test.values.min()
            least = max(LEAST_FALL * test.values[0], NOISES * test.noise)
        if fall <= least:
            if test.diverged:
                return f"the loss rose from the first rate on: lower --start below {test.first:.2g}"
            return f"the loss does not fall: raise --end above {test.last:.2g}, or --steps"
    return ""
