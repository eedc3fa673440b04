"""Training as a Python function: a new run, or an interrupted one that goes on."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from onecycle import files, machine, progress
from onecycle.api.handle import Run
from onecycle.api.recipes import Settings, choose_recipe
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.load import load as load_data
from onecycle.errors import DataError, RecipeError
from onecycle.recipe.schema import Recipe
from onecycle.reporting import plots
from onecycle.run import estimate, record
from onecycle.run.checkpoint import Checkpoint, newest
from onecycle.run.conduct import conduct
from onecycle.run.job import Job
from onecycle.training.loop import check_sizes

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
    show = progress.Show(quiet)
    where = machine.choose(device, precision, threads)
    reading: dict[str, Any] = {"skip_bad": skip_bad, "image_size": image_size}
    dataset = load_data(data, show.decoded, show.downloaded, **reading)
    if val_fraction:
        dataset = dataset.hold_out(val_fraction, seed)
    check_sizes(chosen, dataset)
    expected = estimate.seconds(chosen, dataset, where)
    folder = record.new_folder(chosen.name, Path(out) if out else None)
    job = Job(chosen, dataset, where, seed, folder)
    lock = files.FolderLock(folder)
    try:
        _describe(job, val_fraction, reading)
        show.started(job, expected)
        return _drive(job, None, show)
    finally:
        lock.release()


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
    lock = files.FolderLock(folder)
    try:
        checkpoint = newest(folder)
        made = files.read_json(folder / record.ENVIRONMENT)
        recipe = Run(folder).recipe
        if recipe.digest() != checkpoint.extra["recipe_digest"]:
            raise RecipeError(
                f"{folder / record.RECIPE} is not the recipe that was saved; restore it"
            )
        where = machine.choose(
            **{k: made["machine"][k] for k in ("device", "precision", "threads")}
        )
        show = progress.Show(quiet)
        # Runs of before there was a choice have none written down.
        reading = {k: made["data"][k] for k in ("skip_bad", "image_size") if k in made["data"]}
        dataset = load_data(made["data"]["source"], show.decoded, show.downloaded, **reading)
        if dataset.digest != checkpoint.extra["data_digest"]:
            raise DataError(
                f"{made['data']['source']} is not the data that {folder} was trained on "
                f"(digest {dataset.digest[:12]}, then {checkpoint.extra['data_digest'][:12]})"
            )
        if made["val_fraction"]:
            dataset = dataset.hold_out(made["val_fraction"], made["seed"])
        job = Job(recipe, dataset, where, made["seed"], folder)
        show.resumed(job, checkpoint)
        return _drive(job, checkpoint, show)
    finally:
        lock.release()


def _drive(job: Job, checkpoint: Checkpoint | None, show: progress.Show) -> Run:
    with show:
        for event in conduct(job, checkpoint):
            show.event(event)
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
            "hardware": machine.device_name(job.machine.device),
            "system": platform.platform(),
            "python": platform.python_version(),
            "versions": {name: metadata.version(name) for name in VERSIONS},
        },
    )
