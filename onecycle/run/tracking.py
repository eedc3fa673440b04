"""A run's events for TensorBoard, in the run's folder, as they happen."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from onecycle import files
from onecycle.errors import RecipeError, need
from onecycle.run import record
from onecycle.run.checkpoint import Checkpoint
from onecycle.run.events import EpochDone, Event, Progress
from onecycle.run.job import Job

TRACKERS = ("tensorboard",)
Sink = Callable[[Event], None]


def check(track: str | None) -> None:
    """RecipeError if `track` is no tracker, MissingExtraError if it is not installed."""
    if track is not None and track not in TRACKERS:
        raise RecipeError(f"--track {track}: choose {', '.join(TRACKERS)}")
    if track:
        need("tensorboard", "track", f"--track {track}")


@contextmanager
def tracking(job: Job, checkpoint: Checkpoint | None) -> Iterator[Sink]:
    """What to hand each event of `job` to; it is written into `RUN/tensorboard` if asked for.

    What was written past `checkpoint` is struck out, as it is cut from the journal. Events are on
    the disk's way when the sink returns, so that a checkpoint never knows of more steps than they.
    Raises MissingExtraError, DiskError.
    """
    if job.track is None or not job.ranks.first:
        yield lambda event: None
        return
    check(job.track)
    from torch.utils.tensorboard import SummaryWriter

    folder = job.folder / record.TENSORBOARD
    past = checkpoint.step + 1 if checkpoint else None
    with files.disk_errors(folder, "write"):
        writer: Any = SummaryWriter(str(folder), purge_step=past)

    def sink(event: Event) -> None:
        with files.disk_errors(folder, "write"):
            _write(writer, event)
            writer.flush()

    with closing(writer):
        yield sink


def _write(writer: Any, event: Event) -> None:
    """The figures of `event`, each at the step that it is of."""
    if isinstance(event, Progress):
        for row in event.rows:
            writer.add_scalar("step/loss", row["loss"], row["step"])
            writer.add_scalar("step/lr", row["lr"], row["step"])
        writer.add_scalar("step/images_per_second", event.images_per_second, event.step)
    elif isinstance(event, EpochDone):
        for name, value in event.row.items():
            if name.endswith(("_loss", "_accuracy")):
                writer.add_scalar(f"epoch/{name}", value, event.row["step"])
    else:
        steps = event.summary["steps"]
        for name, value in event.summary.items():
            if name.endswith(("_loss", "_accuracy", "seconds")):
                writer.add_scalar(f"final/{name}", value, steps)
        writer.add_text("summary", _as_code(event.summary), steps)


def _as_code(summary: dict[str, Any]) -> str:
    """`summary` as indented JSON, which TensorBoard's Markdown shows as it is."""
    return "\n".join(f"    {line}" for line in json.dumps(summary, indent=2).splitlines())
