"""What a run is asked to do."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from onecycle.datasets.dataset import Dataset
from onecycle.datasets.feed import Feed
from onecycle.machine import Machine
from onecycle.ranks import ALONE, Ranks
from onecycle.recipe.schema import Recipe
from onecycle.run.initial import Initial
from onecycle.run.memory import limit


@dataclass(frozen=True)
class Job:
    """All that a run needs: what to do, with what, on what, and where to keep it."""

    recipe: Recipe
    dataset: Dataset
    machine: Machine
    seed: int
    folder: Path
    ranks: Ranks = ALONE
    save_every: str | None = None  # as `checkpoint.every` reads it
    init: Initial | None = None  # weights to begin with, instead of random ones
    track: str | None = None  # one of `tracking.TRACKERS`, told of every event
    augment_backend: str = "own"
    max_memory: str | None = None  # as `memory.limit` reads it
    forced: tuple[str, ...] = ()  # what is no longer as it was, in a run that goes on all the same
    again: str = ""  # the command that goes on with all that this run is part of

    @property
    def goes_on_with(self) -> str:
        """The command to go on with after an interruption."""
        return self.again or f"onecycle train --resume {shlex.quote(str(self.folder))}"

    def feed(self, seed: int) -> Feed:
        """Where the batches of a training with `seed` come from."""
        spec = self.recipe.sized(len(self.dataset.train), self.dataset.image_size).augment
        room = None if self.max_memory is None else limit(self.max_memory)
        return Feed(spec, self.dataset, self.machine.device, seed, self.augment_backend, room)
