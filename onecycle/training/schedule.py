"""The learning rate and momentum as pure functions of the step.

One cycle after Smith (2018): from start up to peak, then down to final. The peak lies where
torch's OneCycleLR has it, one step before `peak_epoch` epochs are over.
"""

import math
from dataclasses import dataclass

from onecycle.recipe.schema import OneCycleSpec, Recipe


@dataclass(frozen=True)
class Timetable:
    """How many steps a run has, and what the rate is at each (steps count from 0)."""

    schedule: OneCycleSpec
    steps_per_epoch: int
    total_steps: int

    def epoch(self, step: int) -> int:
        """The epoch (from 0) that `step` belongs to."""
        return step // self.steps_per_epoch

    def lr(self, step: int) -> float:
        """The learning rate at `step`; ValueError past the end."""
        spec = self.schedule
        return self._between(step, spec.lr_start, spec.lr_peak, spec.lr_final)

    def momentum(self, step: int, base: float) -> float:
        """The momentum at `step`: `base`, or cycling between it and the schedule's at the peak."""
        peak = self.schedule.momentum_at_peak
        return base if peak is None else self._between(step, base, peak, base)

    def _between(self, step: int, start: float, peak: float, final: float) -> float:
        if not 0 <= step < self.total_steps:
            raise ValueError(f"step {step} is not one of the {self.total_steps} of this run")
        spec = self.schedule
        if spec.per == "epoch":
            here, last = self.epoch(step), self.epoch(self.total_steps - 1)
            top = spec.peak_epoch - 1
        else:
            here, last = step, self.total_steps - 1
            top = spec.peak_epoch * self.steps_per_epoch - 1
        if here <= top:
            return _interpolate(start, peak, here / top if top else 1.0, spec.shape)
        top = max(top, 0.0)  # a peak before the first step is at it
        if last <= top:
            return final
        return _interpolate(peak, final, (here - top) / (last - top), spec.shape)


def timetable(recipe: Recipe, images: int) -> Timetable:
    """The timetable of `recipe` over `images` training images."""
    whole, rest = divmod(images, recipe.batch_size)
    per_epoch = max(1, whole if recipe.drop_last else whole + bool(rest))
    total = max(1, round(recipe.epochs * per_epoch))
    return Timetable(recipe.schedule, per_epoch, total)


def _interpolate(a: float, b: float, fraction: float, shape: str) -> float:
    if shape == "cosine":
        fraction = (1 - math.cos(math.pi * fraction)) / 2
    return a * (1 - fraction) + b * fraction
