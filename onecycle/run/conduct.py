"""One run from its first step to its summary: consume `fit`, record, evaluate, save, stop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from onecycle.errors import DivergedError, InterruptedRun, OnecycleError, one_line
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.run import finish, record
from onecycle.run.checkpoint import Checkpoint, Saver, every
from onecycle.run.events import EpochDone, Event, Finished, Progress
from onecycle.run.job import Job
from onecycle.training import state as states
from onecycle.training.loop import Step, fit
from onecycle.training.schedule import Timetable, timetable

FLUSH = {"cpu": 1}  # steps whose figures are read at once; reading them makes a device wait
FLUSH_ON_ACCELERATOR = 20


@dataclass
class _Live:
    """A run under way."""

    job: Job
    state: states.TrainState
    journal: record.Journal
    saver: Saver | None  # of several processes one saves
    clock: "_Clock"
    table: Timetable
    started: float  # when it would have begun had it never been interrupted


def conduct(job: Job, checkpoint: Checkpoint | None = None) -> Iterator[Event]:
    """Run `job`, from `checkpoint` if given, yielding as it goes; its folder holds the results.

    Raises DivergedError when the loss is no longer finite, InterruptedRun after a signal (the
    state is saved first), OnecycleError for a checkpoint that doesn't fit the recipe, DiskError,
    also before the first step if the disk has no room for the run.
    """
    past: dict[str, Any] = {"seconds": 0.0, "train_seconds": 0.0, "journal_bytes": 0}
    if checkpoint:
        past = checkpoint.extra
    started = time.monotonic() - past["seconds"]
    first = job.ranks.first
    with closing(record.Journal(job.folder if first else None, past["journal_bytes"])) as journal:
        state = states.create(job.recipe, job.dataset, job.machine, job.seed)
        table = timetable(job.recipe, len(job.dataset.train))
        saver = _saver(job, table, checkpoint) if first else None
        if saver:
            saver.check_space(state)
        if job.init and not checkpoint:
            job.init.put_into(state.model)
        if checkpoint:
            _take_over(state, checkpoint, table)
            journal.write(
                "resume",
                step=checkpoint.step,
                cut_lines=journal.cut,
                damaged=checkpoint.damaged,
                forced=job.forced,
            )
        clock = _Clock(past["train_seconds"], state.step)
        live = _Live(job, state, journal, saver, clock, table, started)
        with _signals() as caught:
            yield from _steps(live, caught)
        summary = finish.finish(job, state, clock.seconds, started)
        journal.write("finished", **{k: v for k, v in summary.items() if k.endswith("accuracy")})
        journal.make_durable()
        yield Finished(summary)


def _saver(job: Job, table: Timetable, checkpoint: Checkpoint | None) -> Saver:
    often = every(job.save_every, table.steps_per_epoch) if job.save_every else None
    return Saver(job.folder, often, [checkpoint.step] if checkpoint else [])


def _take_over(state: states.TrainState, checkpoint: Checkpoint, table: Timetable) -> None:
    """Put `checkpoint` into `state`; OnecycleError if it is another network's or too far on."""
    if not 0 <= checkpoint.step <= table.total_steps:
        raise OnecycleError(
            f"the checkpoint is of step {checkpoint.step}, and the recipe has {table.total_steps}"
        )
    try:
        state.load(checkpoint.tensors, checkpoint.step)
    except (KeyError, ValueError, RuntimeError) as error:
        raise OnecycleError(
            f"the checkpoint of step {checkpoint.step} doesn't fit the recipe: "
            f"{one_line(error)[:200]}"
        ) from error


def _steps(live: _Live, caught: "_Caught") -> Iterator[Progress | EpochDone]:
    """Every step that is left, each recorded, judged at the end of an epoch, and saved when due."""
    job, total = live.job, live.table.total_steps
    flush = FLUSH.get(job.machine.device, FLUSH_ON_ACCELERATOR)
    pending: list[Step] = []
    if live.state.step == 0:
        _save(live)
    for step in fit(
        live.state,
        job.dataset,
        job.recipe,
        job.machine,
        job.seed,
        ranks=job.ranks,
        feed=job.feed(job.seed),
    ):
        pending.append(step)
        last = step.step == total
        epoch_ends = last or step.step % live.table.steps_per_epoch == 0
        stop = caught.number
        if job.ranks.world > 1:
            # All processes stop at one step, which they agree on at times that all know.
            stop = job.ranks.largest(stop) if epoch_ends or step.step % flush == 0 else 0
        due = live.saver is not None and live.saver.due(step.step)
        if len(pending) >= flush or epoch_ends or stop or due:
            rows = _write_steps(live, pending)
            yield _progress(live, step, rows)
        if epoch_ends:
            _judge_epoch(live, step)
            yield EpochDone(live.journal.epochs[-1])
        if stop or last or due:
            _save(live)
        if stop and not last:
            raise InterruptedRun(
                f"stopped and saved at step {step.step} of {total}; go on with: {job.goes_on_with}",
                stop,
            )


def _save(live: _Live) -> None:
    if live.saver is None:
        return
    seconds = live.saver.save(
        live.state,
        {
            "recipe_digest": live.job.recipe.digest(),
            "data_digest": live.job.dataset.digest,
            "journal_bytes": live.journal.make_durable(),
            "seconds": time.monotonic() - live.started,
            "train_seconds": live.clock.seconds,
        },
    )
    live.clock.skip()
    live.journal.write("save", step=live.state.step, seconds=round(seconds, 4))


def _write_steps(live: _Live, pending: list[Step]) -> tuple[dict[str, Any], ...]:
    """Read the pending steps' figures off the device, write them down, and empty the list."""
    rows = []
    for step in pending:
        loss = float(step.loss)
        if not np.isfinite(loss):
            last = live.saver.last() if live.saver else f"see {live.job.folder}"
            raise DivergedError(
                f"the loss or its gradient is no longer finite at step {step.step} (loss {loss}, "
                f"lr {step.lr:.3g}): start anew with a lower --lr; {last}"
            )
        row = {
            "step": step.step,
            "epoch": step.epoch,
            "lr": step.lr,
            "loss": loss,
            "correct": int(step.correct),
            "images": step.images,
        }
        live.journal.write("step", **row)
        rows.append(row)
    live.clock.tick(pending[-1].step)
    pending.clear()
    return tuple(rows)


def _progress(live: _Live, step: Step, rows: tuple[dict[str, Any], ...]) -> Progress:
    loss, accuracy = live.journal.train_figures(step.epoch)
    total, rate = live.table.total_steps, live.clock.rate
    left = (total - step.step) / rate if rate else 0.0
    batch = min(live.job.recipe.batch_size, len(live.job.dataset.train))
    return Progress(
        step=step.step,
        total_steps=total,
        epoch=step.epoch,
        lr=step.lr,
        loss=loss,
        accuracy=accuracy,
        images_per_second=rate * batch,
        seconds_left=left,
        rows=rows,
    )


def _judge_epoch(live: _Live, step: Step) -> None:
    """Judge the epoch on the validation part, or on the test part where there is none."""
    data = live.job.dataset
    part, split = ("val", data.val) if data.val else ("test", data.test)
    predicted = finish.finite(
        probabilities(live.state.model, split, live.job.machine, ranks=live.job.ranks),
        live.job,
        step.step,
    )
    train_loss, train_accuracy = live.journal.train_figures(step.epoch)
    judged = {
        f"{part}_loss": metrics.loss(predicted, split.labels),
        f"{part}_accuracy": metrics.accuracy(predicted, split.labels),
    }
    live.journal.write(
        "epoch",
        epoch=step.epoch + 1,
        step=step.step,
        lr=step.lr,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        **judged,
    )
    if live.job.ranks.first:
        record.write_metrics(live.job.folder, live.journal)
    live.clock.skip()


class _Clock:
    """Seconds spent in training steps, those of evaluating and saving left out."""

    def __init__(self, seconds: float, step: int) -> None:
        self.seconds = seconds
        self.rate = 0.0  # steps a second, lately
        self._since, self._step = time.monotonic(), step

    def tick(self, step: int) -> None:
        """`step` steps are done."""
        now = time.monotonic()
        spent, done = now - self._since, step - self._step
        rate = done / max(spent, 1e-9)
        self.rate = 0.9 * self.rate + 0.1 * rate if self.rate else rate
        self.seconds += spent
        self._since, self._step = now, step

    def skip(self) -> None:
        """What has passed since the last tick was not training."""
        self._since = time.monotonic()


@dataclass
class _Caught:
    number: int = 0  # of the last signal; 0 if there was none


@contextmanager
def _signals() -> Iterator[_Caught]:
    """Note SIGINT and SIGTERM inside the block; only a process's main thread can do so."""
    caught = _Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, _frame: object) -> None:
        caught.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
