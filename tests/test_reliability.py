"""Runs that are killed, interrupted, and started twenty at once; and what resuming refuses."""

import json
import os
import random
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import short_runs
import torch
from short_runs import begin_or_go_on, begin_or_go_on_until_call, command_line, start

import onecycle
from onecycle import files
from onecycle.errors import OnecycleError, RecipeError
from onecycle.run import checkpoint, environment, record
from onecycle.training.loop import fit
from onecycle.training.schedule import timetable
from onecycle.training.state import create

SHORT = [word for setting in short_runs.SMALL for word in ("--set", setting)]
SGD = ("optimizers={sgd={momentum=0.9}}", 'groups=[{match="*",optimizer="sgd"}]')
TRAIN = ["train", "--recipe", "davidnet", *SHORT, "--precision", "fp32", "--threads", "1", "-q"]


def events(folder):
    lines = (folder / record.EVENTS).read_bytes()
    assert not lines or lines.endswith(b"\n")
    return [json.loads(line) for line in lines.splitlines()]


def steps(folder):
    return [event["step"] for event in events(folder) if event["event"] == "step"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folder of a run that nothing happened to, and the seconds it takes."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    start(int).join()  # the server imports everything once
    begun = time.monotonic()
    process = start(begin_or_go_on, folder)
    process.join()
    assert process.exitcode == 0
    return folder, time.monotonic() - begun


def assert_as_unbroken(folder, unbroken):
    assert short_runs.done(folder) == short_runs.done(unbroken[0])
    assert steps(folder) == list(range(1, short_runs.STEPS + 1)), "the journal agrees"
    assert not list(folder.rglob("*.tmp"))
    rows = record.read_metrics(folder)
    assert [(r["train_loss"], r["train_accuracy"]) for r in rows] == list(train_figures(folder))


def train_figures(folder):
    """Mean loss and accuracy of each epoch's training images, from the journal alone."""
    steps = [event for event in events(folder) if event["event"] == "step"]
    for epoch in range(steps[-1]["epoch"] + 1):
        its = [step for step in steps if step["epoch"] == epoch]
        images = sum(step["images"] for step in its)
        loss = sum(step["loss"] * step["images"] for step in its) / images
        yield loss, sum(step["correct"] for step in its) / images


def finish(folder, unbroken):
    process = start(begin_or_go_on, folder)
    process.join()
    assert process.exitcode == 0
    assert_as_unbroken(folder, unbroken)


def kill_at_random(folder, unbroken, kills, draw):
    """Kill runs at random instants, each gone on with until it ends; how many were begun."""
    runs = 0
    while kills:
        runs += 1
        here = folder / str(runs)
        for _ in range(5):
            process = start(begin_or_go_on, here)
            process.join(draw.uniform(0, unbroken[1]))
            if process.is_alive():
                process.kill()
                kills -= 1
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            if (here / record.EVENTS).exists():
                events(here)  # whole lines, whenever it was killed
            if process.exitcode == 0 or not kills:
                break
        if not (here / record.SUMMARY).exists():
            finish(here, unbroken)
        assert_as_unbroken(here, unbroken)


def test_killed_at_ten_random_instants_a_run_ends_bitwise_as_if_never_killed(tmp_path, unbroken):
    kill_at_random(tmp_path, unbroken, 10, random.Random(0))


def kill_in_saves(folder, unbroken, kills, draw):
    """Kill runs before a call that a save consists of, at the same call again and again."""
    here = folder / "run"
    for number in range(kills):
        # 9 calls come before the first save is whole, 8 or 10 between two.
        process = start(begin_or_go_on_until_call, here, draw.randint(1, 40))
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            assert_as_unbroken(here, unbroken)
            here = folder / f"run{number}"
    if here.exists() and not (here / record.SUMMARY).exists():
        finish(here, unbroken)


def test_killed_ten_times_inside_a_save_a_run_ends_bitwise_as_if_never_killed(tmp_path, unbroken):
    kill_in_saves(tmp_path, unbroken, 10, random.Random(1))


def signal_at_random(folder, unbroken, count, draw):
    """Interrupt runs after a random step; each saves at the next one, and goes on bitwise."""
    for i in range(count):
        here, number = folder / str(i), (signal.SIGINT, signal.SIGTERM)[i % 2]
        process = start(command_line, here, [*TRAIN, "--data", "short"], folder / "said")
        at = draw.randint(1, short_runs.STEPS // 2)
        while not (here / record.EVENTS).exists() or len(steps(here)) < at:
            assert process.is_alive()
            time.sleep(0.001)
        seen = len(steps(here))
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == 128 + number
        # The step under way when the signal came, and perhaps one more that ended meanwhile.
        saved = checkpoint.newest(here).step
        assert seen <= saved == steps(here)[-1] <= seen + 2
        finish(here, unbroken)


def test_a_signal_saves_at_the_next_step_and_ends_with_its_code(tmp_path, unbroken):
    signal_at_random(tmp_path, unbroken, 4, random.Random(2))


def test_of_twenty_starts_into_one_folder_one_runs_and_nineteen_name_it(tmp_path, unbroken):
    """And when the one is killed, its lock is free."""
    folder, said = tmp_path / "run", tmp_path / "said"
    ready = short_runs.FORKED.Barrier(20)
    words = [*TRAIN, "--data", "short", "--epochs", "1000"]  # it won't be over before the others
    processes = [start(command_line, folder, words, said, ready) for _ in range(20)]
    waiting = list(processes)
    while len(waiting) > 1:
        time.sleep(0.01)
        waiting = [process for process in waiting if process.is_alive()]
    (winner,) = waiting
    with pytest.raises(OnecycleError, match=f"process {winner.pid} on"):
        files.FolderLock(folder)
    winner.kill()
    winner.join()
    files.FolderLock(folder).release()
    processes.remove(winner)
    assert [process.exitcode for process in processes] == [1] * 19
    for process in processes:
        text = (said / str(process.pid)).read_text()
        assert f"process {winner.pid} on" in text and len(text.splitlines()) == 1


def hold_with_a_worker(folder, ready):
    """Hold `folder`, with a child that lives on, as a loader's worker does for a while."""
    files.FolderLock(folder)
    if os.fork() == 0:
        ready.set()
        time.sleep(60)
        os._exit(0)
    time.sleep(60)


def test_a_killed_process_leaves_no_lock_to_its_workers(tmp_path):
    ready = short_runs.FORKED.Event()
    process = start(hold_with_a_worker, tmp_path, ready)
    assert ready.wait(60)
    with pytest.raises(OnecycleError, match="is being written"):
        files.FolderLock(tmp_path)
    process.kill()
    process.join()
    files.FolderLock(tmp_path).release()


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
        assert environment.deciding(make_recipe(*changes), backend) == ["torch", "numpy", *more]


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
