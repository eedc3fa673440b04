"""Long forms of the promises of reliability: `pytest tests/acceptance/test_reliability_long.py`.

210 kills at random instants or inside a save, 50 signals, 1,000 flipped bits, 100 truncations.
"""

import random

from test_reliability import kill_at_random, kill_in_saves, signal_at_random, unbroken
from test_reliability_checkpoints import damage, saved, state

__all__ = ["state", "unbroken"]


def test_killed_150_times_at_random_a_run_ends_as_if_never_killed(tmp_path, unbroken):
    kill_at_random(tmp_path, unbroken, 150, random.Random(10))


def test_killed_60_times_inside_a_save_a_run_ends_as_if_never_killed(tmp_path, unbroken):
    kill_in_saves(tmp_path, unbroken, 60, random.Random(11))


def test_50_signals_each_save_at_the_next_step(tmp_path, unbroken):
    signal_at_random(tmp_path, unbroken, 50, random.Random(12))


def test_1000_flipped_bits_and_100_truncations_are_refused(state, tmp_path):
    count = 0
    for kept in damage(saved(state, tmp_path), 1000):
        assert kept.step == 8 and "step-00000009" in kept.damaged[0]
        count += 1
    assert count == 1100
