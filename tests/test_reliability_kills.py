"""Runs that are killed, interrupted, and started twenty at once."""

import os
import random
import signal
import time

import pytest
import short_runs
from short_runs import begin_or_go_on, begin_or_go_on_until_call, command_line, start
from unbroken_run import assert_as_unbroken, events, finish, steps, unbroken

from onecycle import files
from onecycle.errors import OnecycleError
from onecycle.run import checkpoint, record

__all__ = ["unbroken"]
SHORT = [word for setting in short_runs.SMALL for word in ("--set", setting)]
TRAIN = ["train", "--recipe", "davidnet", *SHORT, "--precision", "fp32", "--threads", "1", "-q"]


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
