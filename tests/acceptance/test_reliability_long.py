"""Long forms of the promises of reliability: `pytest tests/acceptance/test_reliability_long.py`.

210 kills at random instants or inside a save, 50 signals, 1,000 flipped bits, 100 truncations, a
full disk at 20 places, two processes that leave at a signal.
"""

import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
from checkpoint_files import damage, saved
from test_ranks import RECIPE, steps_of, together, wait_for_step
from test_reliability_disk import fill_at
from test_reliability_kills import kill_at_random, kill_in_saves, signal_at_random
from unbroken_run import unbroken

__all__ = ["unbroken"]


@pytest.fixture
def say(record_property):
    """A function that keeps what was counted for which promise."""

    def keep(promise, **figures):
        for name, value in (("promise", promise), *figures.items()):
            record_property(name.replace("_", " "), value)

    return keep


def test_killed_150_times_at_random_a_run_ends_as_if_never_killed(tmp_path, unbroken, say):
    kill_at_random(tmp_path, unbroken, 150, random.Random(10))
    say("killed at any moment", SIGKILLs=150)


def test_killed_60_times_inside_a_save_a_run_ends_as_if_never_killed(tmp_path, unbroken, say):
    kill_in_saves(tmp_path, unbroken, 60, random.Random(11))
    say("killed inside a save", SIGKILLs=60)


def test_50_signals_each_save_at_the_next_step(tmp_path, unbroken, say):
    signal_at_random(tmp_path, unbroken, 50, random.Random(12))
    say("a signal saves, then the run leaves", signals=50)


def cpu_seconds(process):
    """CPU time that a running process has taken (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def reaped_seconds():
    """CPU time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_leave_within_10_seconds_of_a_signal_to_one(tmp_path, number, rank, say):
    folder = tmp_path / "run"
    processes = together(2, *RECIPE, "--epochs", "200", "--out", str(folder), "-q")
    wait_for_step(folder, 3, processes)
    used = sum(map(cpu_seconds, processes)) + reaped_seconds()
    processes[rank].send_signal(number)
    begun = time.monotonic()
    outcomes = [process.communicate(timeout=60) for process in processes]
    seconds, busy = time.monotonic() - begun, reaped_seconds() - used
    assert [process.returncode for process in processes] == [128 + number] * 2, outcomes
    step = steps_of(folder)[-1]["step"]
    assert (folder / "checkpoints" / f"step-{step:08d}.json").exists()
    say(
        f"two processes leave: {number.name} to number {rank}",
        seconds_until_both_had_left=round(seconds, 1),
        CPU_seconds_of_both=round(busy, 1),
    )
    assert seconds < 10


def test_1000_flipped_bits_and_100_truncations_are_refused(state, tmp_path, say):
    count = 0
    for kept in damage(saved(state, tmp_path), 1000):
        assert kept.step == 8 and "step-00000009" in kept.damaged[0]
        count += 1
    assert count == 1100
    say("a damaged checkpoint is noticed", bits_flipped=1000, truncations=100)


def test_a_disk_that_fills_at_20_places_harms_nothing(tmp_path, unbroken, say):
    found = fill_at(tmp_path, unbroken, places=20)
    say("a full disk harms nothing", places=20, **found)
