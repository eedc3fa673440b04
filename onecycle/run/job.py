"""What a run is asked to do."""

from dataclasses import dataclass
from pathlib import Path

from onecycle.datasets.dataset import Dataset
from onecycle.machine import Machine
from onecycle.ranks import ALONE, Ranks
from onecycle.recipe.schema import Recipe
from onecycle.run.initial import Initial


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
