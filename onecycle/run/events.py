"""What a run tells while it goes."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """How far a run is: figures of the epoch so far."""

    step: int
    total_steps: int
    epoch: int  # from 0
    lr: float
    loss: float
    accuracy: float
    images_per_second: float
    seconds_left: float
    rows: tuple[dict[str, Any], ...] = ()  # of the journal, of the steps since the last of these


@dataclass(frozen=True)
class EpochDone:
    """A finished epoch: its row of `metrics.csv`."""

    row: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """The end of a run: what `summary.json` holds."""

    summary: dict[str, Any]


Event = Progress | EpochDone | Finished
