"""Suspected label errors as a Python function: five trainings judge the images they didn't see."""

import shutil
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onecycle import files, machine, progress
from onecycle.api.gallery import Gallery, Only
from onecycle.api.handle import Run
from onecycle.api.recipes import Settings, choose_recipe
from onecycle.api.single import drive
from onecycle.datasets.dataset import Dataset
from onecycle.errors import InterruptedRun, OnecycleError, need
from onecycle.evaluation.label_errors import label_quality, suspected
from onecycle.evaluation.pick import of_classes
from onecycle.recipe.schema import Recipe
from onecycle.reporting import gallery as drawing
from onecycle.run import environment, estimate, record, reopen
from onecycle.run.checkpoint import Checkpoint, newest
from onecycle.run.folds import FOLDS, folds, without
from onecycle.run.job import Job
from onecycle.training.loop import check_sizes


def label_errors(
    run: str | PathLike[str],
    count: int = 25,
    *,
    actual: str | None = None,
    predicted: str | None = None,
    recipe: str | Recipe | None = None,
    epochs: float | None = None,
    settings: Settings = (),
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> Gallery:
    """The training images of a finished run whose labels are most probably wrong.

    Five trainings on four fifths of the training part each judge the fifth that they didn't see;
    cleanlab ranks all labels by these judgements. They follow `recipe` (by default the run's),
    changed by `epochs` and `settings`, and are kept in the run's folder: what was interrupted goes
    on with the same call. `actual` (the label) and `predicted` keep one class each.

    Raises what `train` raises, and MissingExtraError without cleanlab.
    """
    need("cleanlab", "labels", "finding label errors")
    folder = reopen.finished(run)
    show = progress.Show(quiet)
    made = Run(folder)
    only = Only(count, actual, predicted)
    classes = files.read_json(folder / record.CLASSES)
    wanted = only.numbers(classes)
    data = reopen.dataset(folder, made.summary["data_digest"], show.decoded, show.downloaded)
    chosen = choose_recipe(recipe or made.recipe, data.source, epochs, settings)
    where = machine.choose(device, precision, threads)
    place = folder / record.LABEL_ERRORS / chosen.digest()
    probabilities = _out_of_sample(chosen, data, where, made.summary["seed"], place, show)
    labels = data.train.labels
    quality = label_quality(probabilities, labels)
    found = np.flatnonzero(of_classes(probabilities, labels, **wanted))
    ranked = found[np.argsort(quality[found], kind="stable")]
    doubtful = int(suspected(probabilities, labels)[found].sum())
    return Gallery(
        drawing.gather(data.train, ranked[:count], probabilities, labels, classes, quality=quality),
        f"{data.name}: {len(ranked[:count]):,} of {len(found):,} training images{only.words}, the "
        f"least fitting labels first; cleanlab takes {doubtful:,} for wrong",
        folder / record.GALLERY / f"label-errors-{chosen.digest()}{only.ending}",
    )


def _out_of_sample(
    recipe: Recipe,
    data: Dataset,
    where: machine.Machine,
    seed: int,
    place: Path,
    show: progress.Show,
) -> NDArray[np.float32]:
    """Probabilities (N, classes) of the training images, each by the training that lacked it."""
    check_sizes(recipe, data)
    held = folds(data, seed)
    folders = [place / f"fold-{number}" for number in range(1, FOLDS + 1)]
    jobs = [
        Job(recipe, without(data, positions), where, seed, fold)
        for fold, positions in zip(folders, held, strict=True)
        if not (fold / record.SUMMARY).exists()
    ]
    if jobs:
        seconds = len(jobs) * estimate.seconds(recipe, jobs[0].dataset, where)
        epochs = recipe.sized(len(jobs[0].dataset.train)).epochs
        kept = f", {FOLDS - len(jobs)} of them kept from before" if len(jobs) < FOLDS else ""
        show.note(
            f"{FOLDS} trainings of {recipe.name} ({recipe.digest()}), {epochs:g} epochs on "
            f"{len(jobs[0].dataset.train):,} images each{kept}: expected to take about "
            f"{progress.duration(seconds)} here; Ctrl-C saves, and the same command goes on"
        )
    for job in jobs:
        show.note(f"{job.folder.name} of {FOLDS}")
        _train(job, show)
    probabilities = np.empty((len(data.train), len(data.classes)), dtype=np.float32)
    for fold, positions in zip(folders, held, strict=True):
        probabilities[positions] = record.read_predictions(fold, "test")[0]
    return probabilities


def _train(job: Job, show: progress.Show) -> None:
    """Train one fold to its end, from its last checkpoint if it has one, and drop those then."""
    lock = files.FolderLock(files.make_folder(job.folder))
    try:
        saved = _saved(job)
        if saved is None:
            environment.describe(job)
        drive(job, saved, show)
        with files.disk_errors(job.folder, "clear"):
            shutil.rmtree(job.folder / record.CHECKPOINTS)
    except InterruptedRun as stopped:
        raise InterruptedRun(
            f"stopped and saved in {job.folder.name} of {FOLDS}; the same command goes on",
            stopped.exit_code - 128,
        ) from None
    finally:
        lock.release()


def _saved(job: Job) -> Checkpoint | None:
    """The checkpoint that the fold goes on from, if there is one."""
    try:
        saved = newest(job.folder)
    except OnecycleError:  # none yet, or none that is whole
        return None
    return saved if saved.extra["data_digest"] == job.dataset.digest else None
