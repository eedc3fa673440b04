"""Rates steered by what they do: each step changes the weights by the same share of themselves.

How fast a network learns behind its normalisations is decided by that share, and neither by the
rate nor the optimizer; LARS (You, Gitman and Ginsburg, 2017) fixes it by layer, and Kosson,
Messmer and Jaggi (2024) show that weight decay leads to it. In a warm-up that leads to a good peak
it was seen to stay nearly the same from the tenth step on, and to be the same for SGD and Adam. So
the rate that has come of holding it there for the length of a warm-up is the peak.
"""

import math
import statistics
from dataclasses import dataclass, field

from torch import nn

from onecycle.recipe.schema import Recipe
from onecycle.training import suggest
from onecycle.training.schedule import Timetable, steps_per_epoch, timetable

NAME = "steered"  # among the rules
SHARE = 0.02  # of a weight, by a step; chosen together with the number of steps (bench/lr_auto.py)
STEPS = 45  # of a test, or those of the recipe's own warm-up where it has fewer
RISE = 10  # first steps, over which the share rises
FEWEST = 15  # steps, so that the last fifth lies past the rise
LAST = 5  # the rate is read off the last fifth of the steps
HELD = 4.0  # times the share, or a part of it: what a weight changed by at last, where it held
LOST = 4.0  # times the first loss, at last; good peaks were found where it was 1.5 times that
HIGHEST = 10.0  # of rates; where the loss is all but zero, nothing changes at any
MEMORY = 0.8  # of what a rate did before, in what the next one is reckoned by
FIRST = 1e-5  # the rate of the first step, which shows what a rate does


class Updates:
    """By which share of themselves the weights of a model change from one look to the next."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = [p.detach() for p in model.parameters() if p.requires_grad and p.ndim > 1]
        self._before = [weight.clone() for weight in self._weights]

    def look(self) -> float:
        """The norm of the change over that of the weight before: the median of what has changed.

        Filter banks and matrices are the weights. 0 if none has changed; one that was all zeros,
        or has a norm that is not finite, is left out.
        """
        shares = []
        for weight, before in zip(self._weights, self._before, strict=True):
            share = float((weight - before).norm() / before.norm())
            if 0 < share < math.inf:
                shares.append(share)
            before.copy_(weight)
        return statistics.median_low(shares) if shares else 0.0


@dataclass
class Helm:
    """The rate of the next step, from what those before it did."""

    lr: float = FIRST
    steps: int = 0
    effect: float = math.nan  # the logarithm of a step's share over its rate, smoothed

    def turn(self, update: float) -> None:
        """Take note that a step at this rate changed the weights by `update`, and set the next."""
        self.steps += 1
        if 0 < update < math.inf:
            effect = math.log(update / self.lr)
            past = effect if math.isnan(self.effect) else self.effect
            self.effect = MEMORY * past + (1 - MEMORY) * effect
        if not math.isnan(self.effect):
            self.lr = SHARE * min(1.0, self.steps / RISE) / math.exp(self.effect)


@dataclass(frozen=True)
class Steered(Timetable):
    """A timetable with the rate that its helm has at the moment."""

    helm: Helm = field(default_factory=Helm)

    def lr(self, step: int) -> float:
        """The helm's rate, whatever the step."""
        return self.helm.lr


def steered(recipe: Recipe, images: int) -> Steered:
    """The timetable of a steered test of `recipe` over `images` training images."""
    own = timetable(recipe, images)
    top = max(own.knots, key=lambda knot: knot.lr)
    rise = top.at * own.steps_per_epoch if own.per == "epoch" else top.at
    steps = min(STEPS, max(FEWEST, round(rise) + 1))
    return Steered((), steps_per_epoch(recipe, images), steps)


def last_fifth(values: list[float]) -> list[float]:
    """The last fifth of `values`, which are by step."""
    return values[-max(1, len(values) // LAST) :]


def read(lrs: list[float]) -> float:
    """The rate found: the geometric mean of the last fifth of `lrs`, those of a steered test."""
    return math.exp(statistics.mean(map(math.log, last_fifth(lrs))))


def astray(lrs: list[float], losses: list[float], updates: list[float]) -> str:
    """Why nothing can be read off a steered test, by its figures at each step; or nothing.

    A loss that was lost, or ends well above its first; weights that were not changed by about the
    share that they were steered to; a rate that ran away from a loss that is all but zero.
    """
    smoothed = suggest.smooth(losses)
    if not smoothed[-1] <= LOST * smoothed[0]:
        return f"the loss was lost at {lrs[-1]:.2g}"
    update = statistics.mean(last_fifth(updates))
    if not SHARE / HELD <= update <= SHARE * HELD:
        return f"the weights changed by {100 * update:.2g} % a step at {lrs[-1]:.2g}"
    if read(lrs) > HIGHEST:
        return f"it ran away to {read(lrs):.2g}, where the loss was {losses[-1]:.2g}"
    return ""
