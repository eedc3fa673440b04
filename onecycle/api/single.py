"""One run: begun, or gone on with."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from onecycle import files, machine, progress
from onecycle.api.handle import Run
from onecycle.api.lr import with_found_rates
from onecycle.api.setup import Setup
from onecycle.datasets.dataset import Dataset
from onecycle.errors import RecipeError
from onecycle.ranks import Ranks, join, loss_of_others
from onecycle.recipe.schema import Recipe
from onecycle.reporting import plots
from onecycle.run import estimate, record, reopen
from onecycle.run.checkpoint import Checkpoint, newest
from onecycle.run.conduct import conduct
from onecycle.run.job import Job

VERSIONS = ("onecycle", "torch", "numpy", "pillow", "scikit-learn", "safetensors")


def train(setup: Setup, seed: int, out: Path | None, show: progress.Show) -> Run:
    """Train `setup` with `seed` into the new folder `out`. Raises as `onecycle.train`."""
    dataset, where, ranks = setup.open(seed, show)
    folder = ranks.in_turn(lambda: _folder(setup.recipe, out, ranks))
    job = Job(setup.recipe, dataset, where, seed, folder, ranks)
    with _one_writer(folder, ranks):
        if setup.lr_auto:
            job = replace(job, recipe=with_found_rates(job, show))
        if ranks.first:
            describe(job, setup.val_fraction, **setup.reading)
        expected = estimate.seconds(job.recipe, dataset, where) / ranks.world
        show.started(job, expected)
        return drive(job, None, show)


def resume(folder: Path, show: progress.Show) -> Run:
    """Go on with the run in `folder`. Raises as `onecycle.resume`."""
    reopen.begun(folder)
    if (folder / record.SUMMARY).exists():
        raise RecipeError(f"--resume {folder}: this run is finished; start a new one")
    made = files.read_json(folder / record.ENVIRONMENT)
    where = machine.choose(**{k: made["machine"][k] for k in ("device", "precision", "threads")})
    ranks = join(where.device)
    if not ranks.first:
        show.hush()
    if ranks.world != made.get("processes", 1):
        raise RecipeError(
            f"--resume {folder}: it was trained by {made.get('processes', 1)} processes, not "
            f"{ranks.world}: start as many again"
        )
    with _one_writer(folder, ranks):
        checkpoint = newest(folder)
        recipe = Run(folder).recipe
        if recipe.digest() != checkpoint.extra["recipe_digest"]:
            raise RecipeError(
                f"{folder / record.RECIPE} is not the recipe that was saved; restore it"
            )
        digest = checkpoint.extra["data_digest"]
        dataset = ranks.in_turn(
            lambda: reopen.dataset(folder, digest, show.decoded, show.downloaded)
        )
        job = Job(recipe, dataset, where, made["seed"], folder, ranks)
        show.resumed(job, checkpoint)
        return drive(job, checkpoint, show)


@contextmanager
def _one_writer(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Hold the run folder inside the block, and take leave of other processes after it."""
    lock = files.FolderLock(folder) if ranks.first else None
    try:
        yield
    finally:
        if lock:
            lock.release()
        ranks.leave()


def _folder(recipe: Recipe, out: Path | None, ranks: Ranks) -> Path:
    """The run folder, made by the first process."""
    if ranks.first or out is None:
        return record.new_folder(recipe.name, out)
    return out


def drive(job: Job, checkpoint: Checkpoint | None, show: progress.Show) -> Run:
    """Conduct `job`, from `checkpoint` if given, show it, and draw its curves."""
    with show, loss_of_others():
        for event in conduct(job, checkpoint):
            show.event(event)
    if job.ranks.first:
        plots.save(plots.curves(record.read_metrics(job.folder)), job.folder / record.CURVES)
    return Run(job.folder)


def describe(
    job: Job, val_fraction: float = 0.0, skip_bad: bool = False, image_size: int | None = None
) -> None:
    """Write what the run is, before its first step."""
    data: Dataset = job.dataset
    files.write_json(
        job.folder / record.RECIPE,
        {"digest": job.recipe.digest(), "recipe": job.recipe.to_dict()},
    )
    files.write_json(job.folder / record.CLASSES, list(data.classes))
    files.write_json(
        job.folder / record.ENVIRONMENT,
        {
            "data": {
                "name": data.name,
                "source": data.source,
                "digest": data.digest,
                "train": len(data.train),
                "val": len(data.val) if data.val else 0,
                "test": len(data.test),
                "image_size": data.image_size,
                "mean": data.mean.tolist(),
                "std": data.std.tolist(),
                "skip_bad": skip_bad,
                "image_size_asked": image_size,
                "skipped": data.skipped,
            },
            "seed": job.seed,
            "val_fraction": val_fraction,
            "machine": job.machine.to_dict(),
            "processes": job.ranks.world,
            "hardware": machine.device_name(job.machine.device),
            "system": platform.platform(),
            "python": platform.python_version(),
            "versions": {name: metadata.version(name) for name in VERSIONS},
        },
    )
