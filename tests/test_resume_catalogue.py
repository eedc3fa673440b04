"""Each recipe of the catalogue, made small: broken off in mid-epoch it goes on to the bit."""

import shutil

import pytest

from onecycle.machine import Machine
from onecycle.recipe import book
from onecycle.run import checkpoint, record
from onecycle.run.conduct import conduct
from onecycle.run.events import Progress
from onecycle.run.job import Job


def small(name, epochs):
    """The recipe `name`, narrow and short; whatever else it does it still does."""
    recipe = book.find(name)
    changes = ["model.width=4", "batch_size=8", *["ghost_batch=4"] * bool(recipe.ghost_batch)]
    return book.change(recipe, changes, epochs=epochs)


def run(job, kept=None, watch=lambda step: None):
    for event in conduct(job, kept):
        if isinstance(event, Progress):
            watch(event.step)


def outcome(folder):
    """All that training leaves: weights, what they say, the epochs, and the last full state."""
    names = (record.WEIGHTS, "test_probabilities.npy", record.METRICS)
    last = max((folder / record.CHECKPOINTS).glob("*.safetensors"))
    return [last.name, *((folder / name).read_bytes() for name in names), last.read_bytes()]


def go_on_from(stops, job):
    """Have `job` run, and its folder as a kill leaves it after each of `stops` gone on with."""
    here = job.folder

    def watch(step):
        if step - 1 in stops:  # the save of `step` is still to come
            shutil.copytree(here, here.with_name(f"stop-{step - 1}"))

    here.mkdir()
    run(job, watch=watch)
    for step in stops:
        there = here.with_name(f"stop-{step}")
        kept = checkpoint.newest(there)
        assert kept.step == step
        run(Job(job.recipe, job.dataset, job.machine, 1, there), kept)
        assert outcome(there) == outcome(here), f"stopped after step {step}"


@pytest.fixture
def make_job(make_data, tmp_path):
    """A function that makes a job of a recipe with `batches` an epoch, saved at each step."""

    def make(name, epochs=2, batches=3, precision="fp32"):
        short = 0 if book.find(name).drop_last else 5  # what the last batch lacks
        data = make_data(32, classes=3, train=8 * batches - short, test=6)
        where = Machine("cpu", precision, 1, "for the tests")
        folder = tmp_path / "whole"
        return Job(small(name, epochs), data, where, 1, folder, save_every="1steps")

    return make


@pytest.mark.parametrize("name", book.names())
def test_a_recipe_broken_off_in_mid_epoch_goes_on_to_the_bit(make_job, name):
    go_on_from((1, 4), make_job(name))
