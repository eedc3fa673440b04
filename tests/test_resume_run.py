"""A run that broke off, or that a signal stopped, goes on from its newest sound checkpoint."""

import json
import os
import signal

import pytest
from digits_runs import job, train, weights

import onecycle
from onecycle import files
from onecycle.errors import InterruptedRun, OnecycleError, RecipeError
from onecycle.recipe import book
from onecycle.run import checkpoint, record
from onecycle.run.conduct import conduct
from onecycle.run.events import Progress

EVERY_STEP = 1e9  # a share of the time that lets each step be saved


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
