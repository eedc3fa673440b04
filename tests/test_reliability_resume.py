"""Resuming a killed run: what it refuses, what a restart may clear, and bugs of other kits."""

import os
import random
import time
from dataclasses import replace

import numpy as np
import pytest
import short_runs
import torch
from short_runs import begin_or_go_on, start
from unbroken_run import assert_as_unbroken, events, steps, unbroken

import onecycle
from onecycle import files
from onecycle.errors import OnecycleError, RecipeError
from onecycle.run import checkpoint, environment, record
from onecycle.training.loop import fit
from onecycle.training.schedule import timetable
from onecycle.training.state import create

__all__ = ["unbroken"]
SGD = ("optimizers={sgd={momentum=0.9}}", 'groups=[{match="*",optimizer="sgd"}]')


# What resuming refuses ----------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path):
    """A run whose process was killed in its middle."""
    process = start(begin_or_go_on, tmp_path / "runs" / "stopped")
    while not checkpoint.has_checkpoint(tmp_path / "runs" / "stopped"):
        time.sleep(0.001)
    process.kill()
    process.join()
    return tmp_path / "runs" / "stopped"


@pytest.fixture
def quick(monkeypatch):
    """As `short_runs.replace_slow_parts`, undone after the test."""
    for place, name in (
        (short_runs.setup, "load"),
        (short_runs.reopen, "load_data"),
    ):
        monkeypatch.setattr(place, name, short_runs.data)
    monkeypatch.setattr(short_runs.plots, "save", lambda *_: None)
    monkeypatch.setattr(short_runs.plots, "curves", lambda *_: None)


def changed(folder, change):
    made = files.read_json(folder / record.ENVIRONMENT)
    change(made)
    files.write_json(folder / record.ENVIRONMENT, made)


CHANGES = {
    "2 threads, not 1": lambda made: made["machine"].update(threads=2),
    "3 processes, not 1": lambda made: made.update(processes=3),
    "torch 1.0, not": lambda made: made["versions"].update(torch="1.0"),
    "numpy 1.0, not": lambda made: made["versions"].update(numpy="1.0"),
    "on a PDP-11, not": lambda made: made.update(hardware="a PDP-11"),
}


@pytest.mark.parametrize("said", CHANGES)
def test_what_decides_the_bits_must_be_as_it_was_unless_forced(stopped, quick, unbroken, said):
    changed(stopped, CHANGES[said])
    with pytest.raises(RecipeError, match=said) as refused:
        onecycle.resume(stopped, threads=1, quiet=True)
    assert "--force" in str(refused.value) and "\n" not in str(refused.value)
    onecycle.resume(stopped, threads=1, force=True, quiet=True)
    (resumed,) = (event for event in events(stopped) if event["event"] == "resume")
    assert len(resumed["forced"]) == 1 and said in resumed["forced"][0]
    assert_as_unbroken(stopped, unbroken)  # nothing had really changed


def test_libraries_that_augment_decide_the_bits_too(make_recipe):
    for changes, backend, more in (
        ((), "own", []),
        (("augment.colour=0.5",), "own", ["kornia"]),
        (("augment.policy=trivial",), "own", ["kornia"]),
        ((), "albumentations", ["albumentations"]),
    ):
        recipe = make_recipe(*changes)
        assert environment.deciding(recipe, backend, "cuda") == ["torch", "numpy", *more]
        on_a_cpu = environment.deciding(recipe, backend, "cpu")
        assert on_a_cpu == ["torch", "numpy", "numba", *more]


def test_moments_of_another_optimizer_are_refused(make_recipe, tiny, machine):
    adam, sgd = make_recipe(), make_recipe(*SGD)
    states = [create(recipe, tiny, machine, 0) for recipe in (adam, sgd)]
    for state, recipe in zip(states, (adam, sgd), strict=True):
        next(fit(state, tiny, recipe, machine, 0))
    kept = [state.tensors() for state in states]
    for state, own, other in zip(states, kept, kept[::-1], strict=True):
        with pytest.raises(ValueError, match="belongs to another optimizer"):
            state.load(other, 1)
        state.load(own, 1)


def test_curves_are_drawn_before_a_run_counts_as_finished(stopped, quick, unbroken, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        short_runs.plots,
        "save",
        lambda _, path: drawn.append((path.parent / record.SUMMARY).exists()),
    )
    onecycle.resume(stopped, quiet=True)
    assert drawn == [False]


@pytest.fixture
def restarted(monkeypatch):
    """As torchrun starts a process for the second time."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")


def again(out):
    settings = dict(setting.split("=") for setting in short_runs.SMALL)
    return onecycle.train(
        "davidnet", settings=settings, precision="fp32", threads=1, out=out, quiet=True
    )


def test_what_died_before_its_first_save_begins_anew_after_a_restart(quick, restarted, stopped):
    for path in (stopped / record.CHECKPOINTS).iterdir():
        path.unlink()
    assert again(stopped).summary["steps"] == short_runs.STEPS


def test_what_died_when_all_was_done_is_done_after_a_restart(quick, restarted, stopped):
    onecycle.resume(stopped, quiet=True)
    before = short_runs.done(stopped)
    assert again(stopped).path == stopped
    assert short_runs.done(stopped) == before


def test_a_restart_clears_no_folder_that_holds_anything_else(quick, restarted, stopped):
    for path in (stopped / record.CHECKPOINTS).iterdir():
        path.unlink()
    (stopped / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="is not empty"):
        again(stopped)
    assert (stopped / "notes.txt").exists() and (stopped / record.EVENTS).exists()


def test_changed_data_is_refused_unless_forced(stopped, quick, monkeypatch):
    other = replace(short_runs.data(), digest="other")
    monkeypatch.setattr(short_runs.reopen, "load_data", lambda *_, **__: other)
    with pytest.raises(OnecycleError, match="is not the data") as refused:
        onecycle.resume(stopped, quiet=True)
    assert refused.value.exit_code == 3 and "--force" in str(refused.value)
    onecycle.resume(stopped, force=True, quiet=True)
    assert ["other data"] in [event.get("forced") for event in events(stopped)]
    made = files.read_json(stopped / record.ENVIRONMENT)
    assert made["data"]["digest"] == "other" and made["forced"] == ["other data"]


def test_without_a_name_the_newest_unfinished_run_goes_on(stopped, quick, unbroken, monkeypatch):
    older = stopped.with_name("older")
    older.mkdir()
    for name in (record.ENVIRONMENT, record.EVENTS):
        (older / name).write_bytes((stopped / name).read_bytes())
        os.utime(older / name, (1, 1))
    monkeypatch.chdir(stopped.parent.parent)
    assert onecycle.resume(quiet=True).path.resolve() == stopped
    assert_as_unbroken(stopped, unbroken)
    (older / record.SUMMARY).write_text("{}")
    with pytest.raises(RecipeError, match="no unfinished run"):
        onecycle.resume()


def test_several_seeds_are_not_forced_together(tmp_path):
    (tmp_path / record.SEEDS).write_text("{}")
    with pytest.raises(RecipeError, match="seed-N"):
        onecycle.resume(tmp_path, force=True)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\x80\x04N.", b'{"machine": {}}', b"[" * 10**5])
def test_a_damaged_environment_ends_in_one_line(tmp_path, content):
    (tmp_path / record.ENVIRONMENT).write_bytes(content)
    with pytest.raises(OnecycleError, match=record.ENVIRONMENT) as stopped:
        onecycle.resume(tmp_path, quiet=True)
    assert stopped.value.exit_code == 6


# Bugs that users of other kits filed ----------------------------------------------------------


def test_lightning_17543_not_a_step_too_many_after_resuming(stopped, quick):
    run = onecycle.resume(stopped, quiet=True)
    assert steps(stopped) == list(range(1, short_runs.STEPS + 1))
    assert run.summary["steps"] == short_runs.STEPS


def test_lightning_1772_4655_15462_the_rate_of_one_cycle_is_exact_after_resuming(stopped, quick):
    """At every step, before and after: not an epoch late, not off by one, and not begun anew."""
    recipe = onecycle.resume(stopped, quiet=True).recipe
    table = timetable(recipe, 96)
    rates = [event["lr"] for event in events(stopped) if event["event"] == "step"]
    assert rates == [table.lr(step) for step in range(short_runs.STEPS)]
    assert len({event["event"] for event in events(stopped)} & {"resume"}) == 1


def test_transformers_17032_random_choices_go_on_where_they_were(stopped, quick, unbroken):
    """Order, crops and cutouts: nothing that came after the resume differs in a bit."""
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    onecycle.resume(stopped, quiet=True)
    assert_as_unbroken(stopped, unbroken)


def test_tried_to_step_n_times_a_finished_run_is_refused_by_name(stopped, quick):
    onecycle.resume(stopped, quiet=True)
    with pytest.raises(RecipeError, match="finished"):
        onecycle.resume(stopped, quiet=True)
    table = timetable(onecycle.load(stopped).recipe, 96)
    with pytest.raises(ValueError, match="is not one of the 24"):
        table.lr(short_runs.STEPS)
