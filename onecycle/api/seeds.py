"""Several seeds of one recipe: a run each, under one folder, and what they have in common."""

import shlex
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from onecycle import files, progress
from onecycle.api import single
from onecycle.api.handle import Run
from onecycle.api.lr import with_found_rates
from onecycle.api.setup import Setup
from onecycle.errors import DataError, DiskError, RecipeError
from onecycle.recipe import book
from onecycle.reporting import seeds as reporting
from onecycle.run import record
from onecycle.run.checkpoint import has_checkpoint
from onecycle.run.initial import initial
from onecycle.run.job import Job


@dataclass(frozen=True)
class Runs:
    """Runs of one recipe with several seeds: their folder, read when asked."""

    path: Path

    @property
    def runs(self) -> list[Run]:
        """The runs, by seed."""
        seeds = files.read_json(self.path / record.SEEDS)["seeds"]
        return [Run(self.path / f"seed-{seed}") for seed in seeds]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Mean, standard deviation and 95 % interval of every figure, those of classes too."""
        summary: dict[str, Any] = files.read_json(self.path / record.SUMMARY)
        return summary


def train(
    setup: Setup,
    seeds: list[int],
    out: Path | None,
    show: progress.Show,
    again: str = "",
    digest: str | None = None,
) -> Runs:
    """Train `setup` once for each of `seeds` into the new folder `out`.

    `again` is the command that goes on with all of them, if it isn't `train --resume`, and
    `digest` what their data must have, if anything.
    """
    folder = record.new_folder(setup.recipe.name, out)
    lock = files.FolderLock(folder)
    try:
        record.check_empty(folder)  # another run may have been quicker, and be over
        setup = setup.settled()
        if setup.lr_auto:  # once for all, so that they are seeds of one recipe
            dataset, where, _ = setup.open(seeds[0], show)
            begin = initial(Path(setup.init), setup.recipe, dataset) if setup.init else None
            job = Job(
                setup.recipe,
                dataset,
                where,
                seeds[0],
                folder,
                init=begin,
                augment_backend=setup.augment_backend,
                max_memory=setup.max_memory,
            )
            setup = setup.with_recipe(with_found_rates(job, show))
        files.write_json(
            folder / record.RECIPE,
            {"digest": setup.recipe.digest(), "recipe": setup.recipe.to_dict()},
        )
        files.write_json(folder / record.SEEDS, {"seeds": seeds, "setup": setup.to_dict()})
        return _finish_all(folder, show, again, digest)
    finally:
        lock.release()


def go_on(folder: Path, show: progress.Show, again: str = "", digest: str | None = None) -> Runs:
    """Train the seeds of `folder` that aren't finished, and summarize all of them.

    `digest` is what their data must have; by default that of those that have begun.
    """
    lock = files.FolderLock(folder)
    try:
        return _finish_all(folder, show, again, digest)
    finally:
        lock.release()


def _finish_all(folder: Path, show: progress.Show, again: str, digest: str | None) -> Runs:
    """`go_on`, in a folder that this process holds."""
    again = again or f"onecycle train --resume {shlex.quote(str(folder))}"
    made = files.read_json(folder / record.SEEDS)
    try:
        seeds = [int(seed) for seed in made["seeds"]]
        setup = Setup(book.find(str(folder / record.RECIPE)), **made["setup"])
    except (KeyError, TypeError, ValueError) as error:
        raise DiskError(f"cannot read {folder / record.SEEDS}: it is damaged") from error
    for number, seed in enumerate(seeds, start=1):
        show.seed(seed, number, len(seeds))
        setup = replace(setup, digest=_begun_on(folder, setup, seeds) or digest)
        if digest not in (None, setup.digest):
            raise DataError(
                f"{folder}: its runs were trained on other data: put that back, or start anew in "
                "another folder"
            )
        _finish(setup, seed, folder / f"seed-{seed}", show, again)
    runs = Runs(folder)
    files.write_json(folder / record.SUMMARY, reporting.summarize([run.path for run in runs.runs]))
    return runs


def _begun_on(folder: Path, setup: Setup, seeds: list[int]) -> str | None:
    """The digest of the data of seeds that have begun; RecipeError if their recipe is another."""
    for run in (folder / f"seed-{seed}" for seed in seeds):
        if (run / record.ENVIRONMENT).is_file():
            if Run(run).recipe.digest() != setup.recipe.digest():
                raise RecipeError(
                    f"{folder / record.RECIPE} is not the recipe of {run}: put that back, or start "
                    "anew in another folder"
                )
            return str(files.read_json(run / record.ENVIRONMENT)["data"]["digest"])
    return None


def check(seeds: int, world: int) -> None:
    """RecipeError if that many seeds can't be trained, or not by `world` processes."""
    if seeds < 1:
        raise RecipeError(f"--seeds {seeds}: give at least 1")
    if world > 1:
        raise RecipeError("--seeds goes without torchrun: start a run for each seed")


def _finish(setup: Setup, seed: int, folder: Path, show: progress.Show, again: str) -> None:
    """Have the run of `seed` in `folder`, whatever is there of it."""
    if (folder / record.SUMMARY).exists():
        return
    if has_checkpoint(folder):
        single.resume(folder, show, again=again)
        return
    # A run that ended before its first save has nothing to go on from.
    if folder.exists():
        with files.disk_errors(folder, "clear"):
            shutil.rmtree(folder)
    single.train(setup, seed, folder, show, again)
