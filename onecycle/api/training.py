"""Training as a Python function: a new run, or an interrupted one that goes on."""

import platform
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from onecycle import files, machine, progress
from onecycle.api.handle import Run
from onecycle.api.lr import sweep_into
from onecycle.api.recipes import Settings, choose_recipe
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.load import load as load_data
from onecycle.errors import DataError, RecipeError
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe
from onecycle.reporting import plots
from onecycle.run import estimate, record
from onecycle.run.checkpoint import Checkpoint, newest
from onecycle.run.conduct import conduct
from onecycle.run.find_lr import choose_sweep
from onecycle.run.job import Job
from onecycle.training.loop import check_sizes

VERSIONS = ("onecycle", "torch", "numpy", "pillow", "scikit-learn", "safetensors")


def train(
    recipe: str | Recipe | None = None,
    data: str | Path = "digits",
    *,
    epochs: float | None = None,
    lr: float | str | None = None,
    settings: Settings = (),
    seed: int = 0,
    val_fraction: float = 0.0,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> Run:
    """Train `recipe` (by default the one that the catalogue names for `data`) and return the run.

    `data` is `digits`, `cifar10`, `cifar100`, `cifar100-coarse`, or the path of a folder or archive
    with `train/<class>/*` and `test/<class>/*`, or of CIFAR as published. `epochs` sets the length
    and stretches the schedule with it; `lr` sets the peak of the rate and scales its other rates
    with it, and `auto` has a range test find it first, as `find_lr` does, and keeps that in the
    run folder. `settings` changes the recipe by dotted key, as a mapping or as `key=value` texts.
    `val_fraction` holds out that part of the training images and judges each epoch on it, so that
    the test part is read once, at the end. `out` names the run folder, by default the next
    `runs/<recipe>-<n>`. Progress goes to stderr unless `quiet`.

    Raises RecipeError, DataError, DiskError, DivergedError, or InterruptedRun after a signal.
    """
    peak = _peak(lr)
    chosen = choose_recipe(recipe, data, epochs, settings, peak)
    show = progress.Show(quiet)
    where = machine.choose(device, precision, threads)
    dataset = load_data(data, show.decoded, show.downloaded)
    if val_fraction:
        dataset = dataset.hold_out(val_fraction, seed)
    check_sizes(chosen, dataset)
    expected = estimate.seconds(chosen, dataset, where)
    folder = record.new_folder(chosen.name, Path(out) if out else None)
    job = Job(chosen, dataset, where, seed, folder)
    lock = files.FolderLock(folder)
    try:
        if lr is not None and peak is None:
            job = replace(job, recipe=_with_found_rates(job, show))
        _describe(job, val_fraction)
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
        dataset = load_data(made["data"]["source"], show.decoded, show.downloaded)
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


def _peak(lr: float | str | None) -> float | None:
    """The peak that `lr` gives; None for `auto`. Raises RecipeError for what is neither."""
    if lr is None or lr == "auto":
        return None
    try:
        return float(lr)
    except ValueError:
        raise RecipeError(f"--lr {lr}: give a number, or auto") from None


def _with_found_rates(job: Job, show: progress.Show) -> Recipe:
    """The recipe of `job` with the peak that a range test finds, on the training images alone."""
    trial = replace(job, dataset=replace(job.dataset, val=None))
    sweep = choose_sweep(job.recipe, len(job.dataset.train))
    return book.change(job.recipe, [], lr=sweep_into(trial, sweep, 1, show).lr_max)


def _drive(job: Job, checkpoint: Checkpoint | None, show: progress.Show) -> Run:
    with show:
        for event in conduct(job, checkpoint):
            show.event(event)
    plots.save(plots.curves(record.read_metrics(job.folder)), job.folder / record.CURVES)
    return Run(job.folder)


def _describe(job: Job, val_fraction: float) -> None:
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
