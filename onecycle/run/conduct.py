"""One run from its first step to its summary: consume `fit`, record, evaluate, save, stop."""

import io
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from onecycle import files
from onecycle.data.dataset import Dataset
from onecycle.errors import DivergedError, InterruptedRun
from onecycle.evaluate import metrics
from onecycle.evaluate.predict import probabilities
from onecycle.machine import Machine
from onecycle.model.build import parameter_count
from onecycle.recipe.schema import Recipe
from onecycle.run import record
from onecycle.run.checkpoint import Checkpoint, Saver
from onecycle.train import state as states
from onecycle.train.loop import Step, fit
from onecycle.train.schedule import timetable

FLUSH = {"cpu": 1}  # steps whose figures are read at once; reading them makes a device wait
FLUSH_ON_ACCELERATOR = 20


@dataclass(frozen=True)
class Job:
    """All that a run needs: what to do, with what, on what, and where to keep it."""

    recipe: Recipe
    dataset: Dataset
    machine: Machine
    seed: int
    folder: Path


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


@dataclass(frozen=True)
class EpochDone:
    """A finished epoch: its row of `metrics.csv`."""

    row: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """The end of a run: what `summary.json` holds."""

    summary: dict[str, Any]


def conduct(
    job: Job, checkpoint: Checkpoint | None = None
) -> Iterator[Progress | EpochDone | Finished]:
    """Run `job`, from `checkpoint` if given, yielding as it goes; the run folder holds the results.

    Raises DivergedError when the loss is no longer finite, InterruptedRun after a signal (the
    state is saved first), DiskError.
    """
    started = time.monotonic() - (checkpoint.extra["seconds"] if checkpoint else 0.0)
    state = states.create(job.recipe, job.dataset, job.machine, job.seed)
    journal = record.Journal(job.folder, checkpoint.extra["journal_bytes"] if checkpoint else 0)
    if checkpoint:
        state.load(checkpoint.tensors, checkpoint.step)
        journal.write("resume", step=checkpoint.step, damaged=checkpoint.damaged)
    clock = _Clock(checkpoint.extra["train_seconds"] if checkpoint else 0.0, state.step)
    table = timetable(job.recipe, len(job.dataset.train))
    saver = Saver(job.folder)

    def save() -> None:
        seconds = saver.save(
            state,
            {
                "recipe_digest": job.recipe.digest(),
                "data_digest": job.dataset.digest,
                "journal_bytes": journal.make_durable(),
                "seconds": time.monotonic() - started,
                "train_seconds": clock.seconds,
            },
        )
        clock.skip()
        journal.write("save", step=state.step, seconds=round(seconds, 4))

    if checkpoint is None:
        save()
    pending: list[Step] = []
    with _signals() as caught:
        for step in fit(state, job.dataset, job.recipe, job.machine, job.seed):
            pending.append(step)
            last = step.step == table.total_steps
            epoch_ends = last or step.step % table.steps_per_epoch == 0
            stop = caught.number is not None
            flush = FLUSH.get(job.machine.device, FLUSH_ON_ACCELERATOR)
            if len(pending) >= flush or epoch_ends or stop or saver.due():
                _write_steps(job, journal, pending)
                clock.tick(step.step)
                yield _progress(journal, step, table.total_steps, clock)
            if epoch_ends:
                _evaluate_epoch(job, state, journal, step)
                clock.skip()
                yield EpochDone(journal.epochs[-1])
            if stop or last or (saver.due() and not pending):
                save()
            if stop and not last:
                raise InterruptedRun(
                    f"stopped and saved at step {step.step} of {table.total_steps}; "
                    f"go on with: onecycle train --resume {job.folder}",
                    caught.number or 0,
                )
    yield Finished(_finish(job, state, journal, clock.seconds, started))


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
    number: int | None = None


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


def _write_steps(job: Job, journal: record.Journal, pending: list[Step]) -> None:
    """Read the figures of the pending steps off the device, write them down, and empty the list."""
    for step in pending:
        loss = float(step.loss)
        if not np.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} at step {step.step} (lr {step.lr:.3g}): start anew with a "
                f"lower schedule.lr_peak; the last save is kept in {job.folder}"
            )
        journal.write(
            "step",
            step=step.step,
            epoch=step.epoch,
            lr=step.lr,
            loss=loss,
            correct=int(step.correct),
            images=step.images,
        )
    pending.clear()


def _progress(journal: record.Journal, step: Step, total: int, clock: _Clock) -> Progress:
    loss, accuracy = journal.train_figures(step.epoch)
    left = (total - step.step) / clock.rate if clock.rate else 0.0
    return Progress(
        step.step,
        total,
        step.epoch,
        step.lr,
        loss,
        accuracy,
        clock.rate * step.images,
        left,
    )


def _evaluate_epoch(
    job: Job, state: states.TrainState, journal: record.Journal, step: Step
) -> None:
    """Judge the epoch on the validation part, or on the test part where there is none."""
    part = "val" if job.dataset.val else "test"
    split = job.dataset.val or job.dataset.test
    predicted = probabilities(state.model, split, job.machine)
    train_loss, train_accuracy = journal.train_figures(step.epoch)
    journal.write(
        "epoch",
        epoch=step.epoch + 1,
        step=step.step,
        lr=step.lr,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        **{
            f"{part}_loss": metrics.loss(predicted, split.labels),
            f"{part}_accuracy": metrics.accuracy(predicted, split.labels),
        },
    )
    record.write_metrics(job.folder, journal)


def _finish(
    job: Job,
    state: states.TrainState,
    journal: record.Journal,
    train_seconds: float,
    started: float,
) -> dict[str, Any]:
    """Judge the final weights and write what is kept of the run; its summary."""
    data, folder = job.dataset, job.folder
    test = probabilities(state.model, data.test, job.machine.in_fp32())
    train = probabilities(state.model, data.train, job.machine)
    figures = {
        "test_accuracy": metrics.accuracy(test, data.test.labels),
        "test_loss": metrics.loss(test, data.test.labels),
        "train_accuracy": metrics.accuracy(train, data.train.labels),
    }
    if data.val:
        val = probabilities(state.model, data.val, job.machine.in_fp32())
        figures["val_accuracy"] = metrics.accuracy(val, data.val.labels)
    weights = {k: v.detach().cpu().contiguous() for k, v in state.model.state_dict().items()}
    files.write_bytes(folder / record.WEIGHTS, save(weights))
    _write_array(folder / record.PROBABILITIES, test)
    _write_array(folder / record.LABELS, data.test.labels)
    summary = {
        "run": str(folder),
        "recipe": job.recipe.name,
        "recipe_digest": job.recipe.digest(),
        "data": data.name,
        "data_digest": data.digest,
        "seed": job.seed,
        "epochs": job.recipe.epochs,
        "steps": state.step,
        "parameters": parameter_count(state.model),
        **figures,
        "gap": figures["train_accuracy"] - figures["test_accuracy"],
        "train_images": len(data.train),
        "seconds": round(time.monotonic() - started, 2),
        "train_seconds": round(train_seconds, 2),
        "device": job.machine.device,
        "precision": job.machine.precision,
        "threads": job.machine.threads,
    }
    journal.write("finished", **figures)
    journal.make_durable()
    files.write_json(folder / record.SUMMARY, summary)
    return summary


def _write_array(path: Path, values: NDArray[Any]) -> None:
    content = io.BytesIO()
    np.save(content, values)
    files.write_bytes(path, content.getvalue())
