"""The learning-rate range test (Smith, 2015): `fit` on a copy, with rates that rise."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onecycle.datasets.dataset import Dataset
from onecycle.datasets.feed import Feed
from onecycle.errors import RecipeError
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.machine import Machine
from onecycle.recipe import book, schedules
from onecycle.recipe.schema import Recipe
from onecycle.run.job import Job
from onecycle.training import state as states
from onecycle.training import suggest
from onecycle.training.loop import Step, fit
from onecycle.training.schedule import Knot, Timetable, steps_per_epoch
from onecycle.training.state import TrainState

START, END = 1e-5, 1.0  # of a test per batch
FEWEST, MOST = 90, 200  # steps of a test per batch, by default
FEWEST_GIVEN = 10  # steps that may be asked for
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


@dataclass(frozen=True)
class Point:
    """What a batch or an epoch saw at its rate. Losses in nats, accuracies as fractions.

    The figures on the validation part, where there is one, are taken after the last step.
    """

    lr: float
    loss: float
    accuracy: float
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
        point = _point(pending, trial, dataset, machine)
        pending = []
        losses.append(point.judged[0])
        yield point
        if not math.isfinite(losses[-1]) or (not sweep.per_epoch and suggest.diverged(losses)):
            return


def _point(steps: list[Step], trial: TrainState, dataset: Dataset, machine: Machine) -> Point:
    images = sum(step.images for step in steps)
    loss = sum(float(step.loss) * step.images for step in steps) / images
    accuracy = sum(int(step.correct) for step in steps) / images
    if not dataset.val:
        return Point(steps[0].lr, loss, accuracy)
    predicted = probabilities(trial.model, dataset.val, machine)
    if not np.isfinite(predicted).all():
        return Point(steps[0].lr, loss, accuracy, math.inf, 0.0)
    labels = dataset.val.labels
    judged = metrics.loss(predicted, labels), metrics.accuracy(predicted, labels)
    return Point(steps[0].lr, loss, accuracy, *judged)


@dataclass(frozen=True)
class Curve:
    """The range test of one seed, in order of the rates."""

    seed: int
    points: tuple[Point, ...]

    @property
    def lrs(self) -> list[float]:
        """The rates."""
        return [point.lr for point in self.points]

    @property
    def losses(self) -> list[float]:
        """The losses that count."""
        return [point.judged[0] for point in self.points]

    @property
    def accuracies(self) -> list[float]:
        """The accuracies that count."""
        return [point.judged[1] for point in self.points]


def curves(
    job: Job, seeds: Iterable[int], sweep: Sweep, seen: Callable[[int, int, Point], None]
) -> list[Curve]:
    """A curve for each of `seeds`, which draw the first weights, the order and the augmentation.

    `seen` is called with the seed, the number of rates done and the newest point.
    """
    found = []
    for seed in seeds:
        state = states.create(job.recipe, job.dataset, job.machine, seed)
        if job.init:
            job.init.put_into(state.model)
        points: list[Point] = []
        for point in range_test(
            state, job.dataset, job.recipe, job.machine, seed, sweep, job.feed(seed)
        ):
            points.append(point)
            seen(seed, len(points), point)
        found.append(Curve(seed, tuple(points)))
    return found


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

    A test per batch takes the steps of an epoch, but at least `FEWEST` and at most `MOST`; one
    per epoch goes around the recipe's own peak.
    """
    if per_epoch:
        peak = schedules.peak(recipe.to_dict()["schedule"])
        low, high, usual, fewest = LOW * peak, HIGH * peak, EPOCHS, FEWEST_EPOCHS
    else:
        low, high, fewest = START, END, FEWEST_GIVEN
        usual = min(max(steps_per_epoch(recipe, images), FEWEST), MOST)
    start, end = low if start is None else start, high if end is None else end
    steps = usual if steps is None else steps
    if not 0 < start < end < math.inf:
        raise RecipeError(f"--start {start:g} --end {end:g}: the rates must rise from above 0")
    if steps < fewest:
        raise RecipeError(f"--steps {steps}: give at least {fewest}")
    return Sweep(start, end, steps, linear or per_epoch, per_epoch)


def unjudged(recipe: Recipe) -> str:
    """Why no rule can be trusted to find the peak of `recipe`, or nothing."""
    if any(group.optimizer == "muon" for group in recipe.groups):
        return (
            f"the rules are for sgd, adam and adamw, and find rates too high for muon, by which "
            f"{recipe.name} learns: keep its own rate, or give a number"
        )
    return ""


def rows(curve: Curve) -> list[dict[str, float]]:
    """The rows that `lr_find.csv` has of `curve`."""
    table = []
    for point, smoothed in zip(curve.points, suggest.smooth(curve.losses), strict=True):
        seen = {key: value for key, value in asdict(point).items() if value is not None}
        table.append({"seed": curve.seed, **seen, "smoothed": smoothed})
    return table


def judge(curves: list[Curve], sweep: Sweep, recipe: Recipe) -> dict[str, Any]:
    """What `lr_find.json` holds: the rates of each rule, and those for one cycle or why not.

    `lr_max` is the median over the seeds of what the chosen rule finds, to two digits; `lr_min` is
    the start that the recipe's schedule has when its peak is `lr_max` (null where its kind has
    none).
    """
    if sweep.per_epoch:
        rules, chosen, problem = suggest.PER_EPOCH, "highest accuracy", ""
        tests = [suggest.read_epochs(curve.lrs, curve.accuracies) for curve in curves]
    else:
        rules, chosen = suggest.RULES, suggest.CHOSEN
        tests = [suggest.read(curve.lrs, curve.losses) for curve in curves]
        problem = suggest.flat(tests)
    made = [suggest.suggest(name, rule, tests) for name, rule in rules.items()]
    taken = next(each for each in made if each.rule == chosen)
    refused = taken.refused and f"the rate by '{chosen}' is {taken.refused}"
    problem = unjudged(recipe) or problem or refused
    # Two digits say all that a test knows, and can be typed.
    lr_max = None if problem or not taken.lr else float(f"{taken.lr:.2g}")
    schedule = book.change(recipe, [], lr=lr_max).to_dict()["schedule"] if lr_max else {}
    return {
        "lr_max": lr_max,
        "lr_min": schedule.get("lr_start"),
        "rule": chosen,
        "problem": problem,
        "suggestions": [{**asdict(each), "lr": each.lr} for each in made],
        "sweep": asdict(sweep),
        "seeds": [curve.seed for curve in curves],
        "diverged_at": [test.last if test.diverged else None for test in tests],
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
    }
