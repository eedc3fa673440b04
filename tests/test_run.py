"""A run from first step to summary: what it records, saves, and goes on from."""

import json
import os
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import onecycle
from onecycle import files, machine
from onecycle.api.recipes import choose_recipe
from onecycle.datasets.load import load
from onecycle.errors import DiskError, DivergedError, InterruptedRun, OnecycleError, RecipeError
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.model.build import build
from onecycle.recipe import book
from onecycle.run import checkpoint, finish, record
from onecycle.run.conduct import conduct
from onecycle.run.events import EpochDone, Progress
from onecycle.run.job import Job

TINY = ["model.width=4", "batch_size=64", "epochs=2", "schedule.peak_epoch=1"]
EVERY_STEP = 1e9  # a share of the time that lets each step be saved


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(**options):
    return onecycle.train(
        "digits", settings=TINY, precision="fp32", threads=1, quiet=True, **options
    )


def weights(run):
    return (run.path / record.WEIGHTS).read_bytes()


def test_a_run_folder_holds_everything():
    run = train(seed=3)
    assert run.path.name == "digits+custom-1"
    assert json.loads((run.path / record.CLASSES).read_text()) == list("0123456789")
    assert run.recipe.digest() == run.summary["recipe_digest"]
    environment = json.loads((run.path / record.ENVIRONMENT).read_text())
    assert environment["machine"]["precision"] == "fp32" and environment["seed"] == 3
    rows = run.metrics
    assert [row["epoch"] for row in rows] == [1, 2]
    labels = np.load(run.path / "test_labels.npy")
    assert metrics.accuracy(run.probabilities, labels) == run.test_accuracy
    assert run.probabilities.dtype == np.float32
    np.testing.assert_allclose(run.probabilities.sum(axis=1), 1, atol=1e-5)
    assert run.summary["gap"] == run.summary["train_accuracy"] - run.summary["test_accuracy"]
    assert (run.path / record.CURVES).read_bytes().startswith(b"\x89PNG")


def test_the_weights_that_are_kept_give_the_figures_that_are_kept(monkeypatch):
    monkeypatch.setattr(finish, "AT_ONCE", 500)  # so that training images come in several parts
    run = train()
    data = load("digits")
    model = build(run.recipe.model, data, seed=99)
    model.load_state_dict(load_file(run.path / record.WEIGHTS))
    model.to(memory_format=torch.channels_last)
    where = machine.choose("cpu", "fp32", 1)
    again = probabilities(model, data.test, where)
    np.testing.assert_allclose(again, run.probabilities, atol=1e-6)
    trained = metrics.accuracy(probabilities(model, data.train, where), data.train.labels)
    assert trained == run.summary["train_accuracy"]


def test_the_journal_has_a_line_a_step_and_the_rates_of_the_timetable():
    run = train()
    events = [json.loads(line) for line in (run.path / record.EVENTS).read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, run.summary["steps"] + 1))
    table = onecycle.Recipe.model_validate(run.recipe.model_dump()).schedule
    assert steps[0]["lr"] == table.lr_start and steps[-1]["lr"] == table.lr_final
    seen = sum(event["images"] for event in steps if event["epoch"] == 0)
    assert seen == 1437
    epoch = run.metrics[0]
    correct = sum(event["correct"] for event in steps if event["epoch"] == 0)
    assert epoch["train_accuracy"] == correct / seen


def test_the_same_seed_gives_the_same_weights_and_another_others():
    first, again, other = train(), train(), train(seed=1)
    assert weights(first) == weights(again) != weights(other)
    assert [run.path.name[-1] for run in (first, again, other)] == ["1", "2", "3"]


def test_validation_part_is_judged_each_epoch_and_the_test_part_once_at_the_end():
    run = train(val_fraction=0.1)
    assert "val_accuracy" in run.metrics[0] and "test_accuracy" not in run.metrics[0]
    assert {"val_accuracy", "test_accuracy"} <= set(run.summary)
    assert run.summary["train_images"] < 1437


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RecipeError, match="not empty"):
        train(out="mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def job(folder, **changes):
    recipe = book.change(book.find("digits"), TINY + [f"{k}={v}" for k, v in changes.items()])
    folder.mkdir()
    return Job(recipe, load("digits"), machine.choose("cpu", "fp32", 1), 0, folder)


@pytest.mark.parametrize("step", [1, 10, 23, 24, 45, 46])
def test_going_on_from_any_step_is_bitwise(tmp_path, monkeypatch, step):
    """Steps within an epoch, at its end, and the last one, of 46 in two epochs."""
    monkeypatch.setattr(checkpoint, "COST", EVERY_STEP)
    whole, broken = job(tmp_path / "whole"), job(tmp_path / "broken")
    for _ in conduct(whole):
        pass
    events = conduct(broken)
    for event in events:
        if isinstance(event, Progress) and event.step == step:
            break
    events.close()
    # The break came before this step's save: the newest checkpoint is the one before.
    kept = checkpoint.newest(broken.folder)
    assert kept.step == step - 1
    for _ in conduct(broken, kept):
        pass
    for name in (record.WEIGHTS, "test_probabilities.npy", record.METRICS):
        assert (broken.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    steps = [
        event["step"]
        for event in map(json.loads, (broken.folder / record.EVENTS).read_text().splitlines())
        if event["event"] == "step"
    ]
    assert steps == list(range(1, 47)), "the journal agrees with the weights"


@pytest.mark.parametrize("damage", ["model", "optimizer", "step"])
def test_bitwise_equality_would_notice_a_wrong_state(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(checkpoint, "COST", EVERY_STEP)
    whole, broken = job(tmp_path / "whole"), job(tmp_path / "broken")
    for _ in conduct(whole):
        pass
    for event in conduct(broken):
        if isinstance(event, Progress) and event.step == 20:
            break
    kept = checkpoint.newest(broken.folder)
    if damage == "step":
        kept = checkpoint.Checkpoint(kept.tensors, kept.step - 1, kept.extra, [])
    else:
        key = next(k for k in kept.tensors if k.startswith(damage) and "prep.conv" in k)
        kept.tensors[key].view(-1)[0] += 1e-3
    for _ in conduct(broken, kept):
        pass
    assert (broken.folder / record.WEIGHTS).read_bytes() != (
        whole.folder / record.WEIGHTS
    ).read_bytes()


def interrupted(folder, monkeypatch):
    """A run that a signal stopped at step 10."""
    started = job(folder)
    files.write_json(folder / record.RECIPE, {"recipe": started.recipe.to_dict()})
    files.write_json(
        folder / record.ENVIRONMENT,
        {
            "data": {"source": "digits"},
            "seed": 0,
            "val_fraction": 0,
            "machine": started.machine.to_dict(),
        },
    )
    with pytest.raises(InterruptedRun) as stopped:
        for event in conduct(started):
            if isinstance(event, Progress) and event.step == 9:
                os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.exit_code == 143
    return started


def test_a_signal_saves_at_the_next_step_and_the_run_goes_on(tmp_path, monkeypatch):
    started = interrupted(tmp_path / "stopped", monkeypatch)
    assert checkpoint.newest(started.folder).step == 10
    run = onecycle.resume(started.folder, quiet=True)
    assert weights(run) == weights(train())
    with pytest.raises(RecipeError, match="finished"):
        onecycle.resume(started.folder, quiet=True)


def test_going_on_with_another_recipe_or_nothing_is_refused(tmp_path, monkeypatch):
    started = interrupted(tmp_path / "stopped", monkeypatch)
    changed = book.change(started.recipe, ["batch_size=32"])
    files.write_json(started.folder / record.RECIPE, {"recipe": changed.to_dict()})
    with pytest.raises(RecipeError, match="not the recipe"):
        onecycle.resume(started.folder, quiet=True)
    with pytest.raises(RecipeError, match="no run is there"):
        onecycle.resume(tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("step-*.safetensors", lambda content: content[:-1]),
        ("step-*.safetensors", lambda c: c[:500] + bytes([c[500] ^ 1]) + c[501:]),
        ("step-*.json", lambda content: content.replace(b'"step": ', b'"step": 1')),
        ("step-*.json", lambda content: content[:20]),
        ("step-*.json", lambda content: b"[]"),
    ],
    ids=["truncated", "bit flip", "another step", "half a JSON", "another JSON"],
)
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, monkeypatch, name, spoil):
    monkeypatch.setattr(checkpoint, "COST", EVERY_STEP)
    started = job(tmp_path / "run")
    for event in conduct(started):
        if isinstance(event, Progress) and event.step == 10:
            break
    files_ = sorted((started.folder / record.CHECKPOINTS).glob(name))
    assert len(files_) == checkpoint.KEPT
    files_[-1].write_bytes(spoil(files_[-1].read_bytes()))
    kept = checkpoint.newest(started.folder)
    assert kept.step == 8
    assert len(kept.damaged) == 1 and "step-00000009" in kept.damaged[0]
    files_[0].write_bytes(spoil(files_[0].read_bytes()))
    with pytest.raises(OnecycleError, match="no checkpoint"):
        checkpoint.newest(started.folder)


def test_saving_is_paid_for_by_the_time_since_the_last_save(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(files, "write_bytes", lambda *_: now.__setitem__(0, now[0] + 0.5))
    saver = checkpoint.Saver(tmp_path)
    assert saver.due(1)
    state = type("State", (), {"step": 1, "tensors": lambda self: {}})()
    assert saver.save(state, {}) == 1.0  # two files
    now[0] += 99.9
    assert not saver.due(1)
    now[0] += 0.2
    assert saver.due(1)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    diverging = job(tmp_path / "run", **{"schedule.lr_peak": 1e30, "schedule.lr_start": 1e30})
    with pytest.raises(DivergedError, match="at step"):
        for _ in conduct(diverging):
            pass
    kept = checkpoint.newest(diverging.folder)
    assert all(torch.isfinite(value).all() for value in kept.tensors.values())


@pytest.mark.parametrize("module", ["conduct", "finish"])
def test_predictions_that_are_not_finite_stop_the_run(tmp_path, monkeypatch, module):
    """As where running statistics lag so far behind that only judging overflows."""

    def lost(*arguments, **options):
        return probabilities(*arguments, **options) * np.float32(np.nan)

    monkeypatch.setattr(f"onecycle.run.{module}.probabilities", lost)
    epochs = 0
    with pytest.raises(DivergedError, match=r"predicts after step .* is no longer finite"):
        for event in conduct(job(tmp_path / "run")):
            epochs += isinstance(event, EpochDone)
    assert epochs == (2 if module == "finish" else 0)
    assert not (tmp_path / "run" / record.SUMMARY).exists()


def test_one_writer_a_folder(tmp_path):
    lock = files.FolderLock(tmp_path)
    with pytest.raises(OnecycleError, match=f"process {os.getpid()}"):
        files.FolderLock(tmp_path)
    lock.release()
    files.FolderLock(tmp_path).release()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    with pytest.raises(DiskError, match=r"can't be locked \(No locks available\)"):
        files.FolderLock(tmp_path)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('groups=[{match="foo*",optimizer="adamw"}]', "no group matches the parameter"),
        ('schedule={kind="triangular",lr_start=1e-4,lr_peak=1e-3,cycle_epochs=0.1}', "no room"),
    ],
)
def test_a_recipe_that_cannot_be_leaves_no_folder(tmp_path, setting, said):
    with pytest.raises(RecipeError, match=said):
        onecycle.train("digits", settings=setting, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_settings_are_texts_numbers_or_lists():
    given = {"resolution": ((0.0, 0.5), (1.0, 1.0)), "drop_last": True, "model.width": 4}
    found = choose_recipe("davidnet", "digits", None, given)
    assert (found.resolution, found.drop_last, found.model.width) == (*given.values(),)
    assert choose_recipe("davidnet", "digits", None, "model.width=5").model.width == 5


def test_a_killed_holder_leaves_no_lock(tmp_path):
    code = f"""
from pathlib import Path; import os, signal
from onecycle.files import FolderLock
lock = FolderLock(Path({str(tmp_path)!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    files.FolderLock(tmp_path).release()


def test_a_write_is_durable_before_it_shows(tmp_path, monkeypatch):
    calls = []
    real_fsync, real_replace = os.fsync, type(tmp_path).replace

    def fsync(descriptor):
        calls.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        real_fsync(descriptor)

    def replace(self, target):
        calls.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(type(tmp_path), "replace", replace)
    files.write_bytes(tmp_path / "a", b"new")
    assert calls == ["fsync file", "rename", "fsync folder"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    files.write_bytes(tmp_path / "a", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.DiskError, match="No space left"):
        files.write_bytes(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
