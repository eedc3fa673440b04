"""The learning-rate range test: `fit` on a copy, with rates that rise (Smith, 2015).

A test per batch has two parts, each on its own copy: a sweep over given rates, whose curve the
known rules read, and a steered part (`training/steer.py`), which finds the peak for one cycle.
Together they take the time of an epoch.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from onecycle.datasets.dataset import Dataset, Split
from onecycle.datasets.feed import Feed
from onecycle.errors import RecipeError
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.machine import Machine
from onecycle.recipe import schedules
from onecycle.recipe.schema import Recipe
from onecycle.training import steer, suggest
from onecycle.training.loop import Step, fit
from onecycle.training.schedule import Knot, Timetable, steps_per_epoch
from onecycle.training.state import TrainState

START, END = 1e-5, 1.0  # of a sweep over batches
FEWEST, MOST = 90, 200  # steps of a test per batch, both parts, by default
FEWEST_GIVEN = 10  # steps of a sweep that may be asked for
LOW, HIGH = 0.2, 2.0  # times the recipe's own peak: start and end of a test per epoch
EPOCHS, FEWEST_EPOCHS = 10, 3


@dataclass(frozen=True)
class Sweep:
    """The rates of a range test: `steps` from `start` to `end`, each for a batch or an epoch."""

    start: float
    end: float
    steps: int
    linear: bool = False
    per_epoch: bool = False

    def timetable(self, recipe: Recipe, images: int) -> Timetable:
        """The rate at each step of a test over `images` training images."""
        per_epoch = steps_per_epoch(recipe, images)
        return Timetable(
            (Knot(0, self.start), Knot(self.steps - 1, self.end)),
            per_epoch,
            self.steps * (per_epoch if self.per_epoch else 1),
            "linear" if self.linear else "exponential",
            "epoch" if self.per_epoch else "batch",
        )


def choose_sweep(
    recipe: Recipe,
    images: int,
    start: float | None = None,
    end: float | None = None,
    steps: int | None = None,
    linear: bool = False,
    per_epoch: bool = False,
) -> Sweep:
    """What is asked for, and what is sensible where nothing is. Raises RecipeError.

    A test per batch takes the steps of an epoch, but at least `FEWEST` and at most `MOST`, those of
    its steered part included; one per epoch goes around the recipe's own peak.
    """
    if per_epoch:
        peak = schedules.peak(recipe.to_dict()["schedule"])
        low, high, usual, fewest = LOW * peak, HIGH * peak, EPOCHS, FEWEST_EPOCHS
    else:
        low, high, fewest = START, END, FEWEST_GIVEN
        both = min(max(steps_per_epoch(recipe, images), FEWEST), MOST)
        usual = both - steer.steered(recipe, images).total_steps
    start, end = low if start is None else start, high if end is None else end
    steps = usual if steps is None else steps
    if not 0 < start < end < math.inf:
        raise RecipeError(f"--start {start:g} --end {end:g}: the rates must rise from above 0")
    if steps < fewest:
        raise RecipeError(f"--steps {steps}: give at least {fewest}")
    return Sweep(start, end, steps, linear or per_epoch, per_epoch)


@dataclass(frozen=True)
class Point:
    """What a batch or an epoch saw at its rate. Losses in nats, accuracies as fractions.

    The figures on the validation part, where there is one, are taken after the last step.
    `update` is the share of themselves by which a steered step changed the weights.
    """

    lr: float
    loss: float
    accuracy: float
    update: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None

    @property
    def judged(self) -> tuple[float, float]:
        """The loss and accuracy that count: on the validation part where there is one."""
        if self.val_loss is None or self.val_accuracy is None:
            return self.loss, self.accuracy
        return self.val_loss, self.val_accuracy


def range_test(
    state: TrainState,
    dataset: Dataset,
    recipe: Recipe,
    machine: Machine,
    seed: int,
    sweep: Sweep,
    feed: Feed | None = None,
) -> Iterator[Point]:
    """Train a copy of `state` at the rates of `sweep`, yielding at each; `state` stays as it is.

    All but the rate is as in training: augmentation, precision, ghost batches, decay, momentum.
    A test per batch ends early when it has diverged (`suggest.diverged`), and any test does when
    a loss is not finite.
    """
    trial = copy.deepcopy(state)
    trial.step = 0
    table = sweep.timetable(recipe, len(dataset.train))
    pending: list[Step] = []
    losses: list[float] = []
    for step in fit(trial, dataset, recipe, machine, seed, table, feed=feed):
        pending.append(step)
        if sweep.per_epoch and step.step % table.steps_per_epoch:
            continue
        point = _point(pending, trial, dataset.val, machine)
        pending = []
        losses.append(point.judged[0])
        yield point
        if not math.isfinite(losses[-1]) or (not sweep.per_epoch and suggest.diverged(losses)):
            return


def steered_test(
    state: TrainState,
    dataset: Dataset,
    recipe: Recipe,
    machine: Machine,
    seed: int,
    feed: Feed | None = None,
) -> Iterator[Point]:
    """As `range_test`, at rates that are steered by what each step does to the weights.

    Its points tell that as `update`, and of the batches alone. It ends early when a loss is not
    finite.
    """
    trial = copy.deepcopy(state)
    trial.step = 0
    table = steer.steered(recipe, len(dataset.train))
    updates = steer.Updates(trial.model)
    for step in fit(trial, dataset, recipe, machine, seed, table, feed=feed):
        point = _point([step], trial, None, machine)
        update = updates.look()
        yield replace(point, update=update)
        if not math.isfinite(point.loss):
            return
        table.helm.turn(update)


def _point(steps: list[Step], trial: TrainState, val: Split | None, machine: Machine) -> Point:
    images = sum(step.images for step in steps)
    loss = sum(float(step.loss) * step.images for step in steps) / images
    accuracy = sum(int(step.correct) for step in steps) / images
    point = Point(steps[0].lr, loss, accuracy)
    if not val:
        return point
    predicted = probabilities(trial.model, val, machine)
    if not np.isfinite(predicted).all():
        return replace(point, val_loss=math.inf, val_accuracy=0.0)
    return replace(
        point,
        val_loss=metrics.loss(predicted, val.labels),
        val_accuracy=metrics.accuracy(predicted, val.labels),
    )
