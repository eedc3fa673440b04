"""The long fuzz of recipes, checkpoints and archives, `pytest tests/acceptance/test_fuzz_long.py`.

CIFAR's readers have theirs in test_cifar_archive.py, pictures in test_image_fuzz.py.
"""

import cifar_files
import fuzzing
import pytest
import watching

MUTATIONS = 100_000
MEMORY = 200_000_000  # bytes that reading may take more than there were


@pytest.fixture
def say(record_property):
    """A function that keeps the figures of a fuzz, and holds its memory to a bound."""
    watching.reset_peak()
    before = watching.peak()

    def keep(promise, taken):
        grown = watching.peak() - before
        for name, value in (
            ("promise", promise),
            ("mutated inputs", MUTATIONS),
            ("still sound", taken),
            ("MB taken at most", round(grown / 1e6)),
        ):
            record_property(name, value)
        assert 0 < taken < MUTATIONS and grown < MEMORY

    return keep


def test_mutated_recipes(tmp_path, say):
    say("fuzz of the recipe parser", fuzzing.recipes(MUTATIONS, tmp_path, seed=1))


def test_mutated_checkpoints(tmp_path, tiny, make_recipe, machine, say):
    recipe = make_recipe("model.width=1")
    taken = fuzzing.checkpoints(MUTATIONS, tmp_path, tiny, recipe, machine, seed=1)
    say("fuzz of the checkpoint reader", taken)


def test_mutated_archives(tmp_path, say):
    suffixes = ("tar", "tar.gz", "zip")
    taken = 0
    for number, suffix in enumerate(suffixes):
        count = MUTATIONS // 3 + (number < MUTATIONS % 3)
        taken += cifar_files.fuzz_archives(tmp_path, suffix, count, seed=1)
    say("fuzz of the archive reader", taken)
