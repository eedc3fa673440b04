"""Training as a Python function: a new run, or an interrupted one that goes on."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from onecycle import files, machine, progress
from onecycle.api.handle import Run
from onecycle.api.recipes import Settings, choose_recipe
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.load import load as load_data
from onecycle.errors import DataError, RecipeError
from onecycle.ranks import Ranks, join, loss_of_others, restarts
from onecycle.recipe.schema import Recipe
from onecycle.reporting import plots
from onecycle.run import estimate, record
from onecycle.run.checkpoint import Checkpoint, has_checkpoint, newest
from onecycle.run.conduct import conduct
from onecycle.run.job import Job
from onecycle.training.loop import check_groups, check_sizes

VERSIONS = ("onecycle", "torch", "numpy", "pillow", "scikit-learn", "safetensors")


def train(
    recipe: str | Recipe | None = None,
    data: str | Path = "digits",
    *,
    epochs: float | None = None,
    settings: Settings = (),
    seed: int = 0,
    val_fraction: float = 0.0,
    skip_bad: bool = False,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> Run:
    """Train `recipe` (by default the one that the catalogue names for `data`) and return the run.

    `data` is `digits`, `cifar10`, `cifar100`, `cifar100-coarse`, or the path of a folder or archive
    with `train/<class>/*` and `test/<class>/*`, or of CIFAR as published. `epochs` sets the length
    and keeps the peak at the same fraction of it; `settings` changes the recipe by dotted key, as a
    mapping or as `key=value` texts. `val_fraction` holds out that part of the training images and
    judges each epoch on it, so that the test part is read once, at the end. `skip_bad` leaves out
    pictures that can't be used, each of which is an error otherwise. `image_size` is what pictures
    are brought to, 16 to 128 pixels; by default they keep the one size that they have, or one is
    chosen for them. `out` names the run folder, by default the next `runs/<recipe>-<n>`. Progress
    goes to stderr unless `quiet`.

    Raises RecipeError, DataError, DiskError, DivergedError, or InterruptedRun after a signal.
    """
    chosen = choose_recipe(recipe, data, epochs, settings)
    where = machine.choose(device, precision, threads)
    ranks = join(where.device)
    if ranks.world > 1 and out is None:
        raise RecipeError("torchrun needs --out, so that all processes and restarts find the run")
    if restarts() and out is not None and has_checkpoint(Path(out)):
        return resume(out, quiet=quiet)
    show = progress.Show(quiet or not ranks.first)
    check_groups(chosen, ranks)
    reading: dict[str, Any] = {"skip_bad": skip_bad, "image_size": image_size}
    dataset = ranks.in_turn(lambda: load_data(data, show.decoded, show.downloaded, **reading))
    if val_fraction:
        dataset = dataset.hold_out(val_fraction, seed)
    check_sizes(chosen, dataset)
    expected = estimate.seconds(chosen, dataset, where) / ranks.world
    folder = ranks.in_turn(lambda: _folder(chosen, out, ranks))
    job = Job(chosen, dataset, where, seed, folder, ranks)
    with _one_writer(job):
        if ranks.first:
            _describe(job, val_fraction, reading)
        show.started(job, expected)
        return _drive(job, None, show)


def resume(run: str | Path, *, quiet: bool = False) -> Run:
    """Go on with an interrupted run from its newest valid checkpoint, bitwise as if never stopped.

    Raises OnecycleError if it is finished or has no valid checkpoint, DataError if its data has
    changed, RecipeError if there is no such run.
    """
    folder = Path(run)
    if not (folder / record.ENVIRONMENT).is_file():
        raise RecipeError(f"--resume {folder}: no run is there (no {record.ENVIRONMENT})")
    if (folder / record.SUMMARY).exists():
        raise RecipeError(f"--resume {folder}: this run is finished; start a new one")
    made = files.read_json(folder / record.ENVIRONMENT)
    where = machine.choose(**{k: made["machine"][k] for k in ("device", "precision", "threads")})
    ranks = join(where.device)
    if ranks.world != made.get("processes", 1):
        raise RecipeError(
            f"--resume {folder}: it was trained by {made.get('processes', 1)} processes, not "
            f"{ranks.world}: start as many again"
        )
    recipe = Run(folder).recipe
    show = progress.Show(quiet or not ranks.first)
    source = made["data"]["source"]
    # Runs of before there was a choice have none written down.
    reading = {k: made["data"][k] for k in ("skip_bad", "image_size") if k in made["data"]}
    dataset = ranks.in_turn(lambda: load_data(source, show.decoded, show.downloaded, **reading))
    if made["val_fraction"]:
        dataset = dataset.hold_out(made["val_fraction"], made["seed"])
    job = Job(recipe, dataset, where, made["seed"], folder, ranks)
    with _one_writer(job):
        checkpoint = newest(folder)
        if recipe.digest() != checkpoint.extra["recipe_digest"]:
            raise RecipeError(
                f"{folder / record.RECIPE} is not the recipe that was saved; restore it"
            )
        if dataset.digest != checkpoint.extra["data_digest"]:
            raise DataError(
                f"{source} is not the data that {folder} was trained on "
                f"(digest {dataset.digest[:12]}, then {checkpoint.extra['data_digest'][:12]})"
            )
        show.resumed(job, checkpoint)
        return _drive(job, checkpoint, show)


@contextmanager
def _one_writer(job: Job) -> Iterator[None]:
    """Hold the run folder inside the block, and take leave of other processes after it."""
    lock = files.FolderLock(job.folder) if job.ranks.first else None
    try:
        yield
    finally:
        if lock:
            lock.release()
        job.ranks.leave()


def _folder(recipe: Recipe, out: str | Path | None, ranks: Ranks) -> Path:
    """The run folder, made by the first process."""
    if ranks.first or out is None:
        return record.new_folder(recipe.name, Path(out) if out else None)
    return Path(out)


def _drive(job: Job, checkpoint: Checkpoint | None, show: progress.Show) -> Run:
    with show, loss_of_others():
        for event in conduct(job, checkpoint):
            show.event(event)
    if job.ranks.first:
        plots.save(plots.curves(record.read_metrics(job.folder)), job.folder / record.CURVES)
    return Run(job.folder)


def _describe(job: Job, val_fraction: float, reading: dict[str, Any]) -> None:
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
                "mean": data.mean.tolist(),
                "std": data.std.tolist(),
                **reading,
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
