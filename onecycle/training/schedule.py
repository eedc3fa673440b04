"""Learning rate, momentum and image size as pure functions of the step or epoch.

The first two are knots, and a curve between them; images have a size from an epoch on.

One cycle is after Smith (2018): from start up to peak, then down to final. The peak lies where
torch's OneCycleLR has it, one step before `peak_epoch` epochs are over.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from onecycle.errors import RecipeError
from onecycle.recipe.schedules import (
    AnySchedule,
    ConstantSpec,
    CosineSpec,
    OneCycleSpec,
    Per,
    PiecewiseSpec,
    Shape,
    TriangularSpec,
)
from onecycle.recipe.schema import Recipe


@dataclass(frozen=True)
class Knot:
    """A rate, and how far (0 to 1) the momentum has gone from its own to that at the peak."""

    at: float  # steps, or epochs in a timetable that moves per epoch; from 0
    lr: float
    height: float = 0.0


@dataclass(frozen=True)
class Timetable:
    """How many steps a run has, and what the rate is at each (steps count from 0)."""

    knots: tuple[Knot, ...]  # in order, no two at the same place
    steps_per_epoch: int
    total_steps: int
    shape: Shape = "linear"
    per: Per = "batch"
    momentum_at_peak: float | None = None

    def epoch(self, step: int) -> int:
        """The epoch (from 0) that `step` belongs to."""
        return step // self.steps_per_epoch

    def lr(self, step: int) -> float:
        """The learning rate at `step`; ValueError past the end."""
        return self._at(step, lambda knot: knot.lr, self.shape)

    def momentum(self, step: int, base: float) -> float:
        """The momentum at `step`: `base`, or cycling between it and the schedule's at the peak."""
        peak = self.momentum_at_peak
        if peak is None:
            return base
        # A rate can rise by a factor a step; a momentum may be 0, from where no factor leads away.
        shape: Shape = "linear" if self.shape == "exponential" else self.shape
        height = self._at(step, lambda knot: knot.height, shape)
        return base * (1 - height) + peak * height

    def _at(self, step: int, value: Callable[[Knot], float], shape: Shape) -> float:
        if not 0 <= step < self.total_steps:
            raise ValueError(f"step {step} is not one of the {self.total_steps} of this run")
        here = self.epoch(step) if self.per == "epoch" else step
        right = bisect_left([knot.at for knot in self.knots], here)
        if right in (0, len(self.knots)):
            return value(self.knots[min(right, len(self.knots) - 1)])
        a, b = self.knots[right - 1], self.knots[right]
        return _interpolate(value(a), value(b), (here - a.at) / (b.at - a.at), shape)


def timetable(recipe: Recipe, images: int) -> Timetable:
    """The timetable of `recipe`, sized for so many, over `images` training images.

    Raises RecipeError for cycles too short for a rise and a fall.
    """
    recipe = recipe.sized(images)
    spec = recipe.schedule
    per_epoch = steps_per_epoch(recipe, images)
    total = max(1, round(recipe.epochs * per_epoch))
    per: Per = "batch" if isinstance(spec, ConstantSpec) else spec.per
    places, last = (1, (total - 1) // per_epoch) if per == "epoch" else (per_epoch, total - 1)
    shape: Shape = "cosine" if isinstance(spec, CosineSpec) else "linear"
    momentum_at_peak = None
    if isinstance(spec, OneCycleSpec | PiecewiseSpec):
        shape = spec.shape
    if isinstance(spec, OneCycleSpec | TriangularSpec):
        momentum_at_peak = spec.momentum_at_peak
    return Timetable(_knots(spec, places, last), per_epoch, total, shape, per, momentum_at_peak)


def side(recipe: Recipe, image_size: int, epoch: float) -> int:
    """Pixels of a side that images of `image_size` are trained on with at `epoch`, a fraction.

    Small images early cost a fraction of full ones (progressive resizing, fast.ai 2018).
    """
    shares = [share for at, share in recipe.resolution if at <= epoch]
    return max(1, round(image_size * shares[-1])) if shares else image_size


def growth(recipe: Recipe, images: int, image_size: int) -> list[tuple[float, int]]:
    """The epochs (completed ones) at which images begin to have a size, and the size in pixels.

    For a run over `images` training images of `image_size`; empty if they have it all the time.
    """
    recipe = recipe.sized(images)
    return [(at, side(recipe, image_size, at)) for at, _ in recipe.resolution]


def steps_per_epoch(recipe: Recipe, images: int) -> int:
    """Steps of an epoch over `images` training images."""
    whole, rest = divmod(images, recipe.batch_size)
    return max(1, whole if recipe.drop_last else whole + bool(rest))


def _knots(spec: AnySchedule, places: int, last: int) -> tuple[Knot, ...]:
    """The knots of `spec`, for a run of `places` places an epoch that ends at place `last`.

    Where two knots of a short run meet, the one that is named last here is kept.
    """

    def before_the_end_of(epoch: float) -> float:
        return min(max(epoch * places - 1, 0), last)

    if isinstance(spec, OneCycleSpec):
        top = before_the_end_of(spec.peak_epoch)
        again = [Knot(2 * top, spec.lr_start)] if spec.three_phase and 2 * top < last else []
        ends = [Knot(0, spec.lr_start), Knot(last, spec.lr_final)]
        knots = [*ends, *again, Knot(top, spec.lr_peak, 1.0)]
    elif isinstance(spec, TriangularSpec):
        knots = _triangles(spec, places, last)
    elif isinstance(spec, PiecewiseSpec):
        knots = [Knot(before_the_end_of(epoch), lr) for epoch, lr in spec.knots]
    elif isinstance(spec, CosineSpec):
        knots = [Knot(last, spec.lr_final), Knot(0, spec.lr_peak)]
    else:
        knots = [Knot(0, spec.lr_peak)]
    by_place = {knot.at: knot for knot in knots}
    return tuple(by_place[at] for at in sorted(by_place))


def _triangles(spec: TriangularSpec, places: int, last: int) -> list[Knot]:
    half = spec.cycle_epochs * places / 2
    if half < 1:
        raise RecipeError(
            f"schedule.cycle_epochs {spec.cycle_epochs:g} has no room for a rise and a fall: "
            f"give at least {2 / places:.3g}"
        )
    knots = []
    for i in range(math.ceil(last / half) + 1):
        height = float(i % 2)
        if spec.kind == "triangular2":
            height *= 0.5 ** (i // 2)
        lr = _interpolate(spec.lr_start, spec.lr_peak, height, "linear")
        knots.append(Knot(i * half, lr, height))
    return knots


def _interpolate(a: float, b: float, fraction: float, shape: Shape) -> float:
    if shape == "exponential":
        return float(a ** (1 - fraction) * b**fraction)
    if shape == "cosine":
        fraction = (1 - math.cos(math.pi * fraction)) / 2
    return a * (1 - fraction) + b * fraction
