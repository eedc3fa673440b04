"""The learning-rate range test as a Python function, and what it returns."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from onecycle import files, progress
from onecycle.api.recipes import Settings, choose_recipe
from onecycle.api.setup import Setup, check_seed
from onecycle.errors import RecipeError
from onecycle.ranks import world
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe
from onecycle.reporting import lr_plots, plots
from onecycle.run import record
from onecycle.run.find_lr import curves, judge, rows, steered_rows
from onecycle.run.job import Job
from onecycle.run.memory import explained
from onecycle.run.range_test import Sweep, choose_sweep
from onecycle.training import steer


@dataclass(frozen=True)
class RangeTest:
    """A finished range test: its folder, read when asked."""

    path: Path

    @cached_property
    def found(self) -> dict[str, Any]:
        """What `lr_find.json` holds: the rates found, by which rule, and what was swept."""
        found: dict[str, Any] = files.read_json(self.path / record.LR_FOUND)
        return found

    @property
    def lr_max(self) -> float:
        """The peak for one cycle."""
        return float(self.found["lr_max"])

    @property
    def lr_min(self) -> float | None:
        """The start that the recipe's schedule has below that peak; None if its kind has none."""
        start: float | None = self.found["lr_min"]
        return start

    @property
    def suggestions(self) -> dict[str, float | None]:
        """What each rule suggests; None where it was refused."""
        return {each["rule"]: each["lr"] for each in self.found["suggestions"]}

    @property
    def points(self) -> list[dict[str, float]]:
        """A row a rate and seed of the sweep: seed, lr, loss, accuracy and smoothed loss."""
        return record.read_table(self.path / record.LR_TABLE)

    @property
    def steered(self) -> list[dict[str, float]]:
        """A row a steered step and seed; empty for a test per epoch.

        seed, lr, loss, accuracy, and the share of themselves (`update`) that weights changed by.
        """
        path = self.path / record.LR_STEERED
        return record.read_table(path) if path.is_file() else []

    def curve(self) -> Figure:
        """The loss (or accuracy) at each rate, with the rates found."""
        return lr_plots.range_test(self.points, self.steered, self.found)


def find_lr(
    recipe: str | Recipe | None = None,
    data: str | Path = "digits",
    *,
    epochs: float | None = None,
    settings: Settings = (),
    start: float | None = None,
    end: float | None = None,
    steps: int | None = None,
    linear: bool = False,
    per_epoch: bool = False,
    seeds: int = 1,
    seed: int = 0,
    val_fraction: float = 0.0,
    skip_bad: bool = False,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> RangeTest:
    """Train copies of `recipe` at rising and at steered rates; return the rates for one cycle.

    `steps` rates from `start` to `end`, a batch each and evenly apart in their logarithm (by
    `linear` in themselves), until the loss diverges; then a second copy at rates steered for
    steps that change the weights by 2 % of themselves, from which the peak is taken
    (`onecycle/training/steer.py`). With `per_epoch` an epoch for each of `steps` rates, evenly
    apart, judged by accuracy. It is repeated for `seeds` seeds from `seed`. `val_fraction` of the
    training images is held out to judge on instead of the batches; the test part is never read.
    `out` names the folder for `lr_find.csv`, `.png` and `.json` and `lr_steered.csv`, by default
    the next `runs/<recipe>-lr-<n>`.
    The other arguments are as in `train`.

    Raises RecipeError, saying what to do, where steering went astray, the rate of a test per epoch
    lies at the edge of those swept, or the recipe learns by Muon, which no rule is good for (the
    files are written all the same); DataError, DiskError.
    """
    setup = Setup(
        choose_recipe(recipe, data, epochs, settings),
        str(data),
        val_fraction,
        skip_bad,
        image_size,
        device,
        precision,
        threads,
    )
    if seeds < 1:
        raise RecipeError(f"--seeds {seeds}: give at least 1")
    check_seed(seed, seeds)
    if world() > 1:
        raise RecipeError("find-lr goes without torchrun: one process makes the whole test")
    show = progress.Show(quiet)
    dataset, where, _ = setup.open(seed, show)
    if not val_fraction:  # not even the data's own part, so that this is what `--lr auto` does
        dataset = replace(dataset, val=None)
    chosen = setup.recipe
    sweep = choose_sweep(chosen, len(dataset.train), start, end, steps, linear, per_epoch)
    folder = record.new_folder(f"{chosen.name}-lr", Path(out) if out else None)
    lock = files.FolderLock(folder)
    try:
        return sweep_into(Job(chosen, dataset, where, seed, folder), sweep, seeds, show)
    finally:
        lock.release()


def peak(lr: float | str | None) -> float | None:
    """The peak that `lr` gives; None for `auto`. Raises RecipeError for what is neither."""
    if lr is None or lr == "auto":
        return None
    try:
        return float(lr)
    except ValueError:
        raise RecipeError(f"--lr {lr}: give a number, or auto") from None


def with_found_rates(job: Job, show: progress.Show) -> Recipe:
    """The recipe of `job` with the peak that a range test finds, on the training images alone."""
    trial = replace(job, dataset=replace(job.dataset, val=None))
    sweep = choose_sweep(job.recipe, len(job.dataset.train))
    return book.change(job.recipe, [], lr=sweep_into(trial, sweep, 1, show).lr_max)


def sweep_into(job: Job, sweep: Sweep, seeds: int, show: progress.Show) -> RangeTest:
    """Do the range test of `job` and keep it in its folder; raises as `find_lr`."""
    steered = steer.steered(job.recipe, len(job.dataset.train)).total_steps
    show.sweeping(job, sweep, 0 if sweep.per_epoch else steered, seeds)
    with show, explained(job.recipe, job.machine):
        made = curves(job, range(job.seed, job.seed + seeds), sweep, show.swept)
    table = [row for curve in made for row in rows(curve)]
    found = judge(made, sweep, job.recipe)
    steered_table = [row for curve in made for row in steered_rows(curve)]
    record.write_table(job.folder / record.LR_TABLE, table)
    if steered_table:
        record.write_table(job.folder / record.LR_STEERED, steered_table)
    files.write_json(job.folder / record.LR_FOUND, found)
    picture = job.folder / record.LR_PLOT
    plots.save(lr_plots.range_test(table, steered_table, found), picture)
    if found["problem"]:
        raise RecipeError(f"range test: {found['problem']}; the curve is in {picture}")
    return RangeTest(job.folder)
