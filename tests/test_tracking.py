"""What a run tells TensorBoard, read back as TensorBoard reads it."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import onecycle
from onecycle import files
from onecycle.api import single
from onecycle.errors import InterruptedRun, RecipeError
from onecycle.run import record
from onecycle.run.conduct import conduct
from onecycle.run.events import Progress

TINY = ["model.width=4", "epochs=2", "schedule.peak_epoch=1", "batch_size=64"]
OPTIONS = {"settings": TINY, "precision": "fp32", "threads": 1, "quiet": True}


def board(folder):
    """Steps and values by tag, and the accumulator that has the rest."""
    # A tag's every value is kept; by default some of more than 10,000.
    found = EventAccumulator(str(folder / record.TENSORBOARD), {"scalars": 0, "tensors": 0})
    found.Reload()
    tags = found.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags}, found


def journal(folder, event):
    rows = map(json.loads, (folder / record.EVENTS).read_text().splitlines())
    return [row for row in rows if row["event"] == event]


def agrees(folder, part="test"):
    """Hold what TensorBoard has against the journal and the summary; steps by tag."""
    scalars, found = board(folder)
    rows = journal(folder, "step")
    for name in ("loss", "lr"):
        steps, values = zip(*scalars[f"step/{name}"], strict=True)
        assert list(steps) == [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        assert values == pytest.approx([row[name] for row in rows])
    steps, rates = zip(*scalars["step/images_per_second"], strict=True)
    assert len(steps) == len(rows) and min(rates) > 0
    epochs = journal(folder, "epoch")
    for name in ("train_loss", "train_accuracy", f"{part}_loss", f"{part}_accuracy"):
        expected = [(row["step"], pytest.approx(row[name])) for row in epochs]
        assert scalars[f"epoch/{name}"] == expected
    summary = files.read_json(folder / record.SUMMARY)
    for name in ("test_accuracy", "train_accuracy", "seconds"):
        assert scalars[f"final/{name}"] == [(len(rows), pytest.approx(summary[name]))]
    (text,) = found.Tensors("summary/text_summary")
    assert json.loads(text.tensor_proto.string_val[0]) == summary


def test_every_step_every_epoch_and_the_end_are_there():
    run = onecycle.train("digits", val_fraction=0.1, track="tensorboard", **OPTIONS)
    agrees(run.path, "val")
    assert not (onecycle.train("digits", **OPTIONS).path / record.TENSORBOARD).exists()


def test_each_seed_has_its_own():
    runs = onecycle.train("digits", seeds=2, track="tensorboard", **OPTIONS)
    for run in runs.runs:
        agrees(run.path)


@pytest.fixture
def stop_at(monkeypatch):
    """A function that has the next run stopped by a signal, or killed, at a step."""

    def stop(step, killed):
        def broken_off(job, checkpoint=None):
            for event in conduct(job, checkpoint):
                yield event
                if isinstance(event, Progress) and event.step == step:
                    if killed:
                        raise InterruptedRun("as if killed: nothing is saved", signal.SIGKILL)
                    os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(single, "conduct", broken_off)

    yield stop


@pytest.mark.parametrize("killed", [True, False])
def test_what_lies_past_a_checkpoint_is_not_there_twice_after_a_resume(stop_at, killed):
    stop_at(30, killed)
    options = {"track": "tensorboard", "save_every": "7steps", "out": "run"}
    with pytest.raises(InterruptedRun):
        onecycle.train("digits", **options, **OPTIONS)
    stop_at(40, killed)
    with pytest.raises(InterruptedRun):
        onecycle.resume("run", quiet=True)
    stop_at(None, killed)
    agrees(onecycle.resume("run", quiet=True).path)


def test_the_command_line_takes_it_and_names_what_is_missing(command, monkeypatch):
    words = ["train", "--track", "tensorboard", "-q", "--threads", "1", "--epochs", "0.1"]
    code, _, err = command(*words, "--set", "model.width=4", "--out", "run")
    assert code == 0 and err == ""
    assert board(Path("run"))[0]["step/loss"]
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    code, _, err = command(*words, "--out", "other")
    assert code == 5 and "pip install 'onecycle[track]'" in err and err.count("\n") == 1
    code, _, err = command("train", "--track", "wandb")
    assert code == 2 and "tensorboard" in err and err.count("\n") == 1


def test_an_unknown_tracker_is_refused_before_anything_is_loaded():
    with pytest.raises(RecipeError, match="--track wandb: choose tensorboard"):
        onecycle.train(data="missing", track="wandb")
