"""How long a run will take, measured on a throw-away model before it starts."""

import time

from onecycle.datasets.dataset import Dataset
from onecycle.datasets.feed import Feed
from onecycle.machine import Machine, wait
from onecycle.recipe.schema import Recipe
from onecycle.training import state as states
from onecycle.training.loop import fit
from onecycle.training.schedule import timetable

FORWARD_SHARE = 1 / 3  # of a training step's work; the backward pass is twice the forward one
ENOUGH_SECONDS = 0.5
ALLOWED_SECONDS = 4.0


def seconds(recipe: Recipe, dataset: Dataset, machine: Machine, feed: Feed | None = None) -> float:
    """Expected seconds of the whole run, evaluations included; its batches come from `feed`."""
    judged = len(dataset.val or dataset.test)
    per_image = image_seconds(recipe, dataset, machine, feed=feed)
    return run_seconds(recipe, per_image, len(dataset.train), judged)


def image_seconds(
    recipe: Recipe,
    dataset: Dataset,
    machine: Machine,
    allowed: float = ALLOWED_SECONDS,
    feed: Feed | None = None,
) -> float:
    """Seconds that training takes for one image, on average over the recipe's image sizes.

    Times steps of a few images of the recipe's own kind, after one that warms up; then of as many,
    up to the recipe's batch, as let two steps end within `allowed` seconds from the start. For an
    optimizer takes as long for a few images as for many, and many may fall out of the cache.
    """
    end = time.perf_counter() + allowed
    recipe = recipe.sized(len(dataset.train))
    most = min(recipe.batch_size, len(dataset.train))
    few = min(most, machine.piece)
    taken = _mean_seconds(recipe, dataset, machine, few, feed)
    more = min(most, int((end - time.perf_counter()) / 2 / taken))
    return taken if more <= few else _mean_seconds(recipe, dataset, machine, more, feed)


def _mean_seconds(
    recipe: Recipe, dataset: Dataset, machine: Machine, batch: int, feed: Feed | None
) -> float:
    """Seconds for one image in steps of `batch`, on average over the recipe's image sizes."""
    return sum(
        part * _seconds_at(share, recipe, dataset, machine, batch, feed)
        for part, share in phases(recipe)
    )


def phases(recipe: Recipe) -> list[tuple[float, float]]:
    """The parts of a run, adding up to 1, and the share of its side that an image has in each."""
    knots = [(0.0, 1.0), *recipe.resolution]
    ends = [*(at for at, _ in recipe.resolution), recipe.epochs]
    return [
        ((end - start) / recipe.epochs, share)
        for (start, share), end in zip(knots, ends, strict=True)
        if end > start
    ]


def _seconds_at(
    share: float,
    recipe: Recipe,
    dataset: Dataset,
    machine: Machine,
    batch: int,
    feed: Feed | None,
) -> float:
    """Seconds for one image at that share of its size, in steps of `batch`."""
    epochs = max(recipe.epochs, 2.0)  # so that a step is left to be timed
    changes = {"batch_size": batch, "resolution": ((0.0, share),)}
    small = recipe.model_copy(update={**changes, "epochs": epochs})
    state = states.create(small, dataset, machine, seed=0)
    steps = fit(state, dataset, small, machine, seed=0, feed=feed)
    next(steps)
    wait(machine.device)
    start, done = time.perf_counter(), 0
    for step in steps:
        wait(machine.device)
        done += step.images
        if time.perf_counter() - start > ENOUGH_SECONDS:
            break
    return (time.perf_counter() - start) / done


def run_seconds(recipe: Recipe, per_image: float, train: int, judged: int) -> float:
    """Seconds of a run over `train` images, with `judged` images predicted after each epoch."""
    trained = timetable(recipe, train).total_steps * min(recipe.batch_size, train)
    return per_image * (trained + FORWARD_SHARE * (judged * recipe.sized(train).epochs + train))
