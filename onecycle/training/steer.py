"""Rates steered by what they do: each step changes the weights by the same share of themselves.

How fast a network learns behind its normalisations is decided by that share, and neither by the
rate nor the optimizer; LARS (You, Gitman and Ginsburg, 2017) fixes it by layer, and Kosson,
Messmer and Jaggi (2024) show that weight decay leads to it. In a warm-up that leads to a good peak
it was seen to stay nearly the same from the tenth step on, and to be the same for SGD and Adam. So
the rate that holds it there for the length of a warm-up is the peak.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from onecycle.recipe.schema import Recipe
from onecycle.training.schedule import Timetable, steps_per_epoch, timetable

SHARE = 0.02  # of a weight, by a step; chosen together with the number of steps (bench/lr_auto.py)
STEPS = 45  # of a test, or those of the recipe's own warm-up where it has fewer
RISE = 10  # first steps, over which the share rises; a test has at least so many
LAST = 5  # the rate is read off the last fifth of the steps
MEMORY = 0.8  # of what a rate did before, in what the next one is reckoned by
FIRST = 1e-5  # the rate of the first step, which shows what a rate does


class Updates:
    """By which share of themselves the weights of a model change from one look to the next."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        self._before = [weight.detach().clone() for weight in self._weights]

    def look(self) -> float:
        """The norm of the change over that of the weight before: the median of the weights.

        Filter banks and matrices are the weights; one that was all zeros counts as changed most.
        """
        now = [weight.detach().clone() for weight in self._weights]
        pairs = zip(now, self._before, strict=True)
        shares = torch.stack([(new - old).norm() / old.norm() for new, old in pairs])
        self._before = now
        return float(shares.nanmedian())


@dataclass
class Helm:
    """The rate of the next step, from what those before it did."""

    lr: float = FIRST
    steps: int = 0
    effect: float = math.nan  # the logarithm of a step's share over its rate, smoothed

    def turn(self, update: float) -> None:
        """Take note that a step at this rate changed the weights by `update`, and set the next."""
        self.steps += 1
        if update > 0:
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
    steps = min(STEPS, max(RISE, round(rise) + 1))
    return Steered((), steps_per_epoch(recipe, images), steps)


def read(lrs: list[float]) -> float:
    """The rate found: the geometric mean of the last fifth of `lrs`, those of a steered test."""
    last = lrs[-max(1, len(lrs) // LAST) :]
    return math.exp(sum(map(math.log, last)) / len(last))
