"""What a run shows while it goes, on stderr: a bar on a terminal or in a notebook, else lines."""

import time
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from onecycle.errors import few
from onecycle.run import events, record

if TYPE_CHECKING:
    from onecycle.run.checkpoint import Checkpoint
    from onecycle.run.job import Job
    from onecycle.run.range_test import Point, Sweep

DECODED_EVERY = 10_000  # images between two lines about decoding
COMPARED_EVERY = 4.0  # seconds between two lines about comparing images


class Show:
    """Shows a run's events; with `quiet` nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(
            stderr=True, quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False
        )
        # In a notebook without ipywidgets a bar would only print warnings.
        widgets = self._console.is_jupyter and find_spec("ipywidgets") is not None
        self._live = self._console.is_terminal or widgets
        self._bar = Progress(
            TextColumn("{task.fields[place]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self._console,
            disable=quiet or not self._live,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, place="", figures="")
        self._tenths = 0  # of a download that were shown
        self._steps = 1  # of a range test
        self._began = self._said = 0.0  # when comparing began, and when a line about it was shown

    def __enter__(self) -> "Show":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def hush(self) -> None:
        """Show nothing: of several processes one does."""
        self._console.quiet = True
        self._bar.disable = True

    def note(self, text: str) -> None:
        """A line about what comes next."""
        self._console.print(text)

    def seed(self, seed: int, number: int, of: int) -> None:
        """The run of `seed` is next, the `number`-th `of` several."""
        self._console.print(f"seed {seed} ({number} of {of})")

    def decoded(self, images: int) -> None:
        """`images` of a new data set are decoded so far."""
        if images % DECODED_EVERY == 0:
            self._console.print(f"decoding: {images:,} images")

    def downloaded(self, have: int, size: int) -> None:
        """`have` of `size` bytes of a data set are there."""
        if 10 * have // size > self._tenths:
            self._tenths = 10 * have // size
            self._console.print(f"downloading: {have / 1e6:.0f} of {size / 1e6:.0f} MB")

    def compared(self, done: int, total: int) -> None:
        """`done` of `total` equal parts of comparing all pairs of images are done."""
        now = time.monotonic()
        if done <= 1:
            self._began = self._said = now
        if now - self._said >= COMPARED_EVERY and done < total:
            self._said = now
            left = (now - self._began) / (done - 1) * (total - done)
            self._console.print(
                f"comparing all pairs of images: {done / total:.0%}, {duration(left)} left"
            )

    def started(self, job: "Job", seconds: float) -> None:
        """The first lines of a run, with how long it is expected to take."""
        self._describe(job)
        self._console.print(
            f"expected to take about {duration(seconds)} here; stop and go on "
            f"with Ctrl-C and: {job.goes_on_with}"
        )

    def resumed(self, job: "Job", checkpoint: "Checkpoint") -> None:
        """The first lines of a run that goes on."""
        self._describe(job)
        for damaged in checkpoint.damaged:
            self._console.print(f"passed over a damaged checkpoint: {damaged}")
        self._console.print(f"going on from step {checkpoint.step}")

    def event(self, event: events.Event) -> None:
        """One event of a run."""
        if isinstance(event, events.Progress):
            self._bar.update(
                self._task,
                total=event.total_steps,
                completed=event.step,
                place=f"epoch {event.epoch + 1}",
                figures=f"loss {event.loss:.3f}  accuracy {event.accuracy:.2%}  "
                f"lr {event.lr:.2e}  {event.images_per_second:,.0f} images/s  "
                f"{duration(event.seconds_left)} left",
            )
        elif isinstance(event, events.EpochDone):
            row = event.row
            part = "val" if "val_accuracy" in row else "test"
            self._console.print(
                f"epoch {row['epoch']:>3}  lr {row['lr']:.2e}  "
                f"train loss {row['train_loss']:.3f} accuracy {row['train_accuracy']:.2%}  "
                f"{part} loss {row[f'{part}_loss']:.3f} accuracy {row[f'{part}_accuracy']:.2%}"
            )

    def sweeping(self, job: "Job", sweep: "Sweep", steered: int, seeds: int) -> None:
        """The first lines of a range test, of which so many steps are steered."""
        self._describe(job)
        times = f", with each of {seeds} seeds" if seeds > 1 else ""
        each = "epochs" if sweep.per_epoch else "batches"
        after = f", then {steered} at rates steered by what they do" if steered else ""
        self._console.print(
            f"range test: {sweep.steps} {each} at rates from {sweep.start:.2g} to {sweep.end:.2g}"
            f"{after}{times}; the test images are not read"
        )
        self._steps = sweep.steps + steered

    def swept(self, seed: int, number: int, point: "Point") -> None:
        """A range test has seen `number` rates with this seed."""
        loss, accuracy = point.judged
        figures = f"loss {loss:.3f}  accuracy {accuracy:.2%}"
        self._bar.update(
            self._task,
            total=self._steps,
            completed=number,
            place=f"seed {seed}",
            figures=f"lr {point.lr:.2e}  {figures}",
        )
        if not self._live and 10 * number // self._steps > 10 * (number - 1) // self._steps:
            self._console.print(f"seed {seed}  lr {point.lr:.2e}  {figures}")

    def _describe(self, job: "Job") -> None:
        data = job.dataset
        parts = f"{len(data.train):,} train"
        parts += f", {len(data.val):,} val" if data.val else ""
        self._console.print(f"{job.folder}: on {job.machine.describe()}")
        self._console.print(
            f"recipe {job.recipe.name} ({job.recipe.digest()}), data {data.name}: "
            f"{parts}, {len(data.test):,} test images of {data.image_size} pixels, "
            f"{len(data.classes)} classes"
        )
        for note in data.notes:
            self._console.print(f"note: {note}")
        if data.untested:
            self._console.print(f"note: no test images of class {few(data.untested)}")
        if data.skipped:
            count = sum(map(len, (data.train, data.val or (), data.test, data.skipped)))
            self._console.print(
                f"note: {len(data.skipped)} of {count} images can't be used and are left out "
                f"({job.folder / record.ENVIRONMENT} lists them)"
            )


def duration(seconds: float) -> str:
    """`seconds` in the unit that a person would use."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
