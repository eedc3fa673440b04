"""What every verb that trains is given: a recipe, data and a machine, by name."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from onecycle import machine, progress
from onecycle.datasets import feed
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.load import load
from onecycle.errors import DataError, RecipeError
from onecycle.machine import Machine
from onecycle.model.build import build
from onecycle.ranks import Ranks, join
from onecycle.recipe.schema import Recipe
from onecycle.run.checkpoint import every
from onecycle.run.memory import limit
from onecycle.run.tracking import check
from onecycle.training import optim
from onecycle.training.loop import check_groups, check_sizes
from onecycle.training.schedule import timetable

SEED_LIMIT = 2**32  # below which all generators take seeds: numpy's older ones no larger


def check_seed(seed: int, seeds: int = 1) -> None:
    """RecipeError unless `seed` and the `seeds` - 1 after it can be seeds everywhere."""
    if not 0 <= seed <= SEED_LIMIT - seeds:
        raise RecipeError(f"--seed {seed}: give a whole number from 0 to {SEED_LIMIT - seeds:,}")


@dataclass(frozen=True)
class Setup:
    """A recipe and what it is to be trained on, as far as a seed doesn't matter."""

    recipe: Recipe
    data: str
    val_fraction: float = 0.0
    skip_bad: bool = False
    image_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    lr_auto: bool = False  # a range test finds the peak of the rate first
    save_every: str | None = None
    track: str | None = None
    init: str | None = None  # the folder of a finished run
    augment_backend: str = "own"
    max_memory: str | None = None
    digest: str | None = None  # what the data must have, as runs before had it

    def __post_init__(self) -> None:
        if self.save_every is not None:
            every(self.save_every)  # a wrong one is refused before anything is loaded
        check(self.track)
        if self.max_memory is not None:
            limit(self.max_memory)
        feed.check(self.augment_backend, self.recipe.augment)

    @property
    def reading(self) -> dict[str, Any]:
        """How the files of the data are read."""
        return {"skip_bad": self.skip_bad, "image_size": self.image_size}

    def open(self, seed: int, show: progress.Show) -> tuple[Dataset, Machine, Ranks]:
        """The data, its validation part held out by `seed`, the machine, and who takes part.

        Raises RecipeError if the recipe fits one of them not, DataError, DiskError.
        """
        where = machine.choose(self.device, self.precision, self.threads)
        ranks = join(where.device)
        ranks.agree(goes_on=False)
        if ranks.largest(where.precision == "fp32") and where.precision != "fp32":
            where = replace(where, precision="fp32", reason="another process chose it")
        if not ranks.first:
            show.hush()
        check_groups(self.recipe, ranks)
        dataset = ranks.in_turn(
            lambda: load(self.data, show.decoded, show.downloaded, **self.reading)
        )
        if self.digest not in (None, dataset.digest):
            raise DataError(
                f"{self.data} is not the data that the runs before were trained on: put that back, "
                "or start anew in another folder"
            )
        if self.val_fraction:
            dataset = dataset.hold_out(self.val_fraction, seed)
        check_sizes(self.recipe, dataset)
        timetable(self.recipe, len(dataset.train))
        with torch.device("meta"):
            optim.grouped(self.recipe, build(self.recipe.model, dataset, seed))
        return dataset, where, ranks

    def settled(self) -> "Setup":
        """The same with device, precision and threads as this machine has them now.

        So that several runs compute alike: precisions are compared anew each time.
        """
        where = machine.choose(self.device, self.precision, self.threads)
        return replace(self, device=where.device, precision=where.precision, threads=where.threads)

    def with_recipe(self, recipe: Recipe) -> "Setup":
        """The same with another recipe, whose rates are settled."""
        return replace(self, recipe=recipe, lr_auto=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, but for the recipe and the digest, which are kept elsewhere."""
        return {k: v for k, v in asdict(self).items() if k not in ("recipe", "digest")}
